/*
 * measured.h - records scored by the service: what eval and calibrate work on.
 *
 * Uses: options, report, json_out, eval, the client library.  Used by: eval, calibrate.
 */
#ifndef BESTROUTE_CLI_MEASURED_H
#define BESTROUTE_CLI_MEASURED_H

#include <jansson.h>

#include "bestroute/client.h"
#include "eval/evaluation.h"
#include "eval/records.h"
#include "options.h"
#include "report.h"

typedef struct cli_scores {
    br_answer *info;
    br_router
        *router; /* candidates in info's order, head = index; the reference's score is its head's, or 1 */
    br_records_pair pairs[BR_CANDIDATES_MAX];
    br_records records;
    br_eval_table table;
    double *weights; /* [rows] by rows, or by tasks where the options say so */
} cli_scores;

/* Reads the records, asks the service for its candidates and for every prompt's qualities. BR_EINVAL: no
 * record is left, or none has a measured candidate of this bundle; else what br_records_read and the client
 * say. Release with cli_scores_deinit, also after a failure. */
BR_NODISCARD br_status cli_scores_load(cli_scores *out, const cli_options *options, br_client *client,
                                       br_error *error);
void cli_scores_deinit(cli_scores *scores);

/* Adds what the figures of a report come from: bundle, files, rows, options. */
void cli_scores_describe(json_t *report, const cli_scores *scores, const cli_options *options);

/* The exit code for a failure of cli_scores_load and of what follows: files and records are the user's to
 * correct (wrong usage), unlike a service that cannot be reached. */
cli_exit cli_scores_exit_of(const cli_scores *scores, br_status status);

#endif
