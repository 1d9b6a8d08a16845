/*
 * schedule.h - when requests are due in an open loop: at even distances, or as a Poisson process. Pure; the
 * same seed gives the same times.
 */
#ifndef BESTROUTE_BENCH_SCHEDULE_H
#define BESTROUTE_BENCH_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct schedule {
    double mean_ns; /* between two */
    bool poisson;
    uint64_t random;
    double next_ns;
} schedule;

/* `rate` per second, above 0. */
void schedule_init(schedule *s, double rate, bool poisson, uint64_t seed);

/* Nanoseconds from the beginning to the next; never falls. */
uint64_t schedule_next(schedule *s);

#endif
