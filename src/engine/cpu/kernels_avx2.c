/*
 * kernels_avx2.c - the CPU engine's kernels for AVX2 and FMA: eight lanes, float32.
 */
#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <stdlib.h>

#include "target.h"

BR_TARGET_BEGIN("avx2,fma")

#define BR_LANES 8
#define BR_ROWS 4
#define BR_PAIRS 0
#define BR_FMA(a, b, c) ((vec)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define BR_DOT(c, a, b) BR_FMA(a, b, c)
#define BR_MAX(a, b) ((vec)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define BR_MIN(a, b) ((vec)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define BR_TABLE cpu_kernels_avx2
#define BR_NAME "avx2"

#include "instruction_set.h"

BR_TARGET_END

#endif
