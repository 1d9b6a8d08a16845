/*
 * workers.h - the threads that score: each takes the next batch when it is idle, packs it, runs it.
 *
 * All devices draw from one queue, so none is idle while another has a backlog. Of the idle workers one is
 * woken whose device has the fewest tokens in its passes; accelerators come first, and a device that is far
 * slower than its like comes last. Beside accelerators the host's cores take a batch only when they would be
 * done with it before the accelerators had worked off the queue.
 *
 * A device whose pass fails twice in a row is out: it takes nothing, its jobs go back to their place in the
 * queue, once, and the rest of the service goes on. br_workers_readmit takes it in again. The last device is
 * never taken out: its jobs are finished with BR_EDEVICE, as are those that fail a second time.
 *
 * A job that is still queued when its deadline passes is finished at that moment, however long the passes
 * under way take: an alarm watches deadlines.
 *
 * A pass that takes longer than pass_timeout_ms is given up: another alarm looks at the passes. Its jobs are
 * handled as if it had failed, and a late result is discarded. Its worker is stuck until the pass returns.
 * When all workers that are left are stuck, the jobs in the queue are handed back with BR_EDEVICE.
 *
 * A job's loaded bundle is the batcher's group, so a batch never mixes bundles.
 *
 * One mutex guards the batcher, the devices' state, the errand and the flags. No other lock is ever taken
 * while it is held.
 *
 * Uses: batcher, job, loaded, log, metrics.  Used by: the service.
 */
#ifndef BESTROUTE_WORKERS_WORKERS_H
#define BESTROUTE_WORKERS_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"
#include "job.h"
#include "loaded.h"
#include "metrics.h"

typedef struct br_workers br_workers;

typedef struct br_workers_options {
    const br_devices *devices; /* borrowed; fitted. One thread for each of their workers */
    int32_t seqs_max;          /* per batch */
    int32_t queue_max;         /* waiting jobs, including those of failed passes */
    int64_t pass_timeout_ms;   /* after which a pass is given up; 0: never */
    /* What an idle worker does before it sleeps: makes jobs, pushes them, returns false when there is nothing
     * to make them from. Called without the lock. May be NULL. */
    bool (*feed)(void *context);
    void *feed_context;
    /* A pass failed twice, or was given up. `last`: no other device is left, and this one was not taken out;
     * otherwise it was. Called when the jobs are back in the queue or finished, without the lock. May be
     * NULL. */
    void (*lost)(void *context, int32_t device, bool last);
    void *lost_context;
    br_metrics *metrics; /* borrowed */
    const br_log *log;   /* borrowed; may be NULL */
} br_workers_options;

/* Takes all the memory scoring will use and starts the threads. Qualities are as wide as BR_CANDIDATES_MAX.
 * BR_ENOMEM, BR_EINTERNAL: no thread. On failure *out is NULL. */
BR_NODISCARD br_status br_workers_create(br_workers **out, const br_workers_options *options);

/* Accepts NULL. Finishes every job that was pushed, then stops the threads: a stuck one is waited for. */
void br_workers_destroy(br_workers *workers);

/* From now on jobs are handed back with BR_ECLOSED, not computed: a shutdown that waits no longer. */
void br_workers_abandon(br_workers *workers);

/* Queues jobs[count] together, so that they may leave in one batch. BR_EBUSY: there is no room for all of
 * them; none is kept. */
BR_NODISCARD br_status br_workers_push(br_workers *workers, br_job *const *jobs, int32_t count);

/* Wakes a sleeping worker, which will feed itself. False when none sleeps: then another thread has to
 * tokenise. */
bool br_workers_nudge(br_workers *workers);

/* Runs errand(context, worker) on that worker's thread, between batches, and waits for it. False when the
 * worker is stuck: the errand did not run, and will not. The others keep scoring. One caller at a time. */
typedef void (*br_errand_fn)(void *context, int32_t worker);
BR_NODISCARD bool br_workers_run_on(br_workers *workers, int32_t worker, br_errand_fn errand, void *context);

/* Devices with a worker that is stuck, a bit each. Takes no lock. */
uint32_t br_workers_stuck(const br_workers *workers);

/* Devices that are out, a bit each. */
uint32_t br_workers_out(br_workers *workers);

/* Takes a device in again, whose encoders were made again. */
void br_workers_readmit(br_workers *workers, int32_t device);

int32_t br_workers_count(const br_workers *workers);

/* Jobs waiting now. */
int32_t br_workers_waiting(br_workers *workers);

#endif
