/*
 * clock.h - the monotonic clock. Only threads read it; pure modules take time as an argument.
 */
#ifndef BESTROUTE_CORE_CLOCK_H
#define BESTROUTE_CORE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

enum { BR_NS_PER_US = 1000, BR_NS_PER_MS = 1000000, BR_NS_PER_S = 1000000000 };

/* Nanoseconds since an arbitrary start; never goes back. */
uint64_t br_clock_now_ns(void);

/* A condition whose timed waits go by this clock, and such a moment as they want it. */
void br_clock_cond_init(pthread_cond_t *condition);
struct timespec br_clock_timespec(uint64_t ns);

#endif
