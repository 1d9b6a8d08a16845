/* test_balancer.c - the choice among endpoints, ejection and readmission, in virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/balancer.h"
#include "core/clock.h"

static const uint64_t ms = BR_NS_PER_MS;

enum { SILENCE_MS = 1000 };

/* `count` endpoints, all connected at time 0. */
static br_balancer pool_of(size_t count)
{
    br_balancer balancer;
    br_balancer_init(&balancer, count, SILENCE_MS * ms, 10);
    for (size_t i = 0; i < count; i++) br_balancer_connected(&balancer, i, 0);
    return balancer;
}

static size_t choose(br_balancer *balancer)
{
    return br_balancer_choose(balancer, 0, BR_BALANCER_NONE, false);
}

/* One request there and back. */
static void exchange(br_balancer *balancer, size_t index, br_outcome outcome, uint64_t now_ns)
{
    br_balancer_sent(balancer, index, now_ns);
    br_balancer_ended(balancer, index, outcome, balancer->members[index].connection, 0, now_ns);
}

static void test_equals_take_turns(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(3);
    for (size_t i = 0; i < 9; i++) assert_int_equal(choose(&balancer), i % 3);
}

static void test_the_fewest_outstanding_is_chosen(void **state)
{
    (void)state;
    static const struct {
        uint32_t outstanding[4];
        size_t next;
        size_t chosen;
    } cases[] = {
        {{2, 1, 2, 2}, 0, 1}, {{2, 1, 2, 2}, 3, 1},
        {{1, 1, 0, 0}, 0, 2}, {{1, 1, 0, 0}, 3, 3}, /* of the two, the one whose turn it is */
        {{5, 5, 5, 4}, 1, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        br_balancer balancer = pool_of(4);
        for (size_t i = 0; i < 4; i++) balancer.members[i].outstanding = cases[c].outstanding[i];
        balancer.next = cases[c].next;
        assert_int_equal(choose(&balancer), cases[c].chosen);
        assert_int_equal(balancer.next, (cases[c].chosen + 1) % 4);
    }
}

static void test_only_connected_and_admitted_endpoints_are_chosen(void **state)
{
    (void)state;
    br_balancer balancer;
    br_balancer_init(&balancer, 2, SILENCE_MS * ms, 10);
    assert_true(choose(&balancer) == BR_BALANCER_NONE);
    br_balancer_connected(&balancer, 1, 0);
    assert_int_equal(choose(&balancer), 1);
    assert_true(br_balancer_choose(&balancer, 0, 1, false) == BR_BALANCER_NONE); /* to be avoided */
    exchange(&balancer, 1, BR_OUTCOME_NOT_READY, 0);
    assert_true(choose(&balancer) == BR_BALANCER_NONE);
    assert_true(br_balancer_rested_at(&balancer) == BR_BALANCER_NEVER);
}

static void test_an_overloaded_endpoint_rests_for_as_long_as_it_said(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    br_balancer_sent(&balancer, 0, 0);
    br_balancer_ended(&balancer, 0, BR_OUTCOME_OVERLOADED, 1, 30, 10 * ms);
    assert_false(balancer.members[0].ejected);
    for (int i = 0; i < 3; i++)
        assert_int_equal(br_balancer_choose(&balancer, 39 * ms, BR_BALANCER_NONE, false), 1);
    assert_int_equal(br_balancer_choose(&balancer, 40 * ms, BR_BALANCER_NONE, false), 0);

    br_balancer_sent(&balancer, 1, 0);
    br_balancer_ended(&balancer, 1, BR_OUTCOME_OVERLOADED, 1, 50, 10 * ms);
    assert_true(br_balancer_choose(&balancer, 39 * ms, BR_BALANCER_NONE, true) == BR_BALANCER_NONE);
    assert_int_equal(br_balancer_rested_at(&balancer), 40 * ms);
    /* A call's first request is not held back. */
    assert_true(br_balancer_choose(&balancer, 39 * ms, BR_BALANCER_NONE, false) != BR_BALANCER_NONE);
    /* A time that no clock reaches is cut, not wrapped. */
    br_balancer_sent(&balancer, 1, 0);
    br_balancer_ended(&balancer, 1, BR_OUTCOME_OVERLOADED, 1, UINT64_MAX, 10 * ms);
    assert_true(balancer.members[1].rested_ns == 10 * ms + (uint64_t)INT32_MAX * ms);
}

static void test_what_ejects_and_what_does_not(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t count;
        br_outcome outcome;
        int times;
        bool ejected;
    } cases[] = {
        {"a lost connection", 2, BR_OUTCOME_LOST, 1, true},
        {"not_ready", 2, BR_OUTCOME_NOT_READY, 1, true},
        {"two failures", 3, BR_OUTCOME_FAILED, 2, false},
        {"three failures", 3, BR_OUTCOME_FAILED, 3, true},
        {"overloaded", 2, BR_OUTCOME_OVERLOADED, 9, false},
        {"answers", 2, BR_OUTCOME_ANSWERED, 9, false},
        {"unsent", 2, BR_OUTCOME_UNSENT, 9, false},
        {"abandoned", 2, BR_OUTCOME_ABANDONED, 9, false},
        {"not_ready, alone", 1, BR_OUTCOME_NOT_READY, 1, false},
        {"a lost connection, alone", 1, BR_OUTCOME_LOST, 1, false},
        {"three failures, alone", 1, BR_OUTCOME_FAILED, 3, false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        br_balancer balancer = pool_of(cases[c].count);
        for (int i = 0; i < cases[c].times; i++) exchange(&balancer, 0, cases[c].outcome, 0);
        if (balancer.members[0].ejected != cases[c].ejected) fail_msg("%s", cases[c].name);
        assert_int_equal(balancer.members[0].ejections, cases[c].ejected);
        assert_int_equal(balancer.members[0].outstanding, 0);
    }
}

static void test_an_answer_between_failures_breaks_the_row(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    for (int i = 0; i < 4; i++) {
        exchange(&balancer, 0, BR_OUTCOME_FAILED, 0);
        exchange(&balancer, 0, BR_OUTCOME_FAILED, 0);
        exchange(&balancer, 0, i % 2 == 0 ? BR_OUTCOME_ANSWERED : BR_OUTCOME_OVERLOADED, 0);
    }
    assert_false(balancer.members[0].ejected);
}

static void test_failures_leave_half_of_the_endpoints(void **state)
{
    (void)state;
    for (size_t count = 2; count <= 10; count++) {
        br_balancer balancer = pool_of(count);
        for (int i = 0; i < BR_BALANCER_FAILURES_MAX; i++) {
            for (size_t m = 0; m < count; m++) exchange(&balancer, m, BR_OUTCOME_FAILED, 0);
        }
        size_t usable = 0;
        for (size_t m = 0; m < count; m++) usable += !balancer.members[m].ejected;
        assert_int_equal(usable, (count + 1) / 2);
    }
}

static void test_a_loss_of_an_earlier_connection_does_not_eject(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    br_balancer_sent(&balancer, 0, 0);
    const uint32_t old = balancer.members[0].connection;
    br_balancer_disconnected(&balancer, 0, 0);
    assert_true(balancer.members[0].ejected);
    br_balancer_connected(&balancer, 0, 0);
    assert_false(br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, 0));
    br_balancer_ended(&balancer, 0, BR_OUTCOME_LOST, old, 0, 0);
    assert_true(balancer.members[0].connected);
    assert_false(balancer.members[0].ejected);
    br_balancer_sent(&balancer, 0, 0);
    br_balancer_ended(&balancer, 0, BR_OUTCOME_LOST, old + 1, 0, 0);
    assert_true(balancer.members[0].ejected);
}

static void test_an_ejected_endpoint_is_pinged_with_growing_pauses_until_it_answers(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    exchange(&balancer, 0, BR_OUTCOME_NOT_READY, 0);
    uint64_t now_ns = 0;
    assert_int_equal(br_balancer_ping_at(&balancer, 0), 0); /* the first at once */
    static const uint64_t pauses_ms[] = {50, 100, 200, 400, 800, 1600, 2000, 2000};
    for (size_t i = 0; i < sizeof pauses_ms / sizeof pauses_ms[0]; i++) {
        assert_false(br_balancer_pinged(&balancer, 0, BR_OUTCOME_NOT_READY, now_ns));
        assert_int_equal(br_balancer_ping_at(&balancer, 0), now_ns + pauses_ms[i] * ms);
        now_ns += pauses_ms[i] * ms;
    }
    assert_false(br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, now_ns));
    assert_false(balancer.members[0].ejected);
    assert_true(br_balancer_ping_at(&balancer, 0) == BR_BALANCER_NEVER);

    /* It has to answer a request before the pauses start anew. */
    exchange(&balancer, 0, BR_OUTCOME_NOT_READY, now_ns);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), now_ns + 2000 * ms);
    br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, now_ns);
    exchange(&balancer, 0, BR_OUTCOME_ANSWERED, now_ns);
    exchange(&balancer, 0, BR_OUTCOME_NOT_READY, now_ns);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), now_ns);
}

static void test_a_ping_alone_does_not_clear_an_endpoint_that_failed(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    for (int i = 0; i < BR_BALANCER_FAILURES_MAX; i++) exchange(&balancer, 0, BR_OUTCOME_FAILED, 0);
    br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, 0);
    assert_false(balancer.members[0].ejected);
    exchange(&balancer, 0, BR_OUTCOME_FAILED, 0);
    assert_true(balancer.members[0].ejected);
}

static void test_nobody_is_pinged_without_a_connection_or_alone(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    br_balancer_disconnected(&balancer, 0, 0);
    assert_true(br_balancer_ping_at(&balancer, 0) == BR_BALANCER_NEVER);
    br_balancer_connected(&balancer, 0, 5);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), 0); /* due at once */
    br_balancer single = pool_of(1);
    br_balancer_sent(&single, 0, 0);
    assert_true(br_balancer_ping_at(&single, 0) == BR_BALANCER_NEVER);
}

static void test_silence_is_counted_from_the_last_reply_while_requests_are_outstanding(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    assert_true(br_balancer_ping_at(&balancer, 0) == BR_BALANCER_NEVER);
    br_balancer_sent(&balancer, 0, 100 * ms);
    br_balancer_sent(&balancer, 0, 300 * ms);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), (100 + SILENCE_MS) * ms);
    br_balancer_ended(&balancer, 0, BR_OUTCOME_ANSWERED, 1, 0, 400 * ms);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), (400 + SILENCE_MS) * ms);
    br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, 1500 * ms); /* slow, but alive */
    assert_false(balancer.members[0].ejected);
    assert_int_equal(br_balancer_ping_at(&balancer, 0), (1500 + SILENCE_MS) * ms);
    br_balancer_ended(&balancer, 0, BR_OUTCOME_ANSWERED, 1, 0, 1600 * ms);
    assert_true(br_balancer_ping_at(&balancer, 0) == BR_BALANCER_NEVER);
}

static void test_silence_goes_on_though_its_requests_are_abandoned(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    for (uint64_t at_ms = 100; at_ms < SILENCE_MS;
         at_ms += 200) { /* each was hedged, and answered elsewhere */
        br_balancer_sent(&balancer, 0, at_ms * ms);
        br_balancer_ended(&balancer, 0, BR_OUTCOME_ABANDONED, 1, 0, (at_ms + 150) * ms);
        assert_int_equal(br_balancer_ping_at(&balancer, 0), (100 + SILENCE_MS) * ms);
    }
    br_balancer_pinged(&balancer, 0, BR_OUTCOME_ANSWERED, 1200 * ms);
    assert_true(br_balancer_ping_at(&balancer, 0) == BR_BALANCER_NEVER);
}

static void test_an_unanswered_ping_drops_the_connection_but_not_the_last_one(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    br_balancer_sent(&balancer, 0, 0);
    br_balancer_sent(&balancer, 1, 0);
    assert_true(br_balancer_pinged(&balancer, 0, BR_OUTCOME_FAILED, 2000 * ms));
    assert_true(balancer.members[0].ejected);
    assert_false(br_balancer_pinged(&balancer, 1, BR_OUTCOME_FAILED, 2000 * ms));
    assert_false(balancer.members[1].ejected);
    assert_int_equal(br_balancer_ping_at(&balancer, 1), 3000 * ms);
    assert_true(br_balancer_pinged(&balancer, 0, BR_OUTCOME_FAILED,
                                   3000 * ms)); /* ejected as it is: dialled afresh */
    /* A ping that could not be made says nothing about the endpoint. */
    assert_false(br_balancer_pinged(&balancer, 1, BR_OUTCOME_ABANDONED, 4000 * ms));
    assert_false(balancer.members[1].ejected);
}

static void test_hedges_have_a_share_of_the_calls(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    int hedges = 0;
    for (int call = 0; call < 1000; call++) {
        br_balancer_earn_hedge(&balancer);
        hedges += br_balancer_spend_hedge(&balancer);
    }
    assert_int_equal(hedges,
                     BR_BALANCER_HEDGE_BURST + 999 / 10); /* the first call earns nothing: all is there */
    /* What is not used is kept for one burst. */
    for (int call = 0; call < 1000; call++) br_balancer_earn_hedge(&balancer);
    hedges = 0;
    while (br_balancer_spend_hedge(&balancer)) hedges++;
    assert_int_equal(hedges, BR_BALANCER_HEDGE_BURST);
}

static void test_the_counters_add_up(void **state)
{
    (void)state;
    br_balancer balancer = pool_of(2);
    static const br_outcome outcomes[] = {
        BR_OUTCOME_ANSWERED, BR_OUTCOME_OVERLOADED, BR_OUTCOME_NOT_READY, BR_OUTCOME_LOST,
        BR_OUTCOME_FAILED,   BR_OUTCOME_UNSENT,     BR_OUTCOME_ABANDONED,
    };
    for (size_t i = 0; i < sizeof outcomes / sizeof outcomes[0]; i++) exchange(&balancer, 0, outcomes[i], 0);
    br_balancer_sent(&balancer, 0, 0);
    const br_balancer_member *m = &balancer.members[0];
    assert_int_equal(m->answered, 1);
    assert_int_equal(m->refused, 2);
    assert_int_equal(m->failed, 2);
    assert_int_equal(m->abandoned, 1);
    assert_int_equal(m->sent, m->outstanding + m->answered + m->refused + m->failed + m->abandoned);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_take_turns),
        cmocka_unit_test(test_the_fewest_outstanding_is_chosen),
        cmocka_unit_test(test_only_connected_and_admitted_endpoints_are_chosen),
        cmocka_unit_test(test_an_overloaded_endpoint_rests_for_as_long_as_it_said),
        cmocka_unit_test(test_what_ejects_and_what_does_not),
        cmocka_unit_test(test_an_answer_between_failures_breaks_the_row),
        cmocka_unit_test(test_failures_leave_half_of_the_endpoints),
        cmocka_unit_test(test_a_loss_of_an_earlier_connection_does_not_eject),
        cmocka_unit_test(test_an_ejected_endpoint_is_pinged_with_growing_pauses_until_it_answers),
        cmocka_unit_test(test_a_ping_alone_does_not_clear_an_endpoint_that_failed),
        cmocka_unit_test(test_nobody_is_pinged_without_a_connection_or_alone),
        cmocka_unit_test(test_silence_is_counted_from_the_last_reply_while_requests_are_outstanding),
        cmocka_unit_test(test_silence_goes_on_though_its_requests_are_abandoned),
        cmocka_unit_test(test_an_unanswered_ping_drops_the_connection_but_not_the_last_one),
        cmocka_unit_test(test_hedges_have_a_share_of_the_calls),
        cmocka_unit_test(test_the_counters_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
