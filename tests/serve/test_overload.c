/* test_overload.c - admission, deadlines and draining, with the worker held still. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/clock.h"
#include "serve/service.h"
#include "support/service_fixture.h"

static br_request route(br_query *queries, size_t count)
{
    return (br_request){.op = BR_OP_ROUTE, .queries = queries, .query_count = count};
}

static void pass_time_ms(uint64_t ms)
{
    const uint64_t until_ns = br_clock_now_ns() + ms * BR_NS_PER_MS;
    while (br_clock_now_ns() < until_ns) {
    }
}

static void test_a_full_queue_is_answered_at_once_and_whole(void **state)
{
    (void)state;
    service s;
    service_start(&s, (const char *const[]){"--queue-max=4", "--max-queries=4", NULL});
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query queries[4] = {text_query("one"), text_query("two"), text_query("three"), text_query("four")};
    br_request three = route(queries, 3);
    br_request two = route(queries, 2);
    br_request one = route(&queries[3], 1); /* not one of the first three: that would follow it */
    gate g;
    gate_close(&g, &s);

    pending first;
    pending_send(&first, &p, &three);
    service_wait_for_waiting(&s, 3);
    two.id = BR_STR_LITERAL("\x2a");
    peer_ask(&p, &a, &two); /* answered while the worker stands still */
    assert_false(a.reply.ok);
    assert_int_equal(a.reply.code, BR_CODE_OVERLOADED);
    assert_true(a.reply.has_retry);
    assert_in_range(a.reply.retry_ms, BR_RETRY_MS_MIN, BR_RETRY_MS_MAX);
    assert_memory_equal(a.reply.id.data, "\x2a", 1);

    pending second; /* what still fits is admitted */
    pending_send(&second, &p, &one);
    service_wait_for_waiting(&s, 4);
    peer_ask(&p, &a, &one);
    assert_int_equal(a.reply.code, BR_CODE_OVERLOADED);

    gate_open(&g);
    pending_wait(&first, &a);
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.result_count, 3);
    pending_wait(&second, &a);
    assert_true(a.reply.ok);
    br_request four = route(queries, 4);
    peer_ask(&p, &a, &four); /* all the room is back */
    assert_true(a.reply.ok);
    assert_int_equal(br_metrics_get(&s.server->metrics, BR_COUNTER_overloaded), 2);
    assert_int_equal(atomic_load(&s.server->admitted), 0);

    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_more_refusals_than_contexts_are_all_answered(void **state)
{
    (void)state;
    enum { COUNT = 150 }; /* queue_max 1 makes 65 contexts */
    service s;
    service_start(&s, (const char *const[]){"--queue-max=1", "--max-queries=1", NULL});
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("one");
    br_request request = route(&query, 1);
    gate g;
    gate_close(&g, &s);
    pending waiting[COUNT];
    pending_send(&waiting[0], &p, &request);
    service_wait_for_waiting(&s, 1);
    for (int i = 1; i < COUNT; i++) pending_send(&waiting[i], &p, &request);
    for (int i = 1; i < COUNT; i++) {
        pending_wait(&waiting[i], &a);
        assert_int_equal(a.reply.code, BR_CODE_OVERLOADED);
    }
    gate_open(&g);
    pending_wait(&waiting[0], &a);
    assert_true(a.reply.ok);
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_expired_work_is_not_computed(void **state)
{
    (void)state;
    service s;
    service_start(&s, NULL);
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query queries[2] = {text_query("one"), text_query("two")};
    br_request request = route(queries, 2);
    request.has_deadline = true;
    request.deadline_ms = 200;
    gate g;
    gate_close(&g, &s);
    pending w;
    pending_send(&w, &p, &request);
    service_wait_for_waiting(&s, 2);
    pass_time_ms(201);
    gate_open(&g);
    pending_wait(&w, &a);
    assert_false(a.reply.ok);
    assert_int_equal(a.reply.code, BR_CODE_DEADLINE);
    assert_int_equal(br_metrics_get(&s.server->metrics, BR_COUNTER_batches), 0);
    assert_int_equal(br_metrics_get(&s.server->metrics, BR_COUNTER_queries_expired), 2);

    request.deadline_ms = 0; /* already past when it arrives: not even tokenised */
    peer_ask(&p, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_DEADLINE);
    request.deadline_ms = UINT64_MAX; /* as good as none */
    peer_ask(&p, &a, &request);
    assert_true(a.reply.ok);
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_an_expired_query_beside_an_invalid_one_is_an_error_of_its_own(void **state)
{
    (void)state;
    service s;
    service_start(&s, NULL);
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query queries[2] = {text_query("one"), text_query("two")};
    queries[1].policy = (br_policy_spec){.has = BR_HAS_MAX_N, .max_n = 1};
    queries[1].prompt_tokens = (br_counts){
        .form = BR_COUNTS_BY_MODEL,
        .entries = &(br_count_entry){.model = BR_STR_LITERAL("nobody"), .count = 1},
        .entry_count = 1,
    };
    br_request request = route(queries, 2);
    request.has_deadline = true;
    peer_ask(&p, &a, &request);
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.results[0].code, BR_CODE_DEADLINE);
    assert_int_equal(a.reply.results[1].code, BR_CODE_BAD_REQUEST);
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_a_drain_answers_what_is_in_flight_and_refuses_the_rest(void **state)
{
    (void)state;
    service s;
    service_start(&s, NULL);
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("one");
    br_request request = route(&query, 1);
    gate g;
    gate_close(&g, &s);
    pending w;
    pending_send(&w, &p, &request);
    service_wait_for_waiting(&s, 1);
    br_server_stop(s.server);
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    do { /* the keeper takes notice */
        peer_ask(&p, &a, &(br_request){.op = BR_OP_PING});
        assert_true(br_clock_now_ns() < until_ns);
    } while (a.reply.ok);
    assert_int_equal(a.reply.code, BR_CODE_NOT_READY);
    peer_ask(&p, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_NOT_READY);
    gate_open(&g);
    pending_wait(&w, &a);
    assert_true(a.reply.ok);
    service_join(&s);
    (void)fflush(s.log_stream);
    assert_non_null(strstr(s.log_text, "draining in_flight=1"));
    assert_non_null(strstr(s.log_text, "stopped unanswered=0"));
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_a_drain_ends_when_its_time_is_up(void **state)
{
    (void)state;
    service s;
    service_start(&s, (const char *const[]){"--drain-timeout-ms=1", NULL});
    peer p;
    peer_open(&p, s.url);
    br_query query = text_query("one");
    br_request request = route(&query, 1);
    gate g;
    gate_close(&g, &s);
    pending w;
    pending_send(&w, &p, &request);
    service_wait_for_waiting(&s, 1);
    br_server_stop(s.server);
    service_join(&s); /* though the worker still stands */
    gate_open(&g);
    nng_aio_stop(w.aio);
    if (nng_aio_result(w.aio) == 0) nng_msg_free(nng_aio_get_msg(w.aio));
    nng_aio_free(w.aio);
    (void)nng_ctx_close(w.ctx);
    peer_close(&p);
    service_stop(&s);
}

static void test_before_a_bundle_is_loaded_the_answer_is_not_ready(void **state)
{
    (void)state;
    service s;
    service_listen(&s, NULL);
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("one");
    br_request request = route(&query, 1);
    const br_request others[] = {{.op = BR_OP_PING}, {.op = BR_OP_INFO}};
    peer_ask(&p, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_NOT_READY);
    for (int i = 0; i < 2; i++) {
        peer_ask(&p, &a, &others[i]);
        assert_int_equal(a.reply.code, BR_CODE_NOT_READY);
    }
    service_load(&s);
    for (int i = 0; i < 2; i++) {
        peer_ask(&p, &a, &others[i]);
        assert_true(a.reply.ok);
    }
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_queue_is_answered_at_once_and_whole),
        cmocka_unit_test(test_more_refusals_than_contexts_are_all_answered),
        cmocka_unit_test(test_expired_work_is_not_computed),
        cmocka_unit_test(test_an_expired_query_beside_an_invalid_one_is_an_error_of_its_own),
        cmocka_unit_test(test_a_drain_answers_what_is_in_flight_and_refuses_the_rest),
        cmocka_unit_test(test_a_drain_ends_when_its_time_is_up),
        cmocka_unit_test(test_before_a_bundle_is_loaded_the_answer_is_not_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
