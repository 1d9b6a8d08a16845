/* resolve.c - a policy as written becomes one that is ready to decide: see policy.h. */
#include <float.h>
#include <math.h>
#include <stddef.h>

#include "policy.h"
#include "rules.h"

void br_policy_spec_cap(br_policy_spec *policy, double max_cost)
{
    if (max_cost == INFINITY) return;
    const bool has = (policy->has & BR_HAS_MAX_COST) != 0;
    /* A value that is out of range, on either side, is kept: br_policy_resolve refuses it. */
    if (!has || max_cost < policy->max_cost || isnan(max_cost)) policy->max_cost = max_cost;
    policy->has |= BR_HAS_MAX_COST;
}

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
            return br_fail(error, BR_EINVAL, "%s[%zu]: unknown model \"%.*s\"; nearest is \"%s\"", key, i,
                           (int)shown, shown > 0 ? names[i].data : "",
                           br_router_nearest_model(router, names[i]));
        }
        *set |= UINT64_C(1) << model;
    }
    return BR_OK;
}

bool br_policy_allows(const br_candidate *candidate, uint64_t models, uint32_t max_n)
{
    return (models >> candidate->model & 1) != 0 && (uint32_t)candidate->n <= max_n;
}

static bool leaves_any(const br_router *router, uint64_t models, uint32_t max_n)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        if (br_policy_allows(&router->candidates[i], models, max_n)) return true;
    }
    return false;
}

/* Applies one filter after the other, so that the error can name the one that leaves no candidate. */
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
