/*
 * test_shared_budget_random.c - policy/policy.h, a pool: random instances against an exact
 * knapsack, a plain greedy in integers, other orders of the same queries, and
 * plain sums of what was spent.
 *
 * Whole numbers are scaled by powers of two, so on those instances every sum and
 * every comparison is exact and the oracles need no tolerance.
 */
#include "policy_fixture.h"

enum { QUERIES_MAX = 5, CANDIDATES_MAX = 5, CROWD = 48, SMALL_INSTANCES = 20000, LARGE_INSTANCES = 2000 };

/* A quality of q / 64 and a cost of c / 1024. */
enum { QUALITY_UNITS = 64, COST_UNITS = 1024, COST_MAX = 40 };

typedef struct instance {
    br_router router;
    br_policy policies[CROWD];
    br_option options[CROWD][CANDIDATES_MAX];
    br_shared_budget_query queries[CROWD];
    int32_t query_count;
    double budget;
    uint8_t scratch[1 << 17];
} instance;

static void decide(instance *x)
{
    assert_true(br_shared_budget_scratch_bytes(&x->router, (size_t)x->query_count) <= sizeof x->scratch);
    memset(x->scratch, 0xa5, sizeof x->scratch); /* nothing may be expected of it */
    br_shared_budget_decide(x->queries, (size_t)x->query_count, &x->router, x->budget, x->scratch);
}

static br_reason random_reason(uint64_t *seed)
{
    static const br_reason out[] = {BR_REASON_FILTERED, BR_REASON_OVER_MAX_COST};
    return below(seed, 5) > 0 ? BR_REASON_NONE : out[below(seed, 2)];
}

/* 0..max in ones, or in quarters of max: most values are then met several times. */
static double random_units(uint64_t *seed, int32_t max, bool coarse)
{
    return coarse ? below(seed, 5) * (max / 4) : below(seed, max + 1);
}

static int rising(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Better candidates cost more, as they mostly do: hulls then have several steps. */
static void sort_market(br_option *options, int32_t count)
{
    double costs[CANDIDATES_MAX];
    double qualities[CANDIDATES_MAX];
    for (int32_t c = 0; c < count; c++) {
        costs[c] = options[c].cost;
        qualities[c] = options[c].quality;
    }
    qsort(costs, (size_t)count, sizeof costs[0], rising);
    qsort(qualities, (size_t)count, sizeof qualities[0], rising);
    for (int32_t c = 0; c < count; c++) {
        options[c].cost = costs[c];
        options[c].quality = qualities[c];
    }
}

/* `whole`: values are whole units; `clean`: no broken scores, and every query has something to consider. */
static void random_instance(instance *x, uint64_t *seed, int32_t queries_max, bool whole, bool clean)
{
    const bool coarse = below(seed, 2) == 0;
    const bool market = below(seed, 3) > 0;
    const int32_t candidates = 1 + below(seed, CANDIDATES_MAX);
    const int32_t unpriced = clean || below(seed, 4) > 0 ? -1 : below(seed, candidates);
    x->router = (br_router){.candidate_count = candidates, .reference = candidates - 1};
    x->query_count = 1 + below(seed, queries_max);
    for (int32_t c = 0; c < candidates; c++) x->router.candidates[c].n = 1 + below(seed, 3);
    for (int32_t q = 0; q < x->query_count; q++) {
        for (int32_t c = 0; c < candidates; c++) {
            br_option *o = &x->options[q][c];
            o->quality =
                whole ? random_units(seed, QUALITY_UNITS, coarse) / QUALITY_UNITS : br_random_unit(seed);
            o->cost = whole ? random_units(seed, COST_MAX, coarse) / COST_UNITS : 1e-3 * br_random_unit(seed);
            o->reason = random_reason(seed);
            if (c == x->router.reference) o->quality = 1;
        }
        if (market) sort_market(x->options[q], candidates);
        if (unpriced >= 0) {
            br_option *o = &x->options[q][unpriced];
            *o = (br_option){o->quality, NAN, BR_REASON_NO_PRICE};
        }
        if (clean) {
            x->options[q][below(seed, candidates)].reason = BR_REASON_NONE;
        } else if (x->options[q][0].reason == BR_REASON_FILTERED) {
            x->options[q][0].reason = BR_REASON_OVER_MAX_COST; /* one is always allowed */
        }
        if (!clean && below(seed, 30) == 0) x->options[q][0].quality = below(seed, 2) ? NAN : -0.5;
        x->policies[q] = (br_policy){.kind = BR_POLICY_POOL, .fallback = (br_fallback)below(seed, 3)};
        x->queries[q] = (br_shared_budget_query){.options = x->options[q], .policy = &x->policies[q]};
    }
}

/* The cost of each query's cheapest considered candidate, and of its dearest. */
static void cost_range(const instance *x, int32_t q, double *least, double *most)
{
    *least = INFINITY;
    *most = 0;
    for (int32_t c = 0; c < x->router.candidate_count; c++) {
        if (x->options[q][c].reason != BR_REASON_NONE) continue;
        *least = fmin(*least, x->options[q][c].cost);
        *most = fmax(*most, x->options[q][c].cost);
    }
}

/* Somewhere between a little less than the cheapest choices and a little more than the dearest. */
static double random_budget(const instance *x, uint64_t *seed, bool whole)
{
    double least = 0;
    double most = 0;
    for (int32_t q = 0; q < x->query_count; q++) {
        double low;
        double high;
        cost_range(x, q, &low, &high);
        least += low;
        most += high;
    }
    const double budget = least + (1.2 * br_random_unit(seed) - 0.1) * (most - least);
    const double units = whole ? floor(budget * COST_UNITS) / COST_UNITS : budget;
    return fmax(units, 0);
}

/* An exact knapsack: every choice of every query. */
static double best_total(const instance *x, int32_t q, double left)
{
    if (q == x->query_count) return 0;
    double best = -INFINITY;
    for (int32_t c = 0; c < x->router.candidate_count; c++) {
        const br_option *o = &x->options[q][c];
        if (o->reason != BR_REASON_NONE || o->cost > left) continue;
        best = fmax(best, o->quality + best_total(x, q + 1, left - o->cost));
    }
    return best;
}

/* An edge of a hull. Hulls are wrapped: the steepest way up from each corner; of equal ones the nearest. */
typedef struct step {
    int32_t query;
    int32_t to; /* candidate */
    int64_t quality;
    int64_t cost;
} step;

static int64_t quality_units(const br_option *o)
{
    return (int64_t)(o->quality * QUALITY_UNITS);
}

static int64_t cost_units(const br_option *o)
{
    return (int64_t)(o->cost * COST_UNITS);
}

/* a is steeper, or as steep and cheaper: exact for whole units. */
static int compare_steps(const step *a, const step *b)
{
    const int64_t left = a->quality * b->cost;
    const int64_t right = b->quality * a->cost;
    if (left != right) return left > right ? -1 : 1;
    return a->cost < b->cost ? -1 : a->cost > b->cost;
}

static int32_t cheapest(const instance *x, int32_t q)
{
    const br_option *o = x->options[q];
    int32_t found = -1;
    for (int32_t c = 0; c < x->router.candidate_count; c++) {
        if (o[c].reason != BR_REASON_NONE) continue;
        if (found < 0 || o[c].cost < o[found].cost ||
            (o[c].cost == o[found].cost && o[c].quality > o[found].quality)) {
            found = c;
        }
    }
    return found;
}

static int32_t wrap_hull(const instance *x, int32_t q, step *steps)
{
    const br_option *o = x->options[q];
    int32_t count = 0;
    for (int32_t at = cheapest(x, q); at >= 0;) {
        step best = {.to = -1};
        for (int32_t c = 0; c < x->router.candidate_count; c++) {
            if (o[c].reason != BR_REASON_NONE || !(o[c].quality > o[at].quality)) continue;
            const step way = {.query = q,
                              .to = c,
                              .quality = quality_units(&o[c]) - quality_units(&o[at]),
                              .cost = cost_units(&o[c]) - cost_units(&o[at])};
            if (best.to < 0 || compare_steps(&way, &best) < 0) best = way;
        }
        if (best.to >= 0) steps[count++] = best;
        at = best.to;
    }
    return count;
}

static bool are_met(const instance *x)
{
    for (int32_t q = 0; q < x->query_count; q++) {
        if (!x->queries[q].decision.met) return false;
    }
    return true;
}

static void test_a_pool_is_within_one_step_of_the_exact_knapsack(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    int32_t met = 0;
    int32_t optimal = 0;
    for (int32_t i = 0; i < SMALL_INSTANCES; i++) {
        random_instance(&x, &seed, QUERIES_MAX, true, true);
        x.budget = random_budget(&x, &seed, true);
        decide(&x);
        const double best = best_total(&x, 0, x.budget);
        assert_true(are_met(&x) == (best >= 0));
        if (best < 0) continue;

        double quality = 0;
        double cost = 0;
        int64_t largest = 0;
        for (int32_t q = 0; q < x.query_count; q++) {
            quality += x.queries[q].decision.quality;
            cost += x.queries[q].decision.cost;
            step steps[CANDIDATES_MAX];
            const int32_t count = wrap_hull(&x, q, steps);
            for (int32_t k = 0; k < count; k++)
                largest = steps[k].quality > largest ? steps[k].quality : largest;
        }
        assert_true(cost <= x.budget);
        assert_true(quality <= best);
        if (best - quality > (double)largest / QUALITY_UNITS)
            fail_msg("instance %d: %g of %g", i, quality, best);
        met++;
        if (quality == best) optimal++;
    }
    print_message("%d met, of which %d as good as the exact knapsack\n", met, optimal);
    assert_true(met > SMALL_INSTANCES / 2);
    assert_true(optimal > met / 2);
}

/* Where two queries' steps are alike in slope and price the tables decide: left to other tests. */
static bool has_tie(const step *steps, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        for (int32_t k = 0; k < i; k++) {
            if (steps[i].query != steps[k].query && compare_steps(&steps[i], &steps[k]) == 0) return true;
        }
    }
    return false;
}

/* Takes the first of all steps until none is left; steps of one query stand in their order. */
static void buy_greedily(step *steps, int32_t count, int64_t left, int32_t *chosen)
{
    bool used[QUERIES_MAX * CANDIDATES_MAX] = {false};
    for (;;) {
        int32_t first = -1;
        for (int32_t k = 0; k < count; k++) {
            const bool waits = k > 0 && steps[k - 1].query == steps[k].query && !used[k - 1];
            if (used[k] || waits) continue;
            if (first < 0 || compare_steps(&steps[k], &steps[first]) < 0) first = k;
        }
        if (first < 0) return;
        used[first] = true;
        const int32_t query = steps[first].query;
        if (steps[first].cost <= left) {
            left -= steps[first].cost;
            chosen[query] = steps[first].to;
        } else {
            for (int32_t k = first; k < count && steps[k].query == query; k++) used[k] = true;
        }
    }
}

static void test_a_pool_buys_as_the_plain_greedy_does(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    int32_t compared = 0;
    for (int32_t i = 0; i < SMALL_INSTANCES; i++) {
        random_instance(&x, &seed, QUERIES_MAX, true, true);
        x.budget = random_budget(&x, &seed, true);
        decide(&x);
        step steps[QUERIES_MAX * CANDIDATES_MAX];
        int32_t count = 0;
        int64_t left = (int64_t)(x.budget * COST_UNITS);
        int32_t chosen[QUERIES_MAX];
        for (int32_t q = 0; q < x.query_count; q++) {
            chosen[q] = cheapest(&x, q);
            left -= cost_units(&x.options[q][chosen[q]]);
            count += wrap_hull(&x, q, steps + count);
        }
        if (left < 0 || has_tie(steps, count)) continue;
        buy_greedily(steps, count, left, chosen);
        for (int32_t q = 0; q < x.query_count; q++) {
            const br_option *expected = &x.options[q][chosen[q]];
            const br_decision *d = &x.queries[q].decision;
            if (d->quality != expected->quality || d->cost != expected->cost)
                fail_msg("instance %d, query %d", i, q);
        }
        compared++;
    }
    print_message("%d compared\n", compared);
    assert_true(compared > SMALL_INSTANCES / 4);
}

static bool is_same_number(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static bool is_alike(const instance *x, const br_shared_budget_query *a, const br_shared_budget_query *b)
{
    for (int32_t c = 0; c < x->router.candidate_count; c++) {
        const br_option *o = &a->options[c];
        const br_option *p = &b->options[c];
        if (!is_same_number(o->quality, p->quality) || !is_same_number(o->cost, p->cost)) return false;
        if (o->reason != p->reason) return false;
    }
    return a->policy->fallback == b->policy->fallback;
}

/* How many of the queries that are alike to `query` have its candidate and margin. */
static int32_t count_alike(const instance *x, const br_shared_budget_query *queries,
                           const br_shared_budget_query *query, const br_decision *d)
{
    int32_t count = 0;
    for (int32_t q = 0; q < x->query_count; q++) {
        const br_decision *other = &queries[q].decision;
        if (is_alike(x, &queries[q], query) && other->candidate == d->candidate &&
            other->status == d->status && other->met == d->met && other->margin == d->margin) {
            count++;
        }
    }
    return count;
}

static void shuffle(br_shared_budget_query *queries, int32_t count, uint64_t *seed)
{
    for (int32_t i = count - 1; i > 0; i--) {
        const int32_t k = below(seed, i + 1);
        const br_shared_budget_query other = queries[k];
        queries[k] = queries[i];
        queries[i] = other;
    }
}

static void test_the_order_of_queries_changes_no_decision(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    for (int32_t i = 0; i < LARGE_INSTANCES; i++) {
        const bool whole = below(&seed, 2) == 0;
        random_instance(&x, &seed, CROWD, whole, false);
        x.budget = (double)x.query_count * 1e-3 * br_random_unit(&seed) * (whole ? COST_MAX : 1);
        /* Some queries are copies of others, some but for one number that plays no part. */
        for (int32_t q = 1; q < x.query_count; q += 3) {
            memcpy(x.options[q], x.options[q - 1], sizeof x.options[q]);
            if (below(&seed, 2) == 0) x.options[q][0].cost += x.options[q][0].reason != BR_REASON_NONE;
        }
        decide(&x);
        br_shared_budget_query before[CROWD];
        memcpy(before, x.queries, sizeof before);
        shuffle(x.queries, x.query_count, &seed);
        decide(&x);
        for (int32_t q = 0; q < x.query_count; q++) {
            const br_decision *d = &before[q].decision;
            if (count_alike(&x, before, &before[q], d) != count_alike(&x, x.queries, &before[q], d)) {
                fail_msg("instance %d, query %d", i, q);
            }
        }
    }
}

/* Without ties the order of candidates changes none either. */
static void test_the_order_of_candidates_changes_no_decision_without_ties(void **state)
{
    (void)state;
    static instance x;
    static instance y;
    uint64_t seed = seed_from_environment();
    for (int32_t i = 0; i < LARGE_INSTANCES; i++) {
        random_instance(&x, &seed, QUERIES_MAX, false, true);
        x.budget = random_budget(&x, &seed, false);
        y = x;
        const int32_t count = x.router.candidate_count;
        y.router.reference = 0;
        for (int32_t q = 0; q < x.query_count; q++) {
            for (int32_t c = 0; c < count; c++) y.options[q][c] = x.options[q][count - 1 - c];
            y.queries[q] = (br_shared_budget_query){.options = y.options[q], .policy = &y.policies[q]};
        }
        decide(&x);
        decide(&y);
        for (int32_t q = 0; q < x.query_count; q++) {
            assert_int_equal(x.queries[q].decision.met, y.queries[q].decision.met);
            assert_true(is_same_number(x.queries[q].decision.cost, y.queries[q].decision.cost));
        }
    }
}

/* The largest of some plain sums: rising, falling, and shuffled. */
static double largest_sum(double *costs, int32_t count, uint64_t *seed)
{
    double largest = 0;
    qsort(costs, (size_t)count, sizeof costs[0], rising);
    for (int32_t round = 0; round < 16; round++) {
        double up = 0;
        double down = 0;
        for (int32_t k = 0; k < count; k++) {
            up += costs[k];
            down += costs[count - 1 - k];
        }
        largest = fmax(largest, fmax(up, down));
        for (int32_t k = count - 1; k > 0; k--) {
            const int32_t other = below(seed, k + 1);
            const double swap = costs[k];
            costs[k] = costs[other];
            costs[other] = swap;
        }
    }
    return largest;
}

/* Budgets are plain sums of some choice, or a bit beside: where rounding would show. */
static void test_the_budget_is_never_exceeded_in_any_order_of_adding(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    int32_t met = 0;
    for (int32_t i = 0; i < 4 * LARGE_INSTANCES; i++) {
        random_instance(&x, &seed, below(&seed, 2) ? 4 : CROWD, below(&seed, 4) == 0, false);
        x.budget = 0;
        for (int32_t q = 0; q < x.query_count; q++) {
            const double cost = x.options[q][below(&seed, x.router.candidate_count)].cost;
            if (!isnan(cost)) x.budget += cost;
        }
        if (below(&seed, 3) == 0) x.budget = nextafter(x.budget, below(&seed, 2) ? 0 : INFINITY);
        decide(&x);
        double costs[CROWD];
        int32_t count = 0;
        bool any_met = false;
        for (int32_t q = 0; q < x.query_count; q++) {
            const br_decision *d = &x.queries[q].decision;
            if (!isnan(d->cost)) costs[count++] = d->cost;
            any_met = any_met || d->met;
        }
        if (!any_met) continue;
        met++;
        if (largest_sum(costs, count, &seed) > x.budget) fail_msg("instance %d", i);
    }
    print_message("%d met\n", met);
    assert_true(met > LARGE_INSTANCES / 2);
}

/* Three queries with 250 steps each: what the total loses to rounding in hundreds of purchases would show. */
static void test_many_purchases_leave_no_drift_in_the_total(void **state)
{
    (void)state;
    enum { STEPS = 250, QUERIES = 3 };
    static br_router router;
    static br_option options[QUERIES][STEPS];
    static uint8_t scratch[1 << 16];
    uint64_t seed = seed_from_environment();
    const br_policy policy = {.kind = BR_POLICY_POOL};
    br_shared_budget_query queries[QUERIES];
    router = (br_router){.candidate_count = STEPS};
    assert_true(br_shared_budget_scratch_bytes(&router, QUERIES) <= sizeof scratch);
    for (int32_t i = 0; i < LARGE_INSTANCES / 4; i++) {
        double most = 0;
        for (int32_t q = 0; q < QUERIES; q++) {
            double cost = 0;
            for (int32_t c = 0; c < STEPS; c++) {
                cost += br_random_unit(&seed);
                options[q][c] = (br_option){.quality = sqrt(cost / STEPS), .cost = cost};
            }
            most += cost;
            queries[q] = (br_shared_budget_query){.options = options[q], .policy = &policy};
        }
        /* The choice at some budget, then at a few bits less than it costs. */
        br_shared_budget_decide(queries, QUERIES, &router, (0.1 + 0.8 * br_random_unit(&seed)) * most,
                                scratch);
        double costs[QUERIES];
        for (int32_t q = 0; q < QUERIES; q++) costs[q] = queries[q].decision.cost;
        const double budget = largest_sum(costs, QUERIES, &seed) * (1 - (1 + below(&seed, 8)) * 0x1p-53);
        br_shared_budget_decide(queries, QUERIES, &router, budget, scratch);
        for (int32_t q = 0; q < QUERIES; q++) costs[q] = queries[q].decision.cost;
        if (largest_sum(costs, QUERIES, &seed) > budget) fail_msg("instance %d", i);
    }
}

static void test_room_for_rounding_is_all_that_is_left_unused(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    for (int32_t i = 0; i < LARGE_INSTANCES; i++) {
        random_instance(&x, &seed, CROWD, false, true);
        double least = 0;
        double most = 0;
        for (int32_t q = 0; q < x.query_count; q++) {
            double low;
            double high;
            cost_range(&x, q, &low, &high);
            least += low;
            most += high;
        }
        const double room = 1 + 2 * (x.query_count + 1) * 0x1p-52;
        x.budget = least * room;
        decide(&x);
        assert_true(are_met(&x));
        x.budget = most * room; /* everybody gets the highest quality */
        decide(&x);
        for (int32_t q = 0; q < x.query_count; q++) {
            for (int32_t c = 0; c < x.router.candidate_count; c++) {
                const br_option *o = &x.options[q][c];
                assert_true(o->reason != BR_REASON_NONE || o->quality <= x.queries[q].decision.quality);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pool_is_within_one_step_of_the_exact_knapsack),
        cmocka_unit_test(test_a_pool_buys_as_the_plain_greedy_does),
        cmocka_unit_test(test_the_order_of_queries_changes_no_decision),
        cmocka_unit_test(test_the_order_of_candidates_changes_no_decision_without_ties),
        cmocka_unit_test(test_the_budget_is_never_exceeded_in_any_order_of_adding),
        cmocka_unit_test(test_many_purchases_leave_no_drift_in_the_total),
        cmocka_unit_test(test_room_for_rounding_is_all_that_is_left_unused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
