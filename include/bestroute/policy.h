/*
 * policy.h - which candidate answers each query.
 *
 * Pure: qualities, token counts and a policy in, decisions out. The rules are
 * PROTOCOL.md's; where it leaves a choice, this file says what is done.
 *
 *   resolve   names -> sets of models, required keys present, values in range
 *   table     per candidate: quality, cost, and why it is out (or not)
 *   decide    one query; decide_pool: all queries of a request together
 *
 * Ties: lower cost, then higher quality, then smaller n, then the bundle's order.
 *
 * margin, the distance of the deciding quantity from another answer:
 *   threshold  the smaller of: chosen quality - threshold (not for the reference);
 *              threshold - quality over the cheaper candidates considered
 *   tolerance  the same with the bar (1 - tolerance) * best
 *   budget     chosen quality - next best quality within max_cost
 *   utility    chosen utility - next best utility
 *   pool       utility gap at the shadow price: the slope of the last increment bought
 *   Where no rival exists it is 1, the whole range of quality. A fallback's margin is how far the
 *   nearest candidate is from satisfying the policy.
 */
#ifndef BESTROUTE_POLICY_H
#define BESTROUTE_POLICY_H

#include "bestroute/router.h"

typedef enum br_reason {
    BR_REASON_NONE,            /* considered */
    BR_REASON_FILTERED,        /* models, exclude or max_n */
    BR_REASON_NO_PRICE,        /* the policy weighs cost and the model has none */
    BR_REASON_OVER_MAX_COST,
    BR_REASON_BELOW_THRESHOLD, /* threshold and tolerance kinds */
} br_reason;

/* "", "filtered", "no_price", "over_max_cost", "below_threshold". */
const char *br_reason_name(br_reason reason);

/* A policy ready to decide: complete, in range, names looked up. Plain data. */
typedef struct br_resolved_policy {
    br_policy_kind kind;
    br_fallback fallback;
    double threshold;
    double tolerance;
    double lambda;
    double total_budget;
    double max_cost;         /* INFINITY when there is none */
    uint64_t allowed_models; /* bit m: model m passes `models` and `exclude` */
    uint32_t max_n;          /* UINT32_MAX when there is none */
} br_resolved_policy;

/* Merged policy -> resolved. BR_EINVAL: a required key is missing, a value is out of range, NaN or infinite,
 * `models` is empty, a name is unknown, or no candidate is left; the error names the key. */
BR_NODISCARD br_status br_policy_resolve(br_resolved_policy *out, const br_router *router,
                                         const br_policy *policy, br_error *error);

/* One row of the table of a query. */
typedef struct br_option {
    double quality; /* 1 for the reference */
    double cost;    /* USD; NAN without a price */
    br_reason reason;
} br_option;

typedef struct br_query_costs {
    const uint64_t *prompt_tokens; /* [models] billed input tokens */
    const double *output_tokens;   /* [models] per sample */
    double max_cost;               /* the query's own cap; INFINITY when there is none */
} br_query_costs;

typedef struct br_decision {
    int32_t candidate; /* -1 with status other than BR_OK */
    br_status status;  /* BR_OK; BR_EINFEASIBLE: fallback `error`; BR_EINTERNAL: a score is not finite or not in [0, 1] */
    double quality;
    double cost; /* NAN without a price */
    double margin;
    bool met;
} br_decision;

/* cost(model, n) in USD; NAN when the model has no price. */
double br_candidate_cost(const br_router *router, int32_t candidate, const br_query_costs *costs);

/* Fills options[candidate_count]. quality: [head_count] of the encoder. */
void br_policy_table(br_option *options, const br_router *router, const br_resolved_policy *policy,
                     const float *quality, const br_query_costs *costs);

/* Decides one query from its table; marks BELOW_THRESHOLD in it. Kind must not be POOL. */
br_decision br_policy_decide(br_option *options, const br_router *router, const br_resolved_policy *policy);

/* One member of a pool: its own table (filters may differ by query) and fallback. */
typedef struct br_pool_query {
    br_option *options; /* [candidate_count] */
    const br_resolved_policy *policy;
    br_decision decision; /* out */
} br_pool_query;

/* Bytes of scratch that br_policy_decide_pool needs. */
size_t br_policy_pool_scratch_bytes(const br_router *router, size_t query_count);

/* Decides all together under `total_budget`. Starting from each query's cheapest considered candidate,
 * buys increments of the upper concave hulls in falling order of slope; one that does not fit is
 * passed over, with the later ones of its query. When even the cheapest choices cost more than the
 * budget, every query falls back. A query whose score is not finite is answered BR_EINTERNAL and
 * takes no part. The order of queries changes nothing. */
void br_policy_decide_pool(br_pool_query *queries, size_t query_count, const br_router *router,
                           double total_budget, void *scratch);

#endif
