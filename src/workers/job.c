/* job.c - see job.h. */
#include "job.h"

static void forget_pass(br_job *job)
{
    job->started_ns = 0;
    job->batch = 0;
}

void job_finish(br_job *job, br_status status, uint64_t now_ns)
{
    job->status = status;
    job->finished_ns = now_ns;
    job->done(job);
}

void job_hand_back(br_job *job, br_status status, uint64_t now_ns)
{
    forget_pass(job);
    job_finish(job, status, now_ns);
}

void job_queue_again(br_job *job, uint64_t now_ns)
{
    forget_pass(job);
    job->retried = true;
    job->queued_ns = now_ns;
}
