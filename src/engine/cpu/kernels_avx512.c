/*
 * kernels_avx512.c - the CPU engine's kernels for AVX-512: sixteen lanes, float32.
 */
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))),         \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define BR_LANES 16
#define BR_ROWS 8
#define BR_PAIRS 0
#define BR_FMA(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define BR_DOT(c, a, b) BR_FMA(a, b, c)
#define BR_MAX(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define BR_MIN(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))

#include "attention.h"
#include "rows.h"

const br_cpu_kernels br_cpu_kernels_avx512 = {
    .name = "avx512",
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
