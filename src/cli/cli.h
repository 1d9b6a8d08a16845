/*
 * cli.h - the parts of the program `bestroute`.
 *
 *   options -> input -> run (several requests in flight) -> output -> exit code
 *
 * The main thread reads, prints and decides; the threads of run.c only
 * call the service. Everything printed as a result goes through cli_output.h's
 * functions, in the order of the input.
 *
 * Uses: the client library, jansson.  Used by: main.c.
 */
#ifndef BESTROUTE_CLI_CLI_H
#define BESTROUTE_CLI_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "bestroute/client.h"
#include "core/memory.h"

/* What a script sees. docs/CLI.md and --help say the same. */
typedef enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_SOME_FAILED = 1,
    CLI_EXIT_USAGE = 2,
    CLI_EXIT_UNREACHABLE = 3,
    CLI_EXIT_REFUSED = 4,
    CLI_EXIT_BROKEN = 5, /* ourselves: output that cannot be written, memory */
} cli_exit;

typedef enum cli_command {
    CLI_ROUTE = 1 << 0,
    CLI_SCORE = 1 << 1,
    CLI_INFO = 1 << 2,
    CLI_PING = 1 << 3,
    CLI_RELOAD = 1 << 4,
    CLI_EVAL = 1 << 5,
    CLI_CALIBRATE = 1 << 6,
} cli_command;

enum {
    CLI_BATCH_MAX = 1024,
    CLI_PARALLEL_MAX = 64,
    CLI_NAMES_MAX = 64, /* of --models or --exclude */
    CLI_DATA_MAX = 32,  /* files of --data */
    CLI_URLS_MAX = BR_CLIENT_URLS_MAX,
    CLI_URLS_BYTES_MAX = 8192, /* of BESTROUTE_URL */
};

typedef struct cli_options {
    cli_command command;
    bool help;
    bool version;
    const char *urls[CLI_URLS_MAX]; /* the services, interchangeable; at least one */
    size_t url_count;
    char environment_urls[CLI_URLS_BYTES_MAX]; /* what `urls` points to where no flag is given */
    const char *admin;
    uint32_t hedge_ms;
    bool endpoints; /* tell in the end what became of the requests to each url */
    const char *tls_ca;
    const char *tls_cert;
    const char *tls_name;
    uint32_t timeout_ms;
    uint32_t wait_ms;
    const char *file; /* NULL: none; "-": standard input */
    bool jsonl;
    bool json;
    bool explain;
    bool no_progress;
    const char *data[CLI_DATA_MAX]; /* eval, calibrate: files of records */
    size_t data_count;
    const char *split;  /* of the records; "all" takes every one */
    const char *scores; /* file of qualities that stand for the service's, or NULL */
    const char *plot;   /* stem of the files, or NULL */
    const char *bundle;
    double selector; /* strength in [0, 1]: 1 finds the best of n, 0 picks at random */
    uint32_t bootstrap;
    uint32_t seed;
    bool by_task;
    bool single;
    bool second_half;
    bool dry_run;
    bool has_reduce_cost;
    bool has_reference_share;
    bool has_target_quality;
    double reduce_cost;
    double reference_share;
    double target_quality;
    bool has_deadline;
    uint32_t deadline_ms;
    uint32_t batch;
    uint32_t parallel;
    bool has_policy; /* any field of `policy` is given */
    br_client_policy policy;
    const char *model_names[CLI_NAMES_MAX]; /* what policy.models points to */
    const char *exclude_names[CLI_NAMES_MAX];
    char **arguments; /* after the command: prompts, or the folder of reload */
    size_t argument_count;
} cli_options;

/* Reads flags and environment; the strings stay argv's, which is changed, and *out must not be copied. On BR_EINVAL the error is a line for the
 * user. With `help` or `version` set nothing else has been checked. */
BR_NODISCARD br_status cli_options_read(cli_options *out, int argc, char **argv, br_error *error);

void cli_help_print(FILE *to);

/* One prompt. Zeroed is empty. It may be moved as a struct: its texts are on the heap. */
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

/* Fills a prompt from one line of JSON. What is wrong with it is the prompt's error. BR_ENOMEM. */
BR_NODISCARD br_status cli_prompt_from_json(cli_prompt *prompt, const char *line, size_t bytes);

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

/* Chooses a UTF-8 locale for characters, so that widths are known. */
void cli_text_setup(void);

/* Writes at most `columns` columns of the text, control characters escaped and "…" at the end where it is cut;
 * returns the columns written. */
int cli_text_print(FILE *to, const char *text, size_t bytes, int columns);

int cli_text_width(const char *text);

/* The same, padded with spaces. */
void cli_text_print_padded(FILE *to, const char *text, size_t bytes, int columns);

typedef struct cli_progress {
    bool shown; /* the line is on the screen */
    bool enabled;
    uint64_t start_ns;
    uint64_t drawn_ns;
} cli_progress;

/* A bar is drawn where standard error is a terminal and standard output is not: it never mixes with results. */
void cli_progress_init(cli_progress *progress, const cli_options *options, uint64_t now_ns);
void cli_progress_update(cli_progress *progress, size_t prompts, uint64_t read_bytes, uint64_t total_bytes,
                         uint64_t now_ns);
/* Takes the line off the screen. */
void cli_progress_clear(cli_progress *progress);

enum { CLI_CANDIDATES_MAX = 256 };

typedef struct cli_output {
    const cli_options *options;
    const br_answer *info;
    FILE *to;
    bool has_lines;
    int prompt_columns;
    int model_columns;
    size_t prompts;
    size_t failed;
    size_t unmet;
    size_t truncated;
    size_t chosen[CLI_CANDIDATES_MAX]; /* by info's candidates */
    double cost;
    size_t unpriced; /* answers without a cost */
    double reference_cost;
    bool reference_known; /* for every answer so far */
} cli_output;

void cli_output_init(cli_output *out, const cli_options *options, const br_answer *info, bool has_lines);

/* The next prompt's result. For one without, `result` is NULL and code and message say why. */
void cli_output_result(cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message);

/* After the last result: what the table ends with. */
void cli_output_totals(const cli_output *out);

void cli_output_info(FILE *to, const cli_options *options, const br_answer *info);

/* The text behind "<code>: ", for where the code stands beside it; else the text itself. */
const char *cli_without_code(const char *text, const char *code);

/* A line on standard error, and with `json` {"error": {...}} on standard output, with `url` behind it unless NULL. */
void cli_output_error(bool json, const char *code, const char *message, const char *url);

/* One line of JSON, keys in the order given. Takes over `value`; false when it could not be written. */
bool cli_json_print(FILE *to, json_t *value);
/* A string of bytes that may not be UTF-8. */
json_t *cli_json_text(const char *text);
/* A number, or null where it is not finite. */
json_t *cli_json_real(double value);

void cli_table_head(const cli_output *out);
void cli_table_route(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result);
void cli_table_score(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result);
void cli_table_failed(const cli_output *out, const cli_prompt *prompt, const char *code, const char *message);
void cli_table_totals(const cli_output *out);
void cli_table_info(FILE *to, const br_answer *info);

/* The exit code for what a call returned. */
cli_exit cli_exit_of(br_status status);

/* The word for a failure: the wire's code where the service said it, else "unreachable", "usage" or "failed". */
const char *cli_code_of(cli_exit code, br_status status);

/* A failure on standard error, and as JSON where the options say so; returns the code. */
cli_exit cli_report(const cli_options *options, cli_exit code, const br_error *error);

/* eval and calibrate, from records to the report. Report what goes wrong. */
cli_exit cli_eval(const cli_options *options, br_client *client);
cli_exit cli_calibrate(const cli_options *options, br_client *client);

/* route and score, from input to totals. Reports what goes wrong. */
cli_exit cli_run(const cli_options *options, br_client *client);

#endif
