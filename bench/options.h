/* options.h - the command line of bestroute-bench. */
#ifndef BESTROUTE_BENCH_OPTIONS_H
#define BESTROUTE_BENCH_OPTIONS_H

#include <stdio.h>

#include "core/options.h"
#include "load.h"

enum { SWEEP_MAX = 64, FLAGS_MAX = 64 };

typedef struct command {
    bool help; /* nothing else has been checked */
    load_options load;
    prompts_options prompts;
    const char *spawn; /* bundles, of which one at most is given */
    const char *noop;
    const char *engine;
    const char *echo; /* a url */
    bool hand_over;   /* of the echo */
    bool compare;
    const char *files[2]; /* to compare */
    const char *service_flags;
    const char *json, *csv, *plot, *record;
    double sweep[SWEEP_MAX];
    int sweep_count;
    bool sweep_rates; /* else numbers in flight */
    br_options read;  /* owns the texts */
} command;

/* BR_EINVAL: names the option, what was found and what was expected. BR_ENOMEM. Release with command_deinit,
 * also after a failure. */
BR_NODISCARD br_status command_read(command *out, int argc, char *const *argv, br_error *error);
void command_deinit(command *c);

void command_print_help(FILE *to);

/* Flags separated by spaces, appended to argv[*argc], FLAGS_MAX in all at most. Writes into `flags`, which
 * argv points into afterwards. */
void flags_split(char **argv, int *argc, char *flags);

#endif
