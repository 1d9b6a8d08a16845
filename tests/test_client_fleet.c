/* test_client_fleet.c - the client library over several scripted services. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "bestroute/client.h"
#include "bestroute/clock.h"
#include "fake_service.h"

enum {
    FAKES_MAX = 4,
    PATIENCE_MS = 150000, /* for what must happen, on a busy machine */
    CHAOS_THREADS = 6,
    CHAOS_ROUNDS = 6,
};

typedef struct fleet {
    fake fakes[FAKES_MAX];
    size_t count;
    br_client *client;
} fleet;

static const br_client_query one_query = {.text = "four", .text_bytes = 4};
static const br_client_call one_call = {.queries = &one_query, .query_count = 1};

static double ms_since(uint64_t start_ns)
{
    return (double)(br_clock_now_ns() - start_ns) / BR_NS_PER_MS;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * BR_NS_PER_MS}, NULL);
}

static br_client_endpoint endpoint(const fleet *f, size_t index)
{
    br_client_endpoint all[FAKES_MAX];
    assert_int_equal(br_client_stats(f->client, NULL, all, FAKES_MAX), f->count);
    assert_string_equal(all[index].url, f->fakes[index].url);
    assert_int_equal(all[index].sent, all[index].outstanding + all[index].answered + all[index].refused +
                                          all[index].failed + all[index].abandoned);
    return all[index];
}

static br_client_totals totals(const fleet *f)
{
    br_client_totals all;
    (void)br_client_stats(f->client, &all, NULL, 0);
    return all;
}

typedef bool condition(const fleet *f, size_t index);

static bool is_connected(const fleet *f, size_t index)
{
    return endpoint(f, index).connected;
}

static bool is_usable(const fleet *f, size_t index)
{
    return endpoint(f, index).connected && !endpoint(f, index).ejected;
}

static bool is_ejected(const fleet *f, size_t index)
{
    return endpoint(f, index).ejected;
}

static bool is_asked(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].requests) > atomic_load(&f->fakes[index].pings);
}

static bool is_pinged(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].pings) > 0;
}

static void wait_until(condition *holds, const fleet *f, size_t index)
{
    const uint64_t start_ns = br_clock_now_ns();
    while (!holds(f, index)) {
        if (ms_since(start_ns) > PATIENCE_MS) fail_msg("endpoint %zu: not in time", index);
        pause_ms(2);
    }
}

/* Starts f->count services as scripted, and connects to all of them. */
static void start(fleet *f, br_client_options options)
{
    const char *urls[FAKES_MAX];
    for (size_t i = 0; i < f->count; i++) {
        f->fakes[i].is_fleet = true;
        fake_start(&f->fakes[i]);
        urls[i] = f->fakes[i].url;
    }
    options.urls = urls;
    options.url_count = f->count;
    if (options.timeout_ms == 0) options.timeout_ms = PATIENCE_MS;
    br_error error = {0};
    assert_int_equal(br_client_connect(&f->client, &options, &error), BR_OK);
    for (size_t i = 0; i < f->count; i++) wait_until(is_connected, f, i);
}

static void stop(fleet *f)
{
    br_client_close(f->client);
    for (size_t i = 0; i < f->count; i++) fake_stop(&f->fakes[i]);
}

static int asked(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].requests) - atomic_load(&f->fakes[index].pings);
}

static int asked_in_all(const fleet *f)
{
    int sum = 0;
    for (size_t i = 0; i < f->count; i++) sum += asked(f, i);
    return sum;
}

static br_status route(const fleet *f, br_error *error)
{
    br_answer *answer;
    const br_status status = br_client_route(f->client, &answer, &one_call, error);
    if (status == BR_OK) assert_int_equal(answer->results[0].n, one_query.text_bytes);
    assert_true((status == BR_OK) == (answer != NULL));
    br_answer_free(answer);
    return status;
}

static void route_well(const fleet *f, int times)
{
    for (int i = 0; i < times; i++) {
        br_error error = {0};
        if (route(f, &error) != BR_OK) fail_msg("call %d: %s", i, error.text);
        assert_string_equal(error.text, "");
    }
}

/* A call on a thread of its own. */
typedef struct aside {
    const fleet *fleet;
    pthread_t thread;
    br_status status;
    br_error error;
} aside;

static void *route_aside(void *context)
{
    aside *a = context;
    a->status = route(a->fleet, &a->error);
    return NULL;
}

static void begin_aside(aside *a, const fleet *f)
{
    *a = (aside){.fleet = f};
    assert_int_equal(pthread_create(&a->thread, NULL, route_aside, a), 0);
}

static br_status end_aside(aside *a)
{
    pthread_join(a->thread, NULL);
    return a->status;
}

/* Choice. */

static void test_idle_endpoints_take_turns(void **state)
{
    (void)state;
    fleet f = {.count = 3};
    start(&f, (br_client_options){0});
    route_well(&f, 9);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(asked(&f, i), 3);
        assert_int_equal(endpoint(&f, i).answered, 3);
    }
    assert_int_equal(totals(&f).calls, 9);
    assert_int_equal(totals(&f).retries, 0);
    stop(&f);
}

static void test_a_busy_endpoint_is_left_alone_while_others_are_idle(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 600}}};
    start(&f, (br_client_options){0});
    aside slow;
    begin_aside(&slow, &f); /* the first turn is endpoint 0's */
    wait_until(is_asked, &f, 0);
    assert_int_equal(endpoint(&f, 0).outstanding, 1);
    route_well(&f, 6);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 6);
    assert_int_equal(end_aside(&slow), BR_OK);
    assert_int_equal(endpoint(&f, 0).outstanding, 0);
    stop(&f);
}

/* Losing and regaining. */

static void test_a_lost_connection_is_asked_elsewhere_and_the_endpoint_comes_back(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = 1}}};
    start(&f, (br_client_options){0});
    route_well(&f, 1);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 1);
    assert_int_equal(totals(&f).retries, 1);
    assert_int_equal(endpoint(&f, 0).failed, 1);
    assert_int_equal(endpoint(&f, 0).ejections, 1);
    wait_until(is_usable, &f, 0);
    assert_true(is_pinged(&f, 0)); /* not before it answered one */
    route_well(&f, 4);
    assert_int_equal(asked(&f, 0), 3);
    stop(&f);
}

static void test_a_request_that_breaks_every_connection_ends(void **state)
{
    (void)state;
    fleet f = {.count = 4, .fakes = {{.closes = -1}, {.closes = -1}, {.closes = -1}, {.closes = -1}}};
    start(&f, (br_client_options){0});
    br_error error = {0};
    assert_int_equal(route(&f, &error), BR_EIO);
    assert_non_null(strstr(error.text, "broke"));
    assert_int_equal(asked_in_all(&f), 3);
    stop(&f);
}

static void test_a_restarted_service_gets_its_share_again(void **state)
{
    (void)state;
    fleet f = {.count = 3};
    start(&f, (br_client_options){0});
    fake_stop(&f.fakes[1]);
    route_well(&f, 6);
    wait_until(is_ejected, &f, 1);
    const int before = asked(&f, 1);
    route_well(&f, 6);
    assert_int_equal(asked(&f, 1), before);
    fake_start(&f.fakes[1]);
    wait_until(is_usable, &f, 1);
    route_well(&f, 6);
    assert_int_equal(asked(&f, 1), before + 2);
    stop(&f);
}

static void test_not_ready_goes_elsewhere_until_a_ping_is_answered(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.refusal = BR_CODE_NOT_READY, .refusals = -1}}};
    start(&f, (br_client_options){0});
    route_well(&f, 5);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 5);
    assert_int_equal(endpoint(&f, 0).refused, 1);
    assert_true(is_ejected(&f, 0));
    wait_until(is_pinged, &f, 0);
    assert_true(is_ejected(&f, 0));
    atomic_store(&f.fakes[0].refusals, 0);
    wait_until(is_usable, &f, 0);
    route_well(&f, 2);
    assert_int_equal(asked(&f, 0), 2);
    stop(&f);
}

static void test_not_ready_everywhere_is_the_answer(void **state)
{
    (void)state;
    fleet f = {.count = 2,
               .fakes = {{.refusal = BR_CODE_NOT_READY, .refusals = -1},
                         {.refusal = BR_CODE_NOT_READY, .refusals = -1}}};
    start(&f, (br_client_options){.connect_ms = 150});
    br_error error = {0};
    assert_int_equal(route(&f, &error), BR_ENOTREADY);
    assert_string_equal(error.text, "not_ready: as the script says");
    assert_int_equal(asked_in_all(&f), 2);
    const uint64_t start_ns = br_clock_now_ns();
    assert_int_equal(route(&f, &error), BR_ENOTREADY); /* nobody is asked, but waited for */
    assert_true(ms_since(start_ns) >= 149);
    assert_string_equal(error.text,
                        "not_ready: none of 2 endpoints was ready within 150 ms; 2 are connected");
    assert_int_equal(asked_in_all(&f), 2);
    stop(&f);
}

static void test_nobody_there_is_told_after_connect_ms_or_the_deadline(void **state)
{
    (void)state;
    static const char *const urls[] = {"tcp://127.0.0.1:9", "inproc://nobody-is-here"};
    br_client *client;
    br_error error = {0};
    const br_client_options options = {.urls = urls, .url_count = 2, .timeout_ms = 60000, .connect_ms = 200};
    assert_int_equal(br_client_connect(&client, &options, &error), BR_OK);
    br_answer *answer;
    uint64_t start_ns = br_clock_now_ns();
    assert_int_equal(br_client_route(client, &answer, &one_call, &error), BR_EIO);
    assert_true(ms_since(start_ns) >= 199 && ms_since(start_ns) < 10000);
    assert_string_equal(error.text, "no connection to any of 2 endpoints within 200 ms");

    br_client_call call = one_call;
    call.has_deadline = true;
    call.deadline_ms = 50;
    start_ns = br_clock_now_ns();
    assert_int_equal(br_client_route(client, &answer, &call, &error), BR_ETIMEDOUT);
    assert_true(ms_since(start_ns) >= 49 && ms_since(start_ns) < 10000);
    assert_string_equal(error.text, "deadline: no connection to any of 2 endpoints within 50 ms");
    br_client_close(client);
}

/* Silence. */

static void test_an_endpoint_that_takes_requests_and_never_replies_is_found_out(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.silent = true}}};
    start(&f, (br_client_options){.timeout_ms = 60000, .probe_ms = 200});
    const uint64_t start_ns = br_clock_now_ns();
    route_well(&f, 1);
    assert_true(ms_since(start_ns) >= 399 && ms_since(start_ns) < 30000);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 1);
    assert_true(is_ejected(&f, 0));
    route_well(&f, 3);
    assert_int_equal(asked(&f, 0), 1);
    atomic_store(&f.fakes[0].silent, false);
    wait_until(is_usable, &f, 0);
    route_well(&f, 2);
    assert_int_equal(asked(&f, 0), 2);
    stop(&f);
}

static void test_a_slow_endpoint_that_answers_pings_is_waited_for(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 900}}};
    start(&f, (br_client_options){.probe_ms = 200});
    route_well(&f, 1);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 0);
    assert_true(is_pinged(&f, 0));
    assert_int_equal(endpoint(&f, 0).ejections, 0);
    stop(&f);
}

static void test_bytes_that_are_no_reply_are_not_asked_for_again_and_eject_in_a_row(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.bytes = "hello", .byte_count = 5}}};
    start(&f, (br_client_options){0});
    br_error error = {0};
    int wrong = 0;
    for (int i = 0; i < 6; i++) {
        const br_status status = route(&f, &error);
        assert_true(status == BR_OK || status == BR_EFORMAT);
        wrong += status == BR_EFORMAT;
    }
    assert_int_equal(wrong, 3);
    assert_int_equal(asked_in_all(&f), 6);
    assert_int_equal(endpoint(&f, 0).ejections, 1);
    stop(&f);
}

/* Refusals. */

static void test_overloaded_goes_elsewhere_at_once_and_the_endpoint_rests(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000}}};
    start(&f, (br_client_options){.timeout_ms = 120000});
    const uint64_t start_ns = br_clock_now_ns();
    route_well(&f, 5);
    assert_true(ms_since(start_ns) < 30000);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 5);
    assert_int_equal(endpoint(&f, 0).refused, 1);
    assert_int_equal(endpoint(&f, 0).ejections, 0);
    assert_int_equal(totals(&f).retries, 1);
    stop(&f);
}

static void test_overloaded_everywhere_waits_for_the_first_retry_ms(void **state)
{
    (void)state;
    fleet f = {.count = 2,
               .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000},
                         {.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 150}}};
    start(&f, (br_client_options){.timeout_ms = 120000});
    const uint64_t start_ns = br_clock_now_ns();
    route_well(&f, 1);
    assert_true(ms_since(start_ns) >= 149 && ms_since(start_ns) < 30000);
    assert_int_equal(asked(&f, 0), 1);
    assert_int_equal(asked(&f, 1), 2);
    stop(&f);
}

static void test_overloaded_stays_so_when_the_retries_end(void **state)
{
    (void)state;
    static const struct {
        uint32_t retries;
        int requests;
    } cases[] = {{0, 3}, {1, 2}, {5, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fleet f = {.count = 2,
                   .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = -1, .retry_ms = 1},
                             {.refusal = BR_CODE_OVERLOADED, .refusals = -1, .retry_ms = 1}}};
        start(&f, (br_client_options){.retries = cases[i].retries});
        br_error error = {0};
        assert_int_equal(route(&f, &error), BR_EBUSY);
        assert_string_equal(error.text, "overloaded: as the script says");
        assert_int_equal(asked_in_all(&f), cases[i].requests);
        stop(&f);
    }
}

static void test_what_would_be_refused_anywhere_is_never_asked_again(void **state)
{
    (void)state;
    static const struct {
        br_code code;
        br_status status;
    } cases[] = {
        {BR_CODE_BAD_REQUEST, BR_EINVAL},     {BR_CODE_TOO_LARGE, BR_ETOOBIG},
        {BR_CODE_UNSUPPORTED, BR_ENOTSUP},    {BR_CODE_DEADLINE, BR_ETIMEDOUT},
        {BR_CODE_INFEASIBLE, BR_EINFEASIBLE}, {BR_CODE_INTERNAL, BR_EINTERNAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fleet f = {.count = 2, .fakes = {{.refusal = cases[i].code, .refusals = -1}}};
        start(&f, (br_client_options){.retries = 9});
        br_error error = {0};
        assert_int_equal(route(&f, &error), cases[i].status);
        assert_int_equal(asked(&f, 0), 1);
        assert_int_equal(asked(&f, 1), 0);
        assert_int_equal(totals(&f).retries, 0);
        stop(&f);
    }
}

/* Deadlines. */

static void test_whoever_is_asked_later_gets_what_is_left_of_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = 1, .delay_ms = 150}}};
    start(&f, (br_client_options){0});
    br_client_call call = one_call;
    call.has_deadline = true;
    call.deadline_ms = PATIENCE_MS;
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_OK);
    br_answer_free(answer);
    assert_int_equal(atomic_load(&f.fakes[0].last_deadline_ms), PATIENCE_MS);
    const uint64_t left = atomic_load(&f.fakes[1].last_deadline_ms);
    assert_true(left > 0 && left <= PATIENCE_MS - 150);
    stop(&f);
}

static void test_nothing_is_sent_after_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = -1, .delay_ms = 150}, {.closes = -1, .delay_ms = 150}}};
    start(&f, (br_client_options){0});
    br_client_call call = one_call;
    call.has_deadline = true;
    call.deadline_ms = 100;
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_EIO);
    assert_int_equal(asked_in_all(&f), 1);
    stop(&f);
}

static void test_silence_ends_with_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.silent = true}, {.silent = true}}};
    start(&f, (br_client_options){.timeout_ms = 60000});
    br_client_call call = one_call;
    call.has_deadline = true;
    call.deadline_ms = 100;
    br_answer *answer;
    br_error error = {0};
    const uint64_t start_ns = br_clock_now_ns();
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_ETIMEDOUT);
    assert_true(ms_since(start_ns) >= 100 + BR_CLIENT_GRACE_MS - 1 && ms_since(start_ns) < 10000);
    assert_non_null(strstr(error.text, "deadline: no answer from inproc://"));
    assert_non_null(strstr(error.text, "within 100 ms"));
    assert_int_equal(endpoint(&f, 0).failed, 1);
    stop(&f);
}

/* Hedges. */

static void test_a_hedge_that_is_faster_wins(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 3000}}};
    start(&f, (br_client_options){.hedge_ms = 30});
    const uint64_t start_ns = br_clock_now_ns();
    route_well(&f, 1);
    assert_true(ms_since(start_ns) >= 29 && ms_since(start_ns) < 2900);
    assert_int_equal(totals(&f).hedges, 1);
    assert_int_equal(totals(&f).hedges_won, 1);
    assert_int_equal(totals(&f).retries, 0);
    assert_int_equal(endpoint(&f, 0).abandoned, 1);
    assert_int_equal(endpoint(&f, 0).outstanding, 0);
    assert_int_equal(endpoint(&f, 1).answered, 1);
    stop(&f);
}

static void test_an_original_that_is_faster_wins(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 300}, {.delay_ms = 3000}}};
    start(&f, (br_client_options){.hedge_ms = 30});
    const uint64_t start_ns = br_clock_now_ns();
    route_well(&f, 1);
    assert_true(ms_since(start_ns) < 2900);
    assert_int_equal(totals(&f).hedges, 1);
    assert_int_equal(totals(&f).hedges_won, 0);
    assert_int_equal(endpoint(&f, 0).answered, 1);
    assert_int_equal(endpoint(&f, 1).abandoned, 1);
    stop(&f);
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
        start(&f, (br_client_options){.hedge_ms = 30});
        route_well(&f, 1);
        assert_int_equal(endpoint(&f, cases[i].answers).answered, 1);
        assert_int_equal(asked_in_all(&f), 2); /* no retry was needed */
        assert_int_equal(totals(&f).hedges, 1);
        assert_int_equal(totals(&f).hedges_won, cases[i].answers);
        stop(&f);
    }
}

static void test_when_original_and_hedge_both_fail_the_call_goes_on(void **state)
{
    (void)state;
    fleet f = {.count = 3, .fakes = {{.delay_ms = 200, .closes = 1}, {.delay_ms = 100, .closes = 1}}};
    start(&f, (br_client_options){.hedge_ms = 30});
    route_well(&f, 1);
    assert_int_equal(asked(&f, 2), 1);
    assert_int_equal(totals(&f).hedges, 1);
    assert_int_equal(totals(&f).retries, 1);
    stop(&f);
}

static void test_hedges_are_a_bounded_share_of_the_calls(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 15}, {.delay_ms = 15}}};
    start(&f, (br_client_options){.hedge_ms = 1, .hedge_percent = 5});
    route_well(&f, 60);
    assert_int_equal(totals(&f).hedges, 10 + 59 * 5 / 100);
    stop(&f);
}

static void test_nobody_is_hedged_to_an_endpoint_that_rests(void **state)
{
    (void)state;
    fleet f = {
        .count = 2,
        .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000}, {.delay_ms = 60}}};
    start(&f, (br_client_options){.hedge_ms = 10});
    route_well(&f, 3);
    assert_int_equal(totals(&f).hedges, 0);
    assert_int_equal(asked(&f, 0), 1);
    stop(&f);
}

/* Life. */

static void test_closing_ends_the_calls_in_flight(void **state)
{
    (void)state;
    enum { CALLS = 5 };
    fleet f = {.count = 2, .fakes = {{.silent = true}, {.silent = true}}};
    start(&f, (br_client_options){.timeout_ms = 120000, .probe_ms = 60000});
    aside calls[CALLS];
    for (int i = 0; i < CALLS; i++) begin_aside(&calls[i], &f);
    const uint64_t start_ns = br_clock_now_ns();
    while (asked_in_all(&f) < CALLS && ms_since(start_ns) < PATIENCE_MS) pause_ms(2);
    br_client_close(f.client);
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(end_aside(&calls[i]), BR_ECLOSED);
        assert_string_equal(calls[i].error.text, "the client was closed");
    }
    assert_true(ms_since(start_ns) < 60000);
    for (size_t i = 0; i < f.count; i++) fake_stop(&f.fakes[i]);
}

static void test_closing_ends_the_calls_that_wait_for_an_endpoint(void **state)
{
    (void)state;
    fleet f = {.count = 1};
    start(&f, (br_client_options){.timeout_ms = 120000});
    fake_stop(&f.fakes[0]);
    while (is_connected(&f, 0)) pause_ms(2);
    aside call;
    begin_aside(&call, &f);
    while (totals(&f).calls < 1) pause_ms(2);
    br_client_close(f.client);
    assert_int_equal(end_aside(&call), BR_ECLOSED);
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
        {{.urls = urls, .url_count = BR_CLIENT_URLS_MAX + 1}, "65 urls, at most 64 are taken"},
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
    start(&f, (br_client_options){0});
    br_answer *answer = (br_answer *)&f;
    br_error error = {0};
    assert_int_equal(br_client_reload(f.client, &answer, NULL, &error), BR_EINVAL);
    assert_null(answer);
    assert_int_equal(asked_in_all(&f), 0);
    stop(&f);

    f = (fleet){.count = 1, .fakes = {{.url = "inproc://admin-once", .closes = 1}}};
    start(&f, (br_client_options){0});
    assert_int_equal(br_client_reload(f.client, NULL, NULL, &error), BR_EIO);
    assert_int_equal(asked(&f, 0), 1);
    stop(&f);
}

/* Everything at once. */

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
    start(&f, (br_client_options){.hedge_ms = 20});
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
        wait_until(is_ejected, &f, victim);
        atomic_store(&f.fakes[victim].refusals, 0);
        wait_until(is_usable, &f, victim);
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
        assert_int_equal(endpoint(&f, i).outstanding, 0);
        answered += endpoint(&f, i).answered;
        abandoned += endpoint(&f, i).abandoned;
    }
    assert_int_equal(totals(&f).calls, calls);
    assert_int_equal(answered, calls); /* each call has exactly one */
    assert_true(abandoned <= totals(&f).hedges);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_endpoints_take_turns),
        cmocka_unit_test(test_a_busy_endpoint_is_left_alone_while_others_are_idle),
        cmocka_unit_test(test_a_lost_connection_is_asked_elsewhere_and_the_endpoint_comes_back),
        cmocka_unit_test(test_a_request_that_breaks_every_connection_ends),
        cmocka_unit_test(test_a_restarted_service_gets_its_share_again),
        cmocka_unit_test(test_not_ready_goes_elsewhere_until_a_ping_is_answered),
        cmocka_unit_test(test_not_ready_everywhere_is_the_answer),
        cmocka_unit_test(test_nobody_there_is_told_after_connect_ms_or_the_deadline),
        cmocka_unit_test(test_an_endpoint_that_takes_requests_and_never_replies_is_found_out),
        cmocka_unit_test(test_a_slow_endpoint_that_answers_pings_is_waited_for),
        cmocka_unit_test(test_bytes_that_are_no_reply_are_not_asked_for_again_and_eject_in_a_row),
        cmocka_unit_test(test_overloaded_goes_elsewhere_at_once_and_the_endpoint_rests),
        cmocka_unit_test(test_overloaded_everywhere_waits_for_the_first_retry_ms),
        cmocka_unit_test(test_overloaded_stays_so_when_the_retries_end),
        cmocka_unit_test(test_what_would_be_refused_anywhere_is_never_asked_again),
        cmocka_unit_test(test_whoever_is_asked_later_gets_what_is_left_of_the_deadline),
        cmocka_unit_test(test_nothing_is_sent_after_the_deadline),
        cmocka_unit_test(test_silence_ends_with_the_deadline),
        cmocka_unit_test(test_a_hedge_that_is_faster_wins),
        cmocka_unit_test(test_an_original_that_is_faster_wins),
        cmocka_unit_test(test_a_hedge_that_fails_leaves_the_original_and_the_other_way_round),
        cmocka_unit_test(test_when_original_and_hedge_both_fail_the_call_goes_on),
        cmocka_unit_test(test_hedges_are_a_bounded_share_of_the_calls),
        cmocka_unit_test(test_nobody_is_hedged_to_an_endpoint_that_rests),
        cmocka_unit_test(test_closing_ends_the_calls_in_flight),
        cmocka_unit_test(test_closing_ends_the_calls_that_wait_for_an_endpoint),
        cmocka_unit_test(test_wrong_options_are_refused),
        cmocka_unit_test(test_a_reload_goes_to_one_service_and_is_never_sent_again),
        cmocka_unit_test(test_threads_get_each_their_own_answers_while_services_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
