/*
 * sweep.h - kinds of policies, each replayed over the whole range of its one setting.
 *
 * The settings are ordered so that the cost rises along each trace. Budgets have one exception: a cap below
 * the cost of every candidate makes a decision fall back on the reference.
 *
 * Uses: evaluation.  Used by: analysis, the command.
 */
#ifndef BESTROUTE_EVAL_SWEEP_H
#define BESTROUTE_EVAL_SWEEP_H

#include "evaluation.h"

typedef enum br_sweep {
    BR_SWEEP_THRESHOLD, /* 201 thresholds from 0 to 1: quantiles of what was predicted */
    BR_SWEEP_UTILITY,   /* 161 lambdas, falling from 1000 to 0.001 over the reference's mean cost */
    BR_SWEEP_BUDGET,    /* 101 caps on a prompt's cost, from 0.001 to 10 times the reference's mean cost */
    BR_SWEEP_TWO_MODELS, /* the thresholds, for the reference and its partner alone: Hybrid-LLM */
} br_sweep;

enum {
    BR_SWEEPS = 4,
    BR_SWEEP_SETTINGS_MAX = 201, /* of any of them */
};

/* The partner is the candidate of highest mean quality among those cheaper than the reference; where there is
 * none, the reference stays alone. `weights` [rows] of the table. Release with br_eval_trace_deinit.
 * BR_ENOMEM. */
BR_NODISCARD br_status br_sweep_trace(br_eval_trace *out, const br_eval_table *table, br_sweep sweep,
                                      const double *weights);

#endif
