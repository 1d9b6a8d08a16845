/* engine.h - the encoder alone, without sockets: every scoring thread runs full passes of the prompts. */
#ifndef BESTROUTE_BENCH_ENGINE_H
#define BESTROUTE_BENCH_ENGINE_H

#include <stdio.h>

#include "prompts.h"

typedef struct engine_result {
    double queries_per_s;
    double tokens_per_s;
    double one_ms; /* a prompt alone in its pass, the others idle: mean */
    int workers;
    char engine[32];
    char precision[16];
    char device[96];
    char bundle[160];
    char hash[65];
} engine_result;

/* `flags` as bestrouted takes them, separated by spaces. Before anything is timed each thread's encoder is
 * tried on a probe, alone and together. Statuses of br_devices_open, br_loaded_create and _open. */
BR_NODISCARD br_status engine_run(engine_result *out, const char *bundle, const char *flags, double seconds,
                                  const prompts_options *texts, br_error *error);

#endif
