/*
 * kernels_avx512_bf16.c - the CPU engine's kernels for AVX-512 with BF16: sixteen lanes,
 * dot products of bf16 pairs.
 */
#if defined(__x86_64__)

#include <math.h>
#include <stdlib.h>

#include "avx512.h"
#include "target.h"

BR_TARGET_BEGIN("avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#define BR_PAIRS 1
#define BR_DOT(c, a, b) ((vec)_mm512_dpbf16_ps((__m512)(c), (__m512bh)(a), (__m512bh)(b)))
#define BR_TO_BF16(v) _mm512_cvtneps_pbh((__m512)(v))
#define BR_TABLE cpu_kernels_avx512_bf16
#define BR_NAME "avx512_bf16"

#include "instruction_set.h"

BR_TARGET_END

#endif
