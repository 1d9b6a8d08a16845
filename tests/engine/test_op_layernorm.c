/* test_op_layernorm.c - residual = layernorm(residual) in place, and its copy as activation,
 * on every engine. */
#include "op_cases.h"

#include <stdlib.h>

typedef struct layernorm_case {
    const char *name;
    int32_t rows;
    int32_t width;
    float scale;
    float offset;
    float epsilon;
} layernorm_case;

static const layernorm_case cases[] = {
    {"no rows", 0, 64, 1, 0, 1e-7F},
    {"one row", 1, 48, 1, 0, 1e-7F},
    {"an odd width", 3, 65, 1, 0, 1e-5F},
    {"a width below one vector", 5, 12, 1, 0, 1e-7F},
    {"many rows", 257, 64, 3, 0.5F, 1e-7F},
    {"a real width", 33, 768, 2, 0, 1e-7F},
    {"a large offset", 9, 384, 1, 1000, 1e-7F},
    {"small values, where epsilon counts", 4, 128, 1e-3F, 0, 1e-5F},
    {"a constant row is beta", 4, 64, 0, 3, 1e-5F},
};

static void run_case(op_device *device, const layernorm_case *c)
{
    const br_dtype residual_type = device->backend->residual;
    const br_dtype input_type = device->backend->activation;
    const size_t count = (size_t)c->rows * (size_t)c->width;
    float *x = op_values(count, 1, c->scale, c->offset, residual_type);
    float *gamma = op_values((size_t)c->width, 2, 0.5F, 1, BR_F32);
    float *beta = op_values((size_t)c->width, 3, 0.5F, 0, BR_F32);
    double *expected = calloc(count + 1, sizeof *expected);
    float *plain = calloc(count + 1, sizeof *plain);
    op_layernorm_double(expected, x, gamma, beta, c->epsilon, c->rows, c->width);
    op_layernorm_float(plain, x, gamma, beta, c->epsilon, c->rows, c->width);

    op_buffer residual = op_put(device, x, count, residual_type);
    op_buffer input = residual_type == input_type ? residual : op_put(device, NULL, count, input_type);
    op_buffer gammas = op_put(device, gamma, (size_t)c->width, BR_F32);
    op_buffer betas = op_put(device, beta, (size_t)c->width, BR_F32);
    const br_layernorm_args args = {
        .residual = residual.memory,
        .input = input.memory,
        .gamma = gammas.memory,
        .beta = betas.memory,
        .epsilon = c->epsilon,
        .rows = c->rows,
        .width = c->width,
    };
    assert_int_equal(device->ops->layernorm(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &residual);
    op_assert_close(device, c->name, got, expected, plain, count, residual_type);
    float *got_input = op_get(device, &input);
    op_assert_close(device, c->name, got_input, expected, plain, count, input_type);

    free(got);
    free(got_input);
    if (input.memory != residual.memory) op_drop(device, input.memory);
    op_drop(device, residual.memory);
    op_drop(device, gammas.memory);
    op_drop(device, betas.memory);
    free(x);
    free(gamma);
    free(beta);
    free(expected);
    free(plain);
}

static void run_cases(op_device *device, const void *context)
{
    (void)context;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(device, &cases[i]);
}

static void test_rows_are_normalised_in_place_and_copied_as_activations(void **state)
{
    (void)state;
    op_on_every_engine(run_cases, NULL, 12, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_normalised_in_place_and_copied_as_activations),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
