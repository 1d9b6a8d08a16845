/* op_cases.c - see op_cases.h. */
#include "op_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "engine/engines.h"

#define REAL double
#define NAMED(word) word##_double
#define REAL_ERF erf
#define REAL_EXP exp
#define REAL_SQRT sqrt
#define REAL_ROUNDS 0
#include "op_oracle.inc"
#undef REAL
#undef NAMED
#undef REAL_ERF
#undef REAL_EXP
#undef REAL_SQRT
#undef REAL_ROUNDS

#define REAL float
#define NAMED(word) word##_float
#define REAL_ERF erff
#define REAL_EXP expf
#define REAL_SQRT sqrtf
#define REAL_ROUNDS 1
#include "op_oracle.inc"

enum { CANARY_BYTES = 256, CANARY = 0x5a };

typedef struct op_engine {
    const char *name;
    br_engine engine;
    br_precision precision;
} op_engine;

static const op_engine engines[] = {
    {"reference f32", BR_ENGINE_REFERENCE, BR_PRECISION_F32},
    {"reference bf16", BR_ENGINE_REFERENCE, BR_PRECISION_BF16},
    {"reference f16", BR_ENGINE_REFERENCE, BR_PRECISION_F16},
    {"cpu f32", BR_ENGINE_CPU, BR_PRECISION_F32},
    {"cpu bf16", BR_ENGINE_CPU, BR_PRECISION_BF16},
    {"cuda f32", BR_ENGINE_CUDA, BR_PRECISION_F32},
    {"cuda bf16", BR_ENGINE_CUDA, BR_PRECISION_BF16},
    {"cuda f16", BR_ENGINE_CUDA, BR_PRECISION_F16},
};

enum { ENGINES = sizeof engines / sizeof engines[0] };

/* False: this build or machine lacks the engine; *error has the reason. */
static bool open_engine(op_device *device, const op_engine *engine, br_error *error)
{
    *device = (op_device){.name = engine->name};
    const br_status status = br_backend_open(&device->backend, engine->engine, engine->precision, 0, error);
    if (status == BR_ENOTSUP || status == BR_EDEVICE) return false;
    if (status != BR_OK) fail_msg("%s: %s", engine->name, error->text);
    device->ops = device->backend->table;
    return true;
}

int op_name_engines(void **state)
{
    (void)state;
    for (size_t i = 0; i < ENGINES; i++) {
        op_device device;
        br_error error = {0};
        if (open_engine(&device, &engines[i], &error)) {
            print_message("%s: %s\n", device.name, device.backend->device);
            br_backend_close(device.backend);
        } else {
            print_message("%s is passed over: %s\n", device.name, error.text);
        }
    }
    return 0;
}

void op_on_every_engine(void (*body)(op_device *device, const void *context), const void *context,
                        int32_t heads, int32_t head_size)
{
    const br_model model = {
        .width = heads * head_size,
        .layers = 1,
        .heads = heads,
        .head_size = head_size,
        .ffn_width = OP_WIDTH_MAX,
        .vocab = 128,
    };
    const br_stream_shape shape = {
        .tokens_max = OP_TOKENS_MAX,
        .seqs_max = OP_SEQS_MAX,
        .seq_tokens_max = OP_SEQ_TOKENS_MAX,
        .heads_count = OP_HEADS_MAX,
    };
    for (size_t i = 0; i < ENGINES; i++) {
        op_device device;
        br_error error = {0};
        if (!open_engine(&device, &engines[i], &error)) continue;
        if (device.ops->stream_create(device.backend, &device.stream, &model, &shape, &error) != BR_OK)
            fail_msg("%s: %s", device.name, error.text);
        body(&device, context);
        device.ops->stream_destroy(device.stream);
        br_backend_close(device.backend);
    }
}

float *op_values(size_t count, uint32_t seed, float scale, float offset, br_dtype type)
{
    float *values = malloc((count + 1) * sizeof *values);
    assert_non_null(values);
    uint32_t state = seed * 2654435761U + 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        const float unit = (float)(state >> 8) / 8388608.0F - 1.0F; /* -1 .. 1 */
        values[i] = br_dtype_rounded(offset + scale * unit, type);
    }
    return values;
}

op_buffer op_put(op_device *device, const float *values, size_t count, br_dtype type)
{
    const size_t bytes = count * br_dtype_bytes(type);
    char *host = malloc(bytes + CANARY_BYTES);
    assert_non_null(host);
    for (size_t i = 0; i < count; i++) {
        br_dtype_set(host, i, type, values != NULL ? values[i] : NAN);
    }
    memset(host + bytes, CANARY, CANARY_BYTES);

    op_buffer buffer = {.count = count, .type = type};
    buffer.memory = device->ops->alloc(device->backend, bytes + CANARY_BYTES);
    assert_non_null(buffer.memory);
    assert_int_equal(device->ops->upload(device->stream, buffer.memory, host, bytes + CANARY_BYTES), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    free(host);
    return buffer;
}

int32_t *op_put_ints(op_device *device, const int32_t *values, size_t count)
{
    int32_t *memory = device->ops->alloc(device->backend, count * sizeof *values);
    assert_non_null(memory);
    assert_int_equal(device->ops->upload(device->stream, memory, values, count * sizeof *values), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    return memory;
}

float *op_get(op_device *device, const op_buffer *buffer)
{
    const size_t bytes = buffer->count * br_dtype_bytes(buffer->type);
    char *host = malloc(bytes + CANARY_BYTES);
    float *values = malloc((buffer->count + 1) * sizeof *values);
    assert_non_null(host);
    assert_non_null(values);
    assert_int_equal(device->ops->download(device->stream, host, buffer->memory, bytes + CANARY_BYTES),
                     BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    for (size_t i = 0; i < CANARY_BYTES; i++)
        if (host[bytes + i] != CANARY) fail_msg("%s wrote %zu bytes past the end", device->name, i + 1);
    br_dtype_to_f32(values, host, buffer->type, buffer->count);
    free(host);
    return values;
}

void op_drop(op_device *device, void *memory)
{
    device->ops->free(device->backend, memory);
}

void op_assert_close(const op_device *device, const char *name, const float *got, const double *expected,
                     const float *plain, size_t count, br_dtype type)
{
    double largest = 0;
    double plain_error = 0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs(expected[i]));
        plain_error = fmax(plain_error, fabs((double)br_dtype_rounded(plain[i], type) - expected[i]));
    }
    const double unit = type == BR_BF16 ? 0x1p-8 : type == BR_F16 ? 0x1p-11 : 0x1p-23;
    const double bar = 2 * plain_error + 2 * unit * largest;
    for (size_t i = 0; i < count; i++) {
        const double error = fabs((double)got[i] - expected[i]);
        if (!(error <= bar))
            fail_msg("%s, %s: element %zu is %.9g, expected %.9g: off by %.3g, the bar is %.3g", device->name,
                     name, i, (double)got[i], expected[i], error, bar);
    }
}
