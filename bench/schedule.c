/* schedule.c - see schedule.h. */
#include "schedule.h"

#include <math.h>

uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

double random_unit(uint64_t *state)
{
    return (double)(random_bits(state) >> 11) * 0x1p-53;
}

void schedule_init(schedule *s, double rate, bool poisson, uint64_t seed)
{
    *s = (schedule){.mean_ns = 1e9 / rate, .poisson = poisson, .random = seed};
}

uint64_t schedule_next(schedule *s)
{
    const uint64_t at = (uint64_t)s->next_ns;
    s->next_ns += s->poisson ? -log(1 - random_unit(&s->random)) * s->mean_ns : s->mean_ns;
    return at;
}
