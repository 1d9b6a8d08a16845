/*
 * policy.c - resolving a policy, the table of a query, and its decision.
 *
 * Every kind is "the candidate of highest worth among those that qualify, ties
 * in the common order"; the kinds differ in worth and in who qualifies.
 */
#include "policy.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stddef.h>

#include "rules.h"

/* What a choice maximises. */
typedef enum measure {
    CHEAPEST, /* worth nothing in itself: the order of ties decides */
    QUALITY,
    UTILITY,
} measure;

const char *br_reason_name(br_reason reason)
{
    switch (reason) {
    case BR_REASON_NONE:
        return "";
    case BR_REASON_FILTERED:
        return "filtered";
    case BR_REASON_NO_PRICE:
        return "no_price";
    case BR_REASON_OVER_MAX_COST:
        return "over_max_cost";
    case BR_REASON_BELOW_THRESHOLD:
        return "below_threshold";
    }
    return "";
}

void br_policy_spec_cap(br_policy_spec *policy, double max_cost)
{
    if (max_cost == INFINITY) return;
    const bool has = (policy->has & BR_HAS_MAX_COST) != 0;
    /* A value out of range on either side survives for br_policy_resolve to refuse. */
    if (!has || max_cost < policy->max_cost || isnan(max_cost)) policy->max_cost = max_cost;
    policy->has |= BR_HAS_MAX_COST;
}

/* Resolving. */

static br_status check_words(const br_policy_spec *policy, br_error *error)
{
    if ((policy->has & BR_HAS_KIND) == 0) return br_fail(error, BR_EINVAL, "kind: missing");
    if (policy->kind > BR_POLICY_POOL) return br_fail(error, BR_EINVAL, "kind: unknown");
    if ((policy->has & BR_HAS_FALLBACK) != 0 && policy->fallback > BR_FALLBACK_ERROR) {
        return br_fail(error, BR_EINVAL, "fallback: unknown");
    }
    return BR_OK;
}

static br_status check_numbers(const br_policy_spec *policy, br_error *error)
{
    const struct {
        const char *key;
        uint32_t bit;
        double value;
        double max;
    } numbers[] = {
        {"threshold", BR_HAS_THRESHOLD, policy->threshold, 1},
        {"max_cost", BR_HAS_MAX_COST, policy->max_cost, DBL_MAX},
        {"lambda", BR_HAS_LAMBDA, policy->lambda, DBL_MAX},
        {"tolerance", BR_HAS_TOLERANCE, policy->tolerance, 1},
        {"total_budget", BR_HAS_TOTAL_BUDGET, policy->total_budget, DBL_MAX},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if ((policy->has & numbers[i].bit) == 0) continue;
        if (numbers[i].value >= 0 && numbers[i].value <= numbers[i].max) continue; /* false for NaN */
        return br_fail(error, BR_EINVAL, "%s: %g is not %s", numbers[i].key, numbers[i].value,
                       numbers[i].max == 1 ? "in [0, 1]" : "a finite number >= 0");
    }
    if ((policy->has & BR_HAS_MAX_N) != 0 && policy->max_n == 0) {
        return br_fail(error, BR_EINVAL, "max_n: 0 is not >= 1");
    }
    return BR_OK;
}

static br_status check_required(const br_policy_spec *policy, br_error *error)
{
    static const struct {
        const char *key;
        uint32_t bit;
        br_policy_kind kind;
    } required[] = {
        {"threshold", BR_HAS_THRESHOLD, BR_POLICY_THRESHOLD},
        {"max_cost", BR_HAS_MAX_COST, BR_POLICY_BUDGET},
        {"lambda", BR_HAS_LAMBDA, BR_POLICY_UTILITY},
        {"tolerance", BR_HAS_TOLERANCE, BR_POLICY_TOLERANCE},
        {"total_budget", BR_HAS_TOTAL_BUDGET, BR_POLICY_POOL},
    };
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        if (policy->kind != required[i].kind || (policy->has & required[i].bit) != 0) continue;
        return br_fail(error, BR_EINVAL, "%s: missing, required by the kind %s", required[i].key,
                       br_policy_kind_name(policy->kind));
    }
    return BR_OK;
}

/* The set of the named models. */
static br_status find_models(uint64_t *set, const br_router *router, const char *key, const br_str *names,
                             size_t count, br_error *error)
{
    *set = 0;
    for (size_t i = 0; i < count; i++) {
        const int32_t model = br_router_find_model(router, names[i]);
        if (model < 0) {
            const size_t shown = names[i].size < BR_NAME_BYTES_MAX ? names[i].size : BR_NAME_BYTES_MAX;
            return br_fail(error, BR_EINVAL, "%s: unknown model \"%.*s\"", key, (int)shown,
                           shown > 0 ? names[i].data : "");
        }
        *set |= UINT64_C(1) << model;
    }
    return BR_OK;
}

static bool allows(const br_candidate *candidate, uint64_t models, uint32_t max_n)
{
    return (models >> candidate->model & 1) != 0 && (uint32_t)candidate->n <= max_n;
}

static bool leaves_any(const br_router *router, uint64_t models, uint32_t max_n)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        if (allows(&router->candidates[i], models, max_n)) return true;
    }
    return false;
}

/* Each filter in turn, so that the one that takes out the last candidate is named. */
static br_status resolve_filters(br_policy *out, const br_router *router, const br_policy_spec *policy,
                                 br_error *error)
{
    static const char none_left[] = "%s: no candidate is left";
    out->allowed_models = UINT64_MAX;
    out->max_n = UINT32_MAX;

    if ((policy->has & BR_HAS_MODELS) != 0) {
        if (policy->model_count == 0) return br_fail(error, BR_EINVAL, "models: empty");
        const br_status status =
            find_models(&out->allowed_models, router, "models", policy->models, policy->model_count, error);
        if (status != BR_OK) return status;
        if (!leaves_any(router, out->allowed_models, out->max_n)) {
            return br_fail(error, BR_EINVAL, none_left, "models");
        }
    }
    if ((policy->has & BR_HAS_EXCLUDE) != 0) {
        uint64_t excluded;
        const br_status status =
            find_models(&excluded, router, "exclude", policy->exclude, policy->exclude_count, error);
        if (status != BR_OK) return status;
        out->allowed_models &= ~excluded;
        if (!leaves_any(router, out->allowed_models, out->max_n)) {
            return br_fail(error, BR_EINVAL, none_left, "exclude");
        }
    }
    if ((policy->has & BR_HAS_MAX_N) != 0) {
        out->max_n = policy->max_n;
        if (!leaves_any(router, out->allowed_models, out->max_n)) {
            return br_fail(error, BR_EINVAL, none_left, "max_n");
        }
    }
    return BR_OK;
}

br_status br_policy_resolve(br_policy *out, const br_router *router, const br_policy_spec *policy,
                            br_error *error)
{
    const uint32_t has = policy->has;
    br_status status = check_words(policy, error);
    if (status != BR_OK) return status;
    status = check_numbers(policy, error);
    if (status != BR_OK) return status;
    status = check_required(policy, error);
    if (status != BR_OK) return status;

    *out = (br_policy){
        .kind = policy->kind,
        .fallback = (has & BR_HAS_FALLBACK) != 0 ? policy->fallback : BR_FALLBACK_BEST,
        .threshold = (has & BR_HAS_THRESHOLD) != 0 ? policy->threshold : 0,
        .tolerance = (has & BR_HAS_TOLERANCE) != 0 ? policy->tolerance : 0,
        .lambda = (has & BR_HAS_LAMBDA) != 0 ? policy->lambda : 0,
        .total_budget = (has & BR_HAS_TOTAL_BUDGET) != 0 ? policy->total_budget : 0,
        .max_cost = (has & BR_HAS_MAX_COST) != 0 ? policy->max_cost : INFINITY,
    };
    return resolve_filters(out, router, policy, error);
}

/* The table. */

double br_candidate_cost(const br_router *router, int32_t candidate, const br_query_costs *costs)
{
    assert(candidate >= 0 && candidate < router->candidate_count);
    const br_candidate *c = &router->candidates[candidate];
    const br_priced_model *model = &router->models[c->model];
    if (!model->has_price) return NAN;

    const double input = model->input_price * (double)costs->prompt_tokens[c->model];
    const double output = model->output_price * costs->output_tokens[c->model];
    const double cost = input * (model->input_per_sample ? c->n : 1) + output * c->n;
    return cost < DBL_MAX ? cost : DBL_MAX;
}

static br_reason reason_for(const br_candidate *candidate, double cost, const br_policy *policy,
                            double max_cost)
{
    if (!allows(candidate, policy->allowed_models, policy->max_n)) return BR_REASON_FILTERED;
    if (isnan(cost)) return BR_REASON_NO_PRICE;
    return cost > max_cost ? BR_REASON_OVER_MAX_COST : BR_REASON_NONE;
}

void br_policy_table(br_option *options, const br_router *router, const br_policy *policy,
                     const float *quality, const br_query_costs *costs)
{
    assert(costs->max_cost >= 0);
    const double max_cost = costs->max_cost < policy->max_cost ? costs->max_cost : policy->max_cost;
    for (int32_t i = 0; i < router->candidate_count; i++) {
        const br_candidate *candidate = &router->candidates[i];
        const double cost = br_candidate_cost(router, i, costs);
        options[i] = (br_option){
            .quality = candidate->head < 0 ? 1.0 : (double)quality[candidate->head],
            .cost = cost,
            .reason = reason_for(candidate, cost, policy, max_cost),
        };
    }
}

/* Deciding. */

bool br_policy_scores_valid(const br_option *options, const br_router *router)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        if (!(options[i].quality >= 0 && options[i].quality <= 1)) return false; /* true for NaN too */
    }
    return true;
}

br_decision br_policy_refuse(br_status status)
{
    return (br_decision){.candidate = -1, .status = status, .quality = NAN, .cost = NAN};
}

br_decision br_policy_answer(const br_option *options, int32_t candidate, double margin, bool met)
{
    return (br_decision){
        .candidate = candidate,
        .status = BR_OK,
        .quality = options[candidate].quality,
        .cost = options[candidate].cost,
        .margin = margin,
        .met = met,
    };
}

double br_policy_margin(double gap)
{
    if (!(gap > 0)) return 0; /* NaN, of two infinite utilities, too */
    return gap < DBL_MAX ? gap : DBL_MAX;
}

static double worth(const br_option *option, measure by, double lambda)
{
    switch (by) {
    case CHEAPEST:
        return 0;
    case QUALITY:
        return option->quality;
    case UTILITY:
        return option->quality - lambda * option->cost;
    }
    return 0;
}

/* The order of ties. Two costs that are NAN are equal. */
static bool precedes(const br_option *options, const br_router *router, int32_t a, int32_t b)
{
    if (options[a].cost < options[b].cost) return true;
    if (options[a].cost > options[b].cost) return false;
    if (options[a].quality != options[b].quality) return options[a].quality > options[b].quality;
    if (router->candidates[a].n != router->candidates[b].n)
        return router->candidates[a].n < router->candidates[b].n;
    return a < b;
}

/* The candidate of highest worth among those with that reason; -1 when there is none. */
static int32_t pick(const br_option *options, const br_router *router, br_reason reason, measure by,
                    double lambda)
{
    int32_t chosen = -1;
    double most = 0;
    for (int32_t i = 0; i < router->candidate_count; i++) {
        if (options[i].reason != reason) continue;
        const double value = worth(&options[i], by, lambda);
        if (chosen < 0 || value > most || (value == most && precedes(options, router, i, chosen))) {
            chosen = i;
            most = value;
        }
    }
    return chosen;
}

/* The next best worth among those considered; -INFINITY when there is no other. */
static double next_best(const br_option *options, const br_router *router, int32_t chosen, measure by,
                        double lambda, bool *exists)
{
    double most = -INFINITY;
    *exists = false;
    for (int32_t i = 0; i < router->candidate_count; i++) {
        if (i == chosen || options[i].reason != BR_REASON_NONE) continue;
        const double value = worth(&options[i], by, lambda);
        if (value > most) most = value;
        *exists = true;
    }
    return most;
}

static br_decision decide_by_worth(const br_option *options, const br_router *router, measure by,
                                   double lambda)
{
    const int32_t chosen = pick(options, router, BR_REASON_NONE, by, lambda);
    if (chosen < 0) return br_policy_refuse(BR_EINFEASIBLE);

    bool has_rival;
    const double rival = next_best(options, router, chosen, by, lambda, &has_rival);
    const double gap = worth(&options[chosen], by, lambda) - rival;
    return br_policy_answer(options, chosen, has_rival ? br_policy_margin(gap) : 1, true);
}

/* `floor` is the bar that the chosen one itself must keep to stay chosen. */
static double bar_margin(const br_option *options, const br_router *router, int32_t chosen, double bar,
                         double floor)
{
    double margin = 1;
    if (router->candidates[chosen].head >= 0) margin = options[chosen].quality - floor;
    for (int32_t i = 0; i < router->candidate_count; i++) {
        const br_option *rival = &options[i];
        const bool considered = rival->reason == BR_REASON_NONE || rival->reason == BR_REASON_BELOW_THRESHOLD;
        if (i == chosen || !considered || rival->cost > options[chosen].cost) continue;
        const bool cheaper = rival->cost < options[chosen].cost;
        const double gap = (cheaper ? bar : options[chosen].quality) - rival->quality;
        if (gap < margin) margin = gap;
    }
    return br_policy_margin(margin);
}

/* Marks those under the bar; the cheapest of the rest, or -1. */
static int32_t pick_above(br_option *options, const br_router *router, double bar)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        const bool below = options[i].quality < bar;
        if (options[i].reason == BR_REASON_NONE && below) options[i].reason = BR_REASON_BELOW_THRESHOLD;
    }
    return pick(options, router, BR_REASON_NONE, CHEAPEST, 0);
}

/* Where the reference has no head its quality is 1 and no threshold is higher: where considered it
 * qualifies, and nothing dearer than it is the cheapest. */
static br_decision decide_by_threshold(br_option *options, const br_router *router, double threshold)
{
    const int32_t chosen = pick_above(options, router, threshold);
    if (chosen < 0) return br_policy_refuse(BR_EINFEASIBLE);
    return br_policy_answer(options, chosen, bar_margin(options, router, chosen, threshold, threshold), true);
}

static br_decision decide_by_tolerance(br_option *options, const br_router *router, double tolerance)
{
    const int32_t best = pick(options, router, BR_REASON_NONE, QUALITY, 0);
    if (best < 0) return br_policy_refuse(BR_EINFEASIBLE);

    const double keep = 1 - tolerance;
    const double bar = keep * options[best].quality;
    bool has_rival;
    const double second = next_best(options, router, best, QUALITY, 0, &has_rival);
    const int32_t chosen = pick_above(options, router, bar);
    if (!has_rival) return br_policy_answer(options, chosen, 1, true);

    const double floor = chosen == best ? keep * second : bar;
    return br_policy_answer(options, chosen, bar_margin(options, router, chosen, bar, floor), true);
}

/* How far the best of those under the threshold is from it. */
static double fallback_margin(const br_option *options, const br_router *router, const br_policy *policy)
{
    const int32_t nearest = pick(options, router, BR_REASON_BELOW_THRESHOLD, QUALITY, 0);
    return nearest < 0 ? 1 : br_policy_margin(policy->threshold - options[nearest].quality);
}

/* Candidates that are considered and not under a bar are left only in a pool over its budget. */
static int32_t best_fallback(const br_option *options, const br_router *router)
{
    static const struct {
        br_reason reason;
        measure by;
    } order[] = {
        {BR_REASON_BELOW_THRESHOLD, QUALITY},
        {BR_REASON_NONE, CHEAPEST},
        {BR_REASON_OVER_MAX_COST, CHEAPEST},
        {BR_REASON_NO_PRICE, QUALITY},
    };
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const int32_t found = pick(options, router, order[i].reason, order[i].by, 0);
        if (found >= 0) return found;
    }
    return -1;
}

br_decision br_policy_fall_back(const br_option *options, const br_router *router, const br_policy *policy)
{
    if (policy->fallback == BR_FALLBACK_ERROR) return br_policy_refuse(BR_EINFEASIBLE);

    int32_t candidate = router->reference;
    if (policy->fallback != BR_FALLBACK_REFERENCE || options[candidate].reason == BR_REASON_FILTERED) {
        candidate = best_fallback(options, router);
    }
    assert(candidate >= 0); /* br_policy_resolve leaves one allowed */
    return br_policy_answer(options, candidate, fallback_margin(options, router, policy), false);
}

static br_decision decide_by_kind(br_option *options, const br_router *router, const br_policy *policy)
{
    switch (policy->kind) {
    case BR_POLICY_THRESHOLD:
        return decide_by_threshold(options, router, policy->threshold);
    case BR_POLICY_BUDGET:
        return decide_by_worth(options, router, QUALITY, 0);
    case BR_POLICY_UTILITY:
        return decide_by_worth(options, router, UTILITY, policy->lambda);
    case BR_POLICY_TOLERANCE:
        return decide_by_tolerance(options, router, policy->tolerance);
    case BR_POLICY_POOL:
        break;
    }
    assert(false); /* a pool is decided together */
    return br_policy_refuse(BR_EINTERNAL);
}

br_decision br_policy_decide(br_option *options, const br_router *router, const br_policy *policy)
{
    if (!br_policy_scores_valid(options, router)) return br_policy_refuse(BR_EINTERNAL);
    const br_decision decision = decide_by_kind(options, router, policy);
    return decision.status == BR_EINFEASIBLE ? br_policy_fall_back(options, router, policy) : decision;
}
