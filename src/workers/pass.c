/* pass.c - a batch's pass: run, and what becomes of its jobs when it is done, fails or does not end. */
#include "workers.h"

#include <assert.h>
#include <string.h>

#include "core/clock.h"
#include "core/thread.h"

void br_job_finish(br_job *job, br_status status, uint64_t now_ns)
{
    job->status = status;
    job->finished_ns = now_ns;
    job->done(job);
}

/* One pass; one that fails is tried once more, since not every failure outlasts it. */
static br_status run_pass(br_worker *w, br_loaded *loaded)
{
    const br_workers_options *options = &w->all->options;
    br_status status = BR_OK;
    for (int32_t attempt = 0; attempt < 2; attempt++) {
        status = br_loaded_run(loaded, w->index, &w->packing, w->quality);
        if (status == BR_OK) return BR_OK;
        BR_LOG(options->log, BR_LOG_ERROR, "pass_failed", BR_I64("worker", w->index),
               BR_I64("queries", w->packing.seqs), BR_I64("attempt", attempt + 1),
               BR_STR("status", br_status_text(status)));
    }
    return status;
}

/* Takes the worker's device out, unless it is the last; true when it is out and its jobs may go back. *first:
 * it was not out before. Lock held. */
static bool take_out(br_worker *w, bool *first)
{
    br_workers *all = w->all;
    int32_t in = 0;
    for (int32_t i = 0; i < all->options.devices->count; i++) in += all->stations[i].out ? 0 : 1;
    br_station *mine = &all->stations[w->device];
    *first = !mine->out;
    /* Whoever stops leaves when the queue is dry: nothing may come back into it any more. */
    if (all->stopping || (in == 1 && !mine->out)) return false;
    mine->out = true;
    return true;
}

/* Sees to the jobs of a pass that failed twice or was given up: back into the queue, once, if there is
 * another device. */
static void fail_batch(br_worker *w, br_batch_item **items, int32_t count)
{
    br_workers *all = w->all;
    int32_t failed = 0;
    uint64_t deadline_ns = UINT64_MAX; /* the earliest of those that go back */
    bool first;
    br_lock(&all->lock);
    const bool out = take_out(w, &first);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)items[i];
        if (out && !job->retried) {
            job->retried = true;
            const br_status status = br_batcher_put_back(all->batcher, &job->item);
            assert(status == BR_OK); /* see queue_max */
            (void)status;
            if (job->item.deadline_ns < deadline_ns) deadline_ns = job->item.deadline_ns;
        } else {
            items[failed++] = items[i];
        }
    }
    if (out) br_workers_wake_all(all);
    br_unlock(&all->lock);
    br_alarm_set(all->deadlines, deadline_ns);
    br_metrics_add(all->options.metrics, BR_COUNTER_queries_retried, (uint64_t)(count - failed));
    const uint64_t now_ns = br_clock_now_ns();
    for (int32_t i = 0; i < failed; i++) br_job_finish((br_job *)items[i], BR_EDEVICE, now_ns);
    if ((first || !out) && all->options.lost != NULL)
        all->options.lost(all->options.lost_context, w->device, !out);
}

static void pack_batch(br_worker *w, int32_t count)
{
    br_packing_clear(&w->packing);
    for (int32_t i = 0; i < count; i++) {
        const br_job *job = (const br_job *)w->items[i];
        const bool fits = br_packing_add(&w->packing, job->ids, job->item.tokens);
        assert(fits); /* the batcher has the packing's own limits */
        (void)fits;
    }
}

/* The jobs are ready for their pass. From now on it may be given up, and they with it. */
static void begin_pass(br_worker *w, int32_t count)
{
    br_lock(&w->all->lock);
    w->held = count;
    w->looks = 0;
    br_unlock(&w->all->lock);
}

/* The pass is over. False when it was given up meanwhile: its jobs are no longer the worker's. */
static bool end_pass(br_worker *w)
{
    br_lock(&w->all->lock);
    const bool mine = w->held > 0;
    w->held = 0;
    br_unlock(&w->all->lock);
    return mine;
}

void br_worker_run(br_worker *w, int32_t count)
{
    br_loaded *loaded = (br_loaded *)(uintptr_t)w->items[0]->group;
    const size_t heads = (size_t)br_loaded_bundle(loaded)->router.head_count;
    const uint64_t started_ns = br_clock_now_ns();
    pack_batch(w, count);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        job->started_ns = started_ns;
        job->batch = count;
    }
    begin_pass(w, count);
    const br_status status = run_pass(w, loaded);
    if (!end_pass(w)) return;
    if (status != BR_OK) {
        fail_batch(w, w->items, count);
        return;
    }
    const uint64_t finished_ns = br_clock_now_ns();
    br_metrics_pass(w->all->options.metrics, w->device, (uint64_t)count, (uint64_t)w->packing.tokens,
                    finished_ns - started_ns);
    uint64_t queue_ns = 0;
    for (int32_t i = 0; i < count; i++) queue_ns += started_ns - ((const br_job *)w->items[i])->queued_ns;
    br_metrics_add(w->all->options.metrics, BR_COUNTER_queue_ns, queue_ns);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        memcpy(job->quality, w->quality + (size_t)i * heads, heads * sizeof *job->quality);
        br_job_finish(job, BR_OK, finished_ns);
    }
}

/* Takes the jobs of a pass that was under way at too many looks into all->given_up; how many. */
static int32_t take_overdue(br_worker *w)
{
    br_workers *all = w->all;
    br_lock(&all->lock);
    const int32_t count = w->held > 0 && ++w->looks > BR_WORKERS_LOOKS ? w->held : 0;
    for (int32_t i = 0; i < count; i++) all->given_up[i] = w->items[i];
    if (count > 0) {
        w->held = 0;
        w->stuck = true;
        all->stations[w->device].stuck++;
        (void)atomic_fetch_or(&all->stuck, UINT32_C(1) << w->device);
        br_cond_broadcast(&all->ran);
    }
    br_unlock(&all->lock);
    return count;
}

/* Whether any worker will take a batch again. Lock held. */
static bool somebody_works(const br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (!all->workers[i].stuck && !all->stations[all->workers[i].device].out) return true;
    return false;
}

/* What waits for workers none of which comes back is told so. */
static void fail_waiting(br_workers *all)
{
    for (;;) {
        const uint64_t now_ns = br_clock_now_ns();
        br_lock(&all->lock);
        const int32_t count = somebody_works(all)
                                  ? 0
                                  : br_batcher_take(all->batcher, all->given_up, all->tokens_max, 0, now_ns);
        br_unlock(&all->lock);
        if (count == 0) return;
        for (int32_t i = 0; i < count; i++) br_job_finish((br_job *)all->given_up[i], BR_EDEVICE, now_ns);
    }
}

void br_workers_look(br_workers *workers)
{
    for (int32_t i = 0; i < workers->options.devices->worker_count; i++) {
        br_worker *w = &workers->workers[i];
        const int32_t count = take_overdue(w);
        if (count == 0) continue;
        BR_LOG(workers->options.log, BR_LOG_ERROR, "pass_given_up", BR_I64("worker", i),
               BR_I64("device", w->device), BR_I64("queries", count));
        br_metrics_add(workers->options.metrics, BR_COUNTER_passes_given_up, 1);
        fail_batch(w, workers->given_up, count);
    }
    fail_waiting(workers);
}
