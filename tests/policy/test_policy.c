/*
 * test_policy.c - policy/policy.h up to the decision: resolving a policy, costs, the table.
 */
#include "policy_fixture.h"

#include <float.h>

enum { SMALL, LARGE, ORPHAN }; /* models; no candidate is an ORPHAN */

static void make_router(br_router *router)
{
    *router = (br_router){0};
    add_model(router, "small", true, 1, 2);
    add_model(router, "large", true, 4, 8);
    add_model(router, "orphan", true, 1, 1);
    add_candidate(router, SMALL, 1, false);
    add_candidate(router, SMALL, 4, false);
    add_candidate(router, LARGE, 1, true);
}

#define WORD(text)                                                                                           \
    {                                                                                                        \
        (text), sizeof(text) - 1                                                                             \
    }

static void test_a_policy_that_cannot_be_followed_names_its_key(void **state)
{
    (void)state;
    static const br_str small[] = {WORD("small")};
    static const br_str both[] = {WORD("small"), WORD("large")};
    static const br_str orphan[] = {WORD("orphan")};
    static const br_str unknown[] = {WORD("small"), WORD("smal")};
    static const br_str nameless[] = {{NULL, 0}};
    enum { K = BR_HAS_KIND, T = BR_HAS_THRESHOLD, C = BR_HAS_MAX_COST, L = BR_HAS_LAMBDA };
    enum { O = BR_HAS_TOLERANCE, B = BR_HAS_TOTAL_BUDGET, M = BR_HAS_MODELS, X = BR_HAS_EXCLUDE };
    enum { N = BR_HAS_MAX_N, F = BR_HAS_FALLBACK };
    static const struct {
        br_policy_spec policy;
        const char *key; /* NULL: it resolves */
    } cases[] = {
        {{.has = 0}, "kind"},
        {{.has = T, .threshold = 0.5}, "kind"},
        {{.has = K | T, .kind = (br_policy_kind)5}, "kind"},
        {{.has = K | T | F, .fallback = (br_fallback)3}, "fallback"},
        {{.has = K, .kind = BR_POLICY_THRESHOLD, .threshold = 0.5}, "threshold"},
        {{.has = K, .kind = BR_POLICY_BUDGET}, "max_cost"},
        {{.has = K, .kind = BR_POLICY_UTILITY}, "lambda"},
        {{.has = K, .kind = BR_POLICY_TOLERANCE}, "tolerance"},
        {{.has = K | C, .kind = BR_POLICY_POOL}, "total_budget"},
        {{.has = K | T, .threshold = 0}, NULL},
        {{.has = K | T, .threshold = 1}, NULL},
        {{.has = K | T, .threshold = -0.0}, NULL},
        {{.has = K | T, .threshold = 1.0000000000000002}, "threshold"},
        {{.has = K | T, .threshold = -DBL_TRUE_MIN}, "threshold"},
        {{.has = K | T, .threshold = NAN}, "threshold"},
        {{.has = K | C, .kind = BR_POLICY_BUDGET, .max_cost = 0}, NULL},
        {{.has = K | C, .kind = BR_POLICY_BUDGET, .max_cost = -1}, "max_cost"},
        {{.has = K | C, .kind = BR_POLICY_BUDGET, .max_cost = INFINITY}, "max_cost"},
        {{.has = K | L, .kind = BR_POLICY_UTILITY, .lambda = DBL_MAX}, NULL},
        {{.has = K | L, .kind = BR_POLICY_UTILITY, .lambda = INFINITY}, "lambda"},
        {{.has = K | L, .kind = BR_POLICY_UTILITY, .lambda = NAN}, "lambda"},
        {{.has = K | O, .kind = BR_POLICY_TOLERANCE, .tolerance = 1.5}, "tolerance"},
        {{.has = K | B, .kind = BR_POLICY_POOL, .total_budget = -INFINITY}, "total_budget"},
        {{.has = K | B, .kind = BR_POLICY_POOL, .total_budget = 0}, NULL},
        /* A written value is checked whatever the kind, and one that is not written is not. */
        {{.has = K | T | L, .threshold = 0.5, .lambda = -1}, "lambda"},
        {{.has = K | T, .threshold = 0.5, .lambda = -1, .max_cost = NAN}, NULL},
        {{.has = K | T | N, .max_n = 0}, "max_n"},
        {{.has = K | T | N, .max_n = 1}, NULL},
        {{.has = K | T | N, .max_n = UINT32_MAX}, NULL},
        {{.has = K | T | M, .models = small, .model_count = 0}, "models"},
        {{.has = K | T | M, .models = small, .model_count = 1}, NULL},
        {{.has = K | T | M, .models = unknown, .model_count = 2}, "models"},
        {{.has = K | T | M, .models = nameless, .model_count = 1}, "models"},
        {{.has = K | T | X, .exclude = unknown, .exclude_count = 2}, "exclude"},
        {{.has = K | T | X, .exclude = small, .exclude_count = 0}, NULL},
        /* The filter that takes out the last candidate is named. */
        {{.has = K | T | M, .models = orphan, .model_count = 1}, "models"},
        {{.has = K | T | X, .exclude = both, .exclude_count = 2}, "exclude"},
        {{.has = K | T | M | X, .models = small, .model_count = 1, .exclude = both, .exclude_count = 2},
         "exclude"},
        {{.has = K | T | X | N, .exclude = small, .exclude_count = 1, .max_n = 1}, NULL},
    };
    br_router router;
    make_router(&router);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_policy out;
        br_error error = {0};
        const br_status status = br_policy_resolve(&out, &router, &cases[i].policy, &error);
        if (cases[i].key == NULL) {
            if (status != BR_OK) fail_msg("case %zu: %s", i, error.text);
            continue;
        }
        const size_t size = strlen(cases[i].key);
        if (cases[i].policy.models == unknown)
            assert_string_equal(error.text, "models[1]: unknown model \"smal\"; nearest is \"small\"");
        if (status != BR_EINVAL || strncmp(error.text, cases[i].key, size) != 0 ||
            strchr(":[", error.text[size]) == NULL) {
            fail_msg("case %zu: status %d, \"%s\" does not begin with %s", i, status, error.text,
                     cases[i].key);
        }
        assert_int_equal(br_policy_resolve(&out, &router, &cases[i].policy, NULL), BR_EINVAL);
    }
}

static void test_max_n_that_leaves_no_candidate_is_named(void **state)
{
    (void)state;
    br_router router = {0};
    add_model(&router, "m", true, 1, 1);
    add_candidate(&router, 0, 2, true);
    br_policy_spec policy = {.has = BR_HAS_KIND | BR_HAS_THRESHOLD | BR_HAS_MAX_N, .max_n = 1};
    br_policy out;
    br_error error = {0};
    assert_int_equal(br_policy_resolve(&out, &router, &policy, &error), BR_EINVAL);
    assert_string_equal(error.text, "max_n: no candidate is left");
}

static void test_what_is_not_written_has_its_default(void **state)
{
    (void)state;
    br_router router;
    make_router(&router);
    const br_policy_spec policy = {
        .has = BR_HAS_KIND | BR_HAS_THRESHOLD, .threshold = 0.25, .fallback = BR_FALLBACK_ERROR};
    br_policy out;
    assert_int_equal(br_policy_resolve(&out, &router, &policy, NULL), BR_OK);
    assert_int_equal(out.kind, BR_POLICY_THRESHOLD);
    assert_int_equal(out.fallback, BR_FALLBACK_BEST);
    assert_true(out.threshold == 0.25);
    assert_true(out.max_cost == INFINITY);
    assert_true(out.max_n == UINT32_MAX);
    assert_int_equal(out.allowed_models & 7, 7);
}

static void test_exclude_wins_over_models(void **state)
{
    (void)state;
    br_router router;
    make_router(&router);
    static const br_str both[] = {WORD("small"), WORD("large"), WORD("small")};
    const br_policy_spec policy = {.has = BR_HAS_KIND | BR_HAS_THRESHOLD | BR_HAS_MODELS | BR_HAS_EXCLUDE,
                                   .models = both,
                                   .model_count = 3,
                                   .exclude = both,
                                   .exclude_count = 1};
    br_policy out;
    assert_int_equal(br_policy_resolve(&out, &router, &policy, NULL), BR_OK);
    assert_int_equal(out.allowed_models, 1 << LARGE);
}

static void test_a_query_s_cap_tightens_and_satisfies_budget(void **state)
{
    (void)state;
    static const struct {
        uint32_t has;
        double written;
        double cap;
        double resolved; /* -1: refused */
    } cases[] = {
        {BR_HAS_MAX_COST, 2, 1, 1},
        {BR_HAS_MAX_COST, 1, 2, 1},
        {BR_HAS_MAX_COST, 1, INFINITY, 1},
        {0, 1, 2, 2},
        {0, 1, INFINITY, -1},
        {BR_HAS_MAX_COST, 1, NAN, -1},
        {BR_HAS_MAX_COST, 1, -1, -1},
        {BR_HAS_MAX_COST, NAN, 1, -1},
        {BR_HAS_MAX_COST, -1, 1, -1},
        {BR_HAS_MAX_COST, 1, 0, 0},
    };
    br_router router;
    make_router(&router);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_policy_spec policy = {
            .has = BR_HAS_KIND | cases[i].has, .kind = BR_POLICY_BUDGET, .max_cost = cases[i].written};
        br_policy_spec_cap(&policy, cases[i].cap);
        br_policy out;
        br_error error = {0};
        const br_status status = br_policy_resolve(&out, &router, &policy, &error);
        if (cases[i].resolved < 0) {
            assert_int_equal(status, BR_EINVAL);
            assert_memory_equal(error.text, "max_cost:", 9);
        } else {
            assert_int_equal(status, BR_OK);
            assert_true(out.max_cost == cases[i].resolved);
        }
    }
}

static void test_cost_follows_the_formula(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        br_priced_model model;
        int32_t n;
        uint64_t prompt_tokens;
        double output_tokens;
        double cost; /* NAN: no price */
    } cases[] = {
        {"prompt billed once", {.has_price = true, .input_price = 2, .output_price = 0.5}, 4, 10, 3, 26},
        {"prompt billed per sample",
         {.has_price = true, .input_price = 2, .output_price = 0.5, .input_per_sample = true},
         4,
         10,
         3,
         86},
        {"one sample",
         {.has_price = true, .input_price = 2, .output_price = 0.5, .input_per_sample = true},
         1,
         10,
         3,
         21.5},
        {"a price of 0 is a price", {.has_price = true}, 1000, UINT64_MAX, 1e300, 0},
        {"no price", {.has_price = false, .input_price = 1}, 1, 10, 3, NAN},
        {"a length that nobody tells",
         {.has_price = true, .input_price = 2, .output_price = 3},
         1,
         1,
         NAN,
         NAN},
        {"a free length", {.has_price = true, .input_price = 2}, 1, 10, NAN, 20},
        {"no tokens", {.has_price = true, .input_price = 2, .output_price = 3}, 5, 0, 0, 0},
        {"the input overflows",
         {.has_price = true, .input_price = 1e308, .input_per_sample = true},
         1000,
         UINT64_MAX,
         0,
         DBL_MAX},
        {"the output overflows", {.has_price = true, .output_price = DBL_MAX}, 2, 0, 1, DBL_MAX},
        {"their sum overflows",
         {.has_price = true, .input_price = 1e308, .output_price = 1e308},
         1,
         1,
         1,
         DBL_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_router router = {.model_count = 1, .candidate_count = 1};
        router.models[0] = cases[i].model;
        router.candidates[0] = (br_candidate){.model = 0, .n = cases[i].n};
        const br_query_costs costs = {&cases[i].prompt_tokens, &cases[i].output_tokens, INFINITY};
        const double cost = br_candidate_cost(&router, 0, &costs);
        const bool equal = isnan(cases[i].cost) ? isnan(cost) : cost == cases[i].cost;
        if (!equal) fail_msg("%s: %g", cases[i].name, cost);
    }
}

static void test_the_table_says_why_a_candidate_is_out(void **state)
{
    (void)state;
    br_router router;
    make_router(&router);
    add_model(&router, "unpriced", false, 0, 0);
    add_candidate(&router, 3, 2, false);
    const uint64_t prompt[] = {1, 1, 1, 1};
    const double output[] = {1, 1, 1, 1}; /* costs 3, 9, 12, none */
    const float quality[] = {0.25F, 0.5F, 0.75F};
    enum { F = BR_REASON_FILTERED, P = BR_REASON_NO_PRICE, O = BR_REASON_OVER_MAX_COST };
    static const struct {
        double policy_cap;
        double query_cap;
        uint64_t models;
        uint32_t max_n;
        int reasons[4];
    } cases[] = {
        {INFINITY, INFINITY, 15, UINT32_MAX, {0, 0, 0, P}},
        {9, INFINITY, 15, UINT32_MAX, {0, 0, O, P}},
        {INFINITY, 9, 15, UINT32_MAX, {0, 0, O, P}},
        {8.999, 12, 15, UINT32_MAX, {0, O, O, P}},
        {12, 8.999, 15, UINT32_MAX, {0, O, O, P}},
        {0, INFINITY, 15, UINT32_MAX, {O, O, O, P}},
        {INFINITY, INFINITY, 2, UINT32_MAX, {F, F, 0, F}},
        {INFINITY, INFINITY, 15, 2, {0, F, 0, P}},
        {3, INFINITY, 15, 1, {0, F, O, F}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const br_policy policy = {
            .max_cost = cases[i].policy_cap, .allowed_models = cases[i].models, .max_n = cases[i].max_n};
        const br_query_costs costs = {prompt, output, cases[i].query_cap};
        br_option options[4];
        br_policy_table(options, &router, &policy, quality, &costs);
        for (size_t k = 0; k < 4; k++) assert_int_equal(options[k].reason, cases[i].reasons[k]);
        assert_true(options[0].quality == 0.25 && options[1].quality == 0.5);
        assert_true(options[2].quality == 1 && options[3].quality == 0.75); /* the reference has no head */
        assert_true(options[1].cost == 9 && isnan(options[3].cost));
    }
    /* A kind of heads that scores the reference gives it one. */
    const br_policy policy = {.max_cost = INFINITY, .allowed_models = 15, .max_n = UINT32_MAX};
    const br_query_costs costs = {prompt, output, INFINITY};
    br_option options[4];
    router.candidates[2].head = 0;
    br_policy_table(options, &router, &policy, quality, &costs);
    assert_true(options[2].quality == 0.25);
}

static void test_reasons_have_the_protocol_s_words(void **state)
{
    (void)state;
    static const char *const words[] = {"", "filtered", "no_price", "over_max_cost", "below_threshold"};
    for (int i = 0; i < 5; i++) assert_string_equal(br_reason_name((br_reason)i), words[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_policy_that_cannot_be_followed_names_its_key),
        cmocka_unit_test(test_max_n_that_leaves_no_candidate_is_named),
        cmocka_unit_test(test_what_is_not_written_has_its_default),
        cmocka_unit_test(test_exclude_wins_over_models),
        cmocka_unit_test(test_a_query_s_cap_tightens_and_satisfies_budget),
        cmocka_unit_test(test_cost_follows_the_formula),
        cmocka_unit_test(test_the_table_says_why_a_candidate_is_out),
        cmocka_unit_test(test_reasons_have_the_protocol_s_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
