/* test_metrics.c - counters and the estimate of waiting times. */
#include "workers/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_counters_have_names_and_grow(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    assert_string_equal(br_counter_name(BR_COUNTER_requests), "requests");
    assert_string_equal(br_counter_name(BR_COUNTER_reloads_failed), "reloads_failed");
    for (br_counter i = 0; i < BR_COUNTER_COUNT; i++) {
        assert_non_null(br_counter_name(i));
        assert_true(*br_counter_help(i) != '\0');
        br_metrics_add(&m, i, i + 1);
        br_metrics_add(&m, i, 1);
    }
    for (br_counter i = 0; i < BR_COUNTER_COUNT; i++) assert_int_equal(br_metrics_get(&m, i), i + 2);
}

static void test_a_refusal_is_counted_by_its_code(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    br_metrics_refused(&m, BR_CODE_OVERLOADED);
    br_metrics_refused(&m, BR_CODE_OVERLOADED);
    br_metrics_refused(&m, BR_CODE_DEADLINE);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_overloaded), 2);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_deadline), 1);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_requests_failed), 3);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_bad_request), 0);
}

static void test_a_pass_counts_queries_tokens_and_time(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    br_metrics_pass(&m, 0, 4, 100, 8000);
    br_metrics_pass(&m, 0, 1, 10, 1000);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_batches), 2);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_queries_scored), 5);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_tokens), 110);
    assert_int_equal(br_metrics_get(&m, BR_COUNTER_compute_ns), 9000);
}

static void test_a_pass_is_told_apart_by_device(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    br_metrics_pass(&m, 0, 4, 100, 8000);
    br_metrics_pass(&m, 1, 1, 10, 30000);
    br_metrics_pass(&m, BR_DEVICES_MAX - 1, BR_BATCH_SEQS_MAX, BR_BATCH_TOKENS_MAX, 1);
    assert_int_equal(br_histogram_count(&m.passes[0][BR_HISTOGRAM_pass_queries], 2), 1);
    assert_int_equal(br_histogram_sum(&m.passes[0][BR_HISTOGRAM_pass_tokens]), 100);
    assert_int_equal(br_histogram_sum(&m.passes[0][BR_HISTOGRAM_pass]), 8000);
    assert_int_equal(br_histogram_sum(&m.passes[1][BR_HISTOGRAM_pass]), 30000);
    assert_int_equal(br_histogram_sum(&m.passes[2][BR_HISTOGRAM_pass]), 0);
    assert_int_equal(br_histogram_sum(&m.passes[BR_DEVICES_MAX - 1][BR_HISTOGRAM_pass_tokens]),
                     BR_BATCH_TOKENS_MAX);
}

static void test_a_request_is_counted_in_each_of_its_times(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    br_metrics_request(&m, (const uint64_t[BR_REQUEST_HISTOGRAM_COUNT]){
                               [BR_HISTOGRAM_request] = 20000, [BR_HISTOGRAM_request_queue] = 10001});
    assert_int_equal(br_histogram_count(&m.requests[BR_HISTOGRAM_request], 1), 1);
    assert_int_equal(br_histogram_count(&m.requests[BR_HISTOGRAM_request_queue], 1), 1);
    assert_int_equal(br_histogram_count(&m.requests[BR_HISTOGRAM_request_compute], 0), 1);
    assert_int_equal(br_histogram_sum(&m.requests[BR_HISTOGRAM_request]), 20000);
}

static void test_retry_ms_is_the_queue_at_the_measured_rate(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    assert_int_equal(br_metrics_retry_ms(&m, 100, 2), BR_RETRY_MS_UNKNOWN);
    br_metrics_pass(&m, 0, 2, 64, 20000000); /* 10 ms a query */
    assert_int_equal(br_metrics_retry_ms(&m, 100, 1), 1000);
    assert_int_equal(br_metrics_retry_ms(&m, 100, 2), 500);
    assert_int_equal(br_metrics_retry_ms(&m, 0, 2), BR_RETRY_MS_MIN);
    assert_int_equal(br_metrics_retry_ms(&m, 1000000, 1), BR_RETRY_MS_MAX);
}

static void test_the_average_follows_a_change_and_never_becomes_unknown_again(void **state)
{
    (void)state;
    br_metrics m;
    br_metrics_init(&m);
    br_metrics_pass(&m, 0, 1, 1, 80000000);
    for (int i = 0; i < 100; i++) br_metrics_pass(&m, 0, 1, 1, 8000000);
    const uint64_t ms = br_metrics_retry_ms(&m, 100, 1);
    assert_in_range(ms, 790, 810);
    for (int i = 0; i < 1000; i++) br_metrics_pass(&m, 0, 1, 1, 0);
    assert_int_equal(br_metrics_retry_ms(&m, 1, 1), BR_RETRY_MS_MIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters_have_names_and_grow),
        cmocka_unit_test(test_a_refusal_is_counted_by_its_code),
        cmocka_unit_test(test_a_pass_counts_queries_tokens_and_time),
        cmocka_unit_test(test_a_pass_is_told_apart_by_device),
        cmocka_unit_test(test_a_request_is_counted_in_each_of_its_times),
        cmocka_unit_test(test_retry_ms_is_the_queue_at_the_measured_rate),
        cmocka_unit_test(test_the_average_follows_a_change_and_never_becomes_unknown_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
