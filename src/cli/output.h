/*
 * output.h - results in the order of the input: as lines of JSON or as a table, as the options say.
 *
 * Uses: options, json_out, table, totals.  Used by: run, main.
 */
#ifndef BESTROUTE_CLI_OUTPUT_H
#define BESTROUTE_CLI_OUTPUT_H

#include "options.h"
#include "table.h"

typedef struct cli_output {
    const cli_options *options;
    cli_table table;
    cli_totals totals;
} cli_output;

/* To standard output. */
void cli_output_init(cli_output *out, const cli_options *options, const br_answer *info, bool has_lines);

/* The next prompt's result. For one without, `result` is NULL and code and message say why. */
void cli_output_result(cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message);

/* After the last result: what the table ends with. */
void cli_output_totals(const cli_output *out);

void cli_output_info(const cli_options *options, const br_answer *info);

#endif
