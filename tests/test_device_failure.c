/*
 * test_device_failure.c - a device that fails under the running service: once, and for good.
 *
 * The reference engine plays the device: its `wait`, where a device's errors come to light, fails as often
 * as the test says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "service.h"
#include "service_fixture.h"

static atomic_int failures_left;
static br_status (*sound_wait)(br_stream *stream);

static br_status failing_wait(br_stream *stream)
{
    const br_status status = sound_wait(stream);
    if (atomic_load(&failures_left) == 0) return status;
    (void)atomic_fetch_sub(&failures_left, 1);
    return BR_EDEVICE;
}

/* A service whose device can be made to fail. `table` outlives it. */
static void start(service *s, br_backend_table *table)
{
    atomic_store(&failures_left, 0);
    service_listen(s, (const char *const[]){"--drain-timeout-ms=20000", NULL});
    *table = *s->server->backend->table;
    sound_wait = table->wait;
    table->wait = failing_wait;
    s->server->backend->table = table; /* encoders, made next, keep it */
    service_load(s);
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
    br_backend_table table;
    start(&s, &table);
    peer_open(&p, s.url);
    peer_answer before = {0};
    peer_answer after = {0};
    ask(&p, &before);
    atomic_store(&failures_left, 1);
    ask(&p, &after);
    assert_int_equal(atomic_load(&failures_left), 0);
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
    br_backend_table table;
    start(&s, &table);
    peer_open(&p, s.url);
    gate held;
    pending sent;
    peer_answer answer = {0};
    br_query query = text_query("hello");
    const br_request request = {.op = BR_OP_ROUTE, .queries = &query, .query_count = 1};

    gate_close(&held, &s);
    pending_send(&sent, &p, &request);
    service_wait_for_waiting(&s, 1);
    atomic_store(&failures_left, 1000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pass_that_fails_once_is_tried_again_and_answered_as_ever),
        cmocka_unit_test(test_a_lost_device_answers_with_errors_and_ends_the_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
