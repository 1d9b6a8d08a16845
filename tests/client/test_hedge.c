/* test_hedge.c - hedged requests, closing, and everything at once, over several scripted services. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "fleet_fixture.h"

enum { CHAOS_THREADS = 6, CHAOS_ROUNDS = 6 };

static void test_a_hedge_that_is_faster_wins(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 3000}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 30});
    const uint64_t start_ns = br_clock_now_ns();
    fleet_route_well(&f, 1);
    assert_true(fleet_ms_since(start_ns) >= 29 && fleet_ms_since(start_ns) < 2900);
    assert_int_equal(fleet_totals(&f).hedges, 1);
    assert_int_equal(fleet_totals(&f).hedges_won, 1);
    assert_int_equal(fleet_totals(&f).retries, 0);
    assert_int_equal(fleet_endpoint(&f, 0).abandoned, 1);
    assert_int_equal(fleet_endpoint(&f, 0).outstanding, 0);
    assert_int_equal(fleet_endpoint(&f, 1).answered, 1);
    fleet_stop(&f);
}

static void test_an_original_that_is_faster_wins(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 300}, {.delay_ms = 3000}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 30});
    const uint64_t start_ns = br_clock_now_ns();
    fleet_route_well(&f, 1);
    assert_true(fleet_ms_since(start_ns) < 2900);
    assert_int_equal(fleet_totals(&f).hedges, 1);
    assert_int_equal(fleet_totals(&f).hedges_won, 0);
    assert_int_equal(fleet_endpoint(&f, 0).answered, 1);
    assert_int_equal(fleet_endpoint(&f, 1).abandoned, 1);
    fleet_stop(&f);
}

static void test_a_hedge_that_fails_leaves_the_original_and_the_other_way_round(void **state)
{
    (void)state;
    static const struct {
        fake fakes[2];
        size_t answers;
    } cases[] = {
        {{{.delay_ms = 300}, {.closes = 1}}, 0},
        {{{.delay_ms = 300}, {.refusal = BR_CODE_OVERLOADED, .refusals = 1}}, 0},
        {{{.delay_ms = 100, .closes = 1}, {.delay_ms = 300}}, 1},
        {{{.delay_ms = 100, .refusal = BR_CODE_NOT_READY, .refusals = 1}, {.delay_ms = 300}}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fleet f = {.count = 2, .fakes = {cases[i].fakes[0], cases[i].fakes[1]}};
        fleet_start(&f, (br_client_options){.hedge_ms = 30});
        fleet_route_well(&f, 1);
        assert_int_equal(fleet_endpoint(&f, cases[i].answers).answered, 1);
        assert_int_equal(fleet_asked_in_all(&f), 2); /* no retry was needed */
        assert_int_equal(fleet_totals(&f).hedges, 1);
        assert_int_equal(fleet_totals(&f).hedges_won, cases[i].answers);
        fleet_stop(&f);
    }
}

static void test_when_original_and_hedge_both_fail_the_call_goes_on(void **state)
{
    (void)state;
    fleet f = {.count = 3, .fakes = {{.delay_ms = 200, .closes = 1}, {.delay_ms = 100, .closes = 1}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 30});
    fleet_route_well(&f, 1);
    assert_int_equal(fleet_asked(&f, 2), 1);
    assert_int_equal(fleet_totals(&f).hedges, 1);
    assert_int_equal(fleet_totals(&f).retries, 1);
    fleet_stop(&f);
}

static void test_hedges_are_a_bounded_share_of_the_calls(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 15}, {.delay_ms = 15}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 1, .hedge_percent = 5});
    fleet_route_well(&f, 60);
    assert_int_equal(fleet_totals(&f).hedges, 10 + 59 * 5 / 100);
    fleet_stop(&f);
}

static void test_nobody_is_hedged_to_an_endpoint_that_rests(void **state)
{
    (void)state;
    fleet f = {
        .count = 2,
        .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000}, {.delay_ms = 900}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 300});
    fleet_route_well(&f, 2);
    assert_int_equal(fleet_totals(&f).hedges, 0);
    assert_int_equal(fleet_asked(&f, 0), 1);
    fleet_stop(&f);
}

/* Both endpoints refuse, the hedge's first. The retry goes to that endpoint again, and does not count as a
 * hedge. */
static void test_a_retry_where_the_hedge_went_wins_as_itself(void **state)
{
    (void)state;
    fleet f = {.count = 2,
               .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000, .delay_ms = 300},
                         {.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 1}}};
    fleet_start(&f, (br_client_options){.hedge_ms = 30});
    fleet_route_well(&f, 1);
    assert_int_equal(fleet_asked(&f, 1), 2);
    assert_int_equal(fleet_totals(&f).hedges, 1);
    assert_int_equal(fleet_totals(&f).hedges_won, 0);
    assert_int_equal(fleet_totals(&f).retries, 1);
    fleet_stop(&f);
}

static void test_closing_ends_the_calls_in_flight(void **state)
{
    (void)state;
    enum { CALLS = 5 };
    fleet f = {.count = 2, .fakes = {{.silent = true}, {.silent = true}}};
    fleet_start(&f, (br_client_options){.timeout_ms = 120000, .probe_ms = 60000});
    aside calls[CALLS];
    for (int i = 0; i < CALLS; i++) fleet_begin_aside(&calls[i], &f);
    const uint64_t start_ns = br_clock_now_ns();
    while (fleet_asked_in_all(&f) < CALLS && fleet_ms_since(start_ns) < FLEET_PATIENCE_MS) fleet_pause_ms(2);
    br_client_close(f.client);
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(fleet_end_aside(&calls[i]), BR_ECLOSED);
        assert_string_equal(calls[i].error.text, "the client was closed");
    }
    assert_true(fleet_ms_since(start_ns) < 60000);
    for (size_t i = 0; i < f.count; i++) fake_stop(&f.fakes[i]);
}

static void test_closing_ends_the_calls_that_wait_for_an_endpoint(void **state)
{
    (void)state;
    fleet f = {.count = 1};
    fleet_start(&f, (br_client_options){.timeout_ms = 120000});
    fake_stop(&f.fakes[0]);
    while (fleet_is_connected(&f, 0)) fleet_pause_ms(2);
    aside call;
    fleet_begin_aside(&call, &f);
    while (fleet_totals(&f).calls < 1) fleet_pause_ms(2);
    br_client_close(f.client);
    assert_int_equal(fleet_end_aside(&call), BR_ECLOSED);
}

static void test_wrong_options_are_refused(void **state)
{
    (void)state;
    static const char *const urls[BR_CLIENT_URLS_MAX + 1] = {"inproc://a", "inproc://b", NULL};
    static const struct {
        br_client_options options;
        const char *text;
    } cases[] = {
        {{.urls = urls}, "there is no url"},
        {{.urls = urls, .url_count = 3}, "urls[2] is NULL"},
        {{.urls = urls, .url_count = BR_CLIENT_URLS_MAX + 1}, "65 urls, at most 64 are allowed"},
        {{.url = "inproc://a", .urls = urls, .url_count = 2}, "both url and urls are given"},
        {{.urls = urls, .url_count = 2, .hedge_percent = 101}, "hedge_percent is over 100"},
        {{.urls = urls, .url_count = 2, .hedge_ms = 1u << 31}, "hedge_ms is over 2147483647"},
        {{.urls = urls, .url_count = 2, .tls_ca = "ca.pem"},
         "inproc://a: tls options are for tls+tcp:// alone"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_client *client = (br_client *)(uintptr_t)1;
        br_error error = {0};
        assert_int_equal(br_client_connect(&client, &cases[i].options, &error), BR_EINVAL);
        assert_null(client);
        assert_string_equal(error.text, cases[i].text);
    }
}

static void test_a_reload_goes_to_one_service_and_is_never_sent_again(void **state)
{
    (void)state;
    fleet f = {.count = 2};
    fleet_start(&f, (br_client_options){0});
    br_answer *answer = (br_answer *)&f;
    br_error error = {0};
    assert_int_equal(br_client_reload(f.client, &answer, NULL, &error), BR_EINVAL);
    assert_null(answer);
    assert_int_equal(fleet_asked_in_all(&f), 0);
    fleet_stop(&f);

    f = (fleet){.count = 1, .fakes = {{.url = "inproc://admin-once", .closes = 1}}};
    fleet_start(&f, (br_client_options){0});
    assert_int_equal(br_client_reload(f.client, NULL, NULL, &error), BR_EIO);
    assert_int_equal(fleet_asked(&f, 0), 1);
    fleet_stop(&f);
}

typedef struct caller {
    const fleet *fleet;
    atomic_bool *over;
    size_t size;
    int calls;
    int wrong;
} caller;

static void *call_until_over(void *context)
{
    caller *c = context;
    char text[CHAOS_THREADS + 1];
    memset(text, 'x', sizeof text);
    const br_client_query query = {.text = text, .text_bytes = c->size};
    while (!atomic_load(c->over)) {
        br_answer *answer;
        br_error error = {0};
        const br_status status = br_client_route(
            c->fleet->client, &answer, &(br_client_call){.queries = &query, .query_count = 1}, &error);
        if (status != BR_OK) print_message("%s\n", error.text);
        if (status != BR_OK || answer->results[0].n != c->size) c->wrong++;
        c->calls++;
        br_answer_free(answer);
    }
    return NULL;
}

static void test_threads_get_each_their_own_answers_while_services_come_and_go(void **state)
{
    (void)state;
    fleet f = {.count = 4};
    for (size_t i = 0; i < f.count; i++) f.fakes[i].refusal = BR_CODE_NOT_READY;
    fleet_start(&f, (br_client_options){.hedge_ms = 20});
    atomic_bool over = false;
    pthread_t threads[CHAOS_THREADS];
    caller callers[CHAOS_THREADS];
    for (size_t i = 0; i < CHAOS_THREADS; i++) {
        callers[i] = (caller){.fleet = &f, .over = &over, .size = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, call_until_over, &callers[i]), 0);
    }
    for (size_t round = 0; round < CHAOS_ROUNDS; round++) {
        const size_t victim = round % 3; /* the last one stays */
        atomic_store(&f.fakes[victim].refusals, -1);
        fleet_wait_until(fleet_is_ejected, &f, victim);
        atomic_store(&f.fakes[victim].refusals, 0);
        fleet_wait_until(fleet_is_usable, &f, victim);
    }
    atomic_store(&over, true);
    uint64_t calls = 0;
    for (size_t i = 0; i < CHAOS_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
        calls += (uint64_t)callers[i].calls;
    }
    uint64_t answered = 0;
    uint64_t abandoned = 0;
    for (size_t i = 0; i < f.count; i++) {
        assert_int_equal(fleet_endpoint(&f, i).outstanding, 0);
        answered += fleet_endpoint(&f, i).answered;
        abandoned += fleet_endpoint(&f, i).abandoned;
    }
    assert_int_equal(fleet_totals(&f).calls, calls);
    assert_int_equal(answered, calls); /* each call has exactly one */
    assert_true(abandoned <= fleet_totals(&f).hedges);
    fleet_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_hedge_that_is_faster_wins),
        cmocka_unit_test(test_an_original_that_is_faster_wins),
        cmocka_unit_test(test_a_hedge_that_fails_leaves_the_original_and_the_other_way_round),
        cmocka_unit_test(test_when_original_and_hedge_both_fail_the_call_goes_on),
        cmocka_unit_test(test_hedges_are_a_bounded_share_of_the_calls),
        cmocka_unit_test(test_nobody_is_hedged_to_an_endpoint_that_rests),
        cmocka_unit_test(test_a_retry_where_the_hedge_went_wins_as_itself),
        cmocka_unit_test(test_closing_ends_the_calls_in_flight),
        cmocka_unit_test(test_closing_ends_the_calls_that_wait_for_an_endpoint),
        cmocka_unit_test(test_wrong_options_are_refused),
        cmocka_unit_test(test_a_reload_goes_to_one_service_and_is_never_sent_again),
        cmocka_unit_test(test_threads_get_each_their_own_answers_while_services_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
