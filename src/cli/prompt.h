/*
 * prompt.h - one prompt of the input, from text or from a line of JSON.
 *
 * What is wrong with a prompt is kept in it: it is not sent, and its error is its result.
 *
 * Uses: the client library, memory, jansson.  Used by: input, json_out, table, totals, output, run.
 */
#ifndef BESTROUTE_CLI_PROMPT_H
#define BESTROUTE_CLI_PROMPT_H

#include <jansson.h>

#include "bestroute/client.h"
#include "core/memory.h"

/* Zeroed is empty. It may be moved as a struct: its texts are on the heap. */
typedef struct cli_prompt {
    br_client_query query;
    uint64_t line;       /* of the file, from 1; 0 for an argument */
    const char *error;   /* code of why it is not sent, or NULL */
    const char *message; /* with error */
    json_t *id;          /* echoed, or NULL */
    br_arena arena;      /* owns all of the above but id */
} cli_prompt;

/* Makes it empty again; keeps a little memory for the next. */
void cli_prompt_clear(cli_prompt *prompt);
void cli_prompt_deinit(cli_prompt *prompt);

/* Marks the prompt as one that is not sent. `code` is a literal. */
void cli_prompt_refuse(cli_prompt *prompt, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The prompt is this text, which is copied. BR_ENOMEM. */
BR_NODISCARD br_status cli_prompt_from_text(cli_prompt *prompt, const char *text, size_t bytes);

/* Fills a prompt from one line of JSON. What is wrong with it is the prompt's error. BR_ENOMEM. */
BR_NODISCARD br_status cli_prompt_from_json(cli_prompt *prompt, const char *line, size_t bytes);

#endif
