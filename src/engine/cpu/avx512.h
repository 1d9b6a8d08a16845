/*
 * avx512.h - the operations of vector.h in AVX-512: sixteen lanes. For the two kernel files that use it.
 */
#ifndef BESTROUTE_ENGINE_CPU_AVX512_H
#define BESTROUTE_ENGINE_CPU_AVX512_H

#include <immintrin.h>

#define BR_LANES 16
#define BR_ROWS 8
#define BR_FMA(a, b, c) ((vec)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define BR_MAX(a, b) ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define BR_MIN(a, b) ((vec)_mm512_min_ps((__m512)(a), (__m512)(b)))

#endif
