/*
 * rules.h - what resolve.c, policy.c and shared_budget.c share: private to them.
 */
#ifndef BESTROUTE_POLICY_RULES_H
#define BESTROUTE_POLICY_RULES_H

#include "policy.h"

/* True when the candidate is of one of `models` and takes at most max_n samples. */
bool br_policy_allows(const br_candidate *candidate, uint64_t models, uint32_t max_n);

/* True when every score of the table may be routed on: finite and in [0, 1]. */
bool br_policy_scores_valid(const br_option *options, const br_router *router);

/* No candidate: `status` says why. */
br_decision br_policy_refuse(br_status status);

/* The decision for a candidate that the policy chose (`met`) or fell back on. */
br_decision br_policy_answer(const br_option *options, int32_t candidate, double margin, bool met);

/* What the policy answers where nothing satisfies it. In a pool: where its budget is not met. */
br_decision br_policy_fall_back(const br_option *options, const br_router *router, const br_policy *policy);

/* A gap between two utilities as a margin: at least 0, finite. */
double br_policy_margin(double gap);

#endif
