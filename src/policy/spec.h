/*
 * spec.h - a policy as it is written: which fields, and the words for them.
 *
 * The same struct holds the bundle's defaults, a request's overrides and a
 * query's. Nothing is looked up or checked against candidates here; policy.h
 * resolves and decides.
 */
#ifndef BESTROUTE_POLICY_SPEC_H
#define BESTROUTE_POLICY_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "core/memory.h"

/* The words of PROTOCOL.md in the order of the enums below, as a table of options lists them. */
#define BR_POLICY_KIND_WORDS "threshold|budget|utility|tolerance|pool"
#define BR_FALLBACK_WORDS "best|reference|error"

typedef enum br_policy_kind {
    BR_POLICY_THRESHOLD,
    BR_POLICY_BUDGET,
    BR_POLICY_UTILITY,
    BR_POLICY_TOLERANCE,
    BR_POLICY_POOL,
} br_policy_kind;

typedef enum br_fallback {
    BR_FALLBACK_BEST,
    BR_FALLBACK_REFERENCE,
    BR_FALLBACK_ERROR,
} br_fallback;

/* Which fields of a br_policy_spec are written. Everything else in it is not read. */
enum {
    BR_HAS_KIND = 1 << 0,
    BR_HAS_THRESHOLD = 1 << 1,
    BR_HAS_MAX_COST = 1 << 2,
    BR_HAS_LAMBDA = 1 << 3,
    BR_HAS_TOLERANCE = 1 << 4,
    BR_HAS_TOTAL_BUDGET = 1 << 5,
    BR_HAS_MODELS = 1 << 6,
    BR_HAS_EXCLUDE = 1 << 7,
    BR_HAS_MAX_N = 1 << 8,
    BR_HAS_FALLBACK = 1 << 9,
};

typedef struct br_policy_spec {
    uint32_t has; /* BR_HAS_* */
    br_policy_kind kind;
    br_fallback fallback;
    double threshold;     /* [0, 1] */
    double max_cost;      /* >= 0, USD */
    double lambda;        /* >= 0, quality per USD */
    double tolerance;     /* [0, 1] */
    double total_budget;  /* >= 0, USD */
    uint32_t max_n;       /* >= 1 */
    const br_str *models; /* names, not yet looked up; views owned by whoever made the policy */
    size_t model_count;
    const br_str *exclude;
    size_t exclude_count;
} br_policy_spec;

/* The words of PROTOCOL.md: "threshold", ... and "best", ... . False when the word is none of them. */
const char *br_policy_kind_name(br_policy_kind kind);
bool br_policy_kind_parse(br_policy_kind *out, br_str word);
const char *br_fallback_name(br_fallback fallback);
bool br_fallback_parse(br_fallback *out, br_str word);

/* Two fields of one policy that contradict each other: `key` belongs to `owner`, the policy is of `kind`. */
typedef struct br_policy_clash {
    const char *key; /* "lambda" */
    br_policy_kind owner;
    br_policy_kind kind;
} br_policy_clash;

/* Judges what one map writes: threshold, lambda, tolerance and total_budget belong to one kind each. Where
 * the map writes no kind, such a field sets it. False where the map writes two of them, or one of another
 * kind than its own: *clash says which. max_cost goes with every kind and sets none. */
bool br_policy_spec_settle(br_policy_spec *policy, br_policy_clash *clash);

/* *base with every field that `over` writes replaced. What the base wrote for another kind stays in it, and
 * is not read: a stronger map may come back to that kind. */
void br_policy_spec_merge(br_policy_spec *base, const br_policy_spec *over);

/* `policy` as one map that br_policy_spec_settle accepts: without the fields of other kinds than its own. */
br_policy_spec br_policy_spec_of_kind(const br_policy_spec *policy);

#endif
