/* spec.c - the words of a policy, and how one overrides another. */
#include "spec.h"

#include <assert.h>

static const char *const kind_words[] = {
    [BR_POLICY_THRESHOLD] = "threshold", [BR_POLICY_BUDGET] = "budget", [BR_POLICY_UTILITY] = "utility",
    [BR_POLICY_TOLERANCE] = "tolerance", [BR_POLICY_POOL] = "pool",
};
static const char *const fallback_words[] = {
    [BR_FALLBACK_BEST] = "best",
    [BR_FALLBACK_REFERENCE] = "reference",
    [BR_FALLBACK_ERROR] = "error",
};
enum {
    KIND_COUNT = sizeof kind_words / sizeof kind_words[0],
    FALLBACK_COUNT = sizeof fallback_words / sizeof fallback_words[0],
};

/* The index of `word` among `words`, or -1. */
static int find_word(const char *const *words, int count, br_str word)
{
    for (int i = 0; i < count; i++) {
        if (br_str_equal(word, br_str_from(words[i]))) return i;
    }
    return -1;
}

const char *br_policy_kind_name(br_policy_kind kind)
{
    assert((int)kind >= 0);
    assert((int)kind < KIND_COUNT);
    return kind_words[kind];
}

bool br_policy_kind_parse(br_policy_kind *out, br_str word)
{
    const int index = find_word(kind_words, KIND_COUNT, word);
    if (index < 0) return false;
    *out = (br_policy_kind)index;
    return true;
}

const char *br_fallback_name(br_fallback fallback)
{
    assert((int)fallback >= 0);
    assert((int)fallback < FALLBACK_COUNT);
    return fallback_words[fallback];
}

bool br_fallback_parse(br_fallback *out, br_str word)
{
    const int index = find_word(fallback_words, FALLBACK_COUNT, word);
    if (index < 0) return false;
    *out = (br_fallback)index;
    return true;
}

static const struct {
    const char *key;
    uint32_t bit;
    br_policy_kind owner;
} owned[] = {
    {"threshold", BR_HAS_THRESHOLD, BR_POLICY_THRESHOLD},
    {"lambda", BR_HAS_LAMBDA, BR_POLICY_UTILITY},
    {"tolerance", BR_HAS_TOLERANCE, BR_POLICY_TOLERANCE},
    {"total_budget", BR_HAS_TOTAL_BUDGET, BR_POLICY_POOL},
};

bool br_policy_spec_settle(br_policy_spec *policy, br_policy_clash *clash)
{
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        if ((policy->has & owned[i].bit) == 0) continue;
        if ((policy->has & BR_HAS_KIND) == 0) policy->kind = owned[i].owner;
        policy->has |= BR_HAS_KIND;
        if (policy->kind == owned[i].owner) continue;
        *clash = (br_policy_clash){.key = owned[i].key, .owner = owned[i].owner, .kind = policy->kind};
        return false;
    }
    return true;
}

br_policy_spec br_policy_spec_of_kind(const br_policy_spec *policy)
{
    br_policy_spec own = *policy;
    if ((policy->has & BR_HAS_KIND) == 0) return own;
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        if (owned[i].owner != policy->kind) own.has &= ~owned[i].bit;
    return own;
}

void br_policy_spec_merge(br_policy_spec *base, const br_policy_spec *over)
{
    base->has |= over->has;
    if (over->has & BR_HAS_KIND) base->kind = over->kind;
    if (over->has & BR_HAS_THRESHOLD) base->threshold = over->threshold;
    if (over->has & BR_HAS_MAX_COST) base->max_cost = over->max_cost;
    if (over->has & BR_HAS_LAMBDA) base->lambda = over->lambda;
    if (over->has & BR_HAS_TOLERANCE) base->tolerance = over->tolerance;
    if (over->has & BR_HAS_TOTAL_BUDGET) base->total_budget = over->total_budget;
    if (over->has & BR_HAS_MAX_N) base->max_n = over->max_n;
    if (over->has & BR_HAS_FALLBACK) base->fallback = over->fallback;
    if (over->has & BR_HAS_MODELS) {
        base->models = over->models;
        base->model_count = over->model_count;
    }
    if (over->has & BR_HAS_EXCLUDE) {
        base->exclude = over->exclude;
        base->exclude_count = over->exclude_count;
    }
}
