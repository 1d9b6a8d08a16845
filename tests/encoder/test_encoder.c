/* test_encoder.c - weights and encoders: arguments that are refused, failing allocations, sharing, and what
 * running must not do. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/limits.h"
#include "encoder/encoder.h"
#include "engine/engines.h"
#include "support/golden_case.h"
#include "support/oom.h"

enum { TOKENS_MAX = 1024, SEQS_MAX = 16, HEADS_MAX = 8 };

static const br_encoder_options usual = {.tokens_max = TOKENS_MAX, .seqs_max = SEQS_MAX};

/* `engine` is one that every build and machine has. */
static br_backend *open_backend(br_engine engine)
{
    br_backend *backend = NULL;
    br_error error = {0};
    if (br_backend_open(&backend, engine, BR_PRECISION_F32, 0, &error) != BR_OK) fail_msg("%s", error.text);
    return backend;
}

static br_encoder_weights *load(br_backend *backend, const golden_case *g)
{
    br_encoder_weights *weights = NULL;
    br_error error = {0};
    if (br_encoder_weights_create(&weights, backend, &g->bundle, &error) != BR_OK) fail_msg("%s", error.text);
    return weights;
}

static br_encoder *make_encoder(const br_encoder_weights *weights, const br_encoder_options *options)
{
    br_encoder *encoder = NULL;
    br_error error = {0};
    if (br_encoder_create(&encoder, weights, options, &error) != BR_OK) fail_msg("%s", error.text);
    return encoder;
}

static void add(br_packing *batch, const golden_case *g, int32_t length)
{
    int32_t ids[GOLDEN_TOKENS_MAX];
    golden_ids(g, ids, length);
    assert_true(br_packing_add(batch, ids, length));
}

static double log_odds(double p)
{
    return log(p / (1 - p));
}

static void test_calibration_stretches_and_shifts_the_log_odds_of_its_head(void **state)
{
    (void)state;
    golden_case g;
    golden_open(&g, "one_layer");
    assert_true(g.bundle.router.head_count >= 2);
    /* Candidates may be in another order than their heads. */
    g.bundle.router.candidates[0] = (br_candidate){.n = 1, .head = -1};
    g.bundle.router.candidates[1] = (br_candidate){.n = 1, .head = 1, .scale = 0.5F, .bias = 0.75F};
    g.bundle.router.candidates[2] = (br_candidate){.n = 2, .head = 0, .scale = 1, .bias = 0};
    g.bundle.router.candidate_count = 3;
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    br_encoder_weights *weights = load(backend, &g);
    br_encoder *encoder = make_encoder(weights, &(br_encoder_options){1024, 4, false});
    br_packing batch;
    assert_int_equal(br_packing_init(&batch, 1024, 4), BR_OK);
    add(&batch, &g, 33);
    float quality[HEADS_MAX];
    assert_int_equal(br_encoder_run(encoder, &batch, quality), BR_OK);
    const float *plain = golden_quality(&g, 33);
    assert_true(fabs((double)quality[0] - (double)plain[0]) < 1e-5);
    assert_true(fabs(log_odds((double)quality[1]) - (0.5 * log_odds((double)plain[1]) + 0.75)) < 1e-4);
    br_packing_deinit(&batch);
    br_encoder_destroy(encoder);
    br_encoder_weights_destroy(weights);
    br_backend_close(backend);
    golden_close(&g);
}

static void test_options_out_of_range_are_refused_with_their_range(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        br_encoder_options options;
        const char *text; /* part of the error; NULL: accepted */
    } cases[] = {
        {"the smallest", {129, 1, false}, NULL},
        {"a batch shorter than a prompt", {128, 1, false}, "tokens per batch is 128; expected 129"},
        {"no tokens", {0, 1, false}, "tokens per batch is 0"},
        {"too many tokens", {BR_BATCH_TOKENS_MAX + 1, 1, false}, "tokens per batch is 65537"},
        {"no queries", {1024, 0, false}, "queries per batch is 0; expected 1 to 1024"},
        {"too many queries", {1024, BR_BATCH_SEQS_MAX + 1, false}, "queries per batch is 1025"},
    };
    golden_case g;
    golden_open(&g, "one_layer");
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    br_encoder_weights *weights = load(backend, &g);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_encoder *encoder = NULL;
        br_error error = {0};
        const br_status status = br_encoder_create(&encoder, weights, &cases[i].options, &error);
        assert_int_equal(status, cases[i].text == NULL ? BR_OK : BR_EINVAL);
        if (cases[i].text != NULL) {
            assert_null(encoder);
            if (strstr(error.text, cases[i].text) == NULL) fail_msg("%s: %s", cases[i].name, error.text);
        }
        br_encoder_destroy(encoder);
    }
    br_encoder_weights_destroy(weights);
    br_backend_close(backend);
    golden_close(&g);
}

static void test_destroying_nothing_is_allowed(void **state)
{
    (void)state;
    br_encoder_destroy(NULL);
    br_encoder_weights_destroy(NULL);
    br_backend_close(NULL);
}

static void test_a_weight_that_is_not_finite_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *golden;
        const char *tensor;
        size_t element;
        float value;
        const char *found;
    } cases[] = {
        {"own_projections", "pretrained_model.embeddings.word_embeddings.weight", 130, NAN,
         "element 130 is NaN"},
        {"own_projections", "pretrained_model.embeddings.LayerNorm.bias", 0, NAN, "element 0 is NaN"},
        {"own_projections", "pretrained_model.encoder.rel_embeddings.weight", 7, NAN, "element 7 is NaN"},
        {"own_projections", "pretrained_model.encoder.LayerNorm.weight", 47, INFINITY,
         "element 47 is infinite"},
        {"own_projections", "pretrained_model.encoder.layer.0.attention.self.query_proj.weight", 5, INFINITY,
         "element 5 is infinite"},
        {"own_projections", "pretrained_model.encoder.layer.1.attention.self.key_proj.bias", 1, -INFINITY,
         "element 1 is infinite"},
        {"own_projections", "pretrained_model.encoder.layer.2.attention.self.value_proj.weight", 9, NAN,
         "element 9"},
        {"own_projections", "pretrained_model.encoder.layer.1.attention.self.pos_key_proj.weight", 3, NAN,
         "element 3"},
        {"own_projections", "pretrained_model.encoder.layer.2.attention.self.pos_query_proj.bias", 2, NAN,
         "element 2"},
        {"own_projections", "pretrained_model.encoder.layer.0.attention.output.dense.weight", 1, NAN,
         "element 1"},
        {"own_projections", "pretrained_model.encoder.layer.0.attention.output.LayerNorm.weight", 1, NAN,
         "element 1"},
        {"own_projections", "pretrained_model.encoder.layer.1.intermediate.dense.bias", 99, NAN,
         "element 99"},
        {"own_projections", "pretrained_model.encoder.layer.2.output.dense.weight", 4799, NAN,
         "element 4799"},
        {"own_projections", "pretrained_model.encoder.layer.2.output.LayerNorm.bias", 47, NAN, "element 47"},
        {"own_projections", "single_heads.2.1.weight", 95, NAN, "element 95 is NaN"},
        {"own_projections", "single_heads.0.1.bias", 1, INFINITY, "element 1 is infinite"},
        {"hybrid_llm", "head_layer.1.weight", 50, NAN, "element 50 is NaN"},
        {"n_label", "head_layer.1.bias", 4, NAN,
         "element 4 is NaN"}, /* the reference's own label: not used, but checked too */
        {"router_dc", "embeddings.weight", 335, INFINITY, "element 335 is infinite"},
        {"zooter_pooled", "pooler.dense.weight", 7, NAN, "element 7 is NaN"},
        {"route_llm_bert", "classifier.bias", 2, NAN, "element 2 is NaN"},
        {"bfloat16", "pretrained_model.encoder.layer.1.output.dense.bias", 0, INFINITY,
         "element 0 is infinite"},
        {"bfloat16", "pretrained_model.embeddings.word_embeddings.weight", 12575, NAN,
         "element 12575 is NaN"},
    };
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        golden_case g;
        golden_open(&g, cases[i].golden);
        size_t bytes;
        char *weight = golden_weight(&g, cases[i].tensor, &bytes);
        const uint16_t narrow = br_f32_to_bf16(cases[i].value);
        const size_t size = br_dtype_bytes(g.type);
        assert_true((cases[i].element + 1) * size <= bytes);
        memcpy(weight + cases[i].element * size, g.type == BR_F32 ? (const void *)&cases[i].value : &narrow,
               size);

        br_encoder_weights *weights = NULL;
        br_error error = {0};
        assert_int_equal(br_encoder_weights_create(&weights, backend, &g.bundle, &error), BR_EINVAL);
        assert_null(weights);
        if (strstr(error.text, cases[i].tensor) == NULL || strstr(error.text, cases[i].found) == NULL)
            fail_msg("%s: %s", cases[i].tensor, error.text);
        golden_close(&g);
    }
    br_backend_close(backend);
}

static void test_a_vector_without_a_direction_is_refused(void **state)
{
    (void)state;
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    golden_case g;
    golden_open(&g, "router_dc");
    size_t bytes;
    char *table = golden_weight(&g, "embeddings.weight", &bytes);
    memset(table + 2 * bytes / 7, 0, bytes / 7);
    br_encoder_weights *weights = NULL;
    br_error error = {0};
    assert_int_equal(br_encoder_weights_create(&weights, backend, &g.bundle, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "embeddings.weight"));
    assert_non_null(strstr(error.text, "row 2 is zero"));
    golden_close(&g);
    br_backend_close(backend);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    golden_case g;
    golden_open(&g, "own_projections");
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        br_backend *backend = open_backend(engines[i]);
        br_status status = BR_OK;
        size_t failures = 0;
        BR_OOM_SWEEP({
            br_encoder_weights *weights = NULL;
            br_encoder *encoder = NULL;
            br_error error = {0};
            status = br_encoder_weights_create(&weights, backend, &g.bundle, &error);
            if (status == BR_OK) status = br_encoder_create(&encoder, weights, &usual, &error);
            if (status != BR_OK) {
                failures++;
                assert_int_equal(status, BR_ENOMEM);
                assert_int_equal(error.status, BR_ENOMEM);
                assert_null(encoder);
            }
            br_encoder_destroy(encoder);
            br_encoder_weights_destroy(weights);
        });
        assert_int_equal(status, BR_OK);
        assert_true(failures > 50); /* allocations of every layer were reached */
        br_backend_close(backend);
    }
    golden_close(&g);
}

static void test_the_weights_need_neither_the_file_nor_the_bundle_afterwards(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        golden_case g;
        golden_open(&g, "one_layer");
        br_backend *backend = open_backend(engines[i]);
        br_encoder_weights *weights = load(backend, &g);
        memset(g.weights, 0xff, g.weights_bytes); /* every float is NaN, and the header is destroyed */
        br_encoder *encoder = make_encoder(weights, &usual);
        br_packing batch;
        assert_int_equal(br_packing_init(&batch, TOKENS_MAX, SEQS_MAX), BR_OK);
        add(&batch, &g, 33);
        float quality[HEADS_MAX];
        assert_int_equal(br_encoder_run(encoder, &batch, quality), BR_OK);
        assert_true(fabs((double)quality[0] - (double)golden_quality(&g, 33)[0]) < 1e-5);

        br_packing_deinit(&batch);
        br_encoder_destroy(encoder);
        br_encoder_weights_destroy(weights);
        br_backend_close(backend);
        golden_close(&g);
    }
}

static void test_memory_held_is_reported(void **state)
{
    (void)state;
    golden_case g;
    golden_open(&g, "one_layer");
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    br_encoder_weights *weights = load(backend, &g);
    br_encoder *small = make_encoder(weights, &(br_encoder_options){.tokens_max = 129, .seqs_max = 1});
    br_encoder *large = make_encoder(weights, &usual);
    assert_true(br_encoder_weights_bytes(weights) > (size_t)131 * 64 * sizeof(float));
    assert_true(br_encoder_bytes(small) > (size_t)129 * 64 * 5 * sizeof(float));
    assert_true(br_encoder_bytes(large) > br_encoder_bytes(small));
    br_encoder_destroy(small);
    br_encoder_destroy(large);
    br_encoder_weights_destroy(weights);
    br_backend_close(backend);
    golden_close(&g);
}

static void test_running_allocates_nothing(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    golden_case g;
    golden_open(&g, "log_buckets");
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        br_backend *backend = open_backend(engines[i]);
        br_encoder_weights *weights = load(backend, &g);
        br_encoder *encoder = make_encoder(weights, &usual);
        br_packing batch;
        assert_int_equal(br_packing_init(&batch, TOKENS_MAX, SEQS_MAX), BR_OK);
        float quality[SEQS_MAX * HEADS_MAX];
        const size_t before = br_oom_count();
        for (int32_t k = 0; k < 8; k++) { /* shapes that were not used before */
            br_packing_clear(&batch);
            for (int32_t b = 0; b <= k; b++) add(&batch, &g, g.lengths[(k + b) % 12]);
            assert_int_equal(br_encoder_run(encoder, &batch, quality), BR_OK);
        }
        assert_int_equal(br_oom_count(), before);
        br_packing_deinit(&batch);
        br_encoder_destroy(encoder);
        br_encoder_weights_destroy(weights);
        br_backend_close(backend);
    }
    golden_close(&g);
}

static br_status fails_embed(br_stream *stream, const br_embed_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_linear(br_stream *stream, const br_linear_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_attention(br_stream *stream, const br_attention_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_pooled_attention(br_stream *stream, const br_pooled_attention_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_layernorm(br_stream *stream, const br_layernorm_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_gather(br_stream *stream, const br_gather_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_heads(br_stream *stream, const br_heads_args *args)
{
    (void)stream, (void)args;
    return BR_EDEVICE;
}

static br_status fails_upload(br_stream *stream, void *device, const void *host, size_t bytes)
{
    (void)stream, (void)device, (void)host, (void)bytes;
    return BR_EDEVICE;
}

static br_status fails_download(br_stream *stream, void *host, const void *device, size_t bytes)
{
    (void)stream, (void)host, (void)device, (void)bytes;
    return BR_EDEVICE;
}

static br_status fails_wait(br_stream *stream)
{
    (void)stream;
    return BR_EDEVICE;
}

static void test_a_failing_device_fails_the_run_and_no_later_one(void **state)
{
    (void)state;
    golden_case g;
    golden_open(&g, "c2p_alone");
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    const br_backend_table *sound = backend->table;
    br_backend_table broken[10];
    for (size_t i = 0; i < 10; i++) broken[i] = *sound;
    broken[0].embed_layernorm = fails_embed;
    broken[1].linear = fails_linear;
    broken[2].attention = fails_attention;
    broken[3].pooled_attention = fails_pooled_attention;
    broken[4].layernorm = fails_layernorm;
    broken[5].gather_rows = fails_gather;
    broken[6].heads = fails_heads;
    broken[7].upload = fails_upload;
    broken[8].download = fails_download;
    broken[9].wait = fails_wait;

    br_packing batch;
    assert_int_equal(br_packing_init(&batch, TOKENS_MAX, SEQS_MAX), BR_OK);
    add(&batch, &g, 17);
    float quality[HEADS_MAX];
    br_encoder_weights *weights = load(backend, &g);
    for (size_t i = 0; i < 10; i++) {
        backend->table = &broken[i];
        br_encoder *encoder =
            make_encoder(weights, &usual); /* it keeps the table of functions that it was made with */
        if (br_encoder_run(encoder, &batch, quality) != BR_EDEVICE) fail_msg("failure %zu went unseen", i);
        broken[i] = *sound;
        assert_int_equal(br_encoder_run(encoder, &batch, quality), BR_OK);
        assert_true(fabs((double)quality[0] - (double)golden_quality(&g, 17)[0]) < 1e-5);
        br_encoder_destroy(encoder);
    }
    backend->table = sound;
    br_packing_deinit(&batch);
    br_encoder_weights_destroy(weights);
    br_backend_close(backend);
    golden_close(&g);
}

typedef struct runner {
    const golden_case *golden;
    const br_encoder_weights *weights;
    int32_t length;
    double worst;
} runner;

static void *run_many(void *argument)
{
    runner *r = argument;
    br_encoder *encoder = NULL;
    br_packing batch = {0};
    int32_t ids[GOLDEN_TOKENS_MAX];
    golden_ids(r->golden, ids, r->length);
    r->worst = INFINITY;
    if (br_encoder_create(&encoder, r->weights, &usual, NULL) != BR_OK) goto done;
    if (br_packing_init(&batch, TOKENS_MAX, SEQS_MAX) != BR_OK) goto done;
    if (!br_packing_add(&batch, ids, r->length)) goto done;

    double worst = 0;
    for (int round = 0; round < 20; round++) {
        float quality[HEADS_MAX];
        if (br_encoder_run(encoder, &batch, quality) != BR_OK) goto done;
        worst = fmax(worst, fabs((double)quality[0] - (double)golden_quality(r->golden, r->length)[0]));
    }
    r->worst = worst;

done:
    br_packing_deinit(&batch);
    br_encoder_destroy(encoder);
    return NULL;
}

static void test_threads_with_their_own_encoders_share_weights(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    enum { THREADS = 4 };
    golden_case g;
    golden_open(&g, "p2c_alone");
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        br_backend *backend = open_backend(engines[i]);
        br_encoder_weights *weights = load(backend, &g);
        pthread_t threads[THREADS];
        runner runners[THREADS];
        for (int32_t t = 0; t < THREADS; t++) {
            runners[t] = (runner){.golden = &g, .weights = weights, .length = g.lengths[t + 2]};
            assert_int_equal(pthread_create(&threads[t], NULL, run_many, &runners[t]), 0);
        }
        for (int32_t t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
            assert_true(runners[t].worst < 1e-5);
        }
        br_encoder_weights_destroy(weights);
        br_backend_close(backend);
    }
    golden_close(&g);
}

typedef struct misuse {
    const char *name;
    int32_t ids[4];
    int32_t length;
    int32_t copies;
} misuse;

#ifndef NDEBUG
/* True when running that batch ends the process with an abort. */
static bool aborts(br_encoder *encoder, const br_packing *batch)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        const int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDERR_FILENO);
        float quality[64 * HEADS_MAX];
        const br_status status = br_encoder_run(encoder, batch, quality);
        _exit(status == BR_OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_batches_the_encoder_was_not_made_for_are_asserted(void **state)
{
    (void)state;
    static const misuse cases[] = {
        {"an id beyond the vocabulary", {1, 2, 131, 3}, 4, 1},
        {"a negative id", {1, -1, 2, 3}, 4, 1},
        {"a prompt of two tokens", {1, 2}, 2, 1},
        {"no prompts", {0}, 0, 0},
        {"more prompts than it holds", {1, 2, 3}, 3, 17},
    };
    golden_case g;
    golden_open(&g, "one_layer");
    br_backend *backend = open_backend(BR_ENGINE_REFERENCE);
    br_encoder_weights *weights = load(backend, &g);
    br_encoder *encoder = make_encoder(weights, &usual);
    br_packing batch;
    assert_int_equal(br_packing_init(&batch, TOKENS_MAX, 64), BR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_packing_clear(&batch);
        for (int32_t k = 0; k < cases[i].copies; k++)
            assert_true(br_packing_add(&batch, cases[i].ids, cases[i].length));
        if (!aborts(encoder, &batch)) fail_msg("%s was let through", cases[i].name);
    }
    int32_t longer[130] = {0}; /* max_tokens of the case is 129 */
    br_packing_clear(&batch);
    assert_true(br_packing_add(&batch, longer, 130));
    assert_true(aborts(encoder, &batch));
    br_packing_clear(&batch);
    assert_true(br_packing_add(&batch, longer, 129));
    assert_false(aborts(encoder, &batch));

    br_packing_deinit(&batch);
    br_encoder_destroy(encoder);
    br_encoder_weights_destroy(weights);
    br_backend_close(backend);
    golden_close(&g);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calibration_stretches_and_shifts_the_log_odds_of_its_head),
        cmocka_unit_test(test_options_out_of_range_are_refused_with_their_range),
        cmocka_unit_test(test_destroying_nothing_is_allowed),
        cmocka_unit_test(test_a_weight_that_is_not_finite_is_refused_by_name),
        cmocka_unit_test(test_a_vector_without_a_direction_is_refused),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_the_weights_need_neither_the_file_nor_the_bundle_afterwards),
        cmocka_unit_test(test_memory_held_is_reported),
        cmocka_unit_test(test_running_allocates_nothing),
        cmocka_unit_test(test_a_failing_device_fails_the_run_and_no_later_one),
        cmocka_unit_test(test_threads_with_their_own_encoders_share_weights),
#ifndef NDEBUG
        cmocka_unit_test(test_batches_the_encoder_was_not_made_for_are_asserted),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
