/*
 * eval_report.h - an analysis as JSON: what `bestroute eval --json` prints, and what its table is made from.
 *
 * Uses: analysis, measured, json_out.  Used by: eval.
 */
#ifndef BESTROUTE_CLI_EVAL_REPORT_H
#define BESTROUTE_CLI_EVAL_REPORT_H

#include <jansson.h>

#include "eval/analysis.h"
#include "measured.h"

/* The keys of "saving" and "curves", in the order of br_sweep and of br_hull. */
extern const char *const cli_sweep_keys[BR_SWEEPS];
extern const char *const cli_hull_keys[BR_HULLS];

/* docs/CLI.md has its keys. */
json_t *cli_eval_report(const br_analysis *analysis, const cli_scores *scores);

#endif
