/*
 * test_cpu.c - the parts of the CPU engine that the op tests do not reach: kernels of instruction sets that
 * this machine would not choose, the division of rows into blocks, and failing allocations.
 */
#include "op_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/onednn.h"
#include "support/oom.h"

typedef struct kernel_case {
    int32_t tokens;
    int32_t heads;
    int32_t head_size;
    bool key;
    bool query;
} kernel_case;

static const kernel_case cases[] = {
    {1, 2, 8, true, true},    {3, 3, 5, true, true},     {16, 1, 64, true, true}, {33, 2, 24, true, false},
    {40, 2, 24, false, true}, {65, 1, 64, false, false}, {130, 2, 7, true, true}, {300, 1, 64, true, true},
};

static void assert_near(const char *kernels, const char *what, const float *got, const double *expected,
                        size_t count, double bar)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - expected[i]) <= bar))
            fail_msg("%s, %s: element %zu is %.9g; expected %.9g", kernels, what, i, (double)got[i],
                     expected[i]);
}

static void try_attention(br_backend *backend, const cpu_kernels *kernels, const kernel_case *c)
{
    const size_t width = (size_t)c->heads * (size_t)c->head_size;
    const size_t n = (size_t)c->tokens;
    const int32_t offsets[] = {0, c->tokens};
    float *qkv = op_values(n * 3 * width, 1, 0.7F, 0, BR_F32);
    float *key = op_values((2 * n - 1) * width, 2, 0.5F, 0, BR_F32);
    float *query = op_values((2 * n - 1) * width, 3, 0.5F, 0, BR_F32);
    float *context = calloc(n * width, sizeof *context);
    double *expected = calloc(n * width, sizeof *expected);
    void *scratch = calloc(1, kernels->scratch_bytes(c->tokens, c->head_size));
    br_positions *positions = NULL;
    const br_positions_source source = {c->key ? key : NULL, c->query ? query : NULL, c->tokens, c->heads,
                                        c->head_size};
    assert_int_equal(backend->table->positions_create(backend, &positions, &source, NULL), BR_OK);

    kernels->attention(&(br_attention_args){.q = qkv,
                                            .k = qkv + width,
                                            .v = qkv + 2 * width,
                                            .positions = positions,
                                            .offsets = offsets,
                                            .context = context,
                                            .q_stride = (int32_t)(3 * width),
                                            .kv_stride = (int32_t)(3 * width),
                                            .tokens = c->tokens,
                                            .seqs = 1,
                                            .seq_tokens_max = c->tokens,
                                            .heads = c->heads,
                                            .head_size = c->head_size},
                       scratch);
    op_attention_double(expected, &(op_attention_case){.q = qkv,
                                                       .k = qkv + width,
                                                       .v = qkv + 2 * width,
                                                       .q_stride = 3 * width,
                                                       .kv_stride = 3 * width,
                                                       .key = source.key,
                                                       .query = source.query,
                                                       .offsets = offsets,
                                                       .seqs = 1,
                                                       .seq_tokens_max = c->tokens,
                                                       .heads = c->heads,
                                                       .head_size = c->head_size,
                                                       .pool_index = -1,
                                                       .activation = BR_F32});
    char what[64];
    (void)snprintf(what, sizeof what, "attention over %d tokens", (int)c->tokens);
    assert_near(kernels->name, what, context, expected, n * width, 2e-6);

    backend->table->positions_destroy(backend, positions);
    free(scratch);
    free(expected);
    free(context);
    free(query);
    free(key);
    free(qkv);
}

static void try_rows(const cpu_kernels *kernels)
{
    enum { ROWS = 3, WIDTH = 83 };
    float *x = op_values(ROWS * WIDTH, 4, 8, 1, BR_F32);
    float *gamma = op_values(WIDTH, 5, 1, 0, BR_F32);
    float *beta = op_values(WIDTH, 6, 1, 0, BR_F32);
    double expected[ROWS * WIDTH];
    float got[ROWS * WIDTH];

    kernels->gelu(got, x, ROWS * WIDTH);
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        expected[i] = 0.5 * (double)x[i] * erfc(-(double)x[i] / sqrt(2.0));
    assert_near(kernels->name, "gelu", got, expected, ROWS * WIDTH, 6e-7);

    op_layernorm_double(expected, x, gamma, beta, 1e-7F, ROWS, WIDTH);
    kernels->layernorm(&(br_layernorm_args){.residual = x,
                                            .input = x,
                                            .gamma = gamma,
                                            .beta = beta,
                                            .epsilon = 1e-7F,
                                            .rows = ROWS,
                                            .width = WIDTH});
    assert_near(kernels->name, "layernorm", x, expected, ROWS * WIDTH, 2e-6);
    free(beta);
    free(gamma);
    free(x);
}

static void test_every_instruction_set_of_this_machine_computes_the_same(void **state)
{
    (void)state;
    br_backend *backend = NULL;
    assert_int_equal(br_backend_open_cpu(&backend, BR_PRECISION_F32, NULL), BR_OK);
    for (size_t k = 0; cpu_kernels_at(k) != NULL; k++) {
        const cpu_kernels *kernels = cpu_kernels_at(k);
        if (kernels->bf16) continue; /* the op tests check these */
        print_message("%s\n", kernels->name);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            try_attention(backend, kernels, &cases[i]);
        try_rows(kernels);
    }
    br_backend_close(backend);
}

static void test_gelu_far_from_zero_and_of_what_is_not_a_number(void **state)
{
    (void)state;
    const float x[] = {-1e30F, -100, -6.5F, 0, 6.5F, 100, 1e30F, INFINITY, -INFINITY, NAN};
    for (size_t k = 0; cpu_kernels_at(k) != NULL; k++) {
        const cpu_kernels *kernels = cpu_kernels_at(k);
        if (kernels->bf16) continue;
        float y[10];
        kernels->gelu(y, x, 10);
        for (size_t i = 0; i < 7; i++) assert_true(fabs((double)y[i] - fmax((double)x[i], 0)) < 1e-8);
        assert_true(y[7] == INFINITY);
        assert_true(fabs((double)y[8]) < 1e-8);
        assert_true(isnan(y[9]));
    }
}

static void test_any_number_of_rows_is_cut_into_blocks_of_a_fair_size(void **state)
{
    (void)state;
    static const int32_t limits[] = {1, 7, 64, 128, 129, 255, 256};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        for (int32_t rows = 1; rows < 5000; rows++) {
            for (int32_t left = rows; left > 0;) {
                const int32_t block = onednn_block(left, limits[i]);
                assert_in_range(block, 1, limits[i]);
                assert_true(block <= left);
                assert_true(block <= ONEDNN_ROWS_EXACT || block % ONEDNN_ROWS_STEP == 0);
                if (rows > limits[i] && limits[i] >= 128) assert_true(block >= 64);
                left -= block;
            }
        }
    }
}

static const br_model small_model = {.width = 16, .layers = 1, .heads = 2, .head_size = 8, .ffn_width = 32};

static br_status make_everything(br_precision precision)
{
    float weight[16 * 16] = {0};
    const br_matrix_source matrix_source = {weight, weight, 16, 16, BR_EPILOGUE_STORE};
    const br_positions_source positions_source = {weight, weight, 4, 2, 8};
    const br_tensor tensor = {.type = BR_F32,
                              .readable = true,
                              .rank = 2,
                              .shape = {16, 16},
                              .data = weight,
                              .bytes = sizeof weight};
    const br_stream_shape shape = {.tokens_max = 8, .seqs_max = 2, .seq_tokens_max = 4, .heads_count = 1};
    br_backend *backend = NULL;
    br_matrix *matrix = NULL;
    br_embedding *embedding = NULL;
    br_positions *positions = NULL;
    br_stream *stream = NULL;
    float *vector = NULL;
    br_error error = {0};

    br_status status = br_backend_open_cpu(&backend, precision, &error);
    if (status != BR_OK) {
        assert_null(backend);
        return status;
    }
    const br_backend_table *ops = backend->table;
    status = ops->matrix_create(backend, &matrix, &matrix_source, &error);
    if (status == BR_OK) status = ops->embedding_create(backend, &embedding, &tensor, &error);
    if (status == BR_OK) status = ops->positions_create(backend, &positions, &positions_source, &error);
    if (status == BR_OK) status = ops->vector_create(backend, &vector, weight, 16, &error);
    if (status == BR_OK) status = ops->stream_create(backend, &stream, &small_model, &shape, &error);
    if (status != BR_OK) assert_true(error.text[0] != '\0');
    if (stream != NULL) ops->stream_destroy(stream);
    ops->free(backend, vector);
    ops->positions_destroy(backend, positions);
    ops->embedding_destroy(backend, embedding);
    ops->matrix_destroy(backend, matrix);
    br_backend_close(backend);
    return status;
}

static void test_each_allocation_that_fails_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    static const br_precision precisions[] = {BR_PRECISION_F32, BR_PRECISION_AUTO};
    for (size_t i = 0; i < sizeof precisions / sizeof precisions[0]; i++) {
        br_status status = BR_OK;
        BR_OOM_SWEEP({
            status = make_everything(precisions[i]);
            if (status != BR_OK) assert_int_equal(status, BR_ENOMEM);
        });
        assert_int_equal(status, BR_OK);
    }
}

/* A shape met after the stream was made allocates once; nothing after that does. */
static void test_a_warm_stream_allocates_nothing(void **state)
{
    (void)state;
    float weight[16 * 16] = {0};
    float x[300 * 16] = {0};
    float y[300 * 16];
    br_backend *backend = NULL;
    br_stream *stream = NULL;
    br_matrix *matrix = NULL;
    const br_stream_shape shape = {.tokens_max = 300, .seqs_max = 1, .seq_tokens_max = 300, .heads_count = 1};
    const br_matrix_source source = {weight, weight, 16, 16, BR_EPILOGUE_STORE};
    assert_int_equal(br_backend_open_cpu(&backend, BR_PRECISION_F32, NULL), BR_OK);
    assert_int_equal(backend->table->stream_create(backend, &stream, &small_model, &shape, NULL), BR_OK);
    assert_int_equal(backend->table->matrix_create(backend, &matrix, &source, NULL), BR_OK);

    br_linear_args args = {.matrix = matrix, .x = x, .y = y, .rows = 1};
    assert_int_equal(backend->table->linear(stream, &args), BR_OK);
    const size_t before = br_oom_count();
    for (args.rows = 0; args.rows <= 300; args.rows++)
        assert_int_equal(backend->table->linear(stream, &args), BR_OK);
    assert_int_equal(br_oom_count(), before);

    backend->table->stream_destroy(stream);
    backend->table->matrix_destroy(backend, matrix);
    br_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_instruction_set_of_this_machine_computes_the_same),
        cmocka_unit_test(test_gelu_far_from_zero_and_of_what_is_not_a_number),
        cmocka_unit_test(test_any_number_of_rows_is_cut_into_blocks_of_a_fair_size),
        cmocka_unit_test(test_each_allocation_that_fails_is_reported_and_leaks_nothing),
        cmocka_unit_test(test_a_warm_stream_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
