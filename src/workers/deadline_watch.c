/* deadline_watch.c - see deadline_watch.h. */
#include "deadline_watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/clock.h"

struct deadline_watch {
    deadline_passed_fn passed;
    void *context;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;         /* guards changes of what follows */
    pthread_cond_t changed;       /* on CLOCK_MONOTONIC, as br_clock_now_ns is */
    _Atomic uint64_t earliest_ns; /* the thread sleeps until then; UINT64_MAX: for good */
    bool stopping;
};

/* Lock held. */
static void sleep_until(deadline_watch *w, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX) {
        (void)pthread_cond_wait(&w->changed, &w->lock);
        return;
    }
    const struct timespec until = br_clock_timespec(until_ns);
    (void)pthread_cond_timedwait(&w->changed, &w->lock, &until);
}

static void *serve(void *argument)
{
    deadline_watch *w = argument;
    (void)pthread_mutex_lock(&w->lock);
    while (!w->stopping) {
        const uint64_t until_ns = atomic_load(&w->earliest_ns);
        if (br_clock_now_ns() < until_ns) {
            sleep_until(w, until_ns);
            continue;
        }
        /* Before looking: what is told of meanwhile may not be seen. */
        atomic_store(&w->earliest_ns, UINT64_MAX);
        (void)pthread_mutex_unlock(&w->lock);
        const uint64_t left_ns = w->passed(w->context);
        (void)pthread_mutex_lock(&w->lock);
        if (left_ns < atomic_load(&w->earliest_ns)) atomic_store(&w->earliest_ns, left_ns);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

br_status deadline_watch_create(deadline_watch **out, deadline_passed_fn passed, void *context)
{
    *out = NULL;
    deadline_watch *w = calloc(1, sizeof *w);
    if (w == NULL) return BR_ENOMEM;
    w->passed = passed;
    w->context = context;
    atomic_init(&w->earliest_ns, UINT64_MAX);
    (void)pthread_mutex_init(&w->lock, NULL);
    br_clock_cond_init(&w->changed);
    w->started = pthread_create(&w->thread, NULL, serve, w) == 0;
    if (!w->started) {
        deadline_watch_destroy(w);
        return BR_EINTERNAL;
    }
    *out = w;
    return BR_OK;
}

void deadline_watch_stop(deadline_watch *watch)
{
    if (watch == NULL || !watch->started) return;
    (void)pthread_mutex_lock(&watch->lock);
    watch->stopping = true;
    (void)pthread_cond_signal(&watch->changed);
    (void)pthread_mutex_unlock(&watch->lock);
    (void)pthread_join(watch->thread, NULL);
    watch->started = false;
}

void deadline_watch_destroy(deadline_watch *watch)
{
    if (watch == NULL) return;
    deadline_watch_stop(watch);
    (void)pthread_cond_destroy(&watch->changed);
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
}

void deadline_watch_tell(deadline_watch *watch, uint64_t deadline_ns)
{
    if (deadline_ns >= atomic_load(&watch->earliest_ns)) return;
    (void)pthread_mutex_lock(&watch->lock);
    if (deadline_ns < atomic_load(&watch->earliest_ns)) {
        atomic_store(&watch->earliest_ns, deadline_ns);
        (void)pthread_cond_signal(&watch->changed);
    }
    (void)pthread_mutex_unlock(&watch->lock);
}
