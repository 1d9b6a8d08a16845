/* dtype.c - names of element types and the conversions to float32. */
#include "bestroute/dtype.h"

const char *br_dtype_name(br_dtype type)
{
    switch (type) {
    case BR_F32:
        return "f32";
    case BR_F16:
        return "f16";
    case BR_BF16:
        return "bf16";
    }
    return "?";
}

const char *br_precision_name(br_precision precision)
{
    switch (precision) {
    case BR_PRECISION_AUTO:
        return "auto";
    case BR_PRECISION_F32:
        return "f32";
    case BR_PRECISION_BF16:
        return "bf16";
    }
    return "?";
}

float br_f16_to_f32(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu;
    const uint32_t mantissa = bits & 0x3ffu;

    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact in float32 */
        const float magnitude = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    /* Infinity and NaN keep an all-ones exponent; everything else moves from bias 15 to 127. */
    const uint32_t wide_exponent = exponent == 0x1f ? 0xffu : exponent + 112;
    const uint32_t wide = sign | (wide_exponent << 23) | (mantissa << 13);
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

void br_dtype_to_f32(float *out, const void *source, br_dtype type, size_t count)
{
    const unsigned char *bytes = source;
    if (type == BR_F32) {
        memcpy(out, bytes, count * sizeof *out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, bytes + i * sizeof bits, sizeof bits);
        out[i] = type == BR_BF16 ? br_bf16_to_f32(bits) : br_f16_to_f32(bits);
    }
}
