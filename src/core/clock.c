/* clock.c - CLOCK_MONOTONIC in nanoseconds. */
#include "clock.h"

#include <time.h>

uint64_t br_clock_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock and a valid pointer */
    return (uint64_t)now.tv_sec * BR_NS_PER_S + (uint64_t)now.tv_nsec;
}
