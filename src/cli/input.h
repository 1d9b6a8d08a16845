/*
 * input.h - prompts from arguments, or from the lines of a file or of standard input.
 *
 * Uses: options, prompt.  Used by: run.
 */
#ifndef BESTROUTE_CLI_INPUT_H
#define BESTROUTE_CLI_INPUT_H

#include "options.h"
#include "prompt.h"

typedef struct cli_input cli_input;

typedef enum cli_next {
    CLI_NEXT_PROMPT,
    CLI_NEXT_WAIT, /* nothing is there yet: poll cli_input_fd */
    CLI_NEXT_END,
    CLI_NEXT_FAILED, /* see the error */
} cli_next;

typedef struct cli_limits {
    uint64_t text_bytes_max;
    uint64_t message_bytes_max; /* also bounds a line of JSON */
} cli_limits;

/* Prompts come from the arguments where there are any, else from options->file, else from standard input.
 * BR_EIO: the file; BR_EINVAL: standard input is a terminal; BR_ENOMEM. */
BR_NODISCARD br_status cli_input_open(cli_input **out, const cli_options *options, const cli_limits *limits,
                                      br_error *error);
void cli_input_close(cli_input *input);

/* Never blocks on a pipe or socket. Holds one line in memory, never a file. */
BR_NODISCARD cli_next cli_input_next(cli_input *input, cli_prompt *out, br_error *error);

/* -1 for arguments. */
int cli_input_fd(const cli_input *input);

/* Whether prompts carry line numbers. */
bool cli_input_has_lines(const cli_input *input);

/* Bytes read, and the size of the file; 0 where it has none. */
void cli_input_progress(const cli_input *input, uint64_t *read_bytes, uint64_t *total_bytes);

#endif
