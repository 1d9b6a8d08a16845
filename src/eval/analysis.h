/*
 * analysis.h - the figures of a report on one task, or on all together, with intervals.
 *
 * The figures are computed on all rows, and again on bootstrap samples of the rows. The interval of a figure
 * holds its value in 95 % of the samples.
 *
 * Words: a *sweep* is one kind of policy over the whole range of its setting (sweep.h). A *hull* is the best
 * of the static choices (evaluation.h), either the same for every prompt or one for each task. Curves and
 * hulls are compared at costs from the cheapest static choice to the reference.
 *
 * Pure, like evaluation.h.
 *
 * Uses: evaluation, sweep.  Used by: the command.
 */
#ifndef BESTROUTE_EVAL_ANALYSIS_H
#define BESTROUTE_EVAL_ANALYSIS_H

#include "evaluation.h"
#include "sweep.h"

typedef enum br_hull { BR_HULL_STATIC, BR_HULL_PER_TASK } br_hull;

enum {
    BR_HULLS = 2,
    BR_ANALYSIS_COSTS = 50, /* at which curves are compared with hulls, evenly spaced */
    BR_ANALYSIS_DROPS = 3,  /* qualities, below the reference's, at which savings are measured */
    BR_ANALYSIS_CURVES = 2, /* the sweeps that are compared with the hulls: threshold and utility */
};

/* Shares of the reference's quality that are given up. */
extern const double br_analysis_drops[BR_ANALYSIS_DROPS];

/* What the policies do on every row. Made once, used by the analyses of all tasks. */
typedef struct br_replay {
    br_eval_trace sweeps[BR_SWEEPS];
    bool has_current;
    br_eval_trace current; /* of the policy that is in use */
} br_replay;

/* `current` NULL: there is none. Release with br_replay_deinit, also after a failure. BR_ENOMEM. */
BR_NODISCARD br_status br_replay_init(br_replay *out, const br_eval_table *table, const double *weights,
                                      const br_policy *current);
void br_replay_deinit(br_replay *replay);

/* What one set of weights gives. NAN: the curve never gets there, or nothing was measured. */
typedef struct br_figures {
    br_eval_point reference; /* alone */
    br_eval_point current;
    double sweep_saving[BR_SWEEPS][BR_ANALYSIS_DROPS]; /* share of the reference's cost */
    double hull_saving[BR_HULLS][BR_ANALYSIS_DROPS];
    double quality[BR_ANALYSIS_CURVES][BR_ANALYSIS_COSTS];
    double above[BR_ANALYSIS_CURVES][BR_HULLS]
                [BR_ANALYSIS_COSTS]; /* quality of the curve less that of the hull */
    double measured[BR_EVAL_BINS];   /* mean match of each bin of the calibration */
} br_figures;

typedef struct br_analysis {
    const br_eval_table *table;
    const br_replay *replay;
    int32_t task;    /* -1: all */
    size_t rows;     /* of the task */
    double *weights; /* [rows of the table]; 0 outside the task */
    double costs[BR_ANALYSIS_COSTS];
    br_eval_point *hulls[BR_HULLS]; /* on all rows of the task */
    size_t hull_counts[BR_HULLS];
    br_figures whole; /* on all rows of the task */
    br_figures *samples;
    size_t sample_count;
    br_eval_point *curve; /* [BR_SWEEP_SETTINGS_MAX] scratch */
    double *drawn;        /* [rows of the table] scratch: the weights of a sample */
    double *counts;       /* [rows of the table] scratch: how often each row is in a sample */
    double *sorted;       /* [sample_count] scratch */
} br_analysis;

/* Borrows the table and the replay. `weights` [rows of the table], copied. The samples follow from the seed
 * alone. Release with br_analysis_deinit, also after a failure. BR_ENOMEM. */
BR_NODISCARD br_status br_analysis_init(br_analysis *out, const br_eval_table *table, const br_replay *replay,
                                        const double *weights, int32_t task, size_t sample_count,
                                        uint64_t seed);
void br_analysis_deinit(br_analysis *analysis);

typedef struct br_interval {
    double value; /* on all rows */
    double low;   /* 2.5 % of the samples are below */
    double high;  /* 2.5 % of the samples are above */
} br_interval;

/* `figure` points into analysis->whole. */
br_interval br_analysis_interval(const br_analysis *analysis, const double *figure);

#endif
