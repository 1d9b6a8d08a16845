/*
 * table.h - decisions, qualities, totals and the service's description, for people.
 *
 * Uses: prompt, text, totals.  Used by: output.
 */
#ifndef BESTROUTE_CLI_TABLE_H
#define BESTROUTE_CLI_TABLE_H

#include <stdio.h>

#include "prompt.h"
#include "totals.h"

/* How wide its columns are, and what it shows. */
typedef struct cli_table {
    FILE *to;
    const br_answer *info;
    bool has_lines; /* prompts are numbered by the lines of a file */
    bool explain;   /* each decision with all its candidates */
    int prompt_columns;
    int model_columns;
} cli_table;

void cli_table_init(cli_table *table, FILE *to, const br_answer *info, bool has_lines, bool explain);

/* Of the decisions. */
void cli_table_head(const cli_table *table);

/* One prompt's result; `number`, from 1, stands before a prompt that has no line. */
void cli_table_route(const cli_table *table, const cli_prompt *prompt, size_t number,
                     const br_answer_result *result);
void cli_table_score(const cli_table *table, const cli_prompt *prompt, size_t number,
                     const br_answer_result *result);
void cli_table_failed(const cli_table *table, const cli_prompt *prompt, size_t number, const char *code,
                      const char *message);

void cli_table_totals(const cli_table *table, const cli_totals *totals);

void cli_table_info(FILE *to, const br_answer *info);

#endif
