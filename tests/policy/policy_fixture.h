/*
 * policy_fixture.h - a seeded random source and routing tables for the policy tests.
 *
 * BESTROUTE_SEED chooses another seed for the random tests; it is printed.
 */
#ifndef BESTROUTE_TESTS_POLICY_POLICY_FIXTURE_H
#define BESTROUTE_TESTS_POLICY_POLICY_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "policy/policy.h"

static inline uint64_t seed_from_environment(void)
{
    const char *chosen = getenv("BESTROUTE_SEED");
    const uint64_t seed = chosen != NULL ? strtoull(chosen, NULL, 0) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    return seed;
}

static inline int32_t below(uint64_t *seed, int32_t bound)
{
    return (int32_t)(br_random_bits(seed) % (uint64_t)bound);
}

static inline void add_model(br_router *router, const char *name, bool has_price, double input_price,
                             double output_price)
{
    br_priced_model *model = &router->models[router->model_count++];
    *model =
        (br_priced_model){.has_price = has_price, .input_price = input_price, .output_price = output_price};
    snprintf(model->name, sizeof model->name, "%s", name);
}

static inline void add_candidate(br_router *router, int32_t model, int32_t n, bool is_reference)
{
    const int32_t head = is_reference ? -1 : router->head_count++;
    if (is_reference) router->reference = router->candidate_count;
    router->candidates[router->candidate_count++] = (br_candidate){.model = model, .n = n, .head = head};
}

#endif
