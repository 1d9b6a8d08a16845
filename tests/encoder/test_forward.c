/*
 * test_forward.c - the whole encoder against Hugging Face's DebertaV2Model, on every engine.
 *
 * The bars. float32: 1e-5 of the row's norm on every last hidden state stored, and
 * 1e-5 on every quality. bf16: these models are small, random and sharp, unlike a
 * trained one, so the bars only find a wrong term; docs/EXACTNESS.md has the errors of bf16 on real prompts.
 *
 * The other prompts of a batch change a result by rounding alone: at most 1e-6 of quality in float32 and 5e-3
 * in bf16; on the reference engine not at all.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "encoder/encoder.h"
#include "engine/engines.h"
#include "support/golden_case.h"

typedef struct engine_case {
    const char *name;
    br_engine engine;
    br_precision precision;
    double hidden_bar;  /* of a row's norm */
    double quality_bar; /* absolute */
    double batch_bar;   /* absolute, between batchings */
    int32_t tokens_max; /* longer sequences are not tested on this engine: plain loops take long */
} engine_case;

static const engine_case engines[] = {
    {"reference f32", BR_ENGINE_REFERENCE, BR_PRECISION_F32, 1e-5, 1e-5, 0, 512},
    {"cpu f32", BR_ENGINE_CPU, BR_PRECISION_F32, 1e-5, 1e-5, 1e-6, 512},
    {"reference bf16", BR_ENGINE_REFERENCE, BR_PRECISION_BF16, 6e-2, 3e-2, 0, 130},
    {"reference f16", BR_ENGINE_REFERENCE, BR_PRECISION_F16, 8e-3, 4e-3, 0, 130},
    {"cpu bf16", BR_ENGINE_CPU, BR_PRECISION_BF16, 6e-2, 3e-2, 5e-3, 512},
    {"cuda f32", BR_ENGINE_CUDA, BR_PRECISION_F32, 1e-5, 1e-5, 1e-6, 512},
    {"cuda bf16", BR_ENGINE_CUDA, BR_PRECISION_BF16, 6e-2, 3e-2, 5e-3, 512},
    {"cuda f16", BR_ENGINE_CUDA, BR_PRECISION_F16, 8e-3, 4e-3, 8e-4, 512},
    {"cuda fp8", BR_ENGINE_CUDA, BR_PRECISION_FP8, 2e-1, 1e-1, 2e-2, 512},
};

enum { ENGINES = sizeof engines / sizeof engines[0], HEADS_MAX = 8, SEQS_MAX = 64, TOKENS_MAX = 4096 };

/* A case loaded on one engine. */
typedef struct fixture {
    golden_case golden;
    br_backend *backend;
    br_encoder_weights *weights;
    br_encoder *encoder;
    br_packing batch;
} fixture;

/* False: the build or machine lacks the engine, which it prints with the reason. */
static bool set_up(fixture *f, const engine_case *engine, const char *name, bool all_tokens)
{
    br_error error = {0};
    *f = (fixture){0};
    const br_status status = br_backend_open(&f->backend, engine->engine, engine->precision, 0, &error);
    if (status == BR_ENOTSUP || status == BR_EDEVICE) return false;
    if (status != BR_OK) fail_msg("%s: %s", engine->name, error.text);

    golden_open(&f->golden, name);
    if (br_encoder_weights_create(&f->weights, f->backend, &f->golden.bundle, &error) != BR_OK)
        fail_msg("%s, %s: %s", engine->name, name, error.text);
    const br_encoder_options options = {
        .tokens_max = TOKENS_MAX, .seqs_max = SEQS_MAX, .all_tokens = all_tokens};
    if (br_encoder_create(&f->encoder, f->weights, &options, &error) != BR_OK)
        fail_msg("%s, %s: %s", engine->name, name, error.text);
    assert_int_equal(br_packing_init(&f->batch, TOKENS_MAX, SEQS_MAX), BR_OK);
    return true;
}

static void tear_down(fixture *f)
{
    br_packing_deinit(&f->batch);
    br_encoder_destroy(f->encoder);
    br_encoder_weights_destroy(f->weights);
    br_backend_close(f->backend);
    golden_close(&f->golden);
}

static void add_sequence(fixture *f, int32_t length)
{
    int32_t ids[GOLDEN_TOKENS_MAX];
    golden_ids(&f->golden, ids, length);
    assert_true(br_packing_add(&f->batch, ids, length));
}

static void run_alone(fixture *f, int32_t length, float *quality)
{
    br_packing_clear(&f->batch);
    add_sequence(f, length);
    assert_int_equal(br_encoder_run(f->encoder, &f->batch, quality), BR_OK);
}

/* The largest difference of two rows' elements, squared and summed, relative to the norm of `expected`. */
static double relative_error(const float *got, const float *expected, int32_t width)
{
    double error = 0;
    double norm = 0;
    for (int32_t c = 0; c < width; c++) {
        const double difference = (double)got[c] - (double)expected[c];
        error += difference * difference;
        norm += (double)expected[c] * (double)expected[c];
    }
    return sqrt(error / norm);
}

static double worst_quality(const fixture *f, const float *quality, int32_t length)
{
    const float *expected = golden_quality(&f->golden, length);
    double worst = 0;
    for (int32_t k = 0; k < f->golden.bundle.router.head_count; k++) {
        const double error = fabs((double)quality[k] - (double)expected[k]);
        if (!(error <= worst)) worst = error; /* NaN stays */
    }
    return worst;
}

static double worst_hidden(fixture *f, float *hidden, int32_t length)
{
    const int32_t width = f->golden.bundle.model.width;
    const float *expected = golden_hidden(&f->golden, length);
    int32_t rows[GOLDEN_ROWS_MAX];
    const int32_t count = golden_rows(&f->golden, rows, length);
    assert_int_equal(br_encoder_hidden(f->encoder, hidden), BR_OK);
    double worst = 0;
    for (int32_t i = 0; i < count; i++) {
        const double error = relative_error(hidden + (size_t)rows[i] * (size_t)width,
                                            expected + (size_t)i * (size_t)width, width);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

/* One case on one engine, in one of the encoder's two modes; adds to the two worst errors. */
static void check_case(const engine_case *engine, const char *name, bool all_tokens, double *hidden_error,
                       double *quality_error)
{
    fixture f;
    if (!set_up(&f, engine, name, all_tokens)) return;
    float *hidden = calloc((size_t)TOKENS_MAX * (size_t)f.golden.bundle.model.width, sizeof *hidden);
    assert_non_null(hidden);
    for (int32_t i = 0; i < f.golden.length_count; i++) {
        const int32_t length = f.golden.lengths[i];
        if (length > engine->tokens_max) continue;
        float quality[HEADS_MAX];
        run_alone(&f, length, quality);
        const double q = worst_quality(&f, quality, length);
        const double h = all_tokens ? worst_hidden(&f, hidden, length) : 0;
        if (!(q <= engine->quality_bar))
            fail_msg("%s, %s, %d tokens: a quality is off by %.3g", engine->name, name, (int)length, q);
        if (!(h <= engine->hidden_bar))
            fail_msg("%s, %s, %d tokens: a hidden state is off by %.3g of its norm", engine->name, name,
                     (int)length, h);
        *quality_error = fmax(*quality_error, q);
        *hidden_error = fmax(*hidden_error, h);
    }
    free(hidden);
    tear_down(&f);
}

/* `names` ends with NULL. */
static void check_cases(const char *const *names, bool all_tokens)
{
    for (size_t e = 0; e < ENGINES; e++) {
        br_error error = {0};
        br_backend *backend;
        if (br_backend_open(&backend, engines[e].engine, engines[e].precision, 0, &error) != BR_OK) {
            print_message("%s is passed over: %s\n", engines[e].name, error.text);
            continue;
        }
        br_backend_close(backend);
        double hidden = 0;
        double quality = 0;
        for (size_t i = 0; names[i] != NULL; i++)
            check_case(&engines[e], names[i], all_tokens, &hidden, &quality);
        print_message("%-16s worst quality %.2e", engines[e].name, quality);
        if (all_tokens) print_message(", worst hidden state %.2e of its norm", hidden);
        print_message("\n");
    }
}

static void test_every_hidden_state_and_quality_is_hugging_faces(void **state)
{
    (void)state;
    check_cases(golden_names, true);
}

static void test_computing_the_pooled_token_alone_changes_nothing(void **state)
{
    (void)state;
    assert_string_equal(golden_names[0],
                        "log_buckets"); /* takes by far the longest; own_projections has the same buckets */
    check_cases(golden_names + 1, false);
}

/* Every sequence of the case alone, then in batches of many orders and neighbours. */
static void check_batches(const engine_case *engine, const char *name)
{
    fixture f;
    if (!set_up(&f, engine, name, false)) return;
    const int32_t heads = f.golden.bundle.router.head_count;
    const int32_t count = f.golden.length_count;
    float alone[GOLDEN_LENGTHS_MAX][HEADS_MAX];
    for (int32_t i = 0; i < count; i++) run_alone(&f, f.golden.lengths[i], alone[i]);

    double worst = 0;
    for (int32_t round = 0; round < 4; round++) {
        int32_t members[SEQS_MAX];
        int32_t member_count = 0;
        br_packing_clear(&f.batch);
        for (int32_t i = 0; i < count + round; i++) { /* the same sequence may occur several times */
            const int32_t which = (i * (2 * round + 1) + round) % count;
            if (f.batch.tokens + f.golden.lengths[which] > TOKENS_MAX) continue;
            add_sequence(&f, f.golden.lengths[which]);
            members[member_count++] = which;
        }
        float quality[SEQS_MAX * HEADS_MAX];
        assert_int_equal(br_encoder_run(f.encoder, &f.batch, quality), BR_OK);
        for (int32_t b = 0; b < member_count; b++) {
            for (int32_t k = 0; k < heads; k++) {
                const double error = fabs((double)quality[b * heads + k] - (double)alone[members[b]][k]);
                if (!(error <= worst)) worst = error;
            }
        }
    }
    if (!(worst <= engine->batch_bar))
        fail_msg("%s, %s: a neighbour changes a quality by %.3g", engine->name, name, worst);
    print_message("%-16s %-16s neighbours change a quality by at most %.2e\n", engine->name, name, worst);
    tear_down(&f);
}

static void test_neighbours_in_the_batch_change_nothing_beyond_rounding(void **state)
{
    (void)state;
    static const char *const names[] = {"one_layer", "short_reach", "heads_of_64"};
    for (size_t e = 0; e < ENGINES; e++)
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) check_batches(&engines[e], names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_hidden_state_and_quality_is_hugging_faces),
        cmocka_unit_test(test_computing_the_pooled_token_alone_changes_nothing),
        cmocka_unit_test(test_neighbours_in_the_batch_change_nothing_beyond_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
