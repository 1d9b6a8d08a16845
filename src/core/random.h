/*
 * random.h - numbers that look random and follow from a seed alone: splitmix64.
 *
 * For samples, loads and tests that can be repeated; not for secrets.
 */
#ifndef BESTROUTE_CORE_RANDOM_H
#define BESTROUTE_CORE_RANDOM_H

#include <stdint.h>

/* The next 64 bits. `state` begins as the seed. */
static inline uint64_t br_random_bits(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The next number in [0, 1). */
static inline double br_random_unit(uint64_t *state)
{
    return (double)(br_random_bits(state) >> 11) * 0x1p-53;
}

#endif
