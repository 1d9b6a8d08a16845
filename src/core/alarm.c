/* alarm.c - see alarm.h. */
#include "alarm.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "clock.h"
#include "thread.h"

struct br_alarm {
    br_alarm_ring ring;
    void *context;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards changes of what follows */
    pthread_cond_t changed;
    _Atomic uint64_t at_ns; /* the thread sleeps until then; UINT64_MAX: until told */
    bool stopping;
};

static void *serve(void *argument)
{
    br_alarm *a = argument;
    br_lock(&a->lock);
    while (!a->stopping) {
        const uint64_t at_ns = atomic_load(&a->at_ns);
        if (br_clock_now_ns() < at_ns) {
            br_cond_wait_until(&a->changed, &a->lock, at_ns);
            continue;
        }
        /* Cleared before `ring` looks: a moment that is set while it looks may be one that it misses. */
        atomic_store(&a->at_ns, UINT64_MAX);
        br_unlock(&a->lock);
        const uint64_t next_ns = a->ring(a->context);
        br_lock(&a->lock);
        if (next_ns < atomic_load(&a->at_ns)) atomic_store(&a->at_ns, next_ns);
    }
    br_unlock(&a->lock);
    return NULL;
}

br_status br_alarm_create(br_alarm **out, br_alarm_ring ring, void *context, uint64_t first_ns)
{
    *out = NULL;
    br_alarm *a = calloc(1, sizeof *a);
    if (a == NULL) return BR_ENOMEM;
    a->ring = ring;
    a->context = context;
    atomic_init(&a->at_ns, first_ns);
    br_mutex_init(&a->lock);
    br_cond_init(&a->changed);
    a->started = br_thread_start(&a->thread, serve, a);
    if (!a->started) {
        br_alarm_destroy(a);
        return BR_EINTERNAL;
    }
    *out = a;
    return BR_OK;
}

void br_alarm_set(br_alarm *alarm, uint64_t at_ns)
{
    if (at_ns >= atomic_load(&alarm->at_ns)) return;
    br_lock(&alarm->lock);
    if (at_ns < atomic_load(&alarm->at_ns)) {
        atomic_store(&alarm->at_ns, at_ns);
        br_cond_signal(&alarm->changed);
    }
    br_unlock(&alarm->lock);
}

void br_alarm_stop(br_alarm *alarm)
{
    if (alarm == NULL || !alarm->started) return;
    br_lock(&alarm->lock);
    alarm->stopping = true;
    br_cond_signal(&alarm->changed);
    br_unlock(&alarm->lock);
    br_thread_join(alarm->thread);
    alarm->started = false;
}

void br_alarm_destroy(br_alarm *alarm)
{
    if (alarm == NULL) return;
    br_alarm_stop(alarm);
    br_cond_destroy(&alarm->changed);
    br_mutex_destroy(&alarm->lock);
    free(alarm);
}
