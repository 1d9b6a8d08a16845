/*
 * dtype.h - element types of tensors and the precisions an engine runs in.
 */
#ifndef BESTROUTE_CORE_DTYPE_H
#define BESTROUTE_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum br_dtype {
    BR_F32,
    BR_F16,
    BR_BF16,
} br_dtype;

/* What the GEMMs compute in. Sums, softmax, LayerNorm and heads are float32 in all of them. */
typedef enum br_precision {
    BR_PRECISION_AUTO, /* the fastest whose error is known to be small: the engine has a table */
    BR_PRECISION_F32,
    BR_PRECISION_BF16,
    BR_PRECISION_F16,
    BR_PRECISION_FP8, /* products of e4m3 factors; everything else as F16 */
} br_precision;

static inline size_t br_dtype_bytes(br_dtype type)
{
    return type == BR_F32 ? 4 : 2;
}

/* "f32", "f16", "bf16". */
const char *br_dtype_name(br_dtype type);

/* The names below in the enum's order, as a table of options lists them. */
#define BR_PRECISION_WORDS "auto|f32|bf16|f16|fp8"

/* "auto", "f32", "bf16", "f16", "fp8". */
const char *br_precision_name(br_precision precision);

static inline float br_bf16_to_f32(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Rounds to nearest, ties to even; NaN stays a NaN. */
static inline uint16_t br_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x0040u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* IEEE half, subnormals included. To half: nearest, ties to even; too large becomes infinity,
 * NaN stays a NaN. */
uint16_t br_f32_to_f16(float value);
float br_f16_to_f32(uint16_t bits);

/* The element type of a precision's activations. */
br_dtype br_precision_dtype(br_precision precision);

/* Rounds to e4m3 (four exponent bits, three of fraction, no infinity): nearest, ties to even,
 * saturating at 448. */
uint8_t br_f32_to_e4m3(float value);
float br_e4m3_to_f32(uint8_t bits);

/* One element as float32, and back, rounded; `elements` has the type's alignment. */
float br_dtype_get(const void *elements, size_t index, br_dtype type);
void br_dtype_set(void *elements, size_t index, br_dtype type, float value);

/* `value` as `type` would keep it. */
float br_dtype_rounded(float value, br_dtype type);

/* Converts `count` elements of `type` at `source` (any alignment) to float32. */
void br_dtype_to_f32(float *out, const void *source, br_dtype type, size_t count);

#endif
