/* worker.c - scoring threads of all devices around one batcher. */
#include "workers.h"

#include <assert.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/thread.h"

/* The job was never computed. Without the lock. */
static void hand_back(br_job *job, br_status status, uint64_t now_ns)
{
    job->started_ns = 0;
    job->batch = 0;
    br_job_finish(job, status, now_ns);
}

/* The device's share of the work while a batch runs. Lock held. */
static int64_t begin_batch(br_worker *w, int32_t count)
{
    int64_t tokens = 0;
    for (int32_t i = 0; i < count; i++) tokens += w->items[i]->tokens;
    w->all->stations[w->device].tokens += tokens;
    return tokens;
}

static void move_average(double *average, double sample)
{
    *average = *average == 0 ? sample : *average + (sample - *average) / 8;
}

/* Lock held. */
static void end_batch(br_worker *w, int64_t tokens, uint64_t ns)
{
    br_station *mine = &w->all->stations[w->device];
    mine->tokens -= tokens;
    if (w->stuck) {
        w->stuck = false;
        if (--mine->stuck == 0) (void)atomic_fetch_and(&w->all->stuck, ~(UINT32_C(1) << w->device));
        return;
    }
    const double sample = (double)ns / (double)tokens;
    move_average(&mine->token_ns, sample);
    move_average(&w->all->token_ns[br_device_is_accelerator(br_worker_device(w)) ? 1 : 0], sample);
}

/* Finishes all that has expired. Called and left with the lock held; released meanwhile. */
static void drop_expired(br_workers *all, uint64_t now_ns)
{
    br_batch_item *item;
    while ((item = br_batcher_expire(all->batcher, now_ns)) != NULL) {
        br_unlock(&all->lock);
        hand_back((br_job *)item, BR_ETIMEDOUT, now_ns);
        br_lock(&all->lock);
    }
}

/* The watch's: drops what has expired, whoever is busy. */
static uint64_t on_deadline(void *context)
{
    br_workers *all = context;
    br_lock(&all->lock);
    drop_expired(all, br_clock_now_ns());
    const uint64_t left_ns = br_batcher_deadline_ns(all->batcher);
    br_unlock(&all->lock);
    return left_ns;
}

/* Runs this worker's errand, if there is one. Called and left with the lock held. */
static bool run_errand(br_worker *w)
{
    br_workers *all = w->all;
    if (all->errand == NULL || all->errand_worker != w->index) return false;
    const br_errand_fn errand = all->errand;
    void *context = all->errand_context;
    all->errand_begun = true;
    br_unlock(&all->lock);
    errand(context, w->index);
    br_lock(&all->lock);
    all->errand = NULL;
    br_cond_broadcast(&all->ran);
    return true;
}

static void sleep_until_called(br_worker *w)
{
    w->idle = true;
    br_cond_wait(&w->work, &w->all->lock);
    w->idle = false;
    w->called = false;
}

/* Makes work while there is less than a batch of it. True when there is some for this worker. Called and left with
 * the lock held. */
static bool feed(br_worker *w)
{
    br_workers *all = w->all;
    bool fed = all->options.feed != NULL;
    while (fed && br_batcher_tokens(all->batcher) < all->tokens_max) {
        br_unlock(&all->lock);
        fed = all->options.feed(all->options.feed_context);
        br_lock(&all->lock);
    }
    return br_batcher_queries(all->batcher) > 0 && br_worker_may_take(w);
}

/* Takes a batch and sees to it; false when there is none for this worker. Called and left with the lock held. */
static bool serve_batch(br_worker *w)
{
    br_workers *all = w->all;
    const uint64_t now_ns = br_clock_now_ns();
    drop_expired(all, now_ns);
    if (!br_worker_may_take(w)) return false;
    const int32_t count = br_batcher_take(all->batcher, w->items, br_worker_device(w)->tokens_wanted,
                                          br_worker_sharers(w), now_ns);
    if (count == 0) return false;
    const int64_t tokens = begin_batch(w, count);
    /* What is left is for the others, who may all be asleep. */
    br_worker *other = br_batcher_queries(all->batcher) > 0 ? br_workers_call_one(all, false) : NULL;
    const bool abandoning = all->abandoning;
    br_unlock(&all->lock);
    br_worker_wake(other);
    if (!abandoning) br_worker_run(w, count);
    for (int32_t i = 0; abandoning && i < count; i++) hand_back((br_job *)w->items[i], BR_ECLOSED, now_ns);
    const uint64_t ns = br_clock_now_ns() - now_ns;
    br_lock(&all->lock);
    end_batch(w, tokens, ns);
    return true;
}

static void *serve(void *argument)
{
    br_worker *w = argument;
    br_workers *all = w->all;
    br_lock(&all->lock);
    for (;;) {
        /* Errands take long, and nobody else was called for what this worker was: that comes first. */
        const bool served = serve_batch(w);
        if (!served && feed(w)) continue; /* or: expired since serve_batch read the time */
        if (run_errand(w) || served) continue;
        if (all->stopping) break;
        sleep_until_called(w);
    }
    br_unlock(&all->lock);
    return NULL;
}

static br_status worker_init(br_worker *w, br_workers *all, int32_t index)
{
    const size_t seqs = (size_t)all->options.seqs_max;
    w->all = all;
    w->index = index;
    w->device = all->options.devices->device_of[index];
    br_cond_init(&w->work);
    w->work_made = true;
    const br_status status =
        br_packing_init(&w->packing, br_worker_device(w)->tokens_max, all->options.seqs_max);
    if (status != BR_OK) return status;
    w->quality = br_alloc_array(seqs * BR_CANDIDATES_MAX, sizeof *w->quality);
    w->items = br_alloc_array(seqs, sizeof *w->items);
    if (w->quality == NULL || w->items == NULL) return BR_ENOMEM;
    w->started = br_thread_start(&w->thread, serve, w);
    return w->started ? BR_OK : BR_EINTERNAL;
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
    /* call_one looks at all of them as soon as one runs. */
    for (int32_t i = 0; i < count; i++) all->workers[i].all = all;
    for (int32_t i = 0; i < count; i++) {
        status = worker_init(&all->workers[i], all, i);
        if (status != BR_OK) goto fail;
    }
    *out = all;
    return BR_OK;

fail:
    br_workers_destroy(all);
    return status;
}

static void stop(br_workers *all)
{
    br_lock(&all->lock);
    all->stopping = true;
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (all->workers[i].work_made) br_cond_signal(&all->workers[i].work);
    br_unlock(&all->lock);
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (all->workers[i].started) br_thread_join(all->workers[i].thread);
}

void br_workers_destroy(br_workers *workers)
{
    if (workers == NULL) return;
    /* What the watch finishes may push, so it ends before the workers; and they tell it of deadlines to their end. */
    br_alarm_stop(workers->deadlines);
    if (workers->workers != NULL) {
        stop(workers);
        for (int32_t i = 0; i < workers->options.devices->worker_count; i++) {
            if (workers->workers[i].work_made) br_cond_destroy(&workers->workers[i].work);
            br_packing_deinit(&workers->workers[i].packing);
            free(workers->workers[i].quality);
            free(workers->workers[i].items);
        }
        free(workers->workers);
    }
    if (workers->lock_made) {
        br_cond_destroy(&workers->ran);
        br_mutex_destroy(&workers->lock);
    }
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
    br_worker *w = br_workers_call_one(workers, true);
    br_unlock(&workers->lock);
    br_worker_wake(w);
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
    br_worker *w = fits && count > 0 ? br_workers_call_one(workers, false) : NULL;
    br_unlock(&workers->lock);
    br_worker_wake(w); /* after unlocking: the woken thread would only wait for the lock */
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
    workers->stations[device].token_ns = 0; /* whether it is slow shows anew */
    br_workers_wake_all(workers);
    br_unlock(&workers->lock);
}

int32_t br_workers_waiting(br_workers *workers)
{
    br_lock(&workers->lock);
    const int32_t waiting = br_batcher_queries(workers->batcher);
    br_unlock(&workers->lock);
    return waiting;
}
