/*
 * kernels_portable.c - the CPU engine's kernels for any machine: four lanes, which every 64-bit one has.
 */
#define BR_LANES 4
#define BR_ROWS 4
#define BR_PAIRS 0
#define BR_FMA(a, b, c) ((a) * (b) + (c))
#define BR_DOT(c, a, b) ((vec)(a) * (vec)(b) + (c))
#define BR_MAX(a, b) pick((ivec)((a) > (b)), a, b)
#define BR_MIN(a, b) pick((ivec)((a) < (b)), a, b)

typedef float pick_vec __attribute__((vector_size(16)));
typedef int pick_mask __attribute__((vector_size(16)));

static inline pick_vec pick(pick_mask mask, pick_vec a, pick_vec b)
{
    return (pick_vec)((mask & (pick_mask)a) | (~mask & (pick_mask)b));
}

#include "attention.h"
#include "rows.h"

const br_cpu_kernels br_cpu_kernels_portable = {
    .name = "portable",
    .bf16 = BR_PAIRS,
    .scratch_bytes = scratch_bytes,
    .attention = attention,
    .pooled_attention = pooled_attention,
    .layernorm = layernorm,
    .gelu = gelu,
    .heads = heads,
};
