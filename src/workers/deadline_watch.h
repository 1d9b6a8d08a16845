/*
 * deadline_watch.h - a thread that does something when the earliest of many deadlines has passed.
 *
 * It sleeps until the earliest deadline it was told of, calls `passed`, which sees to what has expired and returns the
 * earliest deadline that is left, and sleeps again. A deadline that is kept is never taken back: `passed`
 * then finds nothing to do. So a stream of deadlines, each a little later than the last, wakes the thread once
 * in the time one of them is away.
 *
 * One mutex guards the time it sleeps until; it is not held while `passed` runs.
 */
#ifndef BESTROUTE_WORKERS_DEADLINE_WATCH_H
#define BESTROUTE_WORKERS_DEADLINE_WATCH_H

#include <stdint.h>

#include "bestroute/status.h"

typedef struct deadline_watch deadline_watch;

/* The earliest deadline left, on br_clock_now_ns's clock; UINT64_MAX: none. */
typedef uint64_t (*deadline_passed_fn)(void *context);

/* BR_ENOMEM; BR_EINTERNAL: no thread. On failure *out is NULL. */
BR_NODISCARD br_status deadline_watch_create(deadline_watch **out, deadline_passed_fn passed, void *context);

/* Accepts NULL. `passed` is not called any more, but what has deadlines may still be told of. */
void deadline_watch_stop(deadline_watch *watch);

/* Accepts NULL. Stops. */
void deadline_watch_destroy(deadline_watch *watch);

/* There is something with that deadline, for `passed` to see. One load where it is not the earliest. */
void deadline_watch_tell(deadline_watch *watch, uint64_t deadline_ns);

#endif
