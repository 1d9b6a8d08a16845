/*
 * report.h - the figures of a run as JSON. The table, the CSV, the curve and the comparison are made from it,
 * so a saved run prints as it did when it was measured.
 *
 *   {"machine": {...}, "service": {...}, "load": {...}, "runs": [{"in_flight" or "rate", figures ...}, ...]}
 *
 * The encoder alone (--engine) has no load, and one run with neither of the two.
 */
#ifndef BESTROUTE_BENCH_REPORT_H
#define BESTROUTE_BENCH_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "load.h"

/* {"cpu": ..., "cores": ..., "memory_gib": ..., "kernel": ...} */
json_t *report_machine(void);

/* {"url": ..., "loop": "closed", ..., "asks": "route, budget", "queries": ..., "prompts": ..., ...} */
json_t *report_load(const load_options *load, const prompts_options *source);

/* One row of "runs". */
json_t *report_run(const load_options *options, const load_result *result);

/* The figures of a run that the CSV and a comparison show, as paths: "latency_ms.p50". NULL ends the list. */
extern const char *const report_figures[];

/* The figure at that path; NAN when it is not there. */
double report_figure(const json_t *run, const char *path);

/* A text of an object; "-" when it is not there. */
const char *report_text(const json_t *object, const char *key);

/* The load of a run: "100/s", "8 in flight" or "full passes". Runs of two reports are matched by it. */
void report_label(char *out, size_t size, const json_t *run);

void report_csv(FILE *stream, const json_t *report);

#endif
