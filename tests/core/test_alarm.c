/* test_alarm.c - a thread that rings when something is due, when it is told to,
 * and never after it was stopped. */
#include "core/alarm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/clock.h"
#include "core/thread.h"
#include "support/oom.h"

enum { LONG_MS = 60000 };

typedef struct bell {
    pthread_mutex_t lock;
    pthread_cond_t rang;
    int rings;
    uint64_t last_ns;
    uint64_t next_ns; /* what `ring` returns */
    br_alarm *alarm;
    uint64_t set_inside_ns; /* `ring` sets this moment itself; UINT64_MAX: none */
} bell;

static uint64_t ring(void *context)
{
    bell *b = context;
    br_lock(&b->lock);
    b->rings++;
    b->last_ns = br_clock_now_ns();
    const uint64_t next_ns = b->next_ns;
    const uint64_t inside_ns = b->set_inside_ns;
    b->next_ns = UINT64_MAX;
    b->set_inside_ns = UINT64_MAX;
    br_cond_broadcast(&b->rang);
    br_alarm *alarm = b->alarm;
    br_unlock(&b->lock);
    if (inside_ns != UINT64_MAX) br_alarm_set(alarm, inside_ns);
    return next_ns;
}

static void begin(bell *b, uint64_t first_ns)
{
    *b = (bell){.next_ns = UINT64_MAX, .set_inside_ns = UINT64_MAX};
    br_mutex_init(&b->lock);
    br_cond_init(&b->rang);
    br_lock(&b->lock); /* the first ring waits until the alarm is known */
    assert_int_equal(br_alarm_create(&b->alarm, ring, b, first_ns), BR_OK);
    br_unlock(&b->lock);
}

static void end(bell *b)
{
    br_alarm_destroy(b->alarm);
    br_cond_destroy(&b->rang);
    br_mutex_destroy(&b->lock);
}

static uint64_t in_ms(uint64_t ms)
{
    return br_clock_now_ns() + ms * BR_NS_PER_MS;
}

/* Returns false when it did not ring so often within a minute. */
static bool rang(bell *b, int times)
{
    const uint64_t until_ns = in_ms(LONG_MS);
    br_lock(&b->lock);
    while (b->rings < times && br_clock_now_ns() < until_ns) br_cond_wait_until(&b->rang, &b->lock, until_ns);
    const bool enough = b->rings >= times;
    br_unlock(&b->lock);
    return enough;
}

static void test_it_rings_at_the_first_moment_and_not_before(void **state)
{
    (void)state;
    bell b;
    const uint64_t at_ns = in_ms(20);
    begin(&b, at_ns);
    assert_true(rang(&b, 1));
    assert_true(b.last_ns >= at_ns);
    end(&b);
}

static void test_told_of_an_earlier_moment_it_rings_then(void **state)
{
    (void)state;
    bell b;
    begin(&b, in_ms(LONG_MS));
    br_alarm_set(b.alarm, in_ms(2 * LONG_MS)); /* later: changes nothing */
    br_alarm_set(b.alarm, 0);
    assert_true(rang(&b, 1));
    end(&b);
}

static void test_it_rings_again_when_ring_says_so(void **state)
{
    (void)state;
    bell b;
    begin(&b, UINT64_MAX);
    br_lock(&b.lock);
    b.next_ns = in_ms(10);
    const uint64_t second_ns = b.next_ns;
    br_unlock(&b.lock);
    br_alarm_set(b.alarm, 0);
    assert_true(rang(&b, 2));
    assert_true(b.last_ns >= second_ns);
    end(&b);
}

static void test_a_moment_set_while_it_rings_is_not_lost(void **state)
{
    (void)state;
    bell b;
    begin(&b, UINT64_MAX);
    br_lock(&b.lock);
    b.set_inside_ns = 1;
    br_unlock(&b.lock);
    br_alarm_set(b.alarm, 0);
    assert_true(rang(&b, 2));
    end(&b);
}

static void test_once_stopped_it_is_silent_and_may_still_be_set(void **state)
{
    (void)state;
    bell b;
    begin(&b, UINT64_MAX);
    br_alarm_stop(b.alarm);
    br_alarm_set(b.alarm, 0);
    br_alarm_stop(b.alarm);
    assert_int_equal(b.rings, 0);
    end(&b);
    br_alarm_stop(NULL);
    br_alarm_destroy(NULL);
}

static void test_without_memory_there_is_none(void **state)
{
    (void)state;
    br_alarm *alarm;
    br_oom_fail_at(1);
    const br_status status = br_alarm_create(&alarm, ring, NULL, UINT64_MAX);
    assert_true(br_oom_off());
    assert_int_equal(status, BR_ENOMEM);
    assert_null(alarm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_rings_at_the_first_moment_and_not_before),
        cmocka_unit_test(test_told_of_an_earlier_moment_it_rings_then),
        cmocka_unit_test(test_it_rings_again_when_ring_says_so),
        cmocka_unit_test(test_a_moment_set_while_it_rings_is_not_lost),
        cmocka_unit_test(test_once_stopped_it_is_silent_and_may_still_be_set),
        cmocka_unit_test(test_without_memory_there_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
