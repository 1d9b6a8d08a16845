/* dtype.c - names of element types and the conversions to float32. */
#include "dtype.h"

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
    case BR_PRECISION_F16:
        return "f16";
    case BR_PRECISION_FP8:
        return "fp8";
    }
    return "?";
}

br_dtype br_precision_dtype(br_precision precision)
{
    switch (precision) {
    case BR_PRECISION_AUTO:
    case BR_PRECISION_F32:
        return BR_F32;
    case BR_PRECISION_BF16:
        return BR_BF16;
    case BR_PRECISION_F16:
    case BR_PRECISION_FP8:
        return BR_F16;
    }
    return BR_F32;
}

uint16_t br_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);  /* NaN */
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more */
    if (magnitude < 0x38800000u) { /* below 2^-14: counted in steps of 2^-24, which the addition rounds to */
        float small;
        memcpy(&small, &magnitude, sizeof small);
        small += 0.5f; /* its last bit is 2^-24 */
        memcpy(&bits, &small, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

uint8_t br_f32_to_e4m3(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint8_t sign = (uint8_t)((bits >> 24) & 0x80u);
    const uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) return (uint8_t)(sign | 0x7fu);  /* NaN */
    if (magnitude >= 0x43e00000u) return (uint8_t)(sign | 0x7eu); /* 448 and more */
    if (magnitude < 0x3c800000u) { /* below 2^-6: counted in steps of 2^-9, which the addition rounds to */
        float small;
        memcpy(&small, &magnitude, sizeof small);
        small += 0x1p14f; /* its last bit is 2^-9 */
        memcpy(&bits, &small, sizeof bits);
        return (uint8_t)(sign | (bits - 0x46800000u));
    }
    const uint32_t odd = (magnitude >> 20) & 1u;
    return (uint8_t)(sign | ((magnitude - 0x3c000000u + 0x7ffffu + odd) >> 20));
}

float br_e4m3_to_f32(uint8_t bits)
{
    const uint32_t exponent = (bits >> 3) & 0xfu;
    const uint32_t fraction = bits & 0x7u;
    float magnitude;
    if ((bits & 0x7fu) == 0x7fu) {
        const uint32_t nan = 0x7fc00000u;
        memcpy(&magnitude, &nan, sizeof magnitude);
    } else if (exponent == 0) {
        magnitude = (float)fraction * 0x1p-9f;
    } else {
        const uint32_t wide = ((exponent + 120) << 23) | (fraction << 20);
        memcpy(&magnitude, &wide, sizeof magnitude);
    }
    return (bits & 0x80u) != 0 ? -magnitude : magnitude;
}

float br_dtype_get(const void *elements, size_t index, br_dtype type)
{
    switch (type) {
    case BR_F32:
        return ((const float *)elements)[index];
    case BR_F16:
        return br_f16_to_f32(((const uint16_t *)elements)[index]);
    case BR_BF16:
        return br_bf16_to_f32(((const uint16_t *)elements)[index]);
    }
    return 0;
}

void br_dtype_set(void *elements, size_t index, br_dtype type, float value)
{
    switch (type) {
    case BR_F32:
        ((float *)elements)[index] = value;
        break;
    case BR_F16:
        ((uint16_t *)elements)[index] = br_f32_to_f16(value);
        break;
    case BR_BF16:
        ((uint16_t *)elements)[index] = br_f32_to_bf16(value);
        break;
    }
}

float br_dtype_rounded(float value, br_dtype type)
{
    uint16_t narrow;
    if (type == BR_F32) return value;
    br_dtype_set(&narrow, 0, type, value);
    return br_dtype_get(&narrow, 0, type);
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
