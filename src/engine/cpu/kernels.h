/*
 * kernels.h - the kernels of the CPU engine: all its ops but dense products, compiled per instruction set.
 *
 * One source, several machines: vector.h names a vector of one machine, rows.h and attention.h are written
 * over it, and each kernels_<isa>.c compiles them for one instruction set through instruction_set.h.
 * cpu_kernels_choose picks at run time.
 */
#ifndef BESTROUTE_ENGINE_CPU_KERNELS_H
#define BESTROUTE_ENGINE_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/backend.h"

/* Position tables of one layer, packed for streaming: per head, one row per unit of the head's depth,
 * one column per distance. A unit is 32 bits: a float, or two consecutive bf16.
 *   key    column lead + S - 1 - distance   columns ascend with the key, for a fixed query
 *   query  column lead + distance + S - 1   columns ascend with the query, for a fixed key
 * Columns outside are zero: kernels read whole vectors around a band. */
struct br_positions {
    uint32_t *key;   /* [H, depth, stride] or NULL */
    uint32_t *query; /* [H, depth, stride] or NULL */
    size_t stride;   /* columns with their margins */
    int32_t lead;    /* margin before the first column */
    int32_t depth;   /* units per head */
    int32_t seq_tokens_max;
    int32_t heads;
};

enum {
    CPU_MARGIN = 64, /* columns of zeros on both sides of a position table */
};

typedef struct cpu_kernels {
    const char *name;
    bool bf16; /* activations */

    /* Bytes of scratch that attention needs, for sequences and heads up to these sizes. */
    size_t (*scratch_bytes)(int32_t seq_tokens_max, int32_t head_size);

    void (*attention)(const br_attention_args *args, void *scratch);
    void (*pooled_attention)(const br_pooled_attention_args *args, void *scratch);
    void (*layernorm)(const br_layernorm_args *args);
    /* erf form; `activation` may be `x` itself where that is float32. */
    void (*gelu)(void *activation, const float *x, size_t count);
    void (*heads)(const br_heads_args *args);
} cpu_kernels;

/* Units of a head: the length of a dot product over it. */
static inline int32_t cpu_depth(int32_t head_size, bool bf16)
{
    return bf16 ? (head_size + 1) / 2 : head_size;
}

/* The fastest that this machine can run. NULL: it can run none for bf16. */
const cpu_kernels *cpu_kernels_choose(bool bf16);

/* For tests: those that this machine can run, by index; NULL beyond the last. */
const cpu_kernels *cpu_kernels_at(size_t index);

extern const cpu_kernels cpu_kernels_portable;
#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2;
extern const cpu_kernels cpu_kernels_avx512;
extern const cpu_kernels cpu_kernels_avx512_bf16;
#endif

#endif
