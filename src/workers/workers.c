/* workers.c - see workers.h. */
#include "workers.h"

#include <assert.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"
#include "dispatch.h"
#include "pass.h"
#include "worker.h"

/* For the alarm that watches deadlines: hands back expired jobs, also while all workers are busy. */
static uint64_t on_deadline(void *context)
{
    br_workers *all = context;
    br_lock(&all->lock);
    br_worker_drop_expired(all, br_clock_now_ns());
    const uint64_t left_ns = br_batcher_deadline_ns(all->batcher);
    br_unlock(&all->lock);
    return left_ns;
}

static uint64_t next_look_ns(const br_workers *all)
{
    return br_clock_now_ns() + (uint64_t)all->options.pass_timeout_ms * (uint64_t)BR_NS_PER_MS / PASS_LOOKS;
}

/* For the alarm that watches passes. A whole interval lies between two looks, even if the process was stopped
 * for a while. */
static uint64_t on_look(void *context)
{
    br_workers *all = context;
    pass_look(all);
    return next_look_ns(all);
}

static br_status start_workers(br_workers *all)
{
    const int32_t count = all->options.devices->worker_count;
    for (int32_t i = 0; i < count; i++) all->workers[i].all = all;
    br_status status = BR_OK;
    for (int32_t i = 0; status == BR_OK && i < count; i++) status = br_worker_init(&all->workers[i], i);
    return status;
}

br_status br_workers_create(br_workers **out, const br_workers_options *options)
{
    const int32_t count = options->devices->worker_count;
    assert(count >= 1);
    assert(count <= BR_WORKERS_MAX);
    *out = NULL;
    br_workers *all = calloc(1, sizeof *all);
    if (all == NULL) return BR_ENOMEM;
    all->options = *options;
    all->tokens_max = br_devices_tokens_max(options->devices);

    const br_batcher_options limits = {
        .tokens_max = all->tokens_max,
        .seqs_max = options->seqs_max,
        .queue_max = options->queue_max,
    };
    br_status status = br_batcher_create(&all->batcher, &limits);
    if (status != BR_OK) goto fail;
    br_mutex_init(&all->lock);
    br_cond_init(&all->ran);
    all->lock_made = true;
    status = br_alarm_create(&all->deadlines, on_deadline, all, UINT64_MAX);
    if (status != BR_OK) goto fail;
    status = BR_ENOMEM;
    all->workers = calloc((size_t)count, sizeof *all->workers);
    all->given_up = br_alloc_array((size_t)options->seqs_max, sizeof *all->given_up);
    if (all->workers == NULL || all->given_up == NULL) goto fail;
    status = start_workers(all);
    if (status == BR_OK && options->pass_timeout_ms > 0)
        status = br_alarm_create(&all->looks, on_look, all, next_look_ns(all));
    if (status != BR_OK) goto fail;
    *out = all;
    return BR_OK;

fail:
    br_workers_destroy(all);
    return status;
}

static void stop(br_workers *all)
{
    const int32_t count = all->options.devices->worker_count;
    br_lock(&all->lock);
    all->stopping = true;
    for (int32_t i = 0; i < count; i++)
        if (all->workers[i].work_made) br_cond_signal(&all->workers[i].work);
    br_unlock(&all->lock);
    for (int32_t i = 0; i < count; i++)
        if (all->workers[i].started) br_thread_join(all->workers[i].thread);
}

void br_workers_destroy(br_workers *workers)
{
    if (workers == NULL) return;
    /* Jobs that an alarm finishes may push other jobs, so alarms stop before the workers. Workers may set an
     * alarm until they end, so alarms are destroyed after them. */
    br_alarm_stop(workers->looks);
    br_alarm_stop(workers->deadlines);
    if (workers->workers != NULL) {
        stop(workers);
        for (int32_t i = 0; i < workers->options.devices->worker_count; i++)
            br_worker_deinit(&workers->workers[i]);
        free(workers->workers);
    }
    if (workers->lock_made) {
        br_cond_destroy(&workers->ran);
        br_mutex_destroy(&workers->lock);
    }
    br_alarm_destroy(workers->looks);
    br_alarm_destroy(workers->deadlines);
    br_batcher_destroy(workers->batcher);
    free(workers->given_up);
    free(workers);
}

void br_workers_abandon(br_workers *workers)
{
    br_lock(&workers->lock);
    workers->abandoning = true;
    br_unlock(&workers->lock);
}

bool br_workers_nudge(br_workers *workers)
{
    br_lock(&workers->lock);
    br_worker *w = dispatch_reserve(workers, true);
    br_unlock(&workers->lock);
    dispatch_wake(w);
    return w != NULL;
}

br_status br_workers_push(br_workers *workers, br_job *const *jobs, int32_t count)
{
    const uint64_t now_ns = br_clock_now_ns();
    uint64_t deadline_ns = UINT64_MAX;
    br_lock(&workers->lock);
    const bool fits = br_batcher_queries(workers->batcher) + count <= workers->options.queue_max;
    for (int32_t i = 0; fits && i < count; i++) {
        jobs[i]->queued_ns = now_ns;
        const br_status status = br_batcher_push(workers->batcher, &jobs[i]->item);
        assert(status == BR_OK);
        (void)status;
        if (jobs[i]->item.deadline_ns < deadline_ns) deadline_ns = jobs[i]->item.deadline_ns;
    }
    br_worker *w = fits && count > 0 ? dispatch_reserve(workers, false) : NULL;
    br_unlock(&workers->lock);
    dispatch_wake(w);
    br_alarm_set(workers->deadlines, deadline_ns);
    return fits ? BR_OK : BR_EBUSY;
}

bool br_workers_run_on(br_workers *workers, int32_t worker, br_errand_fn errand, void *context)
{
    br_worker *w = &workers->workers[worker];
    br_lock(&workers->lock);
    assert(workers->errand == NULL);
    workers->errand = errand;
    workers->errand_context = context;
    workers->errand_worker = worker;
    workers->errand_begun = false;
    br_cond_signal(&w->work);
    while (workers->errand != NULL && (workers->errand_begun || !w->stuck))
        br_cond_wait(&workers->ran, &workers->lock);
    const bool ran = workers->errand == NULL;
    workers->errand = NULL;
    br_unlock(&workers->lock);
    return ran;
}

uint32_t br_workers_stuck(const br_workers *workers)
{
    return atomic_load(&workers->stuck);
}

int32_t br_workers_count(const br_workers *workers)
{
    return workers->options.devices->worker_count;
}

uint32_t br_workers_out(br_workers *workers)
{
    uint32_t out = 0;
    br_lock(&workers->lock);
    for (int32_t i = 0; i < workers->options.devices->count; i++)
        out |= (workers->stations[i].out ? UINT32_C(1) : 0) << i;
    br_unlock(&workers->lock);
    return out;
}

void br_workers_readmit(br_workers *workers, int32_t device)
{
    br_lock(&workers->lock);
    workers->stations[device].out = false;
    workers->stations[device].token_ns = 0; /* its speed is measured again */
    dispatch_wake_all(workers);
    br_unlock(&workers->lock);
}

int32_t br_workers_waiting(br_workers *workers)
{
    br_lock(&workers->lock);
    const int32_t waiting = br_batcher_queries(workers->batcher);
    br_unlock(&workers->lock);
    return waiting;
}
