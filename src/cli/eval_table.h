/*
 * eval_table.h - the document of `bestroute eval`, for people.
 *
 * Uses: eval_report.  Used by: eval.
 */
#ifndef BESTROUTE_CLI_EVAL_TABLE_H
#define BESTROUTE_CLI_EVAL_TABLE_H

#include <jansson.h>

#include "measured.h"
#include "options.h"

/* `document` as --json prints it; docs/CLI.md says what each line means. */
void cli_eval_table(const json_t *document, const cli_options *options, const cli_scores *scores);

#endif
