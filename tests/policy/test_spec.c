/* test_spec.c - the words of a policy, and merging. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "policy/spec.h"

static void test_every_kind_survives_its_word(void **state)
{
    (void)state;
    static const struct {
        br_policy_kind kind;
        const char *word;
    } cases[] = {
        {BR_POLICY_THRESHOLD, "threshold"}, {BR_POLICY_BUDGET, "budget"}, {BR_POLICY_UTILITY, "utility"},
        {BR_POLICY_TOLERANCE, "tolerance"}, {BR_POLICY_POOL, "pool"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_policy_kind kind = BR_POLICY_THRESHOLD;
        assert_string_equal(br_policy_kind_name(cases[i].kind), cases[i].word);
        assert_true(br_policy_kind_parse(&kind, br_str_from(cases[i].word)));
        assert_int_equal(kind, cases[i].kind);
    }
}

static void test_every_fallback_survives_its_word(void **state)
{
    (void)state;
    static const struct {
        br_fallback fallback;
        const char *word;
    } cases[] = {
        {BR_FALLBACK_BEST, "best"},
        {BR_FALLBACK_REFERENCE, "reference"},
        {BR_FALLBACK_ERROR, "error"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_fallback fallback = BR_FALLBACK_BEST;
        assert_string_equal(br_fallback_name(cases[i].fallback), cases[i].word);
        assert_true(br_fallback_parse(&fallback, br_str_from(cases[i].word)));
        assert_int_equal(fallback, cases[i].fallback);
    }
}

static void test_the_words_of_options_are_the_names_in_order(void **state)
{
    (void)state;
    char kinds[64] = "";
    for (br_policy_kind kind = BR_POLICY_THRESHOLD; kind <= BR_POLICY_POOL; kind++) {
        if (kind > BR_POLICY_THRESHOLD) strcat(kinds, "|");
        strcat(kinds, br_policy_kind_name(kind));
    }
    assert_string_equal(kinds, BR_POLICY_KIND_WORDS);
    char fallbacks[64] = "";
    for (br_fallback fallback = BR_FALLBACK_BEST; fallback <= BR_FALLBACK_ERROR; fallback++) {
        if (fallback > BR_FALLBACK_BEST) strcat(fallbacks, "|");
        strcat(fallbacks, br_fallback_name(fallback));
    }
    assert_string_equal(fallbacks, BR_FALLBACK_WORDS);
}

static void test_other_words_are_refused_and_write_nothing(void **state)
{
    (void)state;
    static const char *const words[] = {"", "Threshold", "thresholds", "budge", "best ", "none"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        br_policy_kind kind = BR_POLICY_POOL;
        br_fallback fallback = BR_FALLBACK_ERROR;
        assert_false(br_policy_kind_parse(&kind, br_str_from(words[i])));
        assert_false(br_fallback_parse(&fallback, br_str_from(words[i])));
        assert_int_equal(kind, BR_POLICY_POOL);
        assert_int_equal(fallback, BR_FALLBACK_ERROR);
    }
    br_policy_kind kind;
    assert_false(br_policy_kind_parse(&kind, (br_str){NULL, 0}));
}

static const br_str base_models[] = {{"a", 1}};
static const br_str over_models[] = {{"b", 1}, {"c", 1}};

static br_policy_spec full_policy(double offset, const br_str *models, size_t model_count)
{
    return (br_policy_spec){
        .has = (BR_HAS_FALLBACK << 1) - 1,
        .kind = offset > 0 ? BR_POLICY_BUDGET : BR_POLICY_THRESHOLD,
        .fallback = offset > 0 ? BR_FALLBACK_ERROR : BR_FALLBACK_BEST,
        .threshold = 1 + offset,
        .max_cost = 2 + offset,
        .lambda = 3 + offset,
        .tolerance = 4 + offset,
        .total_budget = 5 + offset,
        .max_n = (uint32_t)(6 + offset),
        .models = models,
        .model_count = model_count,
        .exclude = models,
        .exclude_count = model_count,
    };
}

static void test_each_written_field_replaces_its_own_and_no_other(void **state)
{
    (void)state;
    for (uint32_t bit = BR_HAS_KIND; bit <= BR_HAS_FALLBACK; bit <<= 1) {
        br_policy_spec merged = full_policy(0, base_models, 1);
        merged.has &= ~bit;
        br_policy_spec over = full_policy(100, over_models, 2);
        over.has = bit;
        br_policy_spec_merge(&merged, &over);

        assert_int_equal(merged.has, (BR_HAS_FALLBACK << 1) - 1);
        assert_int_equal(merged.kind, bit == BR_HAS_KIND ? BR_POLICY_BUDGET : BR_POLICY_THRESHOLD);
        assert_int_equal(merged.fallback, bit == BR_HAS_FALLBACK ? BR_FALLBACK_ERROR : BR_FALLBACK_BEST);
        assert_true(merged.threshold == (bit == BR_HAS_THRESHOLD ? 101 : 1));
        assert_true(merged.max_cost == (bit == BR_HAS_MAX_COST ? 102 : 2));
        assert_true(merged.lambda == (bit == BR_HAS_LAMBDA ? 103 : 3));
        assert_true(merged.tolerance == (bit == BR_HAS_TOLERANCE ? 104 : 4));
        assert_true(merged.total_budget == (bit == BR_HAS_TOTAL_BUDGET ? 105 : 5));
        assert_int_equal(merged.max_n, bit == BR_HAS_MAX_N ? 106 : 6);
        assert_ptr_equal(merged.models, bit == BR_HAS_MODELS ? over_models : base_models);
        assert_int_equal(merged.model_count, bit == BR_HAS_MODELS ? 2 : 1);
        assert_ptr_equal(merged.exclude, bit == BR_HAS_EXCLUDE ? over_models : base_models);
        assert_int_equal(merged.exclude_count, bit == BR_HAS_EXCLUDE ? 2 : 1);
    }
}

static void test_nothing_written_changes_nothing(void **state)
{
    (void)state;
    br_policy_spec merged = full_policy(0, base_models, 1);
    const br_policy_spec over = {.threshold = 9};
    br_policy_spec_merge(&merged, &over);
    assert_true(merged.threshold == 1);
    assert_int_equal(merged.has, (BR_HAS_FALLBACK << 1) - 1);
}

static void test_a_field_sets_its_kind_or_contradicts_it(void **state)
{
    (void)state;
    enum { K = BR_HAS_KIND, T = BR_HAS_THRESHOLD, L = BR_HAS_LAMBDA, O = BR_HAS_TOLERANCE };
    enum { B = BR_HAS_TOTAL_BUDGET, C = BR_HAS_MAX_COST };
    static const struct {
        uint32_t has;
        br_policy_kind kind;
        br_policy_kind settled;
        const char *clash; /* NULL: it settles */
    } cases[] = {
        {0, BR_POLICY_POOL, BR_POLICY_POOL, NULL},
        {C, BR_POLICY_POOL, BR_POLICY_POOL, NULL},
        {T, BR_POLICY_POOL, BR_POLICY_THRESHOLD, NULL},
        {L | C, BR_POLICY_POOL, BR_POLICY_UTILITY, NULL},
        {O, BR_POLICY_POOL, BR_POLICY_TOLERANCE, NULL},
        {B, BR_POLICY_BUDGET, BR_POLICY_POOL, NULL},
        {K | C, BR_POLICY_BUDGET, BR_POLICY_BUDGET, NULL},
        {K | L, BR_POLICY_UTILITY, BR_POLICY_UTILITY, NULL},
        {K | T | C, BR_POLICY_BUDGET, BR_POLICY_BUDGET, "threshold"},
        {K | B, BR_POLICY_THRESHOLD, BR_POLICY_THRESHOLD, "total_budget"},
        {T | L, 0, BR_POLICY_THRESHOLD, "lambda"},
        {T | O, 0, BR_POLICY_THRESHOLD, "tolerance"},
        {O | B, 0, BR_POLICY_TOLERANCE, "total_budget"},
        {K | L | B, BR_POLICY_POOL, BR_POLICY_POOL, "lambda"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_policy_spec policy = {.has = cases[i].has, .kind = cases[i].kind};
        br_policy_clash clash = {0};
        const bool settled = br_policy_spec_settle(&policy, &clash);
        assert_int_equal(settled, cases[i].clash == NULL);
        assert_int_equal(policy.kind, cases[i].settled);
        assert_int_equal((policy.has & K) != 0, (cases[i].has & ~(uint32_t)C) != 0);
        if (settled) continue;
        assert_string_equal(clash.key, cases[i].clash);
        assert_int_equal(clash.kind, cases[i].settled);
        assert_int_not_equal(clash.owner, clash.kind);
    }
}

static void test_the_fields_of_other_kinds_are_left_out(void **state)
{
    (void)state;
    br_policy_spec merged = full_policy(0, base_models, 1);
    for (br_policy_kind kind = BR_POLICY_THRESHOLD; kind <= BR_POLICY_POOL; kind++) {
        merged.kind = kind;
        br_policy_spec own = br_policy_spec_of_kind(&merged);
        br_policy_clash clash;
        assert_true(br_policy_spec_settle(&own, &clash));
        assert_int_equal(own.kind, kind);
        assert_true((own.has & BR_HAS_MAX_COST) != 0 && (own.has & BR_HAS_MODELS) != 0);
    }
    merged.has &= ~(uint32_t)BR_HAS_KIND;
    assert_int_equal(br_policy_spec_of_kind(&merged).has, merged.has);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_survives_its_word),
        cmocka_unit_test(test_every_fallback_survives_its_word),
        cmocka_unit_test(test_the_words_of_options_are_the_names_in_order),
        cmocka_unit_test(test_other_words_are_refused_and_write_nothing),
        cmocka_unit_test(test_each_written_field_replaces_its_own_and_no_other),
        cmocka_unit_test(test_nothing_written_changes_nothing),
        cmocka_unit_test(test_a_field_sets_its_kind_or_contradicts_it),
        cmocka_unit_test(test_the_fields_of_other_kinds_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
