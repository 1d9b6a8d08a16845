/* child.h - a service that the bench starts itself, on an ipc socket in a scratch folder, and stops at the
 * end. */
#ifndef BESTROUTE_BENCH_CHILD_H
#define BESTROUTE_BENCH_CHILD_H

#include "bestroute/error.h"

typedef struct child {
    int pid;    /* 0: none */
    int parent; /* this process: when it ends, so does the child */
    char folder[64];
    char url[96];
} child;

/* Starts `daemon` with the bundle and further flags, separated by spaces, and waits until it can score.
 * BR_EIO: it cannot be run, or ended. On failure nothing is left running. */
BR_NODISCARD br_status child_start(child *out, const char *daemon, const char *bundle, const char *flags,
                                   br_error *error);
/* Accepts one that was never started. */
void child_stop(child *c);

#endif
