/*
 * workers.h - what the files behind worker.h share.
 *
 *   worker.c            the threads: life, queue, errands
 *   dispatch.c   which of them takes what waits
 *   pass.c       one batch's way through a device
 */
#ifndef BESTROUTE_WORKERS_WORKERS_H
#define BESTROUTE_WORKERS_WORKERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/alarm.h"
#include "worker.h"

/* A device, as its workers share it. Guarded by the lock. */
typedef struct br_station {
    int64_t tokens;  /* in its passes now */
    double token_ns; /* moving average of its passes; 0 before the first */
    int32_t stuck;   /* workers whose pass was given up and has not come back */
    bool out;
} br_station;

typedef struct br_worker {
    br_workers *all;
    int32_t index;
    int32_t device;
    pthread_t thread;
    bool started;
    br_packing packing;
    float *quality;        /* [seqs_max, BR_CANDIDATES_MAX] */
    br_batch_item **items; /* [seqs_max] */

    /* Guarded by the lock. */
    pthread_cond_t work; /* jobs or an errand came, or it is time to stop */
    bool work_made;
    bool idle;     /* waits on `work` */
    bool called;   /* and was signalled, or is about to be */
    int32_t held;  /* items of the pass under way; 0: none, or it was given up */
    int32_t looks; /* that found this pass under way */
    bool stuck;    /* its pass was given up and has not come back */
} br_worker;

struct br_workers {
    br_workers_options options;
    int32_t tokens_max; /* the largest of the devices' */
    br_worker *workers; /* [devices->worker_count] */
    br_alarm *deadlines;
    _Atomic uint32_t stuck; /* a bit for each device with a stuck worker; written with the lock held */

    pthread_mutex_t lock; /* guards everything below; nothing else is locked under it */
    pthread_cond_t ran;   /* the errand was run */
    bool lock_made;
    br_batcher *batcher;
    br_station stations[BR_DEVICES_MAX];
    double
        token_ns[2]; /* moving averages of passes: [0] the host's, [1] an accelerator's; 0 before the first */
    bool stopping;
    bool abandoning;
    br_errand_fn errand; /* NULL: none */
    void *errand_context;
    int32_t errand_worker;
    bool errand_begun;

    br_batch_item **given_up; /* [seqs_max]; whoever looks alone */
};

static inline const br_device *br_worker_device(const br_worker *w)
{
    return &w->all->options.devices->items[w->device];
}

/* dispatch.c. All with the lock held, but wake. */
bool br_worker_may_take(const br_worker *w);
int32_t br_worker_sharers(const br_worker *w);
br_worker *br_workers_call_one(br_workers *all, bool to_feed);
void br_workers_wake_all(br_workers *all);
void br_worker_wake(
    br_worker *w); /* accepts NULL; after unlocking: the woken thread would only wait for the lock */

/* pass.c. Without the lock. */
void br_worker_run(br_worker *w, int32_t count); /* a batch of w->items */
void br_job_finish(br_job *job, br_status status, uint64_t now_ns);

#endif
