/*
 * test_policy_decide.c - policy/policy.h, one query's decision: every kind with its edges,
 * ties, fallbacks and margins. test_policy_random.c compares with brute force.
 */
#include "policy_fixture.h"

#include <float.h>

enum { ROWS_MAX = 5 };

typedef struct row {
    double quality;
    double cost;
    int32_t n;  /* 0 ends the rows */
    int reason; /* br_reason */
} row;

typedef struct decide_case {
    const char *name;
    br_policy policy;
    row rows[ROWS_MAX];
    int32_t reference;
    int32_t candidate; /* expected */
    bool met;
    double margin;
} decide_case;

static void run_case(const decide_case *c)
{
    br_router router = {.reference = c->reference};
    br_option options[ROWS_MAX];
    int32_t count = 0;
    for (; count < ROWS_MAX && c->rows[count].n > 0; count++) {
        const row *r = &c->rows[count];
        router.candidates[count] = (br_candidate){.n = r->n, .head = count == c->reference ? -1 : count};
        options[count] = (br_option){.quality = r->quality, .cost = r->cost, .reason = (br_reason)r->reason};
    }
    router.candidate_count = count;
    const br_decision d = br_policy_decide(options, &router, &c->policy);
    if (c->candidate < 0) {
        if (d.status != BR_EINFEASIBLE || d.candidate != -1 || d.met)
            fail_msg("%s: %d", c->name, d.candidate);
        return;
    }
    if (d.status != BR_OK || d.candidate != c->candidate || d.met != c->met ||
        fabs(d.margin - c->margin) > 1e-12) {
        fail_msg("%s: status %d, candidate %d, met %d, margin %.17g", c->name, d.status, d.candidate, d.met,
                 d.margin);
    }
    assert_true(d.quality == options[d.candidate].quality);
    assert_true(d.cost == options[d.candidate].cost || isnan(options[d.candidate].cost));
}

#define THRESHOLD(t)                                                                                         \
    {                                                                                                        \
        .kind = BR_POLICY_THRESHOLD, .threshold = (t)                                                        \
    }
#define OR_REFERENCE(t)                                                                                      \
    {                                                                                                        \
        .kind = BR_POLICY_THRESHOLD, .threshold = (t), .fallback = BR_FALLBACK_REFERENCE                     \
    }
#define OR_ERROR(t)                                                                                          \
    {                                                                                                        \
        .kind = BR_POLICY_THRESHOLD, .threshold = (t), .fallback = BR_FALLBACK_ERROR                         \
    }
#define BUDGET                                                                                               \
    {                                                                                                        \
        .kind = BR_POLICY_BUDGET                                                                             \
    }
#define UTILITY(l)                                                                                           \
    {                                                                                                        \
        .kind = BR_POLICY_UTILITY, .lambda = (l)                                                             \
    }
#define TOLERANCE(t)                                                                                         \
    {                                                                                                        \
        .kind = BR_POLICY_TOLERANCE, .tolerance = (t)                                                        \
    }
enum { F = BR_REASON_FILTERED, P = BR_REASON_NO_PRICE, O = BR_REASON_OVER_MAX_COST };

static const decide_case threshold_cases[] = {
    {"the cheapest that qualifies",
     THRESHOLD(0.5),
     {{0.25, 1, 1, 0}, {0.75, 2, 1, 0}, {1, 4, 1, 0}},
     2,
     1,
     true,
     0.25},
    {"a quality equal to the threshold qualifies",
     THRESHOLD(0.5),
     {{0.5, 1, 1, 0}, {1, 4, 1, 0}},
     1,
     0,
     true,
     0},
    {"the reference qualifies at 1",
     THRESHOLD(1),
     {{0.75, 1, 1, 0}, {1, 4, 1, 0}, {0.875, 8, 1, 0}},
     1,
     1,
     true,
     0.25},
    {"anything qualifies at 0", THRESHOLD(0), {{1, 4, 1, 0}, {0, 1, 1, 0}}, 0, 1, true, 0},
    {"nothing dearer than the reference", THRESHOLD(0.5), {{0.875, 5, 1, 0}, {1, 4, 1, 0}}, 1, 1, true, 1},
    {"the reference alone has no rival", THRESHOLD(0.5), {{1, 4, 1, 0}}, 0, 0, true, 1},
    {"no reference: a dearer one may serve",
     THRESHOLD(0.5),
     {{0.875, 5, 1, 0}, {1, 4, 1, F}},
     1,
     0,
     true,
     0.375},
    {"equal cost: higher quality",
     THRESHOLD(0.25),
     {{0.5, 1, 1, 0}, {0.75, 1, 2, 0}, {1, 4, 1, 0}},
     2,
     1,
     true,
     0.25},
    {"equal cost and quality: smaller n",
     THRESHOLD(0.25),
     {{0.5, 1, 2, 0}, {0.5, 1, 1, 0}, {1, 4, 1, 0}},
     2,
     1,
     true,
     0},
    {"equal in all: the bundle's order",
     THRESHOLD(0.25),
     {{0.5, 1, 1, 0}, {0.5, 1, 1, 0}, {1, 4, 1, 0}},
     2,
     0,
     true,
     0},
    {"a cost of 0 is a cost", THRESHOLD(0.25), {{1, 4, 1, 0}, {0.5, 0, 1, 0}}, 0, 1, true, 0.25},
    {"what is out is no rival",
     THRESHOLD(0.5),
     {{0.49, 1, 1, F}, {0.49, 1, 1, O}, {0.49, NAN, 1, P}, {1, 4, 1, 0}},
     3,
     3,
     true,
     1},
    {"no price: never chosen", THRESHOLD(0.5), {{0.75, NAN, 1, P}, {1, 4, 1, 0}}, 1, 1, true, 1},
    {"fallback best: the highest quality considered",
     THRESHOLD(0.5),
     {{0.25, 1, 1, 0}, {0.375, 2, 1, 0}, {0.4375, 9, 1, O}, {1, 4, 1, O}},
     3,
     1,
     false,
     0.125},
    {"fallback best: ties",
     THRESHOLD(0.5),
     {{0.25, 2, 1, 0}, {0.25, 1, 2, 0}, {0.25, 1, 1, 0}, {1, 4, 1, F}},
     3,
     2,
     false,
     0.25},
    {"fallback best: the cheapest allowed where nothing is affordable",
     THRESHOLD(0.5),
     {{0.75, 3, 1, O}, {0.25, 2, 1, O}, {0.75, 1, 1, F}, {0.9, NAN, 1, P}, {1, 4, 1, O}},
     4,
     1,
     false,
     1},
    {"fallback best: the cheapest ties by quality",
     THRESHOLD(0.5),
     {{0.25, 2, 1, O}, {0.5, 2, 4, O}, {1, 4, 1, O}},
     2,
     1,
     false,
     1},
    {"fallback best: the highest quality where nothing has a price",
     THRESHOLD(0.5),
     {{0.5, NAN, 1, P}, {0.75, NAN, 4, P}, {0.75, NAN, 2, P}, {1, 4, 1, F}},
     3,
     2,
     false,
     1},
    {"fallback reference: whatever it costs",
     OR_REFERENCE(0.5),
     {{0.25, 1, 1, 0}, {1, 4, 1, O}},
     1,
     1,
     false,
     0.25},
    {"fallback reference: even without a price",
     OR_REFERENCE(0.5),
     {{0.25, 1, 1, 0}, {1, NAN, 1, P}},
     1,
     1,
     false,
     0.25},
    {"fallback reference, filtered out: best",
     OR_REFERENCE(0.5),
     {{0.125, 1, 1, 0}, {0.25, 2, 1, 0}, {1, 4, 1, F}},
     2,
     1,
     false,
     0.25},
    {"fallback error", OR_ERROR(0.5), {{0.25, 1, 1, 0}, {1, 4, 1, F}}, 1, -1, false, 0},
    {"fallback error is for failures only", OR_ERROR(0.5), {{0.5, 1, 1, 0}, {1, 4, 1, F}}, 1, 0, true, 0},
};

static const decide_case worth_cases[] = {
    {"budget: the highest quality",
     BUDGET,
     {{0.25, 1, 1, 0}, {0.75, 2, 1, 0}, {1, 4, 1, O}},
     2,
     1,
     true,
     0.5},
    {"budget: the reference where it fits",
     BUDGET,
     {{0.25, 1, 1, 0}, {0.75, 2, 1, 0}, {1, 4, 1, 0}},
     2,
     2,
     true,
     0.25},
    {"budget: equal quality, lower cost",
     BUDGET,
     {{0.5, 2, 1, 0}, {0.5, 1, 2, 0}, {1, 4, 1, O}},
     2,
     1,
     true,
     0},
    {"budget: then smaller n", BUDGET, {{0.5, 1, 2, 0}, {0.5, 1, 1, 0}, {1, 4, 1, O}}, 2, 1, true, 0},
    {"budget: then the bundle's order",
     BUDGET,
     {{1, 4, 1, O}, {0.5, 1, 1, 0}, {0.5, 1, 1, 0}},
     0,
     1,
     true,
     0},
    {"budget: alone", BUDGET, {{0.5, 1, 1, 0}, {1, 4, 1, O}}, 1, 0, true, 1},
    {"budget: nothing fits", BUDGET, {{0.5, 3, 1, O}, {0.25, 2, 1, O}, {1, 4, 1, O}}, 2, 1, false, 1},
    {"utility: quality less cost",
     UTILITY(0.25),
     {{0.25, 0, 1, 0}, {0.875, 2, 1, 0}, {1, 4, 1, 0}},
     2,
     1,
     true,
     0.125},
    {"utility: nothing for money", UTILITY(0), {{0.75, 0, 1, 0}, {1, 4, 1, 0}}, 1, 1, true, 0.25},
    {"utility: no price even where lambda is 0",
     UTILITY(0),
     {{0.75, 0, 1, 0}, {1, NAN, 1, P}},
     1,
     0,
     true,
     1},
    {"utility: all for money", UTILITY(1e308), {{0.75, 2, 1, 0}, {1, 4, 1, 0}}, 1, 0, true, 0},
    {"utility: equal, lower cost", UTILITY(0.25), {{1, 2, 1, 0}, {0.75, 1, 9, 0}}, 0, 1, true, 0},
    {"utility: nothing fits", UTILITY(1), {{0.75, 2, 1, O}, {1, 4, 1, O}}, 1, 0, false, 1},
    {"tolerance: the cheapest within it",
     TOLERANCE(0.25),
     {{0.5, 1, 1, 0}, {0.875, 2, 1, 0}, {1, 4, 1, 0}},
     2,
     1,
     true,
     0.125},
    {"tolerance: a quality equal to the bar", TOLERANCE(0.5), {{0.5, 1, 1, 0}, {1, 4, 1, 0}}, 1, 0, true, 0},
    {"tolerance 0: the best",
     TOLERANCE(0),
     {{0.5, 1, 1, 0}, {0.75, 2, 1, 0}, {1, 4, 1, F}},
     2,
     1,
     true,
     0.25},
    {"tolerance 0: the cheaper of two best",
     TOLERANCE(0),
     {{0.75, 2, 1, 0}, {0.75, 1, 1, 0}, {1, 4, 1, F}},
     2,
     1,
     true,
     0},
    {"tolerance 1: the cheapest", TOLERANCE(1), {{0, 1, 1, 0}, {1, 4, 1, 0}}, 1, 0, true, 0},
    {"tolerance: the best sets its own bar",
     TOLERANCE(0.5),
     {{0.75, 1, 1, 0}, {0.5, 2, 1, 0}, {1, 4, 1, F}},
     2,
     0,
     true,
     0.5},
    {"tolerance: best among those considered",
     TOLERANCE(0.5),
     {{0.25, 1, 1, 0}, {0.5, 2, 1, 0}, {1, 4, 1, O}},
     2,
     0,
     true,
     0},
    {"tolerance: alone", TOLERANCE(0.5), {{0.25, 1, 1, 0}, {1, 4, 1, O}}, 1, 0, true, 1},
    {"tolerance: qualities all 0", TOLERANCE(0), {{0, 2, 1, 0}, {0, 1, 1, 0}, {1, 4, 1, F}}, 2, 1, true, 0},
    {"tolerance: nothing fits", TOLERANCE(0.5), {{0.25, 1, 1, O}, {1, 4, 1, O}}, 1, 0, false, 1},
};

static void test_threshold_takes_the_cheapest_good_enough_or_falls_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof threshold_cases / sizeof threshold_cases[0]; i++)
        run_case(&threshold_cases[i]);
}

static void test_budget_utility_and_tolerance_take_what_they_promise(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof worth_cases / sizeof worth_cases[0]; i++) run_case(&worth_cases[i]);
}

static void test_those_under_the_bar_are_marked_and_no_others(void **state)
{
    (void)state;
    br_router router = {.candidate_count = 4, .reference = 3};
    const br_policy policies[] = {THRESHOLD(0.5), TOLERANCE(0.5), BUDGET, UTILITY(1)};
    for (size_t i = 0; i < 4; i++) {
        br_option options[] = {{0.25, 1, 0}, {0.25, 1, BR_REASON_OVER_MAX_COST}, {0.5, 2, 0}, {1, 4, 0}};
        (void)br_policy_decide(options, &router, &policies[i]);
        assert_int_equal(options[0].reason, i < 2 ? BR_REASON_BELOW_THRESHOLD : BR_REASON_NONE);
        assert_int_equal(options[1].reason, O);
        assert_int_equal(options[2].reason, BR_REASON_NONE);
        assert_int_equal(options[3].reason, BR_REASON_NONE);
    }
}

static void test_a_broken_score_is_never_routed_on(void **state)
{
    (void)state;
    static const double broken[] = {NAN, -NAN, INFINITY, -INFINITY, -1e-9, 1.0000001};
    static const br_policy policies[] = {THRESHOLD(0), BUDGET, UTILITY(0), TOLERANCE(1), OR_REFERENCE(1)};
    br_router router = {.candidate_count = 2, .reference = 1};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        for (size_t k = 0; k < sizeof policies / sizeof policies[0]; k++) {
            for (br_reason reason = BR_REASON_NONE; reason <= BR_REASON_OVER_MAX_COST; reason++) {
                br_option options[] = {{broken[i], 1, reason}, {1, 4, 0}};
                const br_decision d = br_policy_decide(options, &router, &policies[k]);
                assert_int_equal(d.status, BR_EINTERNAL);
                assert_int_equal(d.candidate, -1);
                assert_false(d.met);
                assert_true(isnan(d.quality) && isnan(d.cost));
            }
        }
    }
}

static void test_an_infinite_difference_of_utilities_is_a_finite_margin(void **state)
{
    (void)state;
    br_router router = {.candidate_count = 2, .reference = 1, .candidates = {{.n = 1}, {.n = 1}}};
    const br_policy policy = UTILITY(DBL_MAX);
    br_option options[] = {{0.5, 0, 0}, {1, DBL_MAX, 0}};
    const br_decision d = br_policy_decide(options, &router, &policy);
    assert_int_equal(d.candidate, 0);
    assert_true(d.margin == DBL_MAX);
}

static void test_a_scored_reference_has_no_privilege(void **state)
{
    (void)state;
    const br_router router = {
        .candidate_count = 2, .reference = 1, .candidates = {{.n = 1, .head = 0}, {.n = 1, .head = 1}}};
    const br_option table[2] = {{.quality = 0.375, .cost = 1}, {.quality = 0.625, .cost = 2}};
    const struct {
        br_policy policy;
        int32_t candidate;
        double margin;
    } cases[] = {
        {THRESHOLD(0.5625), 1, 0.0625},
        {THRESHOLD(0.25), 0, 0.125},
        {{.kind = BR_POLICY_TOLERANCE, .tolerance = 0, .max_cost = INFINITY}, 1, 0.25},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_option options[2] = {table[0], table[1]};
        const br_decision d = br_policy_decide(options, &router, &cases[i].policy);
        assert_int_equal(d.candidate, cases[i].candidate);
        assert_true(d.met);
        assert_true(fabs(d.margin - cases[i].margin) < 1e-12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_scored_reference_has_no_privilege),
        cmocka_unit_test(test_threshold_takes_the_cheapest_good_enough_or_falls_back),
        cmocka_unit_test(test_budget_utility_and_tolerance_take_what_they_promise),
        cmocka_unit_test(test_those_under_the_bar_are_marked_and_no_others),
        cmocka_unit_test(test_a_broken_score_is_never_routed_on),
        cmocka_unit_test(test_an_infinite_difference_of_utilities_is_a_finite_margin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
