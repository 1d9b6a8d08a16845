/* test_in_flight.c - prompts that need no encoder pass: identical ones in flight, and those scored before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "serve/service.h"
#include "support/service_fixture.h"

/* A service whose only worker is held until it is released, and a client. */
typedef struct held {
    service s;
    peer p;
    gate closed;
} held;

static void held_open(held *h)
{
    service_start(&h->s, NULL);
    peer_open(&h->p, h->s.url);
    gate_close(&h->closed, &h->s);
}

static void held_close(held *h)
{
    peer_close(&h->p);
    service_stop(&h->s);
}

static void send_text(pending *w, peer *p, const char *text, uint64_t deadline_ms)
{
    br_query query = text_query(text);
    const br_request request = {.op = BR_OP_ROUTE,
                                .queries = &query,
                                .query_count = 1,
                                .has_deadline = deadline_ms > 0,
                                .deadline_ms = deadline_ms};
    pending_send(w, p, &request);
}

enum { SAME = 6 };

static void test_identical_prompts_in_flight_are_computed_once(void **state)
{
    (void)state;
    held h;
    held_open(&h);
    pending sent[SAME + 1];
    for (int i = 0; i < SAME; i++) send_text(&sent[i], &h.p, "hello", 0);
    send_text(&sent[SAME], &h.p, "good evening", 0);
    service_wait_counted(&h.s, BR_COUNTER_queries_shared, SAME - 1);
    service_wait_for_waiting(&h.s, 2);
    gate_open(&h.closed);
    peer_answer answers[SAME + 1] = {{.reply = {.ok = false}}};
    for (int i = 0; i <= SAME; i++) {
        pending_wait(&sent[i], &answers[i]);
        assert_true(answers[i].reply.ok);
        assert_int_equal(answers[i].reply.results[0].code, BR_CODE_NONE);
        if (i < SAME) assert_true(answers[i].reply.results[0].quality == answers[0].reply.results[0].quality);
    }
    assert_int_equal(service_counted(&h.s, BR_COUNTER_queries_scored), 2);
    for (int i = 0; i <= SAME; i++) answer_free(&answers[i]);
    held_close(&h);
}

static void test_within_one_request_too(void **state)
{
    (void)state;
    held h;
    held_open(&h);
    br_query queries[SAME];
    for (int i = 0; i < SAME; i++) queries[i] = text_query(i % 2 == 0 ? "hello" : "seven");
    const br_request request = {.op = BR_OP_SCORE, .queries = queries, .query_count = SAME};
    pending sent;
    pending_send(&sent, &h.p, &request);
    service_wait_for_waiting(&h.s, 2);
    gate_open(&h.closed);
    peer_answer a = {0};
    pending_wait(&sent, &a);
    assert_true(a.reply.ok);
    for (int i = 2; i < SAME; i++)
        assert_true(a.reply.results[i].qualities[0] == a.reply.results[i - 2].qualities[0]);
    assert_int_equal(service_counted(&h.s, BR_COUNTER_queries_shared), SAME - 2);
    answer_free(&a);
    held_close(&h);
}

enum { LEADER_MS = 2000 }; /* enough for the follower to come, on a machine that is busy */

/* The leader's deadline passes in the queue; its follower, which has more time, is computed all the same. */
static void test_a_follower_outlives_its_leader(void **state)
{
    (void)state;
    held h;
    held_open(&h);
    pending leader;
    pending follower;
    send_text(&leader, &h.p, "hello", LEADER_MS);
    service_wait_for_waiting(&h.s, 1);
    send_text(&follower, &h.p, "hello", 60000);
    service_wait_counted(&h.s, BR_COUNTER_queries_shared, 1);
    peer_answer a = {0};
    peer_answer b = {0};
    pending_wait(&leader, &a);
    gate_open(&h.closed);
    pending_wait(&follower, &b);
    assert_int_equal(a.reply.code, BR_CODE_DEADLINE); /* of its only query, so of the request */
    assert_int_equal(b.reply.results[0].code, BR_CODE_NONE);
    answer_free(&a);
    answer_free(&b);
    held_close(&h);
}

static void test_nobody_follows_one_less_urgent_or_anothers(void **state)
{
    (void)state;
    held h;
    peer other;
    held_open(&h);
    peer_open(&other, h.s.url);
    pending sent[3];
    send_text(&sent[0], &h.p, "hello", 0);
    service_wait_for_waiting(&h.s, 1);
    send_text(&sent[1], &h.p, "hello", 60000);
    service_wait_for_waiting(&h.s, 2);
    send_text(&sent[2], &other, "hello", 0);
    service_wait_for_waiting(&h.s, 3);
    assert_int_equal(service_counted(&h.s, BR_COUNTER_queries_shared), 0);
    gate_open(&h.closed);
    for (int i = 0; i < 3; i++) {
        peer_answer a = {0};
        pending_wait(&sent[i], &a);
        assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
        answer_free(&a);
    }
    peer_close(&other);
    held_close(&h);
}

static void test_a_prompt_scored_before_comes_from_the_cache_until_a_reload(void **state)
{
    (void)state;
    service s;
    peer p;
    service_start(&s, (const char *const[]){"--score-cache-mb=1", NULL});
    peer_open(&p, s.url);
    br_query query = text_query("hello");
    const br_request request = {.op = BR_OP_SCORE, .queries = &query, .query_count = 1};
    peer_answer first = {0};
    peer_ask(&p, &first, &request);
    for (uint64_t i = 1; i <= 3; i++) {
        peer_answer again = {0};
        peer_ask(&p, &again, &request);
        assert_int_equal(service_counted(&s, BR_COUNTER_cache_hits), i);
        assert_int_equal(again.reply.results[0].quality_count, first.reply.results[0].quality_count);
        for (size_t k = 0; k < first.reply.results[0].quality_count; k++)
            assert_true(again.reply.results[0].qualities[k] == first.reply.results[0].qualities[k]);
        answer_free(&again);
    }
    assert_int_equal(service_counted(&s, BR_COUNTER_queries_scored), 1);
    br_server_reload(s.server);
    service_wait_counted(&s, BR_COUNTER_reloads, 1);
    peer_answer after = {0};
    peer_ask(&p, &after, &request);
    assert_int_equal(service_counted(&s, BR_COUNTER_cache_hits), 3);
    assert_int_equal(service_counted(&s, BR_COUNTER_queries_scored), 2);
    answer_free(&first);
    answer_free(&after);
    peer_close(&p);
    service_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identical_prompts_in_flight_are_computed_once),
        cmocka_unit_test(test_within_one_request_too),
        cmocka_unit_test(test_a_follower_outlives_its_leader),
        cmocka_unit_test(test_nobody_follows_one_less_urgent_or_anothers),
        cmocka_unit_test(test_a_prompt_scored_before_comes_from_the_cache_until_a_reload),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
