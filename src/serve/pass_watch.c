/* pass_watch.c - looks after passes that do not end, on a thread of its own: the keeper may be waiting for one of them. */
#include <stdlib.h>

#include "core/clock.h"
#include "service.h"

struct br_pass_watch {
    br_workers *workers;
    uint64_t interval_ns;
    pthread_t thread;

    pthread_mutex_t lock; /* guards leaving */
    pthread_cond_t left;  /* on CLOCK_MONOTONIC */
    bool leaving;
};

/* A whole interval lies between two looks, however long the process was stopped. False when it is time to leave. */
static bool sleep_until_next(br_pass_watch *watch)
{
    const struct timespec at = br_clock_timespec(br_clock_now_ns() + watch->interval_ns);
    (void)pthread_mutex_lock(&watch->lock);
    while (!watch->leaving && pthread_cond_timedwait(&watch->left, &watch->lock, &at) == 0) continue;
    const bool stays = !watch->leaving;
    (void)pthread_mutex_unlock(&watch->lock);
    return stays;
}

static void *look_often(void *argument)
{
    br_pass_watch *watch = argument;
    while (sleep_until_next(watch)) br_workers_look(watch->workers);
    return NULL;
}

static void deinit(br_pass_watch *watch)
{
    (void)pthread_cond_destroy(&watch->left);
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
}

br_status br_pass_watch_create(br_pass_watch **out, br_workers *workers, int64_t timeout_ms)
{
    *out = NULL;
    br_pass_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return BR_ENOMEM;
    watch->workers = workers;
    watch->interval_ns = (uint64_t)timeout_ms * (uint64_t)BR_NS_PER_MS / BR_WORKERS_LOOKS;
    (void)pthread_mutex_init(&watch->lock, NULL);
    br_clock_cond_init(&watch->left);
    if (pthread_create(&watch->thread, NULL, look_often, watch) != 0) {
        deinit(watch);
        return BR_EINTERNAL;
    }
    *out = watch;
    return BR_OK;
}

void br_pass_watch_destroy(br_pass_watch *watch)
{
    if (watch == NULL) return;
    (void)pthread_mutex_lock(&watch->lock);
    watch->leaving = true;
    (void)pthread_cond_signal(&watch->left);
    (void)pthread_mutex_unlock(&watch->lock);
    (void)pthread_join(watch->thread, NULL);
    deinit(watch);
}
