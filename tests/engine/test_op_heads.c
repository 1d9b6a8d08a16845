/* test_op_heads.c - quality = sigmoid of each head's logit, in float32, on every engine. */
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>

typedef struct heads_case {
    const char *name;
    int32_t seqs;
    int32_t width;
    int32_t heads_count;
    float scale;  /* of the weights */
    float offset; /* of x */
    bool norm;    /* a LayerNorm first */
    br_activation activation;
    bool unit; /* cosines */
    bool wide; /* rows of another heads op */
} heads_case;

static const heads_case cases[] = {
    {"no sequences", 0, 64, 3, 0.1F, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"one of each", 1, 48, 1, 0.1F, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"an odd width", 3, 65, 5, 0.1F, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"many", 33, 64, 16, 0.1F, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"a real width", 17, 768, 7, 0.05F, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"a large offset", 5, 96, 4, 0.05F, 10, false, BR_ACTIVATION_SIGMOID, false, false},
    {"qualities near 0 and 1", 16, 64, 8, 4, 0, false, BR_ACTIVATION_SIGMOID, false, false},
    {"one of each, normalised", 1, 48, 1, 0.1F, 0, true, BR_ACTIVATION_SIGMOID, false, false},
    {"an odd width, normalised", 3, 65, 5, 0.1F, 0, true, BR_ACTIVATION_SIGMOID, false, false},
    {"a real width, normalised", 17, 768, 7, 0.05F, 0, true, BR_ACTIVATION_SIGMOID, false, false},
    {"a large offset, normalised", 5, 96, 4, 0.05F, 100, true, BR_ACTIVATION_SIGMOID, false, false},
    {"one class", 2, 48, 1, 0.1F, 0, false, BR_ACTIVATION_SOFTMAX, false, false},
    {"classes, an odd width", 5, 65, 7, 0.1F, 0, false, BR_ACTIVATION_SOFTMAX, false, false},
    {"classes beyond a warp, normalised", 17, 768, 45, 0.05F, 0, true, BR_ACTIVATION_SOFTMAX, false, false},
    {"classes far apart", 9, 64, 40, 8, 0, false, BR_ACTIVATION_SOFTMAX, false, false},
    {"cosines", 9, 768, 7, 0.04F, 0, false, BR_ACTIVATION_SOFTMAX, true, false},
    {"cosines, normalised, an odd width", 5, 65, 33, 0.3F, 0, true, BR_ACTIVATION_SOFTMAX, true, false},
    {"the others", 5, 65, 3, 0.1F, 0, true, BR_ACTIVATION_COMPLEMENT, false, false},
    {"wide rows", 5, 65, 3, 0.1F, 0, false, BR_ACTIVATION_COMPLEMENT, false, true},
    {"tanh", 5, 96, 96, 0.1F, 0, true, BR_ACTIVATION_TANH, false, false},
    {"gelu", 5, 65, 65, 0.1F, 0, false, BR_ACTIVATION_GELU, false, false},
    {"relu", 5, 96, 96, 0.1F, 0, false, BR_ACTIVATION_RELU, false, false},
};

static void run_case(op_device *device, const heads_case *c)
{
    const br_dtype type = c->wide ? BR_F32 : device->backend->residual;
    const size_t x_count = (size_t)c->seqs * (size_t)c->width;
    const size_t weights = (size_t)c->heads_count * (size_t)c->width;
    const size_t count = (size_t)c->seqs * (size_t)c->heads_count;
    float *x = op_values(x_count, 1, 1, c->offset, type);
    float *weight = op_values(weights, 2, c->scale, 0, BR_F32);
    float *bias = op_values((size_t)c->heads_count, 3, 0.5F, 0, BR_F32);
    double *expected = calloc(count + 1, sizeof *expected);
    float *plain = calloc(count + 1, sizeof *plain);
    float *gamma = op_values((size_t)c->width, 4, 0.5F, 1, BR_F32);
    float *beta = op_values((size_t)c->width, 5, 0.5F, 0, BR_F32);
    const float epsilon = 1e-7F;
    const float *norm = c->norm ? gamma : NULL;
    op_heads_double(expected, x, norm, beta, epsilon, weight, bias, c->seqs, c->width, c->heads_count,
                    c->activation, c->unit);
    op_heads_float(plain, x, norm, beta, epsilon, weight, bias, c->seqs, c->width, c->heads_count,
                   c->activation, c->unit);

    op_buffer residual = op_put(device, x, x_count, type);
    op_buffer input = op_put(device, NULL, x_count, device->backend->activation);
    op_buffer device_gamma = op_put(device, gamma, (size_t)c->width, BR_F32);
    op_buffer device_beta = op_put(device, beta, (size_t)c->width, BR_F32);
    op_buffer device_weight = op_put(device, weight, weights, BR_F32);
    op_buffer device_bias = op_put(device, bias, (size_t)c->heads_count, BR_F32);
    op_buffer quality = op_put(device, NULL, count, BR_F32);
    const br_heads_args args = {
        .residual = residual.memory,
        .input = residual.type == input.type ? residual.memory : input.memory,
        .gamma = c->norm ? device_gamma.memory : NULL,
        .beta = c->norm ? device_beta.memory : NULL,
        .epsilon = epsilon,
        .weight = device_weight.memory,
        .bias = device_bias.memory,
        .quality = quality.memory,
        .activation = c->activation,
        .unit = c->unit,
        .wide = c->wide,
        .seqs = c->seqs,
        .width = c->width,
        .heads_count = c->heads_count,
    };
    assert_int_equal(device->ops->heads(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &quality);
    op_assert_close(device, c->name, got, expected, plain, count, BR_F32);

    free(got);
    op_drop(device, residual.memory);
    op_drop(device, input.memory);
    op_drop(device, device_gamma.memory);
    op_drop(device, device_beta.memory);
    op_drop(device, device_weight.memory);
    op_drop(device, device_bias.memory);
    op_drop(device, quality.memory);
    free(x);
    free(gamma);
    free(beta);
    free(weight);
    free(bias);
    free(expected);
    free(plain);
}

static void run_cases(op_device *device, const void *context)
{
    (void)context;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(device, &cases[i]);
}

/* One sequence, one head, width 16: x is `x` in one place and 0 elsewhere, the weight is 1. */
static float quality_of(op_device *device, float x, br_activation activation)
{
    float row[16] = {0};
    float ones[16];
    const float zero = 0;
    for (size_t i = 0; i < 16; i++) ones[i] = 1;
    row[3] = x;
    op_buffer residual = op_put(device, row, 16, device->backend->residual);
    op_buffer weight = op_put(device, ones, 16, BR_F32);
    op_buffer bias = op_put(device, &zero, 1, BR_F32);
    op_buffer quality = op_put(device, NULL, 1, BR_F32);
    const br_heads_args args = {
        .residual = residual.memory,
        .weight = weight.memory,
        .bias = bias.memory,
        .quality = quality.memory,
        .activation = activation,
        .seqs = 1,
        .width = 16,
        .heads_count = 1,
    };
    assert_int_equal(device->ops->heads(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &quality);
    const float value = *got;
    free(got);
    op_drop(device, residual.memory);
    op_drop(device, weight.memory);
    op_drop(device, bias.memory);
    op_drop(device, quality.memory);
    return value;
}

static void extremes(op_device *device, const void *context)
{
    (void)context;
    assert_true(quality_of(device, 1000, BR_ACTIVATION_SIGMOID) == 1);
    assert_true(quality_of(device, -1000, BR_ACTIVATION_SIGMOID) == 0);
    assert_true(quality_of(device, 1000, BR_ACTIVATION_TANH) == 1);
    assert_true(quality_of(device, 1000, BR_ACTIVATION_SOFTMAX) == 1);
    /* NaN must stay NaN: policies refuse it. */
    for (br_activation a = BR_ACTIVATION_SIGMOID; a <= BR_ACTIVATION_RELU; a++)
        assert_true(isnan(quality_of(device, NAN, a)));
}

static void test_qualities_match_the_plain_loops(void **state)
{
    (void)state;
    op_on_every_engine(run_cases, NULL, 12, 64);
}

static void test_large_logits_saturate_and_nan_stays_nan(void **state)
{
    (void)state;
    op_on_every_engine(extremes, NULL, 12, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qualities_match_the_plain_loops),
        cmocka_unit_test(test_large_logits_saturate_and_nan_stays_nan),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
