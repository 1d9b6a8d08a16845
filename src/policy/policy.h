/*
 * policy.h - which candidate answers each query.
 *
 * Pure: qualities, token counts and a policy in, decisions out. It allocates
 * nothing and keeps nothing. The rules are PROTOCOL.md's; where it leaves a
 * choice, this file says what is done.
 *
 *   resolve   names -> sets of models, required keys present, values in range
 *   table     per candidate: quality, cost, and why it is out (or not)
 *   decide    one query; br_shared_budget_decide: all queries of a request together
 *
 * A candidate is allowed when it passes `models`, `exclude` and `max_n`, and considered when it is
 * allowed, has a price and costs no more than the tighter cap of policy and query.
 *
 * Ties: lower cost, then higher quality, then smaller n, then the bundle's order.
 *
 * Prices: every kind weighs cost (a `utility` whose lambda is 0 still breaks ties by it), so a
 * candidate without a price is never considered. A fallback may still name one, with the cost NAN:
 * `reference` the reference, and `best` the one of highest quality where no allowed candidate has a price.
 *
 * Fallback `best`, in this order: the highest quality considered; the cheapest allowed; the highest
 * quality without a price. In a pool whose budget does not cover the cheapest choices nothing is
 * affordable, so `best` is the cheapest allowed there.
 *
 * Scores: a score that is not finite, or not in [0, 1], comes from a broken engine. Its query is answered
 * BR_EINTERNAL under every policy, even where that candidate is filtered out.
 *
 * margin, how far the number that decides is from deciding otherwise, >= 0:
 *   threshold  the smallest of: chosen quality - threshold (not for the reference, whose quality is no
 *              prediction); threshold - quality of each cheaper candidate considered; chosen quality -
 *              quality of each other one of equal cost
 *   tolerance  the same with the bar (1 - tolerance) * best; for the chosen one itself, best is that
 *              of the others
 *   budget     chosen quality - next best quality considered
 *   utility    chosen utility - next best utility
 *   pool       chosen utility - next best utility at the shadow price (0 where less: an increment that
 *              did not fit); the price is the slope of the last increment bought, of the steepest one
 *              that did not fit where none was bought, and 0 where all fit
 *   Where no rival exists it is 1, the whole range of quality. A fallback's margin is how far the
 *   nearest candidate's quality is from satisfying the policy, and 1 where no quality would.
 */
#ifndef BESTROUTE_POLICY_POLICY_H
#define BESTROUTE_POLICY_POLICY_H

#include "router.h"

typedef enum br_reason {
    BR_REASON_NONE,     /* considered */
    BR_REASON_FILTERED, /* models, exclude or max_n */
    BR_REASON_NO_PRICE,
    BR_REASON_OVER_MAX_COST,
    BR_REASON_BELOW_THRESHOLD, /* considered, but under the bar of threshold or tolerance */
} br_reason;

/* "", "filtered", "no_price", "over_max_cost", "below_threshold". */
const char *br_reason_name(br_reason reason);

/* A policy ready to decide: complete, in range, names looked up. Plain data. */
typedef struct br_policy {
    br_policy_kind kind;
    br_fallback fallback;
    double threshold;
    double tolerance;
    double lambda;
    double total_budget;
    double max_cost;         /* INFINITY when there is none */
    uint64_t allowed_models; /* bit m: model m passes `models` and `exclude` */
    uint32_t max_n;          /* UINT32_MAX when there is none */
} br_policy;

/* Lowers policy->max_cost to a query's own cap; INFINITY changes nothing. A query that gives max_cost
 * satisfies `budget` this way: cap the merged policy, then resolve it. */
void br_policy_spec_cap(br_policy_spec *policy, double max_cost);

/* Merged policy -> resolved. BR_EINVAL: `kind` or a key it requires is missing, a value is out of range,
 * NaN or infinite (also of a key that the kind does not use), `models` is empty, a name is unknown, or
 * no candidate is left; the error begins with the key: of the filters the first, in the order models,
 * exclude, max_n, after which none is left. On failure *out is not meaningful. */
BR_NODISCARD br_status br_policy_resolve(br_policy *out, const br_router *router,
                                         const br_policy_spec *policy, br_error *error);

/* One row of the table of a query. */
typedef struct br_option {
    double quality; /* 1 for a reference without a head */
    double cost;    /* USD, >= 0; NAN without a price */
    br_reason reason;
} br_option;

typedef struct br_query_costs {
    const uint64_t *prompt_tokens; /* [models] billed input tokens */
    const double *output_tokens;   /* [models] per sample; finite, >= 0 */
    double max_cost;               /* the query's own cap, >= 0; INFINITY when there is none */
} br_query_costs;

typedef struct br_decision {
    int32_t candidate; /* -1 with status other than BR_OK */
    br_status status;  /* BR_OK; BR_EINFEASIBLE: fallback `error`; BR_EINTERNAL: a broken score */
    double quality;    /* NAN without a candidate */
    double cost;       /* NAN without a price, and without a candidate */
    double margin;     /* 0 without a candidate */
    bool met;          /* the policy is satisfied: false for a fallback */
} br_decision;

/* cost(model, n) in USD; NAN when the model has no price, or has a price of output other than 0 and
 * output_tokens is NAN: a length that nobody tells is never free; at most DBL_MAX: a product that overflows
 * stays comparable, dearer than anything real. */
double br_candidate_cost(const br_router *router, int32_t candidate, const br_query_costs *costs);

/* Fills options[candidate_count]. quality: [head_count] of the encoder. A row's reason is the first
 * that holds, in the order of br_reason. */
void br_policy_table(br_option *options, const br_router *router, const br_policy *policy,
                     const float *quality, const br_query_costs *costs);

/* Decides one query from its fresh table; marks BELOW_THRESHOLD in it. Kind must not be POOL. */
br_decision br_policy_decide(br_option *options, const br_router *router, const br_policy *policy);

/* One member of a pool: its own table (filters may differ by query) and fallback. */
typedef struct br_shared_budget_query {
    const br_option *options; /* [candidate_count], fresh */
    const br_policy *policy;  /* of kind POOL; its total_budget is not read */
    br_decision decision;     /* out */
} br_shared_budget_query;

/* Bytes of scratch that br_shared_budget_decide needs. */
size_t br_shared_budget_scratch_bytes(const br_router *router, size_t query_count);

/* Decides all together under `total_budget`. Starting from each query's cheapest considered candidate,
 * buys increments of the upper concave hulls (points on an edge count) in falling order of slope, equal
 * slopes by lower price; one that does not fit is passed over, with the later ones of its query.
 *
 *   - A query with nothing to consider falls back by itself; what that costs is paid first.
 *   - When even the cheapest choices cost more than the budget, every query falls back.
 *   - A query whose score is not finite is answered BR_EINTERNAL and takes no part.
 *   - The order of queries changes nothing: all ties are settled by the tables. Only queries whose
 *     tables are equal in every number are told apart by position.
 *   - Never over budget: when any query is met, the known costs of all decisions, added as doubles in any
 *     order, come to at most total_budget. More than two costs whose sums round (they are no multiples of
 *     a common power of two) therefore leave unspent up to one part in 2^52 of the budget per query.
 *
 * Time O(N log N) for N = query_count * candidate_count. query_count: 0..BR_QUERIES_MAX.
 * scratch: br_shared_budget_scratch_bytes bytes, aligned as malloc does; holds nothing between calls. */
void br_shared_budget_decide(br_shared_budget_query *queries, size_t query_count, const br_router *router,
                             double total_budget, void *scratch);

#endif
