/* test_op_linear.c - y [rows, outputs] from x [rows, inputs], on every engine. */
#include "op_cases.h"

#include <stdlib.h>

typedef struct linear_case {
    const char *name;
    int32_t rows;
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
    float offset; /* of x */
} linear_case;

static const linear_case cases[] = {
    {"no rows", 0, 48, 48, BR_EPILOGUE_STORE, 0},
    {"no rows to accumulate", 0, 48, 48, BR_EPILOGUE_ACCUMULATE, 0},
    {"one row", 1, 48, 48, BR_EPILOGUE_STORE, 0},
    {"one of everything", 1, 1, 1, BR_EPILOGUE_STORE, 0},
    {"odd sizes", 3, 7, 13, BR_EPILOGUE_STORE, 0},
    {"odd sizes, gelu", 5, 100, 48, BR_EPILOGUE_GELU, 0},
    {"odd inputs, accumulated", 9, 48, 100, BR_EPILOGUE_ACCUMULATE, 0},
    {"15 rows", 15, 64, 64, BR_EPILOGUE_STORE, 0},
    {"16 rows", 16, 192, 64, BR_EPILOGUE_STORE, 0},
    {"17 rows", 17, 128, 64, BR_EPILOGUE_STORE, 0},
    {"31 rows", 31, 64, 128, BR_EPILOGUE_GELU, 0},
    {"33 rows", 33, 144, 48, BR_EPILOGUE_STORE, 0},
    {"64 rows", 64, 64, 256, BR_EPILOGUE_ACCUMULATE, 0},
    {"65 rows", 65, 65, 63, BR_EPILOGUE_ACCUMULATE, 0},
    {"129 rows", 129, 96, 32, BR_EPILOGUE_GELU, 0},
    {"a tile of 128 and a row, gelu", 129, 128, 128, BR_EPILOGUE_GELU, 0},
    {"two tiles each way and many slices, gelu", 255, 256, 448, BR_EPILOGUE_GELU, 0},
    {"64 rows, gelu", 64, 128, 64, BR_EPILOGUE_GELU, 0},
    {"columns that tiles of 128 do not divide, gelu", 65, 192, 64, BR_EPILOGUE_GELU, 0},
    {"a real width", 20, 768, 768, BR_EPILOGUE_STORE, 0},
    {"a real width, gelu", 4, 1024, 768, BR_EPILOGUE_GELU, 0},
    {"a real ffn, accumulated", 6, 768, 1024, BR_EPILOGUE_ACCUMULATE, 0},
    {"a large offset", 8, 64, 96, BR_EPILOGUE_STORE, 100},
    {"gelu far from zero", 8, 64, 96, BR_EPILOGUE_GELU, 10},
};

static void run_case(op_device *device, const linear_case *c)
{
    const br_dtype activation = device->backend->activation;
    const br_dtype type = c->epilogue == BR_EPILOGUE_ACCUMULATE ? device->backend->residual : activation;
    const size_t x_count = (size_t)c->rows * (size_t)c->inputs;
    const size_t y_count = (size_t)c->rows * (size_t)c->outputs;
    float *x = op_values(x_count, 1, 1, c->offset, activation);
    float *weight = op_values((size_t)c->outputs * (size_t)c->inputs, 2, 0.25F, 0, activation);
    float *bias = op_values((size_t)c->outputs, 3, 0.5F, 0, BR_F32);
    float *y = op_values(y_count, 4, 2, 0, type);
    double *expected = calloc(y_count + 1, sizeof *expected);
    float *plain = calloc(y_count + 1, sizeof *plain);
    op_linear_double(expected, y, x, weight, bias, c->rows, c->outputs, c->inputs, c->epilogue);
    op_linear_float(plain, y, x, weight, bias, c->rows, c->outputs, c->inputs, c->epilogue);

    br_error error = {0};
    br_matrix *matrix = NULL;
    const br_matrix_source source = {weight, bias, c->outputs, c->inputs, c->epilogue};
    if (device->ops->matrix_create(device->backend, &matrix, &source, &error) != BR_OK)
        fail_msg("%s", error.text);
    op_buffer in = op_put(device, x, x_count, activation);
    op_buffer out = op_put(device, c->epilogue == BR_EPILOGUE_ACCUMULATE ? y : NULL, y_count, type);
    const br_linear_args args = {.matrix = matrix, .x = in.memory, .y = out.memory, .rows = c->rows};
    assert_int_equal(device->ops->linear(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &out);
    op_assert_close(device, c->name, got, expected, plain, y_count, type);

    free(got);
    op_drop(device, in.memory);
    op_drop(device, out.memory);
    device->ops->matrix_destroy(device->backend, matrix);
    free(x);
    free(weight);
    free(bias);
    free(y);
    free(expected);
    free(plain);
}

static void run_cases(op_device *device, const void *context)
{
    (void)context;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(device, &cases[i]);
}

static void test_products_match_the_plain_loops_for_every_epilogue(void **state)
{
    (void)state;
    op_on_every_engine(run_cases, NULL, 1, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_match_the_plain_loops_for_every_epilogue),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
