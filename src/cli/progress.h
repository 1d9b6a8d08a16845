/*
 * progress.h - one line on standard error: how far the run is, how fast it goes, how long it still takes.
 *
 * Uses: options.  Used by: run.
 */
#ifndef BESTROUTE_CLI_PROGRESS_H
#define BESTROUTE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "options.h"

typedef struct cli_progress {
    bool shown; /* the line is on the screen */
    bool enabled;
    uint64_t start_ns;
    uint64_t drawn_ns;
} cli_progress;

/* A bar is drawn where standard error is a terminal and standard output is not, so that it never mixes with
 * results. */
void cli_progress_init(cli_progress *progress, const cli_options *options, uint64_t now_ns);
void cli_progress_update(cli_progress *progress, size_t prompts, uint64_t read_bytes, uint64_t total_bytes,
                         uint64_t now_ns);
/* Takes the line off the screen. */
void cli_progress_clear(cli_progress *progress);

#endif
