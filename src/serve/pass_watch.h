/*
 * pass_watch.h - looks at the workers' passes, so that one which does not end is given up. On a thread of its
 * own: the keeper may be waiting for such a pass.
 */
#ifndef BESTROUTE_SERVE_PASS_WATCH_H
#define BESTROUTE_SERVE_PASS_WATCH_H

#include "workers/worker.h"

typedef struct br_pass_watch br_pass_watch;

/* Gives up what takes longer than timeout_ms, at least 1. Borrows the workers. BR_ENOMEM; BR_EINTERNAL: no
 * thread. */
BR_NODISCARD br_status br_pass_watch_create(br_pass_watch **out, br_workers *workers, int64_t timeout_ms);
void br_pass_watch_destroy(br_pass_watch *watch); /* accepts NULL */

#endif
