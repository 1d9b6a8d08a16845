/*
 * policy.c - the table of a query, and its decision.
 *
 * Every kind chooses the candidate of highest worth among those that qualify, and
 * settles ties in the same order. The kinds differ in what a candidate is worth and in
 * which candidates qualify.
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

double br_candidate_cost(const br_router *router, int32_t candidate, const br_query_costs *costs)
{
    assert(candidate >= 0 && candidate < router->candidate_count);
    const br_candidate *c = &router->candidates[candidate];
    const br_priced_model *model = &router->models[c->model];
    if (!model->has_price) return NAN;

    const double input = model->input_price * (double)costs->prompt_tokens[c->model];
    const double length = costs->output_tokens[c->model];
    if (isnan(length) && model->output_price > 0) return NAN;
    const double output = model->output_price > 0 ? model->output_price * length : 0;
    const double cost = input * (model->input_per_sample ? c->n : 1) + output * c->n;
    return cost < DBL_MAX ? cost : DBL_MAX;
}

static br_reason reason_for(const br_candidate *candidate, double cost, const br_policy *policy,
                            double max_cost)
{
    if (!br_policy_allows(candidate, policy->allowed_models, policy->max_n)) return BR_REASON_FILTERED;
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

/* The chosen candidate stays chosen while its own quality is at least `floor`; the others are measured by
 * `bar`. */
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

/* Marks the candidates below the bar. Returns the cheapest of the others, or -1. */
static int32_t pick_above(br_option *options, const br_router *router, double bar)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        const bool below = options[i].quality < bar;
        if (options[i].reason == BR_REASON_NONE && below) options[i].reason = BR_REASON_BELOW_THRESHOLD;
    }
    return pick(options, router, BR_REASON_NONE, CHEAPEST, 0);
}

/* A reference without a head has the quality 1, and no threshold is higher. So it qualifies wherever it is
 * considered, and no dearer candidate is chosen. */
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

/* How far the best candidate below the threshold is from it. */
static double fallback_margin(const br_option *options, const br_router *router, const br_policy *policy)
{
    const int32_t nearest = pick(options, router, BR_REASON_BELOW_THRESHOLD, QUALITY, 0);
    return nearest < 0 ? 1 : br_policy_margin(policy->threshold - options[nearest].quality);
}

/* In the order of preference. Candidates with BR_REASON_NONE are left only in a pool whose budget is
 * exceeded. */
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
