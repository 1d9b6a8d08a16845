/* test_loaded.c - a bundle made ready: references, encoders, the probe, refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engines.h"
#include "support/oom.h"
#include "support/service_fixture.h"
#include "workers/loaded.h"

enum { TOKENS_MAX = 256, SEQS_MAX = 8 };

static br_devices devices; /* two, the first with two workers, the second with one */

static int open_devices(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 2; i++) {
        br_backend *backend;
        br_error error = {0};
        if (br_backend_open(&backend, BR_ENGINE_REFERENCE, BR_PRECISION_F32, 0, &error) != BR_OK) return -1;
        if (br_devices_add(&devices, backend, 2 - i) != BR_OK) return -1;
    }
    br_devices_fit(&devices, TOKENS_MAX, 1);
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    br_devices_close(&devices);
    return 0;
}

static br_loaded_options options_for(const char *folder)
{
    return (br_loaded_options){.folder = folder, .devices = &devices, .seqs_max = SEQS_MAX};
}

static br_loaded *create(const br_loaded_options *options)
{
    br_loaded *loaded;
    br_error error = {0};
    if (br_loaded_create(&loaded, options, &error) != BR_OK) fail_msg("%s", error.text);
    return loaded;
}

/* Qualities of one prompt, [head_count], from that worker's encoder. */
static void score(br_loaded *loaded, int32_t worker, const char *text, float *quality)
{
    int32_t ids[BR_SEQ_TOKENS_MAX];
    br_prompt prompt;
    assert_int_equal(br_bundle_prompt_from_text(br_loaded_bundle(loaded), br_str_from(text), ids, &prompt),
                     BR_OK);
    br_packing packing;
    assert_int_equal(br_packing_init(&packing, TOKENS_MAX, 1), BR_OK);
    assert_true(br_packing_add(&packing, ids, prompt.tokens));
    assert_int_equal(br_loaded_run(loaded, worker, &packing, quality), BR_OK);
    br_packing_deinit(&packing);
}

static void test_every_worker_scores_alike(void **state)
{
    (void)state;
    const br_loaded_options options = options_for(service_tiny_bundle());
    br_loaded *loaded = create(&options);
    br_error error = {0};
    float quality[3][BR_CANDIDATES_MAX];
    for (int32_t i = 0; i < 3; i++) {
        if (br_loaded_open(loaded, i, &error) != BR_OK) fail_msg("%s", error.text);
        score(loaded, i, "hello", quality[i]);
    }
    const int32_t heads = br_loaded_bundle(loaded)->router.head_count;
    assert_memory_equal(quality[0], quality[1], (size_t)heads * sizeof(float));
    assert_memory_equal(quality[0], quality[2], (size_t)heads * sizeof(float)); /* of the other device */
    for (int32_t k = 0; k < heads; k++) assert_true(quality[0][k] > 0.0f && quality[0][k] < 1.0f);
    assert_true(br_loaded_weights_bytes(loaded) > 0);
    assert_true(br_loaded_encoders_bytes(loaded) > 0);
    assert_string_equal(br_loaded_folder(loaded), service_tiny_bundle());
    for (int32_t i = 0; i < 3; i++) br_loaded_close(loaded, i);
    assert_int_equal(br_loaded_encoders_bytes(loaded), 0);
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

static void test_only_the_last_release_says_so(void **state)
{
    (void)state;
    const br_loaded_options options = options_for(service_tiny_bundle());
    br_loaded *loaded = create(&options);
    br_loaded_retain(loaded);
    br_loaded_retain(loaded);
    assert_false(br_loaded_release(loaded));
    assert_false(br_loaded_release(loaded));
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
    br_loaded_destroy(NULL);
}

static void test_a_batch_smaller_than_a_prompt_is_refused(void **state)
{
    (void)state;
    br_loaded_options options = options_for(service_tiny_bundle());
    br_loaded *loaded;
    br_error error = {0};
    devices.items[1].tokens_max = 127;
    assert_int_equal(br_loaded_create(&loaded, &options, &error), BR_EINVAL);
    assert_null(loaded);
    assert_non_null(strstr(error.text, "max_tokens is 128"));
    assert_non_null(strstr(error.text, "127"));
    devices.items[1].tokens_max = 128; /* exactly one prompt; then the probe's prompts go as they fit */
    loaded = create(&options);
    assert_int_equal(br_loaded_open(loaded, 2, &error), BR_OK);
    br_loaded_close(loaded, 2);
    devices.items[1].tokens_max = TOKENS_MAX;
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

static void test_one_sequence_a_batch_is_enough_for_the_probe(void **state)
{
    (void)state;
    br_loaded_options options = options_for(service_tiny_bundle());
    options.seqs_max = 1;
    br_loaded *loaded = create(&options);
    br_error error = {0};
    if (br_loaded_open(loaded, 1, &error) != BR_OK) fail_msg("%s", error.text);
    br_loaded_close(loaded, 1);
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

static void test_a_folder_that_is_no_bundle_is_refused_by_name(void **state)
{
    (void)state;
    const br_loaded_options options = options_for("/nowhere");
    br_loaded *loaded;
    br_error error = {0};
    assert_int_equal(br_loaded_create(&loaded, &options, &error), BR_EIO);
    assert_null(loaded);
    assert_non_null(strstr(error.text, "/nowhere"));
}

static void test_without_a_backend_there_is_no_encoder(void **state)
{
    (void)state;
    br_loaded_options options = options_for(service_tiny_bundle());
    br_devices none = {0};
    assert_int_equal(br_devices_add(&none, NULL, 1), BR_OK);
    br_devices_fit(&none, TOKENS_MAX, 1);
    options.devices = &none;
    br_loaded *loaded = create(&options);
    br_error error = {0};
    assert_int_equal(br_loaded_open(loaded, 0, &error), BR_OK);
    float quality[BR_CANDIDATES_MAX];
    score(loaded, 0, "hello", quality);
    for (int32_t k = 0; k < br_loaded_bundle(loaded)->router.head_count; k++)
        assert_true(quality[k] == BR_NOOP_QUALITY);
    assert_int_equal(br_loaded_weights_bytes(loaded), 0);
    br_loaded_close(loaded, 0);
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

static void test_a_device_is_left_out_dropped_and_restored(void **state)
{
    (void)state;
    br_loaded_options options = options_for(service_tiny_bundle());
    options.without = 2;
    br_loaded *loaded = create(&options);
    br_error error = {0};
    float quality[2][BR_CANDIDATES_MAX];
    assert_int_equal(br_loaded_open(loaded, 0, &error), BR_OK);
    score(loaded, 0, "hello", quality[0]);
    for (int round = 0; round < 2; round++) {
        if (br_loaded_restore(loaded, 1, &error) != BR_OK) fail_msg("%s", error.text);
        assert_int_equal(br_loaded_open(loaded, 2, &error), BR_OK);
        score(loaded, 2, "hello", quality[1]);
        assert_true(quality[0][0] == quality[1][0]);
        br_loaded_close(loaded, 2);
        br_loaded_drop(loaded, 1);
    }
    br_loaded_close(loaded, 0);
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

static void test_a_folder_that_changed_restores_nothing(void **state)
{
    (void)state;
    char folder[256];
    bundle_copy(folder, sizeof folder, "", "");
    br_loaded_options options = options_for(folder);
    options.without = 2;
    br_loaded *loaded = create(&options);
    char *command = NULL;
    assert_true(asprintf(&command, "printf ' ' >>%s/router.json", folder) > 0);
    assert_int_equal(system(command), 0);
    free(command);
    br_error error = {0};
    assert_int_equal(br_loaded_restore(loaded, 1, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "has changed"));
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
    folder_remove(folder);
}

static void test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    const br_loaded_options options = options_for(service_tiny_bundle());
    br_loaded *loaded = create(&options);
    br_status status = BR_EINTERNAL;
    BR_OOM_SWEEP({
        br_error error = {0};
        status = br_loaded_open(loaded, 0, &error);
        if (status == BR_OK) br_loaded_close(loaded, 0);
    });
    assert_int_equal(status, BR_OK);
    assert_true(br_loaded_release(loaded));
    br_loaded_destroy(loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_worker_scores_alike),
        cmocka_unit_test(test_only_the_last_release_says_so),
        cmocka_unit_test(test_a_batch_smaller_than_a_prompt_is_refused),
        cmocka_unit_test(test_one_sequence_a_batch_is_enough_for_the_probe),
        cmocka_unit_test(test_a_folder_that_is_no_bundle_is_refused_by_name),
        cmocka_unit_test(test_without_a_backend_there_is_no_encoder),
        cmocka_unit_test(test_a_device_is_left_out_dropped_and_restored),
        cmocka_unit_test(test_a_folder_that_changed_restores_nothing),
        cmocka_unit_test(test_every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
