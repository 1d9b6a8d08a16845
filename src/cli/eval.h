/*
 * eval.h - what this bundle's decisions would have cost, and how good they would have been.
 *
 * Uses: options, report, measured, json_out.  Used by: main.
 */
#ifndef BESTROUTE_CLI_EVAL_H
#define BESTROUTE_CLI_EVAL_H

#include "bestroute/client.h"
#include "options.h"
#include "report.h"

/* From records to the report. Reports what goes wrong. */
cli_exit cli_eval(const cli_options *options, br_client *client);

#endif
