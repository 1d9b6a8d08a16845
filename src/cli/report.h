/*
 * report.h - exit codes, and how a failure is told.
 *
 * Uses: options, json_out, text, plot.  Used by: main, run, measured, eval, calibrate.
 */
#ifndef BESTROUTE_CLI_REPORT_H
#define BESTROUTE_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>

#include "bestroute/error.h"
#include "options.h"

/* What a script sees. docs/CLI.md and --help say the same. */
typedef enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_SOME_FAILED = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_UNREACHABLE = 3,
    CLI_EXIT_REFUSED = 4,
    CLI_EXIT_BROKEN = 5, /* the program itself: output that cannot be written, no memory */
} cli_exit;

/* The exit code for what a call returned. */
cli_exit cli_exit_of(br_status status);

/* The word for a failure: the service's own code where it sent one, else "unreachable",
 * "usage" or "failed". */
const char *cli_code_of(cli_exit code, br_status status);

/* The text behind "<code>: ", for where the code stands beside it; else the text itself. */
const char *cli_without_code(const char *text, const char *code);

/* A line on standard error, and with `json` also {"error": {...}} on standard output, followed by "url"
 * unless that is NULL. */
void cli_report_error(bool json, const char *code, const char *message, const char *url);

/* The same for an error, as JSON where the options say so; returns the exit code. */
cli_exit cli_report(const cli_options *options, cli_exit code, const br_error *error);

/* With --plot, draws the document of a command whose results are printed already. So a failure is told on
 * standard error alone. */
cli_exit cli_report_plot(const cli_options *options, const json_t *document);

#endif
