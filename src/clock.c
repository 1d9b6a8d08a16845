/* clock.c - CLOCK_MONOTONIC in nanoseconds. */
#include "bestroute/clock.h"

#include <time.h>

uint64_t br_clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a valid pointer */
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
