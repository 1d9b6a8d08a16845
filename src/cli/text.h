/*
 * text.h - text in columns of a terminal.
 *
 * Uses: nothing.  Used by: report, table, output, main.
 */
#ifndef BESTROUTE_CLI_TEXT_H
#define BESTROUTE_CLI_TEXT_H

#include <stddef.h>
#include <stdio.h>

/* Chooses a UTF-8 locale for characters, so that widths are known. */
void cli_text_setup(void);

/* Writes at most `columns` columns of the text, with control characters escaped and "…" at the end where it
 * is cut. Returns the columns written. */
int cli_text_print(FILE *to, const char *text, size_t bytes, int columns);

/* The same, padded with spaces. */
void cli_text_print_padded(FILE *to, const char *text, size_t bytes, int columns);

/* Columns of the whole text. */
int cli_text_width(const char *text);

#endif
