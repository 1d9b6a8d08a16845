/*
 * run.h - route and score: prompts in, several requests in flight, results out.
 *
 * Uses: options, report, input, output, progress, the client library.  Used by: main.
 */
#ifndef BESTROUTE_CLI_RUN_H
#define BESTROUTE_CLI_RUN_H

#include "bestroute/client.h"
#include "options.h"
#include "report.h"

/* From input to totals. Reports what goes wrong. */
cli_exit cli_run(const cli_options *options, br_client *client);

#endif
