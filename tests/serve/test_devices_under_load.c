/*
 * test_devices_under_load.c - devices that fail, are slow or hang while clients keep all of them busy: no
 * reply is lost, none is wrong, none comes twice.
 *
 * All CUDA devices at hand; where there is none, the reference engine plays four.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "core/clock.h"
#include "crowd.h"
#include "engine/engines.h"
#include "serve/service.h"
#include "support/service_fixture.h"
#include "workers/workers.h"

/* Queries of a pass, so that several passes are under way whatever the number of devices. */
enum { PASS_QUERIES = 4, ASKED = 12, TAKEN = 3 };

static int32_t device_count(void)
{
    const int32_t present = br_engine_devices(BR_ENGINE_CUDA);
    return present == 0 ? 4 : present < BR_DEVICES_MAX ? present : BR_DEVICES_MAX;
}

/* A service on the first `count` devices, all of which can be made to fail. Their passes may take
 * timeout_ms. */
static void start(service *s, int32_t count, int timeout_ms)
{
    const bool cuda = br_engine_devices(BR_ENGINE_CUDA) > 0;
    char devices[128] = "--devices=";
    for (int32_t i = 0; i < count; i++) {
        const size_t length = strlen(devices);
        const char *comma = i == 0 ? "" : ",";
        if (cuda)
            (void)snprintf(devices + length, sizeof devices - length, "%s%d", comma, (int)i);
        else
            (void)snprintf(devices + length, sizeof devices - length, "%scpu", comma);
    }
    char timeout[64];
    (void)snprintf(timeout, sizeof timeout, "--pass-timeout-ms=%d", timeout_ms);
    service_listen(s, (const char *const[]){cuda ? "--engine=cuda" : "--engine=reference", "--precision=f32",
                                            "--workers=1", "--batch-seqs=4", devices, timeout, NULL});
    for (int32_t i = 0; i < count; i++) service_plant_faults(s, i);
    service_load(s);
    assert_int_equal(s->server->devices.count, count);
}

/* Waits until `out` devices are. */
static void wait_out(service *s, int out)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (__builtin_popcount(br_workers_out(s->server->workers)) != out) {
        if (br_clock_now_ns() > until_ns) fail_msg("there were never %d devices out", out);
        nng_msleep(1);
    }
}

static void wait_until_busy(const service_fault *fault)
{
    const int before = atomic_load(&fault->waits);
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (atomic_load(&fault->waits) == before) {
        if (br_clock_now_ns() > until_ns) fail_msg("the device never got a pass");
        nng_msleep(1);
    }
}

/* A service on all devices, and a crowd that keeps it busy. */
typedef struct scene {
    service s;
    crowd c;
} scene;

static scene *enter(int timeout_ms)
{
    static scene x;
    if (device_count() < 2) {
        print_message("SKIPPED: there is one device\n");
        skip();
    }
    start(&x.s, device_count(), timeout_ms);
    crowd_start(&x.c, &x.s);
    return &x;
}

/* So many queries were answered with `internal`, because two devices failed with them. */
static void leave(scene *x, int failed)
{
    crowd_stop(&x->c);
    assert_int_equal(atomic_load(&x->c.internal), failed);
    service_stop(&x->s);
    assert_int_equal(x->s.ran, BR_OK);
}

static void test_devices_that_fail_in_turn_are_not_noticed(void **state)
{
    (void)state;
    scene *x = enter(60000);
    const int32_t count = device_count();
    for (int32_t turn = 0; turn < TAKEN; turn++) {
        const int32_t device = turn * (count - 1) / (TAKEN - 1); /* the first, one between, the last */
        crowd_wait(&x->c, 2 * CROWD_WINDOW);
        atomic_store(&service_faults[device].failures, 2); /* a pass and its second try */
        service_wait_counted(&x->s, BR_COUNTER_devices_lost, (uint64_t)turn + 1);
        service_wait_counted(&x->s, BR_COUNTER_devices_readmitted, (uint64_t)turn + 1);
        wait_out(&x->s, 0);
        wait_until_busy(&service_faults[device]);
    }
    assert_true(service_counted(&x->s, BR_COUNTER_queries_retried) >= TAKEN);
    leave(x, 0);
}

static void test_the_last_device_carries_on_when_all_others_fail_at_once(void **state)
{
    (void)state;
    scene *x = enter(60000);
    const int32_t count = device_count();
    for (int32_t i = 0; i + 1 < count; i++) atomic_store(&service_faults[i].failures, 1000000);
    wait_out(&x->s, count - 1);
    crowd_wait(&x->c, 4 * CROWD_WINDOW);
    const int failed = atomic_load(&x->c.internal); /* by two devices; with one left there is no more of it */
    crowd_wait(&x->c, 4 * CROWD_WINDOW);
    assert_int_equal(atomic_load(&x->c.internal), failed);
    for (int32_t i = 0; i + 1 < count; i++) atomic_store(&service_faults[i].failures, 0);
    wait_out(&x->s, 0);
    for (int32_t i = 0; i < count; i++) wait_until_busy(&service_faults[i]);
    leave(x, failed);
}

static void ask(peer *p)
{
    peer_answer a = {0};
    br_query query = text_query("hello");
    peer_ask(p, &a, &(br_request){.op = BR_OP_SCORE, .queries = &query, .query_count = 1});
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
    answer_free(&a);
}

/* The time of the slowest of so many queries. */
static uint64_t longest_of(peer *p, int count)
{
    uint64_t longest_ns = 0;
    for (int i = 0; i < count; i++) {
        const uint64_t from_ns = br_clock_now_ns();
        ask(p);
        const uint64_t ns = br_clock_now_ns() - from_ns;
        if (ns > longest_ns) longest_ns = ns;
    }
    return longest_ns;
}

static void test_nothing_waits_behind_a_slow_device_but_its_own_pass(void **state)
{
    (void)state;
    scene *x = enter(600000);
    service_fault *slow = &service_faults[0];
    atomic_store(&slow->hangs, true);
    wait_until_busy(slow);
    crowd_wait(&x->c, 4 * CROWD_CLIENTS * CROWD_WINDOW);
    atomic_store(&x->c.pausing, true);
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (atomic_load(&x->c.out) > PASS_QUERIES) {
        if (br_clock_now_ns() > until_ns) fail_msg("%d requests wait behind a pass", atomic_load(&x->c.out));
        nng_msleep(1);
    }
    assert_true(atomic_load(&x->c.out) >= 1);
    atomic_store(&slow->hangs, false);
    atomic_store(&x->c.pausing, false);
    crowd_wait(&x->c, 2 * CROWD_WINDOW);
    leave(x, 0);
}

static void test_a_slow_device_is_passed_over_until_the_others_are_taken(void **state)
{
    (void)state;
    scene *x = enter(600000);
    service_fault *slow = &service_faults[0];
    atomic_store(&x->c.pausing, true);
    while (atomic_load(&x->c.out) > 0) nng_msleep(1);

    peer p;
    peer_open(&p, x->s.url);
    const uint64_t longest_ns = longest_of(&p, ASKED);

    /* One query at a time: whatever the machine's speed, the device is found to be slow, and is avoided. */
    atomic_store(&slow->slow_ms, (int)(40 * longest_ns / BR_NS_PER_MS));
    const int before = atomic_load(&slow->waits);
    for (int i = 0; i < ASKED; i++) ask(&p);
    assert_in_range(atomic_load(&slow->waits) - before, 0, ASKED / 2); /* until its average shows it */
    peer_close(&p);

    atomic_store(&slow->slow_ms, 0);
    for (int32_t i = 1; i < device_count(); i++) atomic_store(&service_faults[i].hangs, true);
    atomic_store(&x->c.pausing, false);
    wait_until_busy(slow);
    for (int32_t i = 1; i < device_count(); i++) atomic_store(&service_faults[i].hangs, false);
    leave(x, 0);
}

static void wait_until_one_is_open(const service_fault *fault)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (atomic_load(&fault->streams) != 1) {
        if (br_clock_now_ns() > until_ns) fail_msg("%d encoders stay open", atomic_load(&fault->streams));
        nng_msleep(1);
    }
}

static void test_a_device_that_hangs_is_given_up_and_comes_back(void **state)
{
    (void)state;
    scene *x = enter(10000); /* no sound pass takes that long, on whatever machine */
    service_fault *hung = &service_faults[0];
    atomic_store(&hung->hangs, true);
    wait_until_busy(hung);
    br_server_reload(x->s.server); /* waits for the hung worker, until it is given up */
    service_wait_counted(&x->s, BR_COUNTER_devices_lost, 1);
    service_wait_counted(&x->s, BR_COUNTER_reloads_failed, 1);
    assert_int_equal(br_workers_out(x->s.server->workers), 1);
    assert_int_equal(service_counted(&x->s, BR_COUNTER_passes_given_up), 1);
    assert_true(service_counted(&x->s, BR_COUNTER_queries_retried) > 0);
    assert_true(br_server_stuck(x->s.server));

    /* Nothing waits for the hung worker: no reply, no reload, nor the next one. */
    crowd_wait(&x->c, 4 * CROWD_WINDOW);
    service_reload(&x->s);
    service_reload(&x->s);
    crowd_wait(&x->c, 4 * CROWD_WINDOW);
    for (int32_t i = 1; i < device_count(); i++) wait_until_one_is_open(&service_faults[i]);
    assert_true(
        br_server_stuck(x->s.server)); /* still: its own encoder, of the first bundle, is all that stays */
    assert_int_equal(atomic_load(&hung->streams), 1);
    assert_int_equal(service_counted(&x->s, BR_COUNTER_devices_readmitted), 0);

    atomic_store(&hung->hangs, false); /* and its late results are discarded */
    service_wait_counted(&x->s, BR_COUNTER_devices_readmitted, 1);
    wait_out(&x->s, 0);
    wait_until_busy(hung);
    assert_false(br_server_stuck(x->s.server));
    leave(x, 0);
}

static void test_the_last_device_that_hangs_ends_the_service_and_all_are_answered(void **state)
{
    (void)state;
    enum { SENT = 6 };
    service s;
    start(&s, 1, 1000);
    peer p;
    peer_open(&p, s.url);
    atomic_store(&service_faults[0].hangs, true);
    pending sent[SENT];
    for (int i = 0; i < SENT; i++) {
        char texts[PASS_QUERIES][48];
        br_query queries[PASS_QUERIES];
        for (int k = 0; k < PASS_QUERIES; k++) {
            (void)snprintf(texts[k], sizeof texts[k], "request %d prompt %d", i, k);
            queries[k] = text_query(texts[k]);
        }
        pending_send(&sent[i], &p,
                     &(br_request){.op = BR_OP_SCORE, .queries = queries, .query_count = PASS_QUERIES});
    }
    peer_answer a = {0};
    for (int i = 0; i < SENT; i++) {
        pending_wait(&sent[i], &a);
        assert_true(a.reply.ok);
        for (int k = 0; k < PASS_QUERIES; k++) assert_int_equal(a.reply.results[k].code, BR_CODE_INTERNAL);
    }
    service_join(&s); /* it stops by itself */
    assert_int_equal(s.ran, BR_EDEVICE);
    assert_true(br_server_stuck(s.server));
    atomic_store(&service_faults[0].hangs, false); /* or destroying would wait for ever */
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

int main(void)
{
    print_message("%d devices\n", (int)device_count());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_that_fail_in_turn_are_not_noticed),
        cmocka_unit_test(test_the_last_device_carries_on_when_all_others_fail_at_once),
        cmocka_unit_test(test_nothing_waits_behind_a_slow_device_but_its_own_pass),
        cmocka_unit_test(test_a_slow_device_is_passed_over_until_the_others_are_taken),
        cmocka_unit_test(test_a_device_that_hangs_is_given_up_and_comes_back),
        cmocka_unit_test(test_the_last_device_that_hangs_ends_the_service_and_all_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
