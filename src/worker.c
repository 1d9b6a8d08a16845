/* worker.c - scoring threads around one batcher. */
#include "bestroute/worker.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bestroute/clock.h"

typedef struct scorer {
    br_workers *all;
    int32_t index;
    pthread_t thread;
    bool started;
    br_packing packing;
    float *quality;        /* [seqs_max, BR_CANDIDATES_MAX] */
    br_batch_item **items; /* [seqs_max] */
} scorer;

struct br_workers {
    br_workers_options options;
    scorer *workers; /* [options.count] */

    pthread_mutex_t lock; /* guards everything below; nothing else is locked under it */
    pthread_cond_t work;  /* jobs came, an errand came, or it is time to stop */
    pthread_cond_t ran;   /* the errand was run */
    bool lock_made;
    br_batcher *batcher;
    int32_t idle;   /* threads waiting on `work` */
    int32_t called; /* signals sent to them and not yet taken; at most `idle` */
    bool stopping;
    bool abandoning;
    br_errand_fn errand; /* NULL: none */
    void *errand_context;
    int32_t errand_worker;
};

static void finish(br_job *job, br_status status, uint64_t now_ns)
{
    job->status = status;
    job->finished_ns = now_ns;
    job->done(job);
}

static void hand_back(scorer *w, int32_t count, uint64_t now_ns)
{
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        job->started_ns = 0;
        job->batch = 0;
        finish(job, BR_ECLOSED, now_ns);
    }
}

/* One pass; one that fails is tried once more, since not every failure outlasts it. */
static br_status run_pass(scorer *w, br_replica *replica)
{
    const br_workers_options *options = &w->all->options;
    br_status status = BR_OK;
    for (int32_t attempt = 0; attempt < 2; attempt++) {
        status = br_replica_run(replica, w->index, &w->packing, w->quality);
        if (status == BR_OK) return BR_OK;
        BR_LOG(options->log, BR_LOG_ERROR, "pass_failed", BR_I64("worker", w->index),
               BR_I64("queries", w->packing.seqs), BR_I64("attempt", attempt + 1),
               BR_STR("status", br_status_text(status)));
    }
    return status;
}

static void run_batch(scorer *w, int32_t count)
{
    const br_workers_options *options = &w->all->options;
    br_replica *replica = (br_replica *)(uintptr_t)w->items[0]->group;
    const size_t heads = (size_t)br_replica_bundle(replica)->router.head_count;
    const uint64_t started_ns = br_clock_now_ns();

    br_packing_clear(&w->packing);
    for (int32_t i = 0; i < count; i++) {
        const br_job *job = (const br_job *)w->items[i];
        const bool fits = br_packing_add(&w->packing, job->ids, job->item.tokens);
        assert(fits); /* the batcher has the packing's own limits */
        (void)fits;
    }
    const int32_t tokens = w->packing.tokens;
    const br_status status = run_pass(w, replica);
    const uint64_t finished_ns = br_clock_now_ns();
    br_metrics_pass(options->metrics, (uint64_t)count, (uint64_t)tokens, finished_ns - started_ns);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        if (status == BR_OK)
            memcpy(job->quality, w->quality + (size_t)i * heads, heads * sizeof *job->quality);
        job->started_ns = started_ns;
        job->batch = count;
        finish(job, status == BR_OK ? BR_OK : BR_EDEVICE, finished_ns);
    }
    if (status != BR_OK && options->lost != NULL) options->lost(options->lost_context);
}

/* Finishes all that has expired. Called and left with the lock held; released meanwhile. */
static void drop_expired(br_workers *all, uint64_t now_ns)
{
    br_batch_item *item;
    while ((item = br_batcher_expire(all->batcher, now_ns)) != NULL) {
        (void)pthread_mutex_unlock(&all->lock);
        br_job *job = (br_job *)item;
        job->started_ns = 0;
        job->batch = 0;
        finish(job, BR_ETIMEDOUT, now_ns);
        (void)pthread_mutex_lock(&all->lock);
    }
}

/* Runs this worker's errand, if there is one. Called and left with the lock held. */
static bool run_errand(scorer *w)
{
    br_workers *all = w->all;
    if (all->errand == NULL || all->errand_worker != w->index) return false;
    const br_errand_fn errand = all->errand;
    void *context = all->errand_context;
    (void)pthread_mutex_unlock(&all->lock);
    errand(context, w->index);
    (void)pthread_mutex_lock(&all->lock);
    all->errand = NULL;
    (void)pthread_cond_broadcast(&all->ran);
    return true;
}

/* Reserves a sleeping thread: the caller signals `work` after unlocking. Lock held. */
static bool call_one(br_workers *all)
{
    if (all->idle <= all->called) return false;
    all->called++;
    return true;
}

static void sleep_until_called(br_workers *all)
{
    all->idle++;
    (void)pthread_cond_wait(&all->work, &all->lock);
    all->idle--;
    if (all->called > 0) all->called--;
}

/* Makes work while there is less than a batch of it. Called and left with the lock held. */
static bool feed(br_workers *all)
{
    if (all->options.feed == NULL) return false;
    bool fed = true;
    while (fed && br_batcher_tokens(all->batcher) < all->options.tokens_max) {
        (void)pthread_mutex_unlock(&all->lock);
        fed = all->options.feed(all->options.feed_context);
        (void)pthread_mutex_lock(&all->lock);
    }
    return br_batcher_queries(all->batcher) > 0;
}

static void *serve(void *argument)
{
    scorer *w = argument;
    br_workers *all = w->all;
    (void)pthread_mutex_lock(&all->lock);
    for (;;) {
        if (run_errand(w)) continue;
        const uint64_t now_ns = br_clock_now_ns();
        drop_expired(all, now_ns);
        const int32_t count = br_batcher_take(all->batcher, w->items, now_ns);
        if (count > 0) {
            /* What is left is for the others, who may all be asleep. */
            const bool wake = br_batcher_queries(all->batcher) > 0 && call_one(all);
            const bool abandoning = all->abandoning;
            (void)pthread_mutex_unlock(&all->lock);
            if (wake) (void)pthread_cond_signal(&all->work);
            if (abandoning)
                hand_back(w, count, now_ns);
            else
                run_batch(w, count);
            (void)pthread_mutex_lock(&all->lock);
            continue;
        }
        if (br_batcher_queries(all->batcher) > 0) continue; /* expired since now_ns was read */
        if (feed(all)) continue;
        if (all->errand != NULL && all->errand_worker == w->index) continue; /* came while feeding */
        if (all->stopping) break;
        sleep_until_called(all);
    }
    (void)pthread_mutex_unlock(&all->lock);
    return NULL;
}

static br_status worker_init(scorer *w, br_workers *all, int32_t index)
{
    const size_t seqs = (size_t)all->options.seqs_max;
    w->all = all;
    w->index = index;
    const br_status status = br_packing_init(&w->packing, all->options.tokens_max, all->options.seqs_max);
    if (status != BR_OK) return status;
    w->quality = br_alloc_array(seqs * BR_CANDIDATES_MAX, sizeof *w->quality);
    w->items = br_alloc_array(seqs, sizeof *w->items);
    if (w->quality == NULL || w->items == NULL) return BR_ENOMEM;
    w->started = pthread_create(&w->thread, NULL, serve, w) == 0;
    return w->started ? BR_OK : BR_EINTERNAL;
}

br_status br_workers_create(br_workers **out, const br_workers_options *options)
{
    assert(options->count >= 1);
    assert(options->count <= BR_WORKERS_MAX);
    *out = NULL;
    br_workers *all = calloc(1, sizeof *all);
    if (all == NULL) return BR_ENOMEM;
    all->options = *options;

    const br_batcher_options limits = {
        .tokens_max = options->tokens_max,
        .seqs_max = options->seqs_max,
        .queue_max = options->queue_max,
    };
    br_status status = br_batcher_create(&all->batcher, &limits);
    if (status != BR_OK) goto fail;
    (void)pthread_mutex_init(&all->lock, NULL);
    (void)pthread_cond_init(&all->work, NULL);
    (void)pthread_cond_init(&all->ran, NULL);
    all->lock_made = true;
    status = BR_ENOMEM;
    all->workers = calloc((size_t)options->count, sizeof *all->workers);
    if (all->workers == NULL) goto fail;
    for (int32_t i = 0; i < options->count; i++) {
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
    (void)pthread_mutex_lock(&all->lock);
    all->stopping = true;
    (void)pthread_cond_broadcast(&all->work);
    (void)pthread_mutex_unlock(&all->lock);
    for (int32_t i = 0; i < all->options.count; i++)
        if (all->workers[i].started) (void)pthread_join(all->workers[i].thread, NULL);
}

void br_workers_destroy(br_workers *workers)
{
    if (workers == NULL) return;
    if (workers->workers != NULL) {
        stop(workers);
        for (int32_t i = 0; i < workers->options.count; i++) {
            br_packing_deinit(&workers->workers[i].packing);
            free(workers->workers[i].quality);
            free(workers->workers[i].items);
        }
        free(workers->workers);
    }
    if (workers->lock_made) {
        (void)pthread_cond_destroy(&workers->ran);
        (void)pthread_cond_destroy(&workers->work);
        (void)pthread_mutex_destroy(&workers->lock);
    }
    br_batcher_destroy(workers->batcher);
    free(workers);
}

void br_workers_abandon(br_workers *workers)
{
    (void)pthread_mutex_lock(&workers->lock);
    workers->abandoning = true;
    (void)pthread_mutex_unlock(&workers->lock);
}

bool br_workers_nudge(br_workers *workers)
{
    (void)pthread_mutex_lock(&workers->lock);
    const bool wake = call_one(workers);
    (void)pthread_mutex_unlock(&workers->lock);
    if (wake) (void)pthread_cond_signal(&workers->work);
    return wake;
}

br_status br_workers_push(br_workers *workers, br_job *const *jobs, int32_t count)
{
    const uint64_t now_ns = br_clock_now_ns();
    (void)pthread_mutex_lock(&workers->lock);
    const bool fits = br_batcher_queries(workers->batcher) + count <= workers->options.queue_max;
    for (int32_t i = 0; fits && i < count; i++) {
        jobs[i]->queued_ns = now_ns;
        const br_status status = br_batcher_push(workers->batcher, &jobs[i]->item);
        assert(status == BR_OK);
        (void)status;
    }
    const bool wake = fits && count > 0 && call_one(workers);
    (void)pthread_mutex_unlock(&workers->lock);
    /* After unlocking: the woken thread would only wait for the lock. */
    if (wake) (void)pthread_cond_signal(&workers->work);
    return fits ? BR_OK : BR_EBUSY;
}

void br_workers_run_on(br_workers *workers, int32_t worker, br_errand_fn errand, void *context)
{
    (void)pthread_mutex_lock(&workers->lock);
    assert(workers->errand == NULL);
    workers->errand = errand;
    workers->errand_context = context;
    workers->errand_worker = worker;
    (void)pthread_cond_broadcast(&workers->work);
    while (workers->errand != NULL) (void)pthread_cond_wait(&workers->ran, &workers->lock);
    (void)pthread_mutex_unlock(&workers->lock);
}

int32_t br_workers_count(const br_workers *workers)
{
    return workers->options.count;
}

int32_t br_workers_waiting(br_workers *workers)
{
    (void)pthread_mutex_lock(&workers->lock);
    const int32_t waiting = br_batcher_queries(workers->batcher);
    (void)pthread_mutex_unlock(&workers->lock);
    return waiting;
}
