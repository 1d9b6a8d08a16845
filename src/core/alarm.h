/*
 * alarm.h - a thread that sleeps until something is due.
 *
 *   set(at) ──> the earliest moment ──> ring(context) ──> the next moment, or none
 *
 * The thread sleeps until the earliest moment that it was given. Then it calls `ring`, which does what is due
 * and returns the moment of the next call, and sleeps again. A moment is never taken back: `ring` may find
 * nothing to do. So a stream of deadlines, each a little later than the one before, does not wake the thread
 * for every deadline.
 *
 * One mutex guards the moment; it is not held while `ring` runs.
 *
 * Uses: clock, thread, status.
 */
#ifndef BESTROUTE_CORE_ALARM_H
#define BESTROUTE_CORE_ALARM_H

#include <stdint.h>

#include "bestroute/status.h"

typedef struct br_alarm br_alarm;

/* On the alarm's thread. Returns when to call again, on br_clock_now_ns's clock; UINT64_MAX: when told. */
typedef uint64_t (*br_alarm_ring)(void *context);

/* Rings first at `first_ns`; UINT64_MAX: when told. BR_ENOMEM; BR_EINTERNAL: no thread.
 * On failure *out is NULL. */
BR_NODISCARD br_status br_alarm_create(br_alarm **out, br_alarm_ring ring, void *context, uint64_t first_ns);

/* Rings at `at_ns` or before; 0: at once. From any thread, also from `ring`. Costs one atomic load where the
 * alarm rings by then anyway. */
void br_alarm_set(br_alarm *alarm, uint64_t at_ns);

/* Accepts NULL. Returns when `ring` has returned and will not be called any more; `set` stays allowed. */
void br_alarm_stop(br_alarm *alarm);

/* Accepts NULL. Stops. */
void br_alarm_destroy(br_alarm *alarm);

#endif
