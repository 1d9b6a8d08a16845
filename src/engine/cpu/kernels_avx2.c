/*
 * kernels_avx2.c - the CPU engine's kernels for AVX2 and FMA: eight lanes, float32.
 */
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define BR_LANES 8
#define BR_ROWS 4
#define BR_PAIRS 0
#define BR_FMA(a, b, c) ((vec)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define BR_DOT(c, a, b) BR_FMA(a, b, c)
#define BR_MAX(a, b) ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define BR_MIN(a, b) ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))

#include "attention.h"
#include "rows.h"

const br_cpu_kernels br_cpu_kernels_avx2 = {
    .name = "avx2",
    .bf16 = BR_PAIRS,
    .scratch_bytes = scratch_bytes,
    .attention = attention,
    .pooled_attention = pooled_attention,
    .layernorm = layernorm,
    .gelu = gelu,
    .heads = heads,
};

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
