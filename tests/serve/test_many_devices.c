/*
 * test_many_devices.c - one service over all CUDA devices at hand: weights that were handed from device to
 * device score as those read from the file do, and a device that fails is reset, filled again and taken in
 * again.
 *
 * Skipped aloud where there are fewer than two devices.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "engine/engines.h"
#include "serve/service.h"
#include "support/service_fixture.h"
#include "workers/workers.h"

static void ask(peer *p, peer_answer *a)
{
    br_query queries[3] = {text_query("hello"), text_query("good evening"), text_query("and so on")};
    const br_request request = {.op = BR_OP_SCORE, .queries = queries, .query_count = 3};
    peer_ask(p, a, &request);
    assert_true(a->reply.ok);
}

static void assert_same(const peer_answer *a, const peer_answer *b)
{
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(a->reply.results[i].code, BR_CODE_NONE);
        assert_int_equal(a->reply.results[i].quality_count, b->reply.results[i].quality_count);
        for (size_t k = 0; k < a->reply.results[i].quality_count; k++)
            assert_float_equal(a->reply.results[i].qualities[k], b->reply.results[i].qualities[k], 1e-5);
    }
}

static void ask_and_compare(peer *p, const peer_answer *expected)
{
    peer_answer a = {0};
    ask(p, &a);
    assert_same(&a, expected);
    answer_free(&a);
}

/* A service on these devices, the first of which can be made to fail. */
static void start(service *s, peer *p, const char *devices)
{
    char flag[64];
    (void)snprintf(flag, sizeof flag, "--devices=%s", devices);
    service_listen(s, (const char *const[]){"--engine=cuda", "--precision=f32", "--workers=1", flag, NULL});
    service_plant_faults(s, 0);
    service_load(s);
    peer_open(p, s->url);
}

static void start_all(service *s, peer *p)
{
    start(s, p, "auto");
    assert_int_equal(s->server->devices.count, br_engine_devices(BR_ENGINE_CUDA));
}

static void stop(service *s, peer *p)
{
    peer_close(p);
    service_stop(s);
    assert_int_equal(s->ran, BR_OK);
}

static void test_answers_do_not_depend_on_the_device(void **state)
{
    (void)state;
    service s;
    peer p;
    start_all(&s, &p);
    print_message("weights handed to %d of %d devices\n", (int)br_loaded_handed_out(s.server->state.current),
                  (int)s.server->devices.count);
    peer_answer expected = {0};
    ask(&p, &expected);
    for (int32_t i = 0; i < 8 * s.server->devices.count; i++) ask_and_compare(&p, &expected);
    answer_free(&expected);
    stop(&s, &p);
}

typedef struct scoring {
    br_loaded *loaded;
    const br_packing *batch;
    float quality[2 * BR_CANDIDATES_MAX];
    br_status status;
} scoring;

static void score_errand(void *context, int32_t worker)
{
    scoring *w = context;
    w->status = br_loaded_run(w->loaded, worker, w->batch, w->quality);
}

static void test_handed_out_weights_give_the_same_bits(void **state)
{
    (void)state;
    service s;
    peer p;
    start_all(&s, &p);
    br_loaded *loaded = s.server->state.current;
    const size_t heads = (size_t)br_loaded_bundle(loaded)->router.head_count;
    br_packing batch;
    assert_int_equal(br_packing_init(&batch, 256, 2), BR_OK);
    static const char *const texts[] = {"hello and good evening", "seven"};
    for (int i = 0; i < 2; i++) {
        int32_t ids[BR_SEQ_TOKENS_MAX];
        br_prompt prompt;
        assert_int_equal(
            br_bundle_prompt_from_text(br_loaded_bundle(loaded), br_str_from(texts[i]), ids, &prompt), BR_OK);
        assert_true(br_packing_add(&batch, ids, prompt.tokens));
    }
    scoring first = {.loaded = loaded, .batch = &batch};
    assert_true(br_workers_run_on(s.server->workers, 0, score_errand, &first));
    assert_int_equal(first.status, BR_OK);
    for (int32_t w = 1; w < s.server->devices.worker_count; w++) {
        scoring other = {.loaded = loaded, .batch = &batch};
        assert_true(br_workers_run_on(s.server->workers, w, score_errand, &other));
        assert_int_equal(other.status, BR_OK);
        assert_memory_equal(other.quality, first.quality, 2 * heads * sizeof(float));
    }
    br_packing_deinit(&batch);
    stop(&s, &p);
}

/* Loses the first device in the middle of a batch, and asks on until it is back. */
static void lose_and_recover(service *s, peer *p)
{
    peer_answer expected = {0};
    ask(p, &expected);
    atomic_store(&service_faults[0].failures, 2);
    for (int i = 0; service_counted(s, BR_COUNTER_devices_lost) == 0; i++) {
        ask_and_compare(p, &expected);
        assert_true(i < 10000);
    }
    assert_true(service_counted(s, BR_COUNTER_queries_retried) > 0);
    assert_int_equal(br_workers_out(s->server->workers), 1);
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (br_workers_out(s->server->workers) != 0) {
        ask_and_compare(p, &expected);
        if (br_clock_now_ns() > until_ns) fail_msg("the device never came back");
    }
    for (int32_t i = 0; i < 4 * s->server->devices.count; i++) ask_and_compare(p, &expected);
    answer_free(&expected);
}

static void test_a_failed_device_is_reset_filled_and_taken_in_again(void **state)
{
    (void)state;
    service s;
    peer p;
    start_all(&s, &p);
    lose_and_recover(&s, &p);
    stop(&s, &p);
}

static void test_the_hosts_cores_stand_in_for_the_only_accelerator(void **state)
{
    (void)state;
    service s;
    peer p;
    start(&s, &p, "1,cpu");
    assert_int_equal(s.server->devices.count, 2);
    assert_true(br_device_is_accelerator(&s.server->devices.items[0]));
    assert_false(br_device_is_accelerator(&s.server->devices.items[1]));
    lose_and_recover(&s, &p);
    stop(&s, &p);
}

static void test_wrong_numbers_of_devices_are_refused(void **state)
{
    (void)state;
    char beyond[64];
    (void)snprintf(beyond, sizeof beyond, "0,%d", (int)br_engine_devices(BR_ENGINE_CUDA));
    const char *const lists[] = {"0,0", beyond};
    const char *const says[] = {"named twice", "there is no device"};
    for (int i = 0; i < 2; i++) {
        const br_devices_options options = {
            .engine = BR_ENGINE_CUDA, .list = lists[i], .source = "the test", .gemm_cache = ""};
        br_devices devices;
        br_error error = {0};
        assert_int_equal(br_devices_open(&devices, &options, &error), BR_EINVAL);
        assert_non_null(strstr(error.text, says[i]));
    }
}

int main(void)
{
    if (br_engine_devices(BR_ENGINE_CUDA) < 2) {
        print_message("SKIPPED: there are fewer than two CUDA devices\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_do_not_depend_on_the_device),
        cmocka_unit_test(test_handed_out_weights_give_the_same_bits),
        cmocka_unit_test(test_a_failed_device_is_reset_filled_and_taken_in_again),
        cmocka_unit_test(test_the_hosts_cores_stand_in_for_the_only_accelerator),
        cmocka_unit_test(test_wrong_numbers_of_devices_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
