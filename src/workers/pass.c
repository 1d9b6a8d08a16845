/* pass.c - see pass.h. */
#include "pass.h"

#include <assert.h>
#include <string.h>

#include "core/clock.h"
#include "core/thread.h"
#include "dispatch.h"

/* Runs the pass; if it fails, once more: some failures are gone at the second try. */
static br_status run_encoder(br_worker *w, br_loaded *loaded)
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
 * the device was not out before. Lock held. */
static bool take_out(br_worker *w, bool *first)
{
    br_workers *all = w->all;
    int32_t in = 0;
    for (int32_t i = 0; i < all->options.devices->count; i++) in += all->stations[i].out ? 0 : 1;
    station *mine = &all->stations[w->device];
    *first = !mine->out;
    /* Workers that stop leave when the queue is empty: nothing may come back into it any more. */
    if (all->stopping || (in == 1 && !mine->out)) return false;
    mine->out = true;
    return true;
}

/* Queues the jobs again that may try another device. The others are left in items[], and counted.
 * *deadline_ns: the earliest of those that are queued. Lock held. */
static int32_t queue_again(br_workers *all, br_batch_item **items, int32_t count, uint64_t *deadline_ns)
{
    const uint64_t now_ns = br_clock_now_ns();
    int32_t left = 0;
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)items[i];
        if (job->retried) {
            items[left++] = items[i];
            continue;
        }
        job_queue_again(job, now_ns);
        const br_status status = br_batcher_put_back(all->batcher, &job->item);
        assert(status == BR_OK); /* see queue_max */
        (void)status;
        if (job->item.deadline_ns < *deadline_ns) *deadline_ns = job->item.deadline_ns;
    }
    return left;
}

/* The jobs of a pass that failed twice or was given up: back into the queue, once, if there is another
 * device; else finished. */
static void fail_batch(br_worker *w, br_batch_item **items, int32_t count)
{
    br_workers *all = w->all;
    int32_t failed = count;
    uint64_t deadline_ns = UINT64_MAX;
    bool first;
    br_lock(&all->lock);
    const bool out = take_out(w, &first);
    if (out) {
        failed = queue_again(all, items, count, &deadline_ns);
        dispatch_wake_all(all);
    }
    br_unlock(&all->lock);
    br_alarm_set(all->deadlines, deadline_ns);
    br_metrics_add(all->options.metrics, BR_COUNTER_queries_retried, (uint64_t)(count - failed));
    const uint64_t now_ns = br_clock_now_ns();
    for (int32_t i = 0; i < failed; i++) job_finish((br_job *)items[i], BR_EDEVICE, now_ns);
    if ((first || !out) && all->options.lost != NULL)
        all->options.lost(all->options.lost_context, w->device, !out);
}

static void pack(br_worker *w, int32_t count)
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
static void begin(br_worker *w, int32_t count)
{
    br_lock(&w->all->lock);
    w->held = count;
    w->looks = 0;
    br_unlock(&w->all->lock);
}

/* The pass is over. False when it was given up meanwhile: its jobs are no longer the worker's. */
static bool end(br_worker *w)
{
    br_lock(&w->all->lock);
    const bool mine = w->held > 0;
    w->held = 0;
    br_unlock(&w->all->lock);
    return mine;
}

static void count_pass(const br_worker *w, int32_t count, uint64_t started_ns, uint64_t finished_ns)
{
    br_metrics *metrics = w->all->options.metrics;
    br_metrics_pass(metrics, w->device, (uint64_t)count, (uint64_t)w->packing.tokens,
                    finished_ns - started_ns);
    uint64_t queue_ns = 0;
    for (int32_t i = 0; i < count; i++) queue_ns += started_ns - ((const br_job *)w->items[i])->queued_ns;
    br_metrics_add(metrics, BR_COUNTER_queue_ns, queue_ns);
}

void pass_run(br_worker *w, int32_t count)
{
    br_loaded *loaded = (br_loaded *)(uintptr_t)w->items[0]->group;
    const size_t heads = (size_t)br_loaded_bundle(loaded)->router.head_count;
    const uint64_t started_ns = br_clock_now_ns();
    pack(w, count);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        job->started_ns = started_ns;
        job->batch = count;
    }
    begin(w, count);
    const br_status status = run_encoder(w, loaded);
    if (!end(w)) return;
    if (status != BR_OK) {
        fail_batch(w, w->items, count);
        return;
    }
    const uint64_t finished_ns = br_clock_now_ns();
    count_pass(w, count, started_ns, finished_ns);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        memcpy(job->quality, w->quality + (size_t)i * heads, heads * sizeof *job->quality);
        job_finish(job, BR_OK, finished_ns);
    }
}

/* Lock held. */
static void stick(br_worker *w)
{
    w->held = 0;
    w->stuck = true;
    w->all->stations[w->device].stuck++;
    (void)atomic_fetch_or(&w->all->stuck, UINT32_C(1) << w->device);
    br_cond_broadcast(&w->all->ran); /* its errand will not be run */
}

void pass_unstick(br_worker *w)
{
    w->stuck = false;
    if (--w->all->stations[w->device].stuck == 0)
        (void)atomic_fetch_and(&w->all->stuck, ~(UINT32_C(1) << w->device));
}

/* Takes the jobs of a pass that was under way at too many looks into all->given_up, and returns their
 * number. */
static int32_t take_overdue(br_worker *w)
{
    br_workers *all = w->all;
    br_lock(&all->lock);
    const int32_t count = w->held > 0 && ++w->looks > PASS_LOOKS ? w->held : 0;
    for (int32_t i = 0; i < count; i++) all->given_up[i] = w->items[i];
    if (count > 0) stick(w);
    br_unlock(&all->lock);
    return count;
}

/* Whether any worker will take a batch again. Lock held. */
static bool any_works(const br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (!all->workers[i].stuck && !all->stations[all->workers[i].device].out) return true;
    return false;
}

/* Hands back all jobs that wait, if no worker is left to take them. */
static void fail_waiting(br_workers *all)
{
    for (;;) {
        const uint64_t now_ns = br_clock_now_ns();
        br_lock(&all->lock);
        const int32_t count = any_works(all)
                                  ? 0
                                  : br_batcher_take(all->batcher, all->given_up, all->tokens_max, 0, now_ns);
        br_unlock(&all->lock);
        if (count == 0) return;
        for (int32_t i = 0; i < count; i++) job_hand_back((br_job *)all->given_up[i], BR_EDEVICE, now_ns);
    }
}

void pass_look(br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        br_worker *w = &all->workers[i];
        const int32_t count = take_overdue(w);
        if (count == 0) continue;
        BR_LOG(all->options.log, BR_LOG_ERROR, "pass_given_up", BR_I64("worker", i),
               BR_I64("device", w->device), BR_I64("queries", count));
        br_metrics_add(all->options.metrics, BR_COUNTER_passes_given_up, 1);
        fail_batch(w, all->given_up, count);
    }
    fail_waiting(all);
}
