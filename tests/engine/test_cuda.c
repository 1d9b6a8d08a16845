/*
 * test_cuda.c - what the CUDA engine promises beyond its ops: the same bits twice, no allocation after
 * loading, clear errors for missing memory and devices, and an error from a lost device.
 *
 * Skipped with a message where there is no CUDA device.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cuda_runtime_api.h>

#include "core/memory.h"
#include "encoder/encoder.h"
#include "engine/engines.h"
#include "support/golden_case.h"
#include "support/oom.h"

enum { TOKENS_MAX = 1024, SEQS_MAX = 64, HEADS_MAX = 8 };

typedef struct fixture {
    golden_case golden;
    br_backend *backend;
    br_encoder_weights *weights;
    br_encoder *encoder;
    br_packing batch;
} fixture;

static void set_up(fixture *f, br_precision precision, const char *tune_file)
{
    br_error error = {0};
    *f = (fixture){0};
    if (br_backend_open(&f->backend, BR_ENGINE_CUDA, precision, 0, &error) != BR_OK)
        fail_msg("%s", error.text);
    if (tune_file != NULL) assert_int_equal(f->backend->table->tune(f->backend, tune_file, &error), BR_OK);
    golden_open(&f->golden, "heads_of_64");
    if (br_encoder_weights_create(&f->weights, f->backend, &f->golden.bundle, &error) != BR_OK)
        fail_msg("%s", error.text);
    const br_encoder_options options = {.tokens_max = TOKENS_MAX, .seqs_max = SEQS_MAX};
    if (br_encoder_create(&f->encoder, f->weights, &options, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(br_packing_init(&f->batch, TOKENS_MAX, SEQS_MAX), BR_OK);
}

static void tear_down(fixture *f)
{
    br_packing_deinit(&f->batch);
    br_encoder_destroy(f->encoder);
    br_encoder_weights_destroy(f->weights);
    br_backend_close(f->backend);
    golden_close(&f->golden);
}

/* `seqs` sequences of the case's lengths in turn, beginning with the `from`-th. */
static void fill(fixture *f, int32_t seqs, int32_t from)
{
    int32_t ids[GOLDEN_TOKENS_MAX];
    br_packing_clear(&f->batch);
    for (int32_t b = 0; b < seqs; b++) {
        const int32_t length = f->golden.lengths[(from + b) % f->golden.length_count];
        golden_ids(&f->golden, ids, length);
        if (!br_packing_add(&f->batch, ids, length)) return;
    }
}

static const br_precision precisions[] = {BR_PRECISION_F32, BR_PRECISION_BF16, BR_PRECISION_F16,
                                          BR_PRECISION_FP8};

enum { PRECISIONS = sizeof precisions / sizeof precisions[0] };

static void test_the_same_batch_gives_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < PRECISIONS; i++) {
        fixture f;
        float first[SEQS_MAX * HEADS_MAX];
        float again[SEQS_MAX * HEADS_MAX];
        set_up(&f, precisions[i], NULL);
        const size_t heads = (size_t)f.golden.bundle.router.head_count;
        fill(&f, 12, 0);
        assert_int_equal(br_encoder_run(f.encoder, &f.batch, first), BR_OK);
        const size_t bytes = (size_t)f.batch.seqs * heads * sizeof *first;
        fill(&f, 5, 3); /* another batch in between, in the same workspace */
        assert_int_equal(br_encoder_run(f.encoder, &f.batch, again), BR_OK);
        fill(&f, 12, 0);
        assert_int_equal(br_encoder_run(f.encoder, &f.batch, again), BR_OK);
        assert_memory_equal(first, again, bytes);
        tear_down(&f);
    }
}

static void test_recorded_shapes_ascend_and_hold_what_they_say(void **state)
{
    (void)state;
    br_error error = {0};
    br_backend *backend;
    br_stream *stream;
    br_pass_shape shapes[BR_PASS_SHAPES_MAX];
    const br_model model = {
        .width = 64, .layers = 1, .heads = 1, .head_size = 64, .ffn_width = 128, .vocab = 16};
    static const br_stream_shape most[] = {
        {2816, 256, 512, 4}, {300, 1, 300, 4}, {65536, 1024, 2048, 4}, {3, 1, 3, 1}};
    assert_int_equal(br_backend_open(&backend, BR_ENGINE_CUDA, BR_PRECISION_F16, 0, &error), BR_OK);
    for (size_t m = 0; m < sizeof most / sizeof most[0]; m++) {
        assert_int_equal(backend->table->stream_create(backend, &stream, &model, &most[m], &error), BR_OK);
        const int32_t count = backend->table->pass_shapes(stream, shapes);
        assert_in_range(count, 1, BR_PASS_SHAPES_MAX);
        for (int32_t i = 0; i < count; i++) {
            assert_in_range(shapes[i].tokens, 1, most[m].tokens_max);
            assert_in_range(shapes[i].seqs, 1, most[m].seqs_max);
            assert_in_range(shapes[i].seq_tokens_max, 1, most[m].seq_tokens_max);
            /* As many of the shortest sequences as fit its tokens. */
            if (shapes[i].seqs < most[m].seqs_max) assert_true(shapes[i].seqs >= shapes[i].tokens / 3);
            if (i == 0) continue;
            assert_true(shapes[i].tokens > shapes[i - 1].tokens ||
                        (shapes[i].tokens == shapes[i - 1].tokens &&
                         shapes[i].seq_tokens_max > shapes[i - 1].seq_tokens_max));
        }
        assert_int_equal(shapes[count - 1].tokens,
                         most[m].tokens_max); /* the largest batch is recorded too */
        assert_int_equal(shapes[count - 1].seqs, most[m].seqs_max);
        assert_int_equal(shapes[count - 1].seq_tokens_max, most[m].seq_tokens_max);
        backend->table->stream_destroy(stream);
    }
    br_backend_close(backend);
}

static void test_running_allocates_nothing_on_either_side(void **state)
{
    (void)state;
    fixture f;
    float quality[SEQS_MAX * HEADS_MAX];
    size_t free_before;
    size_t free_after;
    size_t total;
    set_up(&f, BR_PRECISION_F16, NULL);
    fill(&f, 1, 0);
    assert_int_equal(br_encoder_run(f.encoder, &f.batch, quality), BR_OK);
    assert_int_equal(cudaMemGetInfo(&free_before, &total), cudaSuccess);
    const size_t allocations = br_oom_count();
    for (int32_t round = 1; round < 24; round++) {
        fill(&f, round, round);
        assert_int_equal(br_encoder_run(f.encoder, &f.batch, quality), BR_OK);
    }
    assert_int_equal(br_oom_count(), allocations);
    assert_int_equal(cudaMemGetInfo(&free_after, &total), cudaSuccess);
    assert_int_equal(free_after, free_before);
    tear_down(&f);
}

static void test_loading_survives_every_failing_allocation(void **state)
{
    (void)state;
    golden_case g;
    golden_open(&g, "heads_of_64");
    const br_encoder_options options = {.tokens_max = g.bundle.router.max_tokens, .seqs_max = SEQS_MAX};
    br_status status = BR_OK;
    BR_OOM_SWEEP({
        br_backend *backend = NULL;
        br_encoder_weights *weights = NULL;
        br_encoder *encoder = NULL;
        status = br_backend_open(&backend, BR_ENGINE_CUDA, BR_PRECISION_FP8, 0, NULL);
        if (status == BR_OK) status = br_encoder_weights_create(&weights, backend, &g.bundle, NULL);
        if (status == BR_OK) status = br_encoder_create(&encoder, weights, &options, NULL);
        assert_true(status == BR_OK || status == BR_ENOMEM);
        br_encoder_destroy(encoder);
        br_encoder_weights_destroy(weights);
        br_backend_close(backend);
    });
    assert_int_equal(status, BR_OK);
    golden_close(&g);
}

static void test_a_full_device_is_out_of_memory_and_usable_afterwards(void **state)
{
    (void)state;
    fixture f;
    br_error error = {0};
    br_encoder *second = NULL;
    void *ballast[64] = {NULL};
    size_t count = 0;
    set_up(&f, BR_PRECISION_F16, NULL);
    for (size_t bytes = (size_t)1 << 40;
         bytes >= 1 << 16 && count < 64;) { /* takes the largest pieces that are free */
        if (cudaMalloc(&ballast[count], bytes) == cudaSuccess)
            count++;
        else
            bytes /= 2;
    }
    (void)cudaGetLastError();
    const br_encoder_options options = {.tokens_max = TOKENS_MAX, .seqs_max = SEQS_MAX};
    assert_int_equal(br_encoder_create(&second, f.weights, &options, &error), BR_ENOMEM);
    assert_null(second);
    assert_non_null(strstr(error.text, "memory"));
    float quality[SEQS_MAX * HEADS_MAX];
    fill(&f, 4, 0);
    assert_int_equal(br_encoder_run(f.encoder, &f.batch, quality), BR_OK); /* the first encoder still works */
    for (size_t i = 0; i < count; i++) (void)cudaFree(ballast[i]);
    assert_int_equal(br_encoder_create(&second, f.weights, &options, &error), BR_OK);
    br_encoder_destroy(second);
    tear_down(&f);
}

static void test_a_device_that_does_not_exist_is_named(void **state)
{
    (void)state;
    br_error error = {0};
    br_backend *backend = NULL;
    assert_int_equal(br_backend_open(&backend, BR_ENGINE_CUDA, BR_PRECISION_F16, 99, &error), BR_EINVAL);
    assert_null(backend);
    assert_non_null(strstr(error.text, "device 99"));
}

static void test_weights_beyond_half_are_refused_by_f16_and_taken_by_bf16(void **state)
{
    (void)state;
    const float weight[64] = {[3] = 70000};
    const float bias[1] = {0};
    const br_matrix_source source = {weight, bias, 1, 64, BR_EPILOGUE_STORE};
    static const struct {
        br_precision precision;
        br_status status;
    } cases[] = {{BR_PRECISION_F16, BR_ENOTSUP}, {BR_PRECISION_BF16, BR_OK}};
    for (size_t i = 0; i < 2; i++) {
        br_error error = {0};
        br_backend *backend;
        br_matrix *matrix = NULL;
        assert_int_equal(br_backend_open(&backend, BR_ENGINE_CUDA, cases[i].precision, 0, &error), BR_OK);
        assert_int_equal(backend->table->matrix_create(backend, &matrix, &source, &error), cases[i].status);
        if (cases[i].status != BR_OK) assert_non_null(strstr(error.text, "bf16"));
        backend->table->matrix_destroy(backend, matrix);
        br_backend_close(backend);
    }
}

static size_t file_size(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    (void)fseek(file, 0, SEEK_END);
    const long size = ftell(file);
    (void)fclose(file);
    return (size_t)size;
}

static void run_tuned(const char *file, float *quality)
{
    fixture f;
    set_up(&f, BR_PRECISION_F16, file);
    fill(&f, 6, 0);
    assert_int_equal(br_encoder_run(f.encoder, &f.batch, quality), BR_OK);
    tear_down(&f);
}

static void test_measured_products_are_remembered(void **state)
{
    (void)state;
    char folder[] = "/tmp/bestroute-gemm-XXXXXX";
    char file[64];
    float first[SEQS_MAX * HEADS_MAX] = {0};
    float again[SEQS_MAX * HEADS_MAX] = {0};
    assert_non_null(mkdtemp(folder));
    (void)snprintf(file, sizeof file, "%s/choices", folder);

    run_tuned(file, first);
    const size_t size = file_size(file);
    assert_true(size > 0);
    run_tuned(file, again);
    assert_int_equal(file_size(file), size); /* nothing was left to measure */
    assert_memory_equal(first, again, sizeof first);

    FILE *nonsense = fopen(file, "w");
    assert_non_null(nonsense);
    (void)fputs("nonsense\n\tmore\tzz\n\n", nonsense);
    (void)fclose(nonsense);
    run_tuned(file, again); /* measures again */
    assert_true(file_size(file) > 20);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(folder), 0);
    run_tuned(file, again); /* the file cannot be written: it measures again each time */
}

/* Runs in a process of its own, since the fault destroys the context. Returns 0 if all is as promised. */
static int fault_and_look(void)
{
    br_error error = {0};
    br_backend *backend;
    br_stream *stream;
    const br_model model = {
        .width = 64, .layers = 1, .heads = 1, .head_size = 64, .ffn_width = 128, .vocab = 16};
    const br_stream_shape shape = {.tokens_max = 64, .seqs_max = 2, .seq_tokens_max = 64, .heads_count = 1};
    if (br_backend_open(&backend, BR_ENGINE_CUDA, BR_PRECISION_F16, 0, &error) != BR_OK) return 1;
    if (backend->table->stream_create(backend, &stream, &model, &shape, &error) != BR_OK) return 2;
    int32_t wild[2] = {1 << 28, (1 << 28) + 4}; /* rows that no allocation holds */
    void *rows = backend->table->alloc(backend, 64 * 64 * 2);
    int32_t *offsets = backend->table->alloc(backend, sizeof wild);
    if (backend->table->upload(stream, offsets, wild, sizeof wild) != BR_OK) return 3;
    const br_gather_args args = {.residual = rows,
                                 .input = rows,
                                 .offsets = offsets,
                                 .pooled_residual = rows,
                                 .pooled_input = rows,
                                 .pool_index = 1,
                                 .seqs = 1,
                                 .width = 64};
    if (backend->table->gather_rows(stream, &args) != BR_OK) return 4;
    if (backend->table->wait(stream) != BR_EDEVICE) return 5;
    if (backend->table->wait(stream) != BR_EDEVICE) return 6; /* the error stays */
    if (backend->table->upload(stream, offsets, wild, sizeof wild) == BR_OK &&
        backend->table->wait(stream) != BR_EDEVICE)
        return 7;
    backend->table->free(backend, rows);
    backend->table->free(backend, offsets);
    backend->table->stream_destroy(stream);
    br_backend_close(backend);
    return 0;
}

static int exit_code_of_fault(const char *program)
{
    const pid_t child = fork();
    if (child == 0) {
        (void)execl(program, program, "--fault", (char *)NULL);
        _exit(127);
    }
    int status = 0;
    (void)waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void test_a_fault_of_the_device_is_a_status_then_and_ever_after(void **state)
{
    assert_int_equal(exit_code_of_fault(*state), 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--fault") == 0) {
        const int code = fault_and_look();
        (void)fflush(NULL);
        _exit(
            code); /* without exit handlers: a tool that watches the device has seen a fault that was meant */
    }
    if (br_engine_devices(BR_ENGINE_CUDA) == 0) {
        print_message("skipped: there is no CUDA device\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_batch_gives_the_same_bits),
        cmocka_unit_test(test_recorded_shapes_ascend_and_hold_what_they_say),
        cmocka_unit_test(test_running_allocates_nothing_on_either_side),
        cmocka_unit_test(test_loading_survives_every_failing_allocation),
        cmocka_unit_test(test_a_full_device_is_out_of_memory_and_usable_afterwards),
        cmocka_unit_test(test_a_device_that_does_not_exist_is_named),
        cmocka_unit_test(test_weights_beyond_half_are_refused_by_f16_and_taken_by_bf16),
        cmocka_unit_test(test_measured_products_are_remembered),
        cmocka_unit_test_prestate(test_a_fault_of_the_device_is_a_status_then_and_ever_after, argv[0]),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
