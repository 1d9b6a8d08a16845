/*
 * test_op_linear_fp8.c - products of e4m3 factors: precision fp8 of the CUDA engine.
 *
 * The oracle rounds the factors as the engine must (each row of x and of the weight by its own largest
 * element), so that the bar is that of any float16 op. docs/EXACTNESS.md says how far e4m3 itself is from the
 * exact product.
 */
#include "op_cases.h"

#include <math.h>
#include <stdlib.h>

#include "engine/engines.h"

typedef struct fp8_case {
    const char *name;
    int32_t rows;
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
    float scale; /* of x */
} fp8_case;

static const fp8_case cases[] = {
    {"no rows", 0, 64, 128, BR_EPILOGUE_STORE, 1},
    {"one row", 1, 64, 128, BR_EPILOGUE_STORE, 1},
    {"a small tile and a row", 33, 64, 256, BR_EPILOGUE_STORE, 1},
    {"the last rows of small tiles, gelu", 64, 192, 128, BR_EPILOGUE_GELU, 1},
    {"a large tile less a row, accumulated", 127, 128, 384, BR_EPILOGUE_ACCUMULATE, 1},
    {"a large tile and a row", 129, 256, 128, BR_EPILOGUE_STORE, 1},
    {"a large tile and a row, gelu", 129, 256, 128, BR_EPILOGUE_GELU, 1},
    {"small tiles accumulated", 40, 64, 128, BR_EPILOGUE_ACCUMULATE, 1},
    {"a real width", 20, 768, 768, BR_EPILOGUE_STORE, 1},
    {"a real ffn, accumulated", 70, 768, 1024, BR_EPILOGUE_ACCUMULATE, 1},
    {"large rows", 17, 128, 128, BR_EPILOGUE_STORE, 3000},
    {"rows that only a scale makes visible", 17, 128, 128, BR_EPILOGUE_STORE, 1e-3F},
};

/* Rounds each row to e4m3 by its largest element, and back. */
static void quantize_rows(float *values, int32_t rows, int32_t width)
{
    for (int32_t r = 0; r < rows; r++) {
        float *row = values + (size_t)r * (size_t)width;
        float largest = 0;
        for (int32_t c = 0; c < width; c++) largest = fmaxf(largest, fabsf(row[c]));
        const float scale = largest > 0 ? largest / 448 : 1;
        const float inverse = 1 / scale;
        for (int32_t c = 0; c < width; c++) row[c] = br_e4m3_to_f32(br_f32_to_e4m3(row[c] * inverse)) * scale;
    }
}

static void run_case(op_device *device, const fp8_case *c)
{
    const size_t x_count = (size_t)c->rows * (size_t)c->inputs;
    const size_t y_count = (size_t)c->rows * (size_t)c->outputs;
    float *x = op_values(x_count, 1, c->scale, 0, BR_F16);
    float *weight = op_values((size_t)c->outputs * (size_t)c->inputs, 2, 0.25F, 0, BR_F32);
    float *bias = op_values((size_t)c->outputs, 3, 0.5F, 0, BR_F32);
    float *y = op_values(y_count, 4, 2, 0, BR_F16);

    br_error error = {0};
    br_matrix *matrix = NULL;
    const br_matrix_source source = {weight, bias, c->outputs, c->inputs, c->epilogue};
    if (device->ops->matrix_create(device->backend, &matrix, &source, &error) != BR_OK)
        fail_msg("%s", error.text);
    op_buffer in = op_put(device, x, x_count, BR_F16);
    op_buffer out = op_put(device, c->epilogue == BR_EPILOGUE_ACCUMULATE ? y : NULL, y_count, BR_F16);
    const br_linear_args args = {.matrix = matrix, .x = in.memory, .y = out.memory, .rows = c->rows};
    assert_int_equal(device->ops->linear(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &out);

    quantize_rows(x, c->rows, c->inputs);
    quantize_rows(weight, c->outputs, c->inputs);
    double *expected = calloc(y_count + 1, sizeof *expected);
    float *plain = calloc(y_count + 1, sizeof *plain);
    op_linear_double(expected, y, x, weight, bias, c->rows, c->outputs, c->inputs, c->epilogue);
    op_linear_float(plain, y, x, weight, bias, c->rows, c->outputs, c->inputs, c->epilogue);
    op_assert_close(device, c->name, got, expected, plain, y_count, BR_F16);

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

static void test_products_of_rounded_factors_match_the_plain_loops(void **state)
{
    op_device *device = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(device, &cases[i]);
}

int main(void)
{
    br_error error = {0};
    op_device device = {.name = "cuda fp8"};
    if (br_backend_open(&device.backend, BR_ENGINE_CUDA, BR_PRECISION_FP8, 0, &error) != BR_OK) {
        print_message("skipped: %s\n", error.text);
        return 77;
    }
    device.ops = device.backend->table;
    const br_model model = {
        .width = 768, .layers = 1, .heads = 12, .head_size = 64, .ffn_width = OP_WIDTH_MAX, .vocab = 128};
    const br_stream_shape shape = {
        .tokens_max = OP_TOKENS_MAX, .seqs_max = 1, .seq_tokens_max = 64, .heads_count = 1};
    if (device.ops->stream_create(device.backend, &device.stream, &model, &shape, &error) != BR_OK) {
        print_message("%s\n", error.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_products_of_rounded_factors_match_the_plain_loops, &device),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device.ops->stream_destroy(device.stream);
    br_backend_close(device.backend);
    return failed;
}
