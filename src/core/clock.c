/* clock.c - CLOCK_MONOTONIC in nanoseconds. */
#include "clock.h"

uint64_t br_clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a valid pointer */
    return (uint64_t)now.tv_sec * BR_NS_PER_S + (uint64_t)now.tv_nsec;
}

void br_clock_cond_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    (void)pthread_condattr_init(&attributes); /* glibc's cannot fail */
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(condition, &attributes);
    (void)pthread_condattr_destroy(&attributes);
}

struct timespec br_clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / BR_NS_PER_S), .tv_nsec = (long)(ns % BR_NS_PER_S)};
}
