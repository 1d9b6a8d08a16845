/*
 * test_device_failure.c - a device that fails under the running service: once, and for good; alone, and
 * beside another that takes over until it is back.
 *
 * The reference engine plays the device.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "core/clock.h"
#include "serve/service.h"
#include "support/service_fixture.h"
#include "workers/workers.h"

/* A service whose first device can be made to fail. */
static void start_on(service *s, const char *devices, const char *folder)
{
    char flag[64];
    char bundle[600];
    (void)snprintf(flag, sizeof flag, "--devices=%s", devices);
    (void)snprintf(bundle, sizeof bundle, "--bundle=%s", folder);
    service_listen(s, (const char *const[]){flag, bundle, "--drain-timeout-ms=20000", NULL});
    service_plant_faults(s, 0);
    service_load(s);
}

static void start(service *s, const char *devices)
{
    start_on(s, devices, service_tiny_bundle());
}

static void ask(peer *p, peer_answer *a)
{
    br_query queries[3] = {text_query("hello"), text_query("good evening"), text_query("and so on")};
    const br_request request = {.op = BR_OP_ROUTE, .queries = queries, .query_count = 3};
    peer_ask(p, a, &request);
}

static void test_a_pass_that_fails_once_is_tried_again_and_answered_as_ever(void **state)
{
    (void)state;
    service s;
    peer p;
    start(&s, "auto");
    peer_open(&p, s.url);
    peer_answer before = {0};
    peer_answer after = {0};
    ask(&p, &before);
    atomic_store(&service_faults[0].failures, 1);
    ask(&p, &after);
    assert_int_equal(atomic_load(&service_faults[0].failures), 0);
    assert_true(after.reply.ok);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(after.reply.results[i].code, BR_CODE_NONE);
        assert_true(br_str_equal(after.reply.results[i].model, before.reply.results[i].model));
        assert_true(after.reply.results[i].quality == before.reply.results[i].quality);
    }
    answer_free(&before);
    answer_free(&after);
    peer_close(&p);
    service_stop(&s);
    assert_int_equal(s.ran, BR_OK);
}

static void test_a_lost_device_answers_with_errors_and_ends_the_service(void **state)
{
    (void)state;
    service s;
    peer p;
    start(&s, "auto");
    peer_open(&p, s.url);
    gate held;
    pending sent;
    peer_answer answer = {0};
    br_query query = text_query("hello");
    const br_request request = {.op = BR_OP_ROUTE, .queries = &query, .query_count = 1};

    gate_close(&held, &s);
    pending_send(&sent, &p, &request);
    service_wait_for_waiting(&s, 1);
    atomic_store(&service_faults[0].failures, 1000);
    gate_open(&held);
    pending_wait(&sent, &answer);
    assert_true(answer.reply.ok); /* the request was fine; its query was not */
    assert_int_equal(answer.reply.results[0].code, BR_CODE_INTERNAL);
    assert_true(answer.reply.results[0].message.size > 0);

    service_join(&s); /* it stops by itself */
    assert_int_equal(s.ran, BR_EDEVICE);
    (void)fflush(s.log_stream);
    assert_non_null(strstr(s.log_text, "device_lost"));
    answer_free(&answer);
    peer_close(&p);
    service_stop(&s);
}

/* Two devices with a worker each, of which the first can be made to fail; and what both answer. */
typedef struct pair {
    service s;
    peer p;
    peer_answer expected;
} pair;

static void pair_open_on(pair *two, const char *folder)
{
    start_on(&two->s, "cpu,cpu", folder);
    assert_int_equal(two->s.server->devices.count, 2);
    peer_open(&two->p, two->s.url);
    two->expected = (peer_answer){0};
    ask(&two->p, &two->expected);
}

static void pair_open(pair *two)
{
    pair_open_on(two, service_tiny_bundle());
}

static void pair_close(pair *two)
{
    answer_free(&two->expected);
    peer_close(&two->p);
    service_stop(&two->s);
}

static void assert_same_answer(const peer_answer *a, const peer_answer *b)
{
    assert_true(a->reply.ok);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(a->reply.results[i].code, BR_CODE_NONE);
        assert_true(a->reply.results[i].quality == b->reply.results[i].quality);
    }
}

static void ask_and_compare(peer *p, const peer_answer *expected)
{
    peer_answer a = {0};
    ask(p, &a);
    assert_same_answer(&a, expected);
    answer_free(&a);
}

/* Asks until the first device has failed and is out. */
static void lose_the_first(pair *two)
{
    atomic_store(&service_faults[0].failures, 1000000);
    for (int i = 0; service_counted(&two->s, BR_COUNTER_devices_lost) == 0; i++) {
        ask_and_compare(&two->p, &two->expected);
        assert_true(i < 100000);
    }
    assert_int_equal(br_workers_out(two->s.server->workers), 1);
}

static void test_the_other_device_answers_and_the_failed_one_comes_back(void **state)
{
    (void)state;
    pair two;
    pair_open(&two);
    lose_the_first(&two);
    assert_true(service_counted(&two.s, BR_COUNTER_queries_retried) > 0);
    ask_and_compare(&two.p, &two.expected);
    atomic_store(&service_faults[0].failures, 0);
    service_wait_counted(&two.s, BR_COUNTER_devices_readmitted, 1);
    while (br_workers_out(two.s.server->workers) != 0) nng_msleep(1);
    ask_and_compare(&two.p, &two.expected);
    pair_close(&two);
    assert_int_equal(two.s.ran, BR_OK);
}

enum { SLOW_MS = 150 };

/* The reply times the pass that computed the query, not the two before it that failed. */
static void test_the_clock_of_a_query_that_is_tried_again_starts_again(void **state)
{
    (void)state;
    pair two;
    peer_answer a = {0};
    br_query query = text_query("hello");
    const br_request request = {.op = BR_OP_ROUTE, .queries = &query, .query_count = 1};
    pair_open(&two);
    atomic_store(&service_faults[0].slow_ms, SLOW_MS);
    atomic_store(&service_faults[0].failures, 1000000);
    for (int i = 0; service_counted(&two.s, BR_COUNTER_queries_retried) == 0; i++) {
        answer_free(&a);
        peer_ask(&two.p, &a, &request);
        assert_true(i < 100000);
    }
    assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
    assert_true(a.reply.has_timing);
    const br_timing *timing = &a.reply.timing;
    assert_true(timing->queue_us + timing->compute_us + 2 * SLOW_MS * 1000 <= timing->total_us);
    assert_int_equal(timing->batch, 1);
    answer_free(&a);
    pair_close(&two);
}

static bool has_logged(service *s, const char *text)
{
    (void)fflush(s->log_stream);
    return strstr(s->log_text, text) != NULL;
}

static void wait_logged(service *s, const char *text)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (!has_logged(s, text)) {
        if (br_clock_now_ns() > until_ns) fail_msg("\"%s\" was never logged", text);
        nng_msleep(10);
    }
}

static void test_a_device_that_fails_its_probe_stays_out(void **state)
{
    (void)state;
    pair two;
    pair_open(&two);
    lose_the_first(&two);
    wait_logged(&two.s, "device_still_lost");
    assert_int_equal(br_workers_out(two.s.server->workers), 1);
    assert_int_equal(service_counted(&two.s, BR_COUNTER_devices_readmitted), 0);
    pair_close(&two);
}

static void test_a_reload_passes_a_lost_device_over_and_it_comes_back_with_the_new_bundle(void **state)
{
    (void)state;
    pair two;
    pair_open(&two);
    lose_the_first(&two);
    service_reload(&two.s);
    atomic_store(&service_faults[0].failures, 0);
    service_wait_counted(&two.s, BR_COUNTER_devices_readmitted, 1);
    service_reload(&two.s);
    ask_and_compare(&two.p, &two.expected);
    pair_close(&two);
    assert_int_equal(two.s.ran, BR_OK);
}

/* A device gets its weights back from the folder, which must still hold the bundle that the others compute
 * with. */
static void test_a_device_stays_out_while_its_folder_holds_another_bundle(void **state)
{
    (void)state;
    static const char price[] = "\"output_price\": 1.5e-05";
    char folder[64];
    bundle_copy(folder, sizeof folder, price, price);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/router.json", folder);
    pair two;
    pair_open_on(&two, folder);
    lose_the_first(&two);
    FILE *file = fopen(path, "ab");
    assert_non_null(file);
    const long size = ftell(file);
    (void)fputc('\n', file);
    (void)fclose(file);
    atomic_store(&service_faults[0].failures, 0);
    wait_logged(&two.s, "the bundle has changed since it was loaded");
    assert_int_equal(br_workers_out(two.s.server->workers), 1);

    assert_int_equal(truncate(path, size), 0);
    service_wait_counted(&two.s, BR_COUNTER_devices_readmitted, 1);
    ask_and_compare(&two.p, &two.expected);
    pair_close(&two);
    assert_int_equal(two.s.ran, BR_OK);
    folder_remove(folder);
}

/* Both workers' devices fail with the same query: the first device is taken out, the last one stays, and the
 * query is answered with an error. */
static void test_a_query_fails_only_when_a_second_device_failed_with_it(void **state)
{
    (void)state;
    pair two;
    pair_open(&two);
    service_plant_faults(&two.s, 1);
    service_reload(&two.s); /* encoders of the second keep the failing table now */
    for (int32_t i = 0; i < 2; i++) atomic_store(&service_faults[i].failures, 1000000);
    peer_answer answer = {0};
    br_query query = text_query("hello");
    const br_request request = {.op = BR_OP_ROUTE, .queries = &query, .query_count = 1};
    peer_ask(&two.p, &answer, &request);
    assert_true(answer.reply.ok);
    assert_int_equal(answer.reply.results[0].code, BR_CODE_INTERNAL);
    assert_int_equal(service_counted(&two.s, BR_COUNTER_queries_retried), 1);
    service_join(&two.s);
    assert_int_equal(two.s.ran, BR_EDEVICE);
    answer_free(&answer);
    pair_close(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pass_that_fails_once_is_tried_again_and_answered_as_ever),
        cmocka_unit_test(test_a_lost_device_answers_with_errors_and_ends_the_service),
        cmocka_unit_test(test_the_other_device_answers_and_the_failed_one_comes_back),
        cmocka_unit_test(test_the_clock_of_a_query_that_is_tried_again_starts_again),
        cmocka_unit_test(test_a_device_that_fails_its_probe_stays_out),
        cmocka_unit_test(test_a_reload_passes_a_lost_device_over_and_it_comes_back_with_the_new_bundle),
        cmocka_unit_test(test_a_device_stays_out_while_its_folder_holds_another_bundle),
        cmocka_unit_test(test_a_query_fails_only_when_a_second_device_failed_with_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
