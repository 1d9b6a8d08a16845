/*
 * op_cases.h - what the op tests share: engines, buffers with canaries, oracles, the bar.
 *
 * An op has one table of cases; op_on_every_engine runs it on each engine and
 * precision of the build. Expected values come from the loops below in double,
 * fed with the values as stored (rounded to bf16 where the engine stores bf16).
 * An engine may be wrong by at most twice what the same loops in float are, both
 * against double (plus two units in the last place of the largest value, since a
 * tiny case can make a plain loop exact by luck).
 */
#ifndef BESTROUTE_TESTS_ENGINE_OP_CASES_H
#define BESTROUTE_TESTS_ENGINE_OP_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/backend.h"

/* One engine in one precision, with a stream. */
typedef struct op_device {
    const char *name; /* "cpu bf16" */
    br_backend *backend;
    const br_backend_table *ops;
    br_stream *stream;
} op_device;

/* The largest shapes that the tables hold. */
enum {
    OP_TOKENS_MAX = 2048,
    OP_SEQS_MAX = 64,
    OP_SEQ_TOKENS_MAX = 600,
    OP_WIDTH_MAX = 1024,
    OP_HEADS_MAX = 16,
};

/* Group setup: prints each engine and precision, and which of them this build or machine lacks. */
int op_name_engines(void **state);

/* Calls body(device, context) for each engine and precision that this machine has. `heads` and `head_size`
 * are those of the streams (width is their product); 1 and 64 for an op without heads. */
void op_on_every_engine(void (*body)(op_device *device, const void *context), const void *context,
                        int32_t heads, int32_t head_size);

/* Device memory of `count` elements followed by a canary. */
typedef struct op_buffer {
    void *memory;
    size_t count;
    br_dtype type;
} op_buffer;

/* Repeatable values, uniform in offset - scale .. offset + scale, rounded to `type`.
 * The caller frees them. */
float *op_values(size_t count, uint32_t seed, float scale, float offset, br_dtype type);

/* `values` NULL: filled with NaN, so that an element that an op does not write is found. */
op_buffer op_put(op_device *device, const float *values, size_t count, br_dtype type);
int32_t *op_put_ints(op_device *device, const int32_t *values, size_t count);

/* The elements widened; fails the test if the canary is gone. The caller frees them. */
float *op_get(op_device *device, const op_buffer *buffer);
void op_drop(op_device *device, void *memory);

/* Fails unless got is within the bar of expected, which plain sets; the three are [count]. `plain` is rounded
 * to `type` first, as an engine must. */
void op_assert_close(const op_device *device, const char *name, const float *got, const double *expected,
                     const float *plain, size_t count, br_dtype type);

/* The oracles, in double and in float. Matrices and tables are row-major. */
typedef struct op_attention_case {
    const float *q, *k, *v; /* rows of heads * head_size, one every stride elements */
    size_t q_stride, kv_stride;
    const float *key, *query; /* position tables or NULL */
    const int32_t *offsets;
    int32_t seqs, seq_tokens_max, heads, head_size;
    int32_t pool_index;  /* -1: every query; else q and the result have one row per sequence */
    br_dtype activation; /* the exponentials are rounded to it before they weigh the values */
} op_attention_case;

#define OP_ORACLES(real, suffix)                                                                             \
    void op_linear_##suffix(real *out, const float *y, const float *x, const float *weight,                  \
                            const float *bias, int32_t rows, int32_t outputs, int32_t inputs,                \
                            br_epilogue epilogue);                                                           \
    void op_layernorm_##suffix(real *out, const float *x, const float *gamma, const float *beta,             \
                               float epsilon, int32_t rows, int32_t width);                                  \
    void op_attention_##suffix(real *out, const op_attention_case *c);                                       \
    /* gamma NULL: no LayerNorm first */                                                                     \
    void op_heads_##suffix(real *out, const float *x, const float *gamma, const float *beta, float epsilon,  \
                           const float *weight, const float *bias, int32_t rows, int32_t width,              \
                           int32_t heads_count, br_activation activation, bool unit);

OP_ORACLES(double, double)
OP_ORACLES(float, float)

#endif
