/*
 * kernels_portable.c - the CPU engine's kernels for any machine: four lanes, as in every 64-bit
 * processor.
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

#define BR_TABLE cpu_kernels_portable
#define BR_NAME "portable"

#include "instruction_set.h"
