/*
 * thread.h - mutexes, conditions and threads, without statuses to check.
 *
 * The system's calls fail only where our own code is wrong (a mutex that was never made, or is locked twice).
 * So the calls below return nothing and assert. Timed waits go by br_clock_now_ns's clock.
 *
 * Uses: clock.
 */
#ifndef BESTROUTE_CORE_THREAD_H
#define BESTROUTE_CORE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

void br_mutex_init(pthread_mutex_t *mutex);
void br_mutex_destroy(pthread_mutex_t *mutex);
void br_lock(pthread_mutex_t *mutex);
void br_unlock(pthread_mutex_t *mutex);

void br_cond_init(pthread_cond_t *cond);
void br_cond_destroy(pthread_cond_t *cond);
void br_cond_signal(pthread_cond_t *cond);
void br_cond_broadcast(pthread_cond_t *cond);

/* Both return when the condition was signalled, and sometimes without a reason.
 * The mutex is held before and after. */
void br_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
/* ... or when the moment has come; UINT64_MAX: never. */
void br_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until_ns);

/* False when the system gives no more threads. A started thread must be joined. */
bool br_thread_start(pthread_t *out, void *(*run)(void *), void *context);
void br_thread_join(pthread_t thread);

/* True when the system gives so many more threads now: for a library that does not survive when it gets
 * fewer. Starts them and ends them again. */
bool br_threads_available(int count);

#endif
