/*
 * worker.h - one thread that scores, and what all of them share. For the files of this folder alone.
 *
 *   workers.c -> worker.c -> pass.c -> dispatch.c       who calls whom
 */
#ifndef BESTROUTE_WORKERS_WORKER_H
#define BESTROUTE_WORKERS_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/alarm.h"
#include "workers.h"

/* A device, as its workers share it. Guarded by the lock. */
typedef struct station {
    int64_t tokens;  /* in its passes now */
    double token_ns; /* moving average of its passes; 0 before the first */
    int32_t stuck;   /* workers whose pass was given up and has not come back */
    bool out;
} station;

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
    int32_t looks; /* so many looks found this pass under way */
    bool stuck;    /* its pass was given up and has not come back */
} br_worker;

struct br_workers {
    br_workers_options options;
    int32_t tokens_max; /* the largest of the devices' */
    br_worker *workers; /* [devices->worker_count] */
    br_alarm *deadlines;
    br_alarm *looks;        /* NULL: none */
    _Atomic uint32_t stuck; /* a bit for each device with a stuck worker; written with the lock held */

    pthread_mutex_t lock; /* guards everything below; nothing else is locked under it */
    pthread_cond_t ran;   /* the errand was run */
    bool lock_made;
    br_batcher *batcher;
    station stations[BR_DEVICES_MAX];
    double token_ns[2]; /* averages over all passes: [0] the host's, [1] accelerators'; 0 before the first */
    bool stopping;
    bool abandoning;
    br_errand_fn errand; /* NULL: none */
    void *errand_context;
    int32_t errand_worker;
    bool errand_begun;

    br_batch_item **given_up; /* [seqs_max]; for the alarm that looks at passes, alone */
};

static inline const br_device *br_worker_device(const br_worker *w)
{
    return &w->all->options.devices->items[w->device];
}

/* Makes the worker in place and starts its thread. Every worker has its `all` by then: threads look at each
 * other. BR_ENOMEM, BR_EINTERNAL: no thread. After a failure br_worker_deinit is still to be called. */
BR_NODISCARD br_status br_worker_init(br_worker *w, int32_t index);

/* Its thread has ended, or was never started. Accepts what was only zeroed. */
void br_worker_deinit(br_worker *w);

/* Hands back all jobs that have expired. Called and left with the lock held; released meanwhile. */
void br_worker_drop_expired(br_workers *all, uint64_t now_ns);

#endif
