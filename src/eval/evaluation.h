/*
 * evaluation.h - what policies would have cost and answered, replayed on measured prompts.
 *
 * Pure: tables in, figures out. No files, no sockets, no clock; chance comes from a seed.
 *
 *   table   per prompt and candidate: what was predicted, measured and paid
 *   trace   one kind of policy at many settings (thresholds, budgets, lambdas): what each chose for each
 *           prompt
 *   curve   the weighted means of a trace, setting by setting: points of (cost, quality)
 *   hull    the best of the static choices, which do not look at the prompt: one candidate, or a coin between
 *           two
 *   story   a text that several prompts share (stories.h)
 *
 * A point between two neighbours of a curve or hull is reached by a coin between the two.
 *
 * Uses: policy, router, random.  Used by: sweep, analysis, the command.
 */
#ifndef BESTROUTE_EVAL_EVALUATION_H
#define BESTROUTE_EVAL_EVALUATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

/* Candidates in the router's order, the reference among them; [row * candidates + candidate]. */
typedef struct br_eval_table {
    const br_router *router; /* candidate c has head c; the reference c, or -1: its quality is 1 */
    size_t rows;
    size_t tasks;
    int32_t *task;  /* [rows] index below tasks */
    int32_t *story; /* [rows] of which each is a part: numbered by first appearance, each within one task */
    size_t stories;
    size_t *story_row; /* [stories] the first row of each */
    float *predicted;  /* [rows, candidates] probability of a match; the reference's only if it has a head */
    bool *measured;    /* [rows, candidates]; the reference is, always */
    double *quality;   /* [rows, candidates] of the answer that the selector picks */
    double *match;     /* [rows, candidates] */
    double *paid;      /* [rows, candidates] USD with the lengths measured */
    uint64_t *prompt_tokens; /* [rows] billed */
} br_eval_table;

/* Each row is a story of its own until the caller says otherwise. BR_ENOMEM. */
BR_NODISCARD br_status br_eval_table_init(br_eval_table *out, const br_router *router, size_t rows,
                                          size_t tasks);
void br_eval_table_deinit(br_eval_table *table);

/* story[rows] as described above; copied. */
void br_eval_set_stories(br_eval_table *table, const int32_t *story);

/* The index of a cell. */
static inline size_t br_eval_at(const br_eval_table *t, size_t row, size_t candidate)
{
    return row * (size_t)t->router->candidate_count + candidate;
}

typedef struct br_eval_point {
    double cost; /* USD per prompt */
    double quality;
} br_eval_point;

typedef struct br_eval_trace {
    size_t count; /* policies */
    size_t rows;
    double *parameters;    /* [count] thresholds, lambdas or caps */
    br_eval_point *points; /* [count, rows] */
    bool *reference;       /* [count, rows]: the reference answered */
} br_eval_trace;

/* Replays `kind` for each parameter: threshold, lambda of utility, max_cost of budget (each with the
 * reference as its fallback). Only measured candidates take part;
 * where `only` >= 0 only that one and the reference. BR_ENOMEM. */
BR_NODISCARD br_status br_eval_trace_init(br_eval_trace *out, const br_eval_table *table, br_policy_kind kind,
                                          const double *parameters, size_t count, int32_t only);
/* A trace of this one policy, of any kind but POOL; its parameter is 0. BR_ENOMEM. */
BR_NODISCARD br_status br_eval_trace_policy(br_eval_trace *out, const br_eval_table *table,
                                            const br_policy *policy);
void br_eval_trace_deinit(br_eval_trace *trace);

/* out[count]: the weighted means; weights [rows] need not sum to 1. */
void br_eval_curve(br_eval_point *out, const br_eval_trace *trace, const double *weights);

/* The weighted share of prompts that the reference answers under policy `index` of the trace. */
double br_eval_reference_share(const br_eval_trace *trace, size_t index, const double *weights);

/* Candidate `candidate` wherever it was measured, the reference elsewhere. */
br_eval_point br_eval_static(const br_eval_table *table, size_t candidate, const double *weights);

/* For each prompt the cheapest measured candidate that turned out to be at least as good as the reference. */
br_eval_point br_eval_oracle(const br_eval_table *table, const double *weights);

/* Keeps the points of the upper concave hull, by rising cost, and returns how many there are. */
size_t br_eval_hull(br_eval_point *points, size_t count);

/* The hull of all static choices that are the same for every prompt. out has room for candidates. */
size_t br_eval_static_hull(br_eval_point *out, const br_eval_table *table, const double *weights);

/* The hull of static choices made for each task, among the candidates measured on it: what knowing the task,
 * and nothing else of the prompt, is worth. out has room for tasks * candidates + 1. BR_ENOMEM. */
BR_NODISCARD br_status br_eval_task_hull(br_eval_point *out, size_t *count, const br_eval_table *table,
                                         const double *weights);

/* Quality at a cost, by interpolation between neighbours (the best one where the curve turns back). NAN below
 * the cheapest point; the best of all beyond the dearest. */
double br_eval_quality_at(const br_eval_point *points, size_t count, double cost);

/* The least cost at which the curve has at least this quality; NAN where it never has. */
double br_eval_cost_at(const br_eval_point *points, size_t count, double quality);

typedef struct br_eval_bin {
    size_t pairs;
    double predicted; /* means; 0 where there is no pair */
    double measured;
} br_eval_bin;

enum { BR_EVAL_BINS = 10 };

/* Reliability over all measured (prompt, candidate) of `task`, or of all for -1.
 * Returns the expected calibration error. */
double br_eval_calibration(br_eval_bin bins[BR_EVAL_BINS], const br_eval_table *table, int32_t task);

/* The mean match of each bin of the calibration, where row r is counted counts[r] >= 0 times, as in a sample
 * of the rows. NAN: an empty bin. */
void br_eval_measured_means(double out[BR_EVAL_BINS], const br_eval_table *table, const double *counts);

/* Weights of rows: the same for each, or for each task the same sum. Sum to 1. */
void br_eval_weights(double *weights, const br_eval_table *table, bool by_task);

/* One bootstrap sample: from each task as many whole stories as it has, drawn with replacement. A task keeps
 * its share of the weight, even if the stories drawn are longer or shorter. Weights in, weights out. `state`
 * is that of core/random.h. */
void br_eval_resample(double *out, const br_eval_table *table, const double *weights, uint64_t *state);

/* The q-quantile of values, which are sorted in place; NANs are left out, NAN where nothing is left. */
double br_eval_quantile(double *values, size_t count, double q);

#endif
