/*
 * clock.h - the monotonic clock. Only threads read it; pure modules take time as an argument.
 */
#ifndef BESTROUTE_CORE_CLOCK_H
#define BESTROUTE_CORE_CLOCK_H

#include <stdint.h>

enum { BR_NS_PER_US = 1000, BR_NS_PER_MS = 1000000, BR_NS_PER_S = 1000000000 };

/* Nanoseconds since an arbitrary start; never goes back. */
uint64_t br_clock_now_ns(void);

#endif
