/*
 * job.h - one tokenised query on its way through the workers.
 *
 *   queued -> in a pass -> finished                 computed, or its device failed and it may not try another
 *     ^          |
 *     +----------+  the device failed: queued again, once
 *     |
 *     +-> handed back                               never computed: expired, abandoned, no device left
 *
 * A job is the caller's memory, borrowed from br_workers_push until `done` is called. `done` runs on any of
 * the workers' threads, with no lock held, and the job may be gone once it returns.
 *
 * Uses: batcher, status.  Used by: workers, and the service.
 */
#ifndef BESTROUTE_WORKERS_JOB_H
#define BESTROUTE_WORKERS_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "batcher.h"
#include "bestroute/status.h"

typedef struct br_job br_job;
struct br_job {
    br_batch_item item; /* first: the batcher hands this back. group: the br_loaded */
    const int32_t *ids; /* [item.tokens] */
    float *quality;     /* [head_count], out */
    bool retried;       /* a device failed with it: false to begin with */
    void (*done)(br_job *job);

    /* Out. */
    br_status status;    /* BR_OK; BR_ETIMEDOUT: expired, not computed; BR_ECLOSED: abandoned;
                          * BR_EDEVICE: its device failed, and so did another, or there is none */
    uint64_t queued_ns;  /* when it was queued, for the last time */
    uint64_t started_ns; /* when its pass began; 0: it was never computed */
    uint64_t finished_ns;
    int32_t batch; /* queries that shared the pass; 0: it was never computed */
};

/* The job was in a pass. This function and the two below are for the files of this folder; a lock may be held
 * in job_queue_again alone. */
void job_finish(br_job *job, br_status status, uint64_t now_ns);

/* The job was never computed. */
void job_hand_back(br_job *job, br_status status, uint64_t now_ns);

/* Its pass failed and it goes back into the queue: its clock starts again, for the pass that will compute
 * it. */
void job_queue_again(br_job *job, uint64_t now_ns);

#endif
