/* thread.c - pthread's calls, with their results asserted. */
#include "thread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"

/* Asserts stay in release builds; the cast is for builds that define NDEBUG nevertheless. */
static void must(int failed)
{
    assert(failed == 0);
    (void)failed;
}

void br_mutex_init(pthread_mutex_t *mutex)
{
    must(pthread_mutex_init(mutex, NULL));
}

void br_mutex_destroy(pthread_mutex_t *mutex)
{
    must(pthread_mutex_destroy(mutex));
}

void br_lock(pthread_mutex_t *mutex)
{
    must(pthread_mutex_lock(mutex));
}

void br_unlock(pthread_mutex_t *mutex)
{
    must(pthread_mutex_unlock(mutex));
}

void br_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    must(pthread_condattr_init(&attributes));
    must(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC));
    must(pthread_cond_init(cond, &attributes));
    must(pthread_condattr_destroy(&attributes));
}

void br_cond_destroy(pthread_cond_t *cond)
{
    must(pthread_cond_destroy(cond));
}

void br_cond_signal(pthread_cond_t *cond)
{
    must(pthread_cond_signal(cond));
}

void br_cond_broadcast(pthread_cond_t *cond)
{
    must(pthread_cond_broadcast(cond));
}

void br_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    must(pthread_cond_wait(cond, mutex));
}

void br_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns)
{
    if (until_ns == UINT64_MAX) {
        br_cond_wait(cond, mutex);
        return;
    }
    const struct timespec until = {
        .tv_sec = (time_t)(until_ns / BR_NS_PER_S),
        .tv_nsec = (long)(until_ns % BR_NS_PER_S),
    };
    const int failed = pthread_cond_timedwait(cond, mutex, &until);
    assert(failed == 0 || failed == ETIMEDOUT);
    (void)failed;
}

bool br_thread_start(pthread_t *out, void *(*run)(void *), void *context)
{
    return pthread_create(out, NULL, run, context) == 0;
}

void br_thread_join(pthread_t thread)
{
    must(pthread_join(thread, NULL));
}

/* Lives until it gets the lock. */
static void *wait_for_lock(void *argument)
{
    pthread_mutex_t *lock = argument;
    br_lock(lock);
    br_unlock(lock);
    return NULL;
}

bool br_threads_available(int count)
{
    pthread_t *threads = calloc((size_t)count + 1, sizeof *threads);
    if (threads == NULL) return false;
    pthread_mutex_t lock;
    br_mutex_init(&lock);
    br_lock(&lock);
    int started = 0;
    while (started < count && br_thread_start(&threads[started], wait_for_lock, &lock)) started++;
    br_unlock(&lock);
    for (int i = 0; i < started; i++) br_thread_join(threads[i]);
    br_mutex_destroy(&lock);
    free(threads);
    return started == count;
}
