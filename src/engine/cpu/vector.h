/*
 * vector.h - vectors of one machine, for the kernel files alone.
 *
 * The including file is compiled for its instruction set, and defines:
 *   BR_LANES        32-bit lanes of a vector: 16, 8 or 4
 *   BR_PAIRS        1: activations are bf16 and a unit is a pair of them; 0: float32
 *   BR_FMA(a, b, c) a * b + c over vectors
 *   BR_DOT(c, a, b) c + a . b, unit by unit, accumulated in float32
 *   BR_MAX(a, b)    a > b ? a : b, lane by lane; BR_MIN alike. Both give b when one is NaN.
 * and for BR_PAIRS also BR_TO_BF16(vec): BR_LANES bf16.
 *
 * Denormals are not flushed: no thread's floating point mode is changed.
 */
#ifndef BESTROUTE_ENGINE_CPU_VECTOR_H
#define BESTROUTE_ENGINE_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "core/dtype.h"

#define BR_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define BR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BR_UNROLL _Pragma("GCC unroll 64")
#endif

typedef float vec __attribute__((vector_size(BR_LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(BR_LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(BR_LANES * 4)));

BR_INLINE vec load(const float *at)
{
    vec v;
    memcpy(&v, at, sizeof v);
    return v;
}

BR_INLINE void store(float *at, vec v)
{
    memcpy(at, &v, sizeof v);
}

BR_INLINE uvec load_units(const uint32_t *at)
{
    uvec v;
    memcpy(&v, at, sizeof v);
    return v;
}

BR_INLINE void store_units(uint32_t *at, uvec v)
{
    memcpy(at, &v, sizeof v);
}

BR_INLINE vec splat(float value)
{
    return value - (vec){0};
}

BR_INLINE uvec splat_unit(uint32_t value)
{
    return value - (uvec){0};
}

BR_INLINE float sum_of(vec v)
{
    float lanes[BR_LANES];
    memcpy(lanes, &v, sizeof lanes);
    for (int32_t width = BR_LANES / 2; width > 0; width /= 2)
        for (int32_t i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

/* 2^x for x <= 127; below -126 it is 2^-126, which adds nothing to a softmax sum of at least 1.
 * Error under 2 units in the last place. NaN stays NaN. */
BR_INLINE vec exp2_of(vec x)
{
    const vec rounder = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = BR_MAX(splat(-126.0f), x);
    const vec shifted = x + rounder;
    const vec f = x - (shifted - rounder); /* in [-1/2, 1/2] */
    vec p = splat(1.5403530e-4f);
    p = BR_FMA(p, f, splat(1.3333558e-3f));
    p = BR_FMA(p, f, splat(9.6181291e-3f));
    p = BR_FMA(p, f, splat(5.5504109e-2f));
    p = BR_FMA(p, f, splat(2.4022651e-1f));
    p = BR_FMA(p, f, splat(6.9314718e-1f));
    p = BR_FMA(p, f, splat(1.0f));
    const ivec exponent = (ivec)(((uvec)shifted << 23) + splat_unit(0x3f800000u));
    return p * (vec)exponent;
}

/* e^x for x <= 0. n ln(2) is subtracted in two parts: in one part digits would be lost at large |x|. */
BR_INLINE vec exp_of(vec x)
{
    const vec rounder = splat(12582912.0f);
    x = BR_MAX(splat(-87.0f), x);
    const vec shifted = BR_FMA(x, splat(1.44269504f), rounder);
    const vec n = shifted - rounder;
    vec f = BR_FMA(n, splat(-0.693359375f), x);
    f = BR_FMA(n, splat(2.12194440e-4f), f);
    vec p = splat(1.9875691500e-4f);
    p = BR_FMA(p, f, splat(1.3981999507e-3f));
    p = BR_FMA(p, f, splat(8.3334519073e-3f));
    p = BR_FMA(p, f, splat(4.1665795894e-2f));
    p = BR_FMA(p, f, splat(1.6666665459e-1f));
    p = BR_FMA(p, f, splat(5.0000001201e-1f));
    p = BR_FMA(p * f, f, f) + splat(1.0f);
    const ivec exponent = (ivec)(((uvec)shifted << 23) + splat_unit(0x3f800000u));
    return p * (vec)exponent;
}

#if BR_PAIRS

typedef uint16_t activation;
typedef uint16_t half_lanes __attribute__((vector_size(BR_LANES * 2)));

BR_INLINE vec load_activation(const activation *at)
{
    half_lanes h;
    memcpy(&h, at, sizeof h);
    return (vec)(__builtin_convertvector(h, uvec) << 16);
}

BR_INLINE void store_activation(activation *at, vec v)
{
    const half_lanes h = (half_lanes)BR_TO_BF16(v);
    memcpy(at, &h, sizeof h);
}

BR_INLINE float get_activation(activation a)
{
    return br_bf16_to_f32(a);
}

BR_INLINE activation make_activation(float value)
{
    return br_f32_to_bf16(value);
}

#else

typedef float activation;

BR_INLINE vec load_activation(const activation *at)
{
    return load(at);
}

BR_INLINE void store_activation(activation *at, vec v)
{
    store(at, v);
}

BR_INLINE float get_activation(activation a)
{
    return a;
}

BR_INLINE activation make_activation(float value)
{
    return value;
}

#endif

/* One butterfly: rows r and r + step exchange the lanes whose index differs from theirs in that bit. */
#if BR_LANES == 16
#define BR_LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define BR_HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define BR_LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define BR_HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define BR_LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define BR_HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define BR_LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define BR_HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#elif BR_LANES == 8
#define BR_LOW_4 0, 1, 2, 3, 8, 9, 10, 11
#define BR_HIGH_4 4, 5, 6, 7, 12, 13, 14, 15
#define BR_LOW_2 0, 1, 8, 9, 4, 5, 12, 13
#define BR_HIGH_2 2, 3, 10, 11, 6, 7, 14, 15
#define BR_LOW_1 0, 8, 2, 10, 4, 12, 6, 14
#define BR_HIGH_1 1, 9, 3, 11, 5, 13, 7, 15
#else
#define BR_LOW_2 0, 1, 4, 5
#define BR_HIGH_2 2, 3, 6, 7
#define BR_LOW_1 0, 4, 2, 6
#define BR_HIGH_1 1, 5, 3, 7
#endif

#define BR_BUTTERFLIES(rows, step)                                                                           \
    BR_UNROLL for (int32_t r = 0; r < BR_LANES; r++)                                                         \
    {                                                                                                        \
        if ((r & step) != 0) continue;                                                                       \
        const uvec low = __builtin_shufflevector(rows[r], rows[r + step], BR_LOW_##step);                    \
        const uvec high = __builtin_shufflevector(rows[r], rows[r + step], BR_HIGH_##step);                  \
        rows[r] = low;                                                                                       \
        rows[r + step] = high;                                                                               \
    }

BR_INLINE void transpose(uvec rows[BR_LANES])
{
#if BR_LANES == 16
    BR_BUTTERFLIES(rows, 8)
#endif
#if BR_LANES >= 8
    BR_BUTTERFLIES(rows, 4)
#endif
    BR_BUTTERFLIES(rows, 2)
    BR_BUTTERFLIES(rows, 1)
}

#endif
