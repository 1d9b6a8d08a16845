/*
 * options.h - the command line and the environment, as one struct.
 *
 * Uses: the client library.  Used by: everything that depends on what the user asked for.
 */
#ifndef BESTROUTE_CLI_OPTIONS_H
#define BESTROUTE_CLI_OPTIONS_H

#include <stdio.h>

#include "bestroute/client.h"
#include "core/options.h"

typedef enum cli_command {
    CLI_ROUTE = 1 << 0, /* bits, so that an option can name several */
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
    CLI_DATA_MAX = 32, /* files of --data */
    CLI_URLS_MAX = BR_CLIENT_URLS_MAX,
};

typedef struct cli_options {
    cli_command command;
    bool help;
    bool version;
    br_option_list urls; /* the services, interchangeable; at least one */
    const char *admin;
    uint32_t hedge_ms;
    bool endpoints; /* at the end, print how the requests to each url ended */
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
    br_option_list data; /* eval, calibrate: files of records */
    const char *split;   /* of the records; "all" takes every one */
    const char *scores;  /* file of qualities to use instead of the service's, or NULL */
    const char *plot;    /* stem of the files, or NULL */
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
    br_option_list models; /* what policy.models points to */
    br_option_list exclude;
    const char *const *arguments; /* after the command: prompts, or the folder of reload */
    size_t argument_count;
    br_options read; /* owns the texts */
} cli_options;

/* Reads the command line and the environment (may be NULL). *out must not be copied: it points into itself
 * and into argv. On BR_EINVAL the error is one line for the user. With `help` or `version` set nothing else
 * has been checked; `help` with a command asks for that command's help.
 * Release with cli_options_deinit, also after a failure. */
BR_NODISCARD br_status cli_options_read(cli_options *out, int argc, char *const *argv,
                                        char *const *environment, br_error *error);
void cli_options_deinit(cli_options *options);

/* The help of the command, or without one the help of them all. */
void cli_help_print(FILE *to, const cli_options *options);

#endif
