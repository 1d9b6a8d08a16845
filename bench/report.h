/*
 * report.h - what a run found, as JSON, from which the table, the CSV, the plot and the comparison are made: a saved run
 * prints as it did when it was measured.
 *
 *   {"machine": {...}, "service": {...}, "load": {...}, "runs": [{"in_flight" or "rate", figures ...}, ...]}
 */
#ifndef BESTROUTE_BENCH_REPORT_H
#define BESTROUTE_BENCH_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "load.h"

/* {"cpu": ..., "cores": ...} */
json_t *report_machine(void);

/* One row of "runs". */
json_t *report_run(const load_options *options, const load_result *result);

void report_table(FILE *stream, const json_t *report);
void report_csv(FILE *stream, const json_t *report);

/* Latency against throughput: STEM.svg and STEM.png. BR_EIO, BR_ENOMEM. */
BR_NODISCARD br_status report_plot(const json_t *report, const char *stem, br_error *error);

/* Two reports side by side, with ratios; rows are matched by in_flight or rate. */
void report_compare(FILE *stream, const json_t *a, const json_t *b);

#endif
