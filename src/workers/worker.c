/* worker.c - see worker.h. */
#include "worker.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"
#include "dispatch.h"
#include "pass.h"

void br_worker_drop_expired(br_workers *all, uint64_t now_ns)
{
    br_batch_item *item;
    while ((item = br_batcher_expire(all->batcher, now_ns)) != NULL) {
        br_unlock(&all->lock);
        job_hand_back((br_job *)item, BR_ETIMEDOUT, now_ns);
        br_lock(&all->lock);
    }
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

/* Makes jobs while there is less than a batch of them. True when there is a batch for this worker. Called and
 * left with the lock held. */
static bool feed(br_worker *w)
{
    br_workers *all = w->all;
    bool fed = all->options.feed != NULL;
    while (fed && br_batcher_tokens(all->batcher) < all->tokens_max) {
        br_unlock(&all->lock);
        fed = all->options.feed(all->options.feed_context);
        br_lock(&all->lock);
    }
    return br_batcher_queries(all->batcher) > 0 && dispatch_may_take(w);
}

/* Takes a batch and runs it; false when there is none for this worker. Called and left with the lock held. */
static bool serve_batch(br_worker *w)
{
    br_workers *all = w->all;
    const uint64_t now_ns = br_clock_now_ns();
    br_worker_drop_expired(all, now_ns);
    if (!dispatch_may_take(w)) return false;
    const int32_t count = br_batcher_take(all->batcher, w->items, br_worker_device(w)->tokens_wanted,
                                          dispatch_sharers(w), now_ns);
    if (count == 0) return false;
    const int64_t tokens = dispatch_add_load(w, count);
    /* The jobs that are left are for the other workers, which may all be asleep. */
    br_worker *other = br_batcher_queries(all->batcher) > 0 ? dispatch_reserve(all, false) : NULL;
    const bool abandoning = all->abandoning;
    br_unlock(&all->lock);
    dispatch_wake(other);
    if (!abandoning) pass_run(w, count);
    for (int32_t i = 0; abandoning && i < count; i++)
        job_hand_back((br_job *)w->items[i], BR_ECLOSED, now_ns);
    const uint64_t ns = br_clock_now_ns() - now_ns;
    br_lock(&all->lock);
    dispatch_remove_load(w, tokens, w->stuck ? 0 : ns);
    if (w->stuck) pass_unstick(w);
    return true;
}

static void *serve(void *argument)
{
    br_worker *w = argument;
    br_workers *all = w->all;
    br_lock(&all->lock);
    for (;;) {
        /* Errands take long, and no other worker was called for the job that this one was called for: jobs
         * come first. */
        const bool served = serve_batch(w);
        if (!served && feed(w)) continue; /* or: expired since serve_batch read the time */
        if (run_errand(w) || served) continue;
        if (all->stopping) break;
        sleep_until_called(w);
    }
    br_unlock(&all->lock);
    return NULL;
}

br_status br_worker_init(br_worker *w, int32_t index)
{
    const br_workers_options *options = &w->all->options;
    const size_t seqs = (size_t)options->seqs_max;
    w->index = index;
    w->device = options->devices->device_of[index];
    br_cond_init(&w->work);
    w->work_made = true;
    const br_status status = br_packing_init(&w->packing, br_worker_device(w)->tokens_max, options->seqs_max);
    if (status != BR_OK) return status;
    w->quality = br_alloc_array(seqs * BR_CANDIDATES_MAX, sizeof *w->quality);
    w->items = br_alloc_array(seqs, sizeof *w->items);
    if (w->quality == NULL || w->items == NULL) return BR_ENOMEM;
    w->started = br_thread_start(&w->thread, serve, w);
    return w->started ? BR_OK : BR_EINTERNAL;
}

void br_worker_deinit(br_worker *w)
{
    if (w->work_made) br_cond_destroy(&w->work);
    br_packing_deinit(&w->packing);
    free(w->quality);
    free(w->items);
}
