/*
 * rows.h - ops that go over rows once: LayerNorm, GELU, quality heads. See vector.h for how it is compiled.
 */
#ifndef BESTROUTE_ENGINE_CPU_ROWS_H
#define BESTROUTE_ENGINE_CPU_ROWS_H

#include <assert.h>
#include <math.h>

#include "engine/host/host.h"
#include "kernels.h"
#include "vector.h"

static float row_sum(const float *x, int32_t width)
{
    vec total = {0};
    int32_t i = 0;
    for (; i + BR_LANES <= width; i += BR_LANES) total += load(x + i);
    float sum = sum_of(total);
    for (; i < width; i++) sum += x[i];
    return sum;
}

static float row_square_sum(const float *x, float mean, int32_t width)
{
    vec total = {0};
    int32_t i = 0;
    for (; i + BR_LANES <= width; i += BR_LANES) {
        const vec d = load(x + i) - splat(mean);
        total = BR_FMA(d, d, total);
    }
    float sum = sum_of(total);
    for (; i < width; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum;
}

static void layernorm(const br_layernorm_args *a)
{
    const int32_t width = a->width;
    for (int32_t row = 0; row < a->rows; row++) {
        float *x = (float *)a->residual + (size_t)row * width;
        activation *input = (activation *)a->input + (size_t)row * width;
        const float mean = row_sum(x, width) / (float)width;
        const float variance = row_square_sum(x, mean, width) / (float)width;
        const float scale = 1.0f / sqrtf(variance + a->epsilon);

        int32_t i = 0;
        for (; i + BR_LANES <= width; i += BR_LANES) {
            const vec y =
                BR_FMA((load(x + i) - splat(mean)) * splat(scale), load(a->gamma + i), load(a->beta + i));
            store(x + i, y);
            store_activation(input + i, y);
        }
        for (; i < width; i++) {
            x[i] = (x[i] - mean) * scale * a->gamma[i] + a->beta[i];
            input[i] = make_activation(x[i]);
        }
    }
}

/* GELU: x P(x), P being the normal distribution function.
 *   gelu(x) = max(x, 0) - t P(-t),  t = |x|
 * log2 P(-t) is smooth: -1 + t q(t), with q fitted on [0, 6] so that P is within 4e-8. One exponential
 * then serves both signs. Beyond 6 the second term keeps the value it has there, 6e-9. */
BR_INLINE vec gelu_of(vec x)
{
    const vec magnitude = (vec)((uvec)x & splat_unit(0x7fffffffu));
    const vec t = BR_MIN(splat(6.0f), magnitude);
    vec q = splat(4.474239859e-07f);
    q = BR_FMA(q, t, splat(-8.659572813e-06f));
    q = BR_FMA(q, t, splat(6.996349839e-05f));
    q = BR_FMA(q, t, splat(-2.698142198e-04f));
    q = BR_FMA(q, t, splat(-8.659373634e-06f));
    q = BR_FMA(q, t, splat(6.952732336e-03f));
    q = BR_FMA(q, t, splat(-5.244524777e-02f));
    q = BR_FMA(q, t, splat(-4.592190981e-01f));
    q = BR_FMA(q, t, splat(-1.151104450e+00f));
    const vec tail = exp2_of(BR_FMA(q, t, splat(-1.0f)));
    return BR_FMA(-t, tail, BR_MAX(x, (vec){0}));
}

static void gelu(void *out, const float *x, size_t count)
{
    activation *y = out;
    size_t i = 0;
    for (; i + BR_LANES <= count; i += BR_LANES) store_activation(y + i, gelu_of(load(x + i)));
    if (i == count) return;

    float rest[BR_LANES] = {0};
    activation result[BR_LANES];
    memcpy(rest, x + i, (count - i) * sizeof *x);
    store_activation(result, gelu_of(load(rest)));
    memcpy(y + i, result, (count - i) * sizeof *y);
}

static float dot(const float *a, const float *b, int32_t width)
{
    vec total = {0};
    int32_t i = 0;
    for (; i + BR_LANES <= width; i += BR_LANES) total = BR_FMA(load(a + i), load(b + i), total);
    float sum = sum_of(total);
    for (; i < width; i++) sum += a[i] * b[i];
    return sum;
}

static void sigmoid_row(float *z, int32_t count)
{
    for (int32_t k = 0; k < count; k++) z[k] = 1.0f / (1.0f + expf(-z[k]));
}

static void tanh_row(float *z, int32_t count)
{
    for (int32_t k = 0; k < count; k++) z[k] = tanhf(z[k]);
}

static void gelu_row(float *z, int32_t count)
{
    for (int32_t k = 0; k < count; k++) z[k] = 0.5f * z[k] * (1.0f + erff(z[k] * 0.70710678f));
}

static void relu_row(float *z, int32_t count)
{
    for (int32_t k = 0; k < count; k++) z[k] = z[k] < 0.0f ? 0.0f : z[k]; /* NaN stays */
}

/* The activation of a row's logits, in place. */
static void activate_row(float *z, int32_t count, br_activation kind)
{
    switch (kind) {
    case BR_ACTIVATION_SIGMOID:
        sigmoid_row(z, count);
        break;
    case BR_ACTIVATION_SOFTMAX:
        br_host_softmax_row(z, count, false);
        break;
    case BR_ACTIVATION_COMPLEMENT:
        br_host_softmax_row(z, count, true);
        break;
    case BR_ACTIVATION_TANH:
        tanh_row(z, count);
        break;
    case BR_ACTIVATION_GELU:
        gelu_row(z, count);
        break;
    case BR_ACTIVATION_RELU:
        relu_row(z, count);
        break;
    }
}

/* Residuals are float32 on this engine, so `wide` changes nothing. */
static void heads(const br_heads_args *a)
{
    for (int32_t b = 0; b < a->seqs; b++) {
        const float *x = (const float *)a->residual + (size_t)b * a->width;
        float *quality = a->quality + (size_t)b * a->heads_count;
        const float scale = a->unit ? 1.0f / sqrtf(dot(x, x, a->width)) : 1.0f;
        for (int32_t k = 0; k < a->heads_count; k++)
            quality[k] = dot(x, a->weight + (size_t)k * a->width, a->width) * scale + a->bias[k];
        activate_row(quality, a->heads_count, a->activation);
    }
}

#endif
