/* test_fleet.c - the client library over several scripted services: choice, loss, silence, refusals,
 * deadlines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "fleet_fixture.h"

static void test_idle_endpoints_take_turns(void **state)
{
    (void)state;
    fleet f = {.count = 3};
    fleet_start(&f, (br_client_options){0});
    fleet_route_well(&f, 9);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(fleet_asked(&f, i), 3);
        assert_int_equal(fleet_endpoint(&f, i).answered, 3);
    }
    assert_int_equal(fleet_totals(&f).calls, 9);
    assert_int_equal(fleet_totals(&f).retries, 0);
    fleet_stop(&f);
}

static void test_a_busy_endpoint_is_left_alone_while_others_are_idle(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 600}}};
    fleet_start(&f, (br_client_options){0});
    aside slow;
    fleet_begin_aside(&slow, &f); /* the first turn is endpoint 0's */
    fleet_wait_until(fleet_is_asked, &f, 0);
    assert_int_equal(fleet_endpoint(&f, 0).outstanding, 1);
    fleet_route_well(&f, 6);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 6);
    assert_int_equal(fleet_end_aside(&slow), BR_OK);
    assert_int_equal(fleet_endpoint(&f, 0).outstanding, 0);
    fleet_stop(&f);
}

static void test_a_lost_connection_is_asked_elsewhere_and_the_endpoint_comes_back(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = 1}}};
    fleet_start(&f, (br_client_options){0});
    fleet_route_well(&f, 1);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 1);
    assert_int_equal(fleet_totals(&f).retries, 1);
    assert_int_equal(fleet_endpoint(&f, 0).failed, 1);
    assert_int_equal(fleet_endpoint(&f, 0).ejections, 1);
    fleet_wait_until(fleet_is_usable, &f, 0);
    assert_true(fleet_is_pinged(&f, 0)); /* not before it answered one */
    fleet_route_well(&f, 4);
    assert_int_equal(fleet_asked(&f, 0), 3);
    fleet_stop(&f);
}

static void test_a_request_that_breaks_every_connection_ends(void **state)
{
    (void)state;
    fleet f = {.count = 4, .fakes = {{.closes = -1}, {.closes = -1}, {.closes = -1}, {.closes = -1}}};
    fleet_start(&f, (br_client_options){0});
    br_error error = {0};
    assert_int_equal(fleet_route(&f, &error), BR_EIO);
    assert_non_null(strstr(error.text, "broke"));
    assert_int_equal(fleet_asked_in_all(&f), 3);
    fleet_stop(&f);
}

static void test_a_restarted_service_gets_its_share_again(void **state)
{
    (void)state;
    fleet f = {.count = 3};
    fleet_start(&f, (br_client_options){0});
    fake_stop(&f.fakes[1]);
    fleet_route_well(&f, 6);
    fleet_wait_until(fleet_is_ejected, &f, 1);
    const int before = fleet_asked(&f, 1);
    fleet_route_well(&f, 6);
    assert_int_equal(fleet_asked(&f, 1), before);
    fake_start(&f.fakes[1]);
    fleet_wait_until(fleet_is_usable, &f, 1);
    fleet_route_well(&f, 6);
    assert_int_equal(fleet_asked(&f, 1), before + 2);
    fleet_stop(&f);
}

static void test_not_ready_goes_elsewhere_until_a_ping_is_answered(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.refusal = BR_CODE_NOT_READY, .refusals = -1}}};
    fleet_start(&f, (br_client_options){0});
    fleet_route_well(&f, 5);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 5);
    assert_int_equal(fleet_endpoint(&f, 0).refused, 1);
    assert_true(fleet_is_ejected(&f, 0));
    fleet_wait_until(fleet_is_pinged, &f, 0);
    assert_true(fleet_is_ejected(&f, 0));
    atomic_store(&f.fakes[0].refusals, 0);
    fleet_wait_until(fleet_is_usable, &f, 0);
    fleet_route_well(&f, 2);
    assert_int_equal(fleet_asked(&f, 0), 2);
    fleet_stop(&f);
}

static void test_not_ready_everywhere_is_the_answer(void **state)
{
    (void)state;
    fleet f = {.count = 2,
               .fakes = {{.refusal = BR_CODE_NOT_READY, .refusals = -1},
                         {.refusal = BR_CODE_NOT_READY, .refusals = -1}}};
    fleet_start(&f, (br_client_options){.connect_ms = 150});
    br_error error = {0};
    assert_int_equal(fleet_route(&f, &error), BR_ENOTREADY);
    assert_string_equal(error.text, "not_ready: as the script says");
    assert_int_equal(fleet_asked_in_all(&f), 2);
    const uint64_t start_ns = br_clock_now_ns();
    assert_int_equal(fleet_route(&f, &error), BR_ENOTREADY); /* nobody is asked, but waited for */
    assert_true(fleet_ms_since(start_ns) >= 149);
    assert_string_equal(error.text,
                        "not_ready: none of 2 endpoints was ready within 150 ms; 2 are connected");
    assert_int_equal(fleet_asked_in_all(&f), 2);
    fleet_stop(&f);
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
    assert_int_equal(br_client_route(client, &answer, &fleet_call, &error), BR_EIO);
    assert_true(fleet_ms_since(start_ns) >= 199 && fleet_ms_since(start_ns) < 10000);
    assert_string_equal(error.text, "no connection to any of 2 endpoints within 200 ms");

    br_client_call call = fleet_call;
    call.has_deadline = true;
    call.deadline_ms = 50;
    start_ns = br_clock_now_ns();
    assert_int_equal(br_client_route(client, &answer, &call, &error), BR_ETIMEDOUT);
    assert_true(fleet_ms_since(start_ns) >= 49 && fleet_ms_since(start_ns) < 10000);
    assert_string_equal(error.text, "deadline: no connection to any of 2 endpoints within 50 ms");
    br_client_close(client);
}

static void test_an_endpoint_that_takes_requests_and_never_replies_is_found_out(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.silent = true}}};
    fleet_start(&f, (br_client_options){.timeout_ms = 60000, .probe_ms = 200});
    const uint64_t start_ns = br_clock_now_ns();
    fleet_route_well(&f, 1);
    assert_true(fleet_ms_since(start_ns) >= 399 && fleet_ms_since(start_ns) < 30000);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 1);
    assert_true(fleet_is_ejected(&f, 0));
    fleet_route_well(&f, 3);
    assert_int_equal(fleet_asked(&f, 0), 1);
    atomic_store(&f.fakes[0].silent, false);
    fleet_wait_until(fleet_is_usable, &f, 0);
    fleet_route_well(&f, 2);
    assert_int_equal(fleet_asked(&f, 0), 2);
    fleet_stop(&f);
}

static void test_a_slow_endpoint_that_answers_pings_is_waited_for(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.delay_ms = 900}}};
    fleet_start(&f, (br_client_options){.probe_ms = 200});
    fleet_route_well(&f, 1);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 0);
    assert_true(fleet_is_pinged(&f, 0));
    assert_int_equal(fleet_endpoint(&f, 0).ejections, 0);
    fleet_stop(&f);
}

static void test_bytes_that_are_no_reply_are_not_asked_for_again_and_eject_in_a_row(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.bytes = "hello", .byte_count = 5}}};
    fleet_start(&f, (br_client_options){0});
    br_error error = {0};
    int wrong = 0;
    for (int i = 0; i < 6; i++) {
        const br_status status = fleet_route(&f, &error);
        assert_true(status == BR_OK || status == BR_EFORMAT);
        wrong += status == BR_EFORMAT;
    }
    assert_int_equal(wrong, 3);
    assert_int_equal(fleet_asked_in_all(&f), 6);
    assert_int_equal(fleet_endpoint(&f, 0).ejections, 1);
    fleet_stop(&f);
}

static void test_overloaded_goes_elsewhere_at_once_and_the_endpoint_rests(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000}}};
    fleet_start(&f, (br_client_options){.timeout_ms = 120000});
    const uint64_t start_ns = br_clock_now_ns();
    fleet_route_well(&f, 5);
    assert_true(fleet_ms_since(start_ns) < 30000);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 5);
    assert_int_equal(fleet_endpoint(&f, 0).refused, 1);
    assert_int_equal(fleet_endpoint(&f, 0).ejections, 0);
    assert_int_equal(fleet_totals(&f).retries, 1);
    fleet_stop(&f);
}

static void test_overloaded_everywhere_waits_for_the_first_retry_ms(void **state)
{
    (void)state;
    fleet f = {.count = 2,
               .fakes = {{.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 60000},
                         {.refusal = BR_CODE_OVERLOADED, .refusals = 1, .retry_ms = 150}}};
    fleet_start(&f, (br_client_options){.timeout_ms = 120000});
    const uint64_t start_ns = br_clock_now_ns();
    fleet_route_well(&f, 1);
    assert_true(fleet_ms_since(start_ns) >= 149 && fleet_ms_since(start_ns) < 30000);
    assert_int_equal(fleet_asked(&f, 0), 1);
    assert_int_equal(fleet_asked(&f, 1), 2);
    fleet_stop(&f);
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
        fleet_start(&f, (br_client_options){.retries = cases[i].retries});
        br_error error = {0};
        assert_int_equal(fleet_route(&f, &error), BR_EBUSY);
        assert_string_equal(error.text, "overloaded: as the script says");
        assert_int_equal(fleet_asked_in_all(&f), cases[i].requests);
        fleet_stop(&f);
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
        fleet_start(&f, (br_client_options){.retries = 9});
        br_error error = {0};
        assert_int_equal(fleet_route(&f, &error), cases[i].status);
        assert_int_equal(fleet_asked(&f, 0), 1);
        assert_int_equal(fleet_asked(&f, 1), 0);
        assert_int_equal(fleet_totals(&f).retries, 0);
        fleet_stop(&f);
    }
}

static void test_whoever_is_asked_later_gets_what_is_left_of_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = 1, .delay_ms = 150}}};
    fleet_start(&f, (br_client_options){0});
    br_client_call call = fleet_call;
    call.has_deadline = true;
    call.deadline_ms = FLEET_PATIENCE_MS;
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_OK);
    br_answer_free(answer);
    assert_int_equal(atomic_load(&f.fakes[0].last_deadline_ms), FLEET_PATIENCE_MS);
    const uint64_t left = atomic_load(&f.fakes[1].last_deadline_ms);
    assert_true(left > 0 && left <= FLEET_PATIENCE_MS - 150);
    fleet_stop(&f);
}

static void test_nothing_is_sent_after_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.closes = -1, .delay_ms = 150}, {.closes = -1, .delay_ms = 150}}};
    fleet_start(&f, (br_client_options){0});
    br_client_call call = fleet_call;
    call.has_deadline = true;
    call.deadline_ms = 100;
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_EIO);
    assert_int_equal(fleet_asked_in_all(&f), 1);
    fleet_stop(&f);
}

static void test_silence_ends_with_the_deadline(void **state)
{
    (void)state;
    fleet f = {.count = 2, .fakes = {{.silent = true}, {.silent = true}}};
    fleet_start(&f, (br_client_options){.timeout_ms = 60000});
    br_client_call call = fleet_call;
    call.has_deadline = true;
    call.deadline_ms = 100;
    br_answer *answer;
    br_error error = {0};
    const uint64_t start_ns = br_clock_now_ns();
    assert_int_equal(br_client_route(f.client, &answer, &call, &error), BR_ETIMEDOUT);
    assert_true(fleet_ms_since(start_ns) >= 100 + BR_CLIENT_GRACE_MS - 1 && fleet_ms_since(start_ns) < 10000);
    assert_non_null(strstr(error.text, "deadline: no answer from inproc://"));
    assert_non_null(strstr(error.text, "within 100 ms"));
    assert_int_equal(fleet_endpoint(&f, 0).failed, 1);
    fleet_stop(&f);
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
