/*
 * test_shared_budget.c - policy/policy.h, a pool: what is bought, in which order, what is
 * passed over, who falls back, and the budget to the last bit.
 * test_shared_budget_random.c compares with an exact knapsack.
 */
#include "policy_fixture.h"

#include <float.h>

enum { QUERIES_MAX = 4, ROWS_MAX = 4 };
enum { FILTERED = BR_REASON_FILTERED, NO_PRICE = BR_REASON_NO_PRICE, OVER = BR_REASON_OVER_MAX_COST };

typedef struct row {
    double quality;
    double cost;
    int reason; /* br_reason */
} row;

typedef struct expected {
    int32_t candidate; /* -1: infeasible; -2: internal */
    bool met;
    double margin; /* -1: not checked */
} expected;

typedef struct pool_case {
    const char *name;
    double budget;
    int32_t query_count;
    int32_t row_count; /* the last is the reference */
    struct {
        row rows[ROWS_MAX];
        int fallback; /* br_fallback */
        expected decision;
    } queries[QUERIES_MAX];
} pool_case;

static const pool_case cases[] = {
    {.name = "no query", .budget = 1, .row_count = 2},
    {"the cheapest where there is no more money",
     1,
     1,
     3,
     {{{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, 0}}, 0, {0, true, 0}}}},
    {"the best where there is", 4, 1, 3, {{{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, 0}}, 0, {2, true, 0.5}}}},
    {"a budget that does not bind leaves the gap in quality",
     100,
     1,
     2,
     {{{{0.25, 1, 0}, {1, 4, 0}}, 0, {1, true, 0.75}}}},
    {"alone: no rival", 4, 1, 1, {{{{1, 4, 0}}, 0, {0, true, 1}}}},
    {"the steeper step is bought first",
     6,
     2,
     2,
     {{{{0.25, 1, 0}, {1, 4, 0}}, 0, {0, true, -1}}, {{{0.125, 1, 0}, {1, 4, 0}}, 0, {1, true, -1}}}},
    {"a step that does not fit is passed over for a smaller one",
     4,
     2,
     2,
     {{{{0, 1, 0}, {1, 4, 0}}, 0, {0, true, 0}}, {{{0.75, 1, 0}, {1, 3, 0}}, 0, {1, true, 0}}}},
    {"what lies under the hull is never a step",
     5,
     1,
     3,
     {{{{0, 1, 0}, {0.25, 3, 0}, {1, 5, 0}}, 0, {2, true, -1}}}},
    {"under the hull, not even where only it would fit",
     4,
     1,
     3,
     {{{{0, 1, 0}, {0.25, 3, 0}, {1, 5, 0}}, 0, {0, true, -1}}}},
    {"a point on an edge of the hull is a step",
     3,
     1,
     3,
     {{{{0, 1, 0}, {0.5, 3, 0}, {1, 5, 0}}, 0, {1, true, 0}}}},
    {"dearer and worse is nothing", 9, 1, 3, {{{{0.5, 1, 0}, {0.25, 2, 0}, {1, 10, 0}}, 0, {0, true, -1}}}},
    {"equal cost: the better", 1, 1, 3, {{{{0.25, 1, 0}, {0.5, 1, 0}, {1, 4, 0}}, 0, {1, true, -1}}}},
    {"equal slopes: the lower price",
     4,
     2,
     2,
     {{{{0.5, 1, 0}, {1, 3, 0}}, 0, {0, true, 0}}, {{{0.75, 1, 0}, {1, 2, 0}}, 0, {1, true, 0}}}},
    {"prices of 0 and no budget",
     0,
     2,
     3,
     {{{{0.25, 0, 0}, {0.5, 0, 0}, {1, 0, 0}}, 0, {2, true, 0.5}},
      {{{0.75, 0, 0}, {0.5, 0, 0}, {1, 1, 0}}, 0, {0, true, -1}}}},
    {"a free start and no budget", 0, 1, 2, {{{{0.25, 0, 0}, {1, 1, 0}}, 0, {0, true, 0}}}},
    {"filters may differ by query",
     100,
     2,
     3,
     {{{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, FILTERED}}, 0, {1, true, 0.25}},
      {{{0.25, 1, 0}, {0.5, 2, FILTERED}, {1, 4, OVER}}, 0, {0, true, 1}}}},
    {"exactly the budget",
     4,
     2,
     2,
     {{{{0.25, 1, 0}, {1, 3, 0}}, 0, {1, true, -1}}, {{{1, 1, 0}, {1, 1, 0}}, 0, {0, true, -1}}}},
    {"over the budget from the start: every query falls back, best is the cheapest",
     1.5,
     4,
     3,
     {{{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, 0}}, BR_FALLBACK_BEST, {0, false, 1}},
      {{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, 0}}, BR_FALLBACK_REFERENCE, {2, false, 1}},
      {{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, FILTERED}}, BR_FALLBACK_REFERENCE, {0, false, 1}},
      {{{0.25, 1, 0}, {0.5, 2, 0}, {1, 4, 0}}, BR_FALLBACK_ERROR, {-1, false, 0}}}},
    {"a broken score takes no part",
     4,
     3,
     2,
     {{{{NAN, 1, 0}, {1, 4, 0}}, 0, {-2, false, 0}},
      {{{0.25, 1, 0}, {1, 4, 0}}, 0, {1, true, -1}},
      {{{1.5, 1, FILTERED}, {1, 4, 0}}, BR_FALLBACK_REFERENCE, {-2, false, 0}}}},
    {"nothing considered: a fallback that is paid first",
     4,
     2,
     2,
     {{{{0.25, 3, OVER}, {1, 4, OVER}}, 0, {0, false, 1}}, {{{0.25, 1, 0}, {1, 2, 0}}, 0, {0, true, 0}}}},
    {"a fallback that leaves nothing for the others",
     4,
     2,
     2,
     {{{{0.25, 3, OVER}, {1, 4, OVER}}, BR_FALLBACK_REFERENCE, {1, false, 1}},
      {{{0.25, 1, 0}, {1, 2, 0}}, 0, {0, false, 1}}}},
    {"an error costs nothing",
     2,
     2,
     2,
     {{{{0.25, 3, OVER}, {1, 4, OVER}}, BR_FALLBACK_ERROR, {-1, false, 0}},
      {{{0.25, 1, 0}, {1, 2, 0}}, 0, {1, true, -1}}}},
    {"a fallback without a price has no cost to count",
     2,
     2,
     2,
     {{{{0.25, 3, OVER}, {1, NAN, NO_PRICE}}, BR_FALLBACK_REFERENCE, {1, false, 1}},
      {{{0.25, 1, 0}, {1, 2, 0}}, 0, {1, true, -1}}}},
    {"costs that overflow stay in order",
     1e308,
     2,
     2,
     {{{{0.25, 1, 0}, {1, DBL_MAX, 0}}, 0, {0, true, -1}},
      {{{0.25, 1, 0}, {1, DBL_MAX, 0}}, 0, {0, true, -1}}}},
    {"nothing bought: the price is that of the steepest step",
     0,
     2,
     2,
     {{{{0.25, 0, 0}, {1, 1, 0}}, 0, {0, true, 0}}, {{{0.5, 0, 0}, {1, 2, 0}}, 0, {0, true, 1}}}},
    {"the margin is taken at the price of the last step bought",
     5,
     2,
     3,
     /* Slopes 1/2, then 1/8 that does not fit; and 1. */
     {{{{0.25, 1, 0}, {0.75, 2, 0}, {1, 4, 0}}, 0, {1, true, 0}},
      {{{0, 1, 0}, {0.5, 1.5, 0}, {0.5, 9, 0}}, 0, {1, true, 0.25}}}},
};

static int32_t code_of(const br_decision *d)
{
    return d->status == BR_OK ? d->candidate : d->status == BR_EINFEASIBLE ? -1 : -2;
}

static void run_case(const pool_case *c)
{
    static br_router router;
    router = (br_router){.candidate_count = c->row_count, .reference = c->row_count - 1};
    for (int32_t i = 0; i < c->row_count; i++) router.candidates[i].n = 1;

    br_option options[QUERIES_MAX][ROWS_MAX];
    br_policy policies[QUERIES_MAX];
    br_shared_budget_query queries[QUERIES_MAX];
    for (int32_t q = 0; q < c->query_count; q++) {
        for (int32_t i = 0; i < c->row_count; i++) {
            const row *r = &c->queries[q].rows[i];
            options[q][i] =
                (br_option){.quality = r->quality, .cost = r->cost, .reason = (br_reason)r->reason};
        }
        policies[q] = (br_policy){.kind = BR_POLICY_POOL, .fallback = (br_fallback)c->queries[q].fallback};
        queries[q] = (br_shared_budget_query){.options = options[q], .policy = &policies[q]};
    }
    void *scratch = malloc(br_shared_budget_scratch_bytes(&router, (size_t)c->query_count) + 1);
    assert_non_null(scratch);
    br_shared_budget_decide(queries, (size_t)c->query_count, &router, c->budget, scratch);
    free(scratch);

    for (int32_t q = 0; q < c->query_count; q++) {
        const br_decision *d = &queries[q].decision;
        const expected *e = &c->queries[q].decision;
        if (code_of(d) != e->candidate || d->met != e->met) {
            fail_msg("%s, query %d: %d, met %d", c->name, q, code_of(d), d->met);
        }
        if (e->margin >= 0 && fabs(d->margin - e->margin) > 1e-12) {
            fail_msg("%s, query %d: margin %.17g", c->name, q, d->margin);
        }
        if (d->candidate >= 0) assert_true(d->quality == options[q][d->candidate].quality);
    }
}

static void test_a_pool_buys_the_steepest_steps_that_fit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(&cases[i]);
}

/* `count` queries, each with one candidate of its cost: feasible or not is all there is. */
static bool is_met(const double *costs, int32_t count, double budget)
{
    static br_router router;
    router = (br_router){.candidate_count = 1, .candidates = {{.n = 1}}};
    const br_policy policy = {.kind = BR_POLICY_POOL};
    br_option options[16];
    br_shared_budget_query queries[16];
    for (int32_t i = 0; i < count; i++) {
        options[i] = (br_option){.quality = 1, .cost = costs[i]};
        queries[i] = (br_shared_budget_query){.options = &options[i], .policy = &policy};
    }
    void *scratch = malloc(br_shared_budget_scratch_bytes(&router, (size_t)count));
    assert_non_null(scratch);
    br_shared_budget_decide(queries, (size_t)count, &router, budget, scratch);
    free(scratch);
    return queries[0].decision.met;
}

static void test_the_budget_holds_to_the_last_bit(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t count;
        double costs[10];
        double budget;
        bool met;
    } sums[] = {
        {"one cost is exact", 1, {0.1}, 0.1, true},
        {"one cost is not rounded up", 1, {0.1}, 0.09999999999999999, false},
        {"two costs are rounded once", 2, {0.1, 0.2}, 0.30000000000000004, true},
        {"two costs, one bit less", 2, {0.1, 0.2}, 0.3, false},
        {"dyadic costs are exact", 4, {0.25, 0.5, 0.125, 0.125}, 1, true},
        {"dyadic costs, one bit less", 4, {0.25, 0.5, 0.125, 0.125}, 0.99999999999999989, false},
        {"three times 0.1 is more than 0.3", 3, {0.1, 0.1, 0.1}, 0.3, false},
        {"three times 0.1 with room for rounding", 3, {0.1, 0.1, 0.1}, 0.3000000000000005, true},
        {"small beside large", 3, {1, 0x1p-53, 0x1p-53}, 1, false},
        {"small beside large, exact", 3, {1, 0x1p-52, 0x1p-52}, 1 + 0x1p-51, true},
        {"the smallest there are", 3, {DBL_TRUE_MIN, DBL_TRUE_MIN, DBL_TRUE_MIN}, 3 * DBL_TRUE_MIN, true},
        {"the smallest there are, one less",
         3,
         {DBL_TRUE_MIN, DBL_TRUE_MIN, DBL_TRUE_MIN},
         2 * DBL_TRUE_MIN,
         false},
        {"a sum that overflows", 3, {DBL_MAX, DBL_MAX, DBL_MAX}, DBL_MAX, false},
        {"nothing costs nothing", 3, {0, 0, 0}, 0, true},
    };
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++) {
        if (is_met(sums[i].costs, sums[i].count, sums[i].budget) != sums[i].met) fail_msg("%s", sums[i].name);
    }
}

/* Where all else is equal, one of them is upgraded: which, the request cannot tell. */
static void test_equal_queries_share_what_there_is(void **state)
{
    (void)state;
    static br_router router;
    router = (br_router){.candidate_count = 2, .reference = 1, .candidates = {{.n = 1}, {.n = 1}}};
    const br_policy policy = {.kind = BR_POLICY_POOL};
    const br_option options[] = {{.quality = 0.5, .cost = 1}, {.quality = 1, .cost = 2}};
    br_shared_budget_query queries[5];
    for (size_t i = 0; i < 5; i++)
        queries[i] = (br_shared_budget_query){.options = options, .policy = &policy};
    void *scratch = malloc(br_shared_budget_scratch_bytes(&router, 5));
    assert_non_null(scratch);
    br_shared_budget_decide(queries, 5, &router, 8, scratch);
    free(scratch);
    int32_t upgraded = 0;
    for (size_t i = 0; i < 5; i++) upgraded += queries[i].decision.candidate;
    assert_int_equal(upgraded, 3);
}

/* A queries' ties go by the whole table, also where it plays no part in the hull. */
static void test_the_order_of_queries_settles_no_tie(void **state)
{
    (void)state;
    static br_router router;
    router = (br_router){.candidate_count = 3, .reference = 2, .candidates = {{.n = 1}, {.n = 1}, {.n = 1}}};
    const br_policy best = {.kind = BR_POLICY_POOL};
    const br_policy error = {.kind = BR_POLICY_POOL, .fallback = BR_FALLBACK_ERROR};
    const br_option plain[] = {{0.5, 1, 0}, {0.25, 3, 0}, {1, 2, 0}};
    const br_option dominated[] = {{0.5, 1, 0}, {0.125, 3, 0}, {1, 2, 0}};
    const br_option filtered[] = {{0.5, 1, 0}, {0.25, 3, BR_REASON_FILTERED}, {1, 2, 0}};
    const struct {
        br_shared_budget_query a;
        br_shared_budget_query b;
    } pairs[] = {
        {{.options = plain, .policy = &best}, {.options = dominated, .policy = &best}},
        {{.options = plain, .policy = &best}, {.options = filtered, .policy = &best}},
        {{.options = plain, .policy = &best}, {.options = plain, .policy = &error}},
    };
    void *scratch = malloc(br_shared_budget_scratch_bytes(&router, 2));
    assert_non_null(scratch);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        br_shared_budget_query forth[] = {pairs[i].a, pairs[i].b};
        br_shared_budget_query back[] = {pairs[i].b, pairs[i].a};
        br_shared_budget_decide(forth, 2, &router, 3, scratch); /* enough for one step */
        br_shared_budget_decide(back, 2, &router, 3, scratch);
        assert_int_equal(forth[0].decision.candidate, back[1].decision.candidate);
        assert_int_equal(forth[1].decision.candidate, back[0].decision.candidate);
        assert_int_not_equal(forth[0].decision.candidate, forth[1].decision.candidate);
    }
    free(scratch);
}

/* The largest pool in scratch of exactly the size that is asked for. */
static void test_the_largest_pool_stays_in_its_scratch(void **state)
{
    (void)state;
    static br_router router;
    router = (br_router){.candidate_count = BR_CANDIDATES_MAX};
    for (int32_t i = 0; i < BR_CANDIDATES_MAX; i++) router.candidates[i].n = 1;
    const br_policy policy = {.kind = BR_POLICY_POOL};
    br_option *options = calloc(BR_CANDIDATES_MAX, sizeof *options);
    br_shared_budget_query *queries = calloc(BR_QUERIES_MAX, sizeof *queries);
    void *scratch = malloc(br_shared_budget_scratch_bytes(&router, BR_QUERIES_MAX));
    assert_true(options != NULL && queries != NULL && scratch != NULL);
    for (int32_t i = 0; i < BR_CANDIDATES_MAX; i++) { /* concave: every candidate is a corner */
        const double x = 1 - i / (double)BR_CANDIDATES_MAX;
        options[i] = (br_option){.quality = sqrt(x), .cost = x};
    }
    for (int32_t q = 0; q < BR_QUERIES_MAX; q++) {
        queries[q] = (br_shared_budget_query){.options = options, .policy = &policy};
    }
    br_shared_budget_decide(queries, BR_QUERIES_MAX, &router, 0.5 * BR_QUERIES_MAX, scratch);
    double spent = 0;
    for (int32_t q = 0; q < BR_QUERIES_MAX; q++) {
        assert_true(queries[q].decision.met);
        spent += queries[q].decision.cost;
    }
    assert_true(spent == 0.5 * BR_QUERIES_MAX); /* all steps cost the same and no sum is rounded */
    free(scratch);
    free(queries);
    free(options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pool_buys_the_steepest_steps_that_fit),
        cmocka_unit_test(test_the_budget_holds_to_the_last_bit),
        cmocka_unit_test(test_equal_queries_share_what_there_is),
        cmocka_unit_test(test_the_order_of_queries_settles_no_tie),
        cmocka_unit_test(test_the_largest_pool_stays_in_its_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
