/* schedule.c - see schedule.h. */
#include "schedule.h"

#include <math.h>

#include "core/random.h"

void schedule_init(schedule *s, double rate, bool poisson, uint64_t seed)
{
    *s = (schedule){.mean_ns = 1e9 / rate, .poisson = poisson, .random = seed};
}

uint64_t schedule_next(schedule *s)
{
    const uint64_t at = (uint64_t)s->next_ns;
    s->next_ns += s->poisson ? -log(1 - br_random_unit(&s->random)) * s->mean_ns : s->mean_ns;
    return at;
}
