/* worker.c - scoring threads of all devices around one batcher. */
#include "bestroute/worker.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bestroute/clock.h"

/* So many times the time per token of another make a device one to avoid. */
enum { SLOW = 4 };

/* A device, as its workers share it. Guarded by the lock. */
typedef struct station {
    int64_t tokens;  /* in its passes now */
    double token_ns; /* moving average of its passes; 0 before the first */
    int32_t stuck;   /* workers whose pass was given up and has not come back */
    bool out;
} station;

typedef struct scorer {
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
} scorer;

struct br_workers {
    br_workers_options options;
    int32_t tokens_max;     /* the largest of the devices' */
    scorer *workers;        /* [devices->worker_count] */
    _Atomic uint32_t stuck; /* a bit for each device with a stuck worker; written with the lock held */

    pthread_mutex_t lock; /* guards everything below; nothing else is locked under it */
    pthread_cond_t ran;   /* the errand was run */
    bool lock_made;
    br_batcher *batcher;
    station stations[BR_DEVICES_MAX];
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

static const br_device *device_of(const scorer *w)
{
    return &w->all->options.devices->items[w->device];
}

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

/* Accelerators that are in. Lock held. */
static int32_t accelerators_in(const br_workers *all)
{
    const br_devices *devices = all->options.devices;
    int32_t count = 0;
    for (int32_t i = 0; i < devices->count; i++)
        if (devices->items[i].accelerator && !all->stations[i].out) count++;
    return count;
}

/* Whether the worker should take a batch from what waits now. Lock held. */
static bool may_take(const scorer *w)
{
    const br_workers *all = w->all;
    if (all->stations[w->device].out) return false;
    if (device_of(w)->accelerator) return true;
    const int32_t faster = accelerators_in(all);
    if (faster == 0) return true;
    const double waiting = (double)br_batcher_tokens(all->batcher);
    const double budget = device_of(w)->tokens_wanted;
    return (waiting < budget ? waiting : budget) * all->token_ns[0] < waiting * all->token_ns[1] / faster;
}

/* Of two devices of a kind. One that is far slower than the other, or than nothing known yet, is called when the
 * other is taken; small passes cost more per token than full ones, which is no reason to avoid who ran them. Lock
 * held. */
static bool suits_better(const station *a, const station *b)
{
    if (a->token_ns > SLOW * b->token_ns) return false;
    if (b->token_ns > SLOW * a->token_ns) return true;
    return a->tokens < b->tokens;
}

/* Reserves the sleeping worker that suits best, to be signalled after unlocking: one that may take what waits, or
 * with `to_feed` any. NULL when there is none. Lock held. */
static scorer *call_one(br_workers *all, bool to_feed)
{
    scorer *best = NULL;
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        scorer *w = &all->workers[i];
        if (!w->idle || w->called || (!to_feed && !may_take(w))) continue;
        if (best != NULL && device_of(best)->accelerator && !device_of(w)->accelerator) continue;
        if (best == NULL || (device_of(w)->accelerator && !device_of(best)->accelerator) ||
            suits_better(&all->stations[w->device], &all->stations[best->device]))
            best = w;
    }
    if (best != NULL) best->called = true;
    return best;
}

static void wake(scorer *w)
{
    if (w != NULL) (void)pthread_cond_signal(&w->work);
}

/* Lock held. */
static void wake_all(br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        all->workers[i].called = all->workers[i].idle;
        (void)pthread_cond_signal(&all->workers[i].work);
    }
}

/* Takes the worker's device out, unless it is the last; true when it is out. *first: and was not before.
 * Lock held. */
static bool take_out(scorer *w, bool *first)
{
    br_workers *all = w->all;
    int32_t in = 0;
    for (int32_t i = 0; i < all->options.devices->count; i++) in += all->stations[i].out ? 0 : 1;
    station *mine = &all->stations[w->device];
    *first = !mine->out;
    /* Whoever stops waits for the queue to run dry: nothing may come back into it any more. */
    if (!mine->out && (in == 1 || all->stopping)) return false;
    mine->out = true;
    return true;
}

/* Sees to the jobs of a pass that failed twice or was given up: back into the queue, once, if there is another
 * device. */
static void fail_batch(scorer *w, br_batch_item **items, int32_t count)
{
    br_workers *all = w->all;
    int32_t failed = 0;
    bool first;
    (void)pthread_mutex_lock(&all->lock);
    const bool out = take_out(w, &first);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)items[i];
        if (out && !job->retried) {
            job->retried = true;
            const br_status status = br_batcher_push(all->batcher, &job->item);
            assert(status == BR_OK); /* admission bounds what is pushed and not yet finished */
            (void)status;
        } else {
            items[failed++] = items[i];
        }
    }
    if (out) wake_all(all);
    (void)pthread_mutex_unlock(&all->lock);
    br_metrics_add(all->options.metrics, BR_COUNTER_queries_retried, (uint64_t)(count - failed));
    const uint64_t now_ns = br_clock_now_ns();
    for (int32_t i = 0; i < failed; i++) finish((br_job *)items[i], BR_EDEVICE, now_ns);
    if ((first || !out) && all->options.lost != NULL)
        all->options.lost(all->options.lost_context, w->device, !out);
}

static void pack_batch(scorer *w, int32_t count)
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
static void begin_pass(scorer *w, int32_t count)
{
    (void)pthread_mutex_lock(&w->all->lock);
    w->held = count;
    w->looks = 0;
    (void)pthread_mutex_unlock(&w->all->lock);
}

/* The pass is over. False when it was given up meanwhile: its jobs are no longer the worker's. */
static bool end_pass(scorer *w)
{
    (void)pthread_mutex_lock(&w->all->lock);
    const bool mine = w->held > 0;
    w->held = 0;
    (void)pthread_mutex_unlock(&w->all->lock);
    return mine;
}

static void run_batch(scorer *w, int32_t count)
{
    br_replica *replica = (br_replica *)(uintptr_t)w->items[0]->group;
    const size_t heads = (size_t)br_replica_bundle(replica)->router.head_count;
    const uint64_t started_ns = br_clock_now_ns();
    pack_batch(w, count);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        job->started_ns = started_ns;
        job->batch = count;
    }
    begin_pass(w, count);
    const br_status status = run_pass(w, replica);
    if (!end_pass(w)) return;
    if (status != BR_OK) {
        fail_batch(w, w->items, count);
        return;
    }
    const uint64_t finished_ns = br_clock_now_ns();
    br_metrics_pass(w->all->options.metrics, (uint64_t)count, (uint64_t)w->packing.tokens,
                    finished_ns - started_ns);
    uint64_t queue_ns = 0;
    for (int32_t i = 0; i < count; i++) queue_ns += started_ns - ((const br_job *)w->items[i])->queued_ns;
    br_metrics_add(w->all->options.metrics, BR_COUNTER_queue_ns, queue_ns);
    for (int32_t i = 0; i < count; i++) {
        br_job *job = (br_job *)w->items[i];
        memcpy(job->quality, w->quality + (size_t)i * heads, heads * sizeof *job->quality);
        finish(job, BR_OK, finished_ns);
    }
}

/* The device's share of the work while a batch runs. Lock held. */
static int64_t begin_batch(scorer *w, int32_t count)
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
static void end_batch(scorer *w, int64_t tokens, uint64_t ns)
{
    station *mine = &w->all->stations[w->device];
    mine->tokens -= tokens;
    if (w->stuck) {
        w->stuck = false;
        if (--mine->stuck == 0) (void)atomic_fetch_and(&w->all->stuck, ~(UINT32_C(1) << w->device));
        return;
    }
    const double sample = (double)ns / (double)tokens;
    move_average(&mine->token_ns, sample);
    move_average(&w->all->token_ns[device_of(w)->accelerator ? 1 : 0], sample);
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
    all->errand_begun = true;
    (void)pthread_mutex_unlock(&all->lock);
    errand(context, w->index);
    (void)pthread_mutex_lock(&all->lock);
    all->errand = NULL;
    (void)pthread_cond_broadcast(&all->ran);
    return true;
}

static void sleep_until_called(scorer *w)
{
    w->idle = true;
    (void)pthread_cond_wait(&w->work, &w->all->lock);
    w->idle = false;
    w->called = false;
}

/* Makes work while there is less than a batch of it. True when there is some for this worker. Called and left with
 * the lock held. */
static bool feed(scorer *w)
{
    br_workers *all = w->all;
    bool fed = all->options.feed != NULL;
    while (fed && br_batcher_tokens(all->batcher) < all->tokens_max) {
        (void)pthread_mutex_unlock(&all->lock);
        fed = all->options.feed(all->options.feed_context);
        (void)pthread_mutex_lock(&all->lock);
    }
    return br_batcher_queries(all->batcher) > 0 && may_take(w);
}

/* Takes a batch and sees to it; false when there is none for this worker. Called and left with the lock held. */
static bool serve_batch(scorer *w)
{
    br_workers *all = w->all;
    const uint64_t now_ns = br_clock_now_ns();
    drop_expired(all, now_ns);
    if (!may_take(w)) return false;
    const int32_t count = br_batcher_take(all->batcher, w->items, device_of(w)->tokens_wanted, now_ns);
    if (count == 0) return false;
    const int64_t tokens = begin_batch(w, count);
    /* What is left is for the others, who may all be asleep. */
    scorer *other = br_batcher_queries(all->batcher) > 0 ? call_one(all, false) : NULL;
    const bool abandoning = all->abandoning;
    (void)pthread_mutex_unlock(&all->lock);
    wake(other);
    if (abandoning)
        hand_back(w, count, now_ns);
    else
        run_batch(w, count);
    const uint64_t ns = br_clock_now_ns() - now_ns;
    (void)pthread_mutex_lock(&all->lock);
    end_batch(w, tokens, ns);
    return true;
}

static void *serve(void *argument)
{
    scorer *w = argument;
    br_workers *all = w->all;
    (void)pthread_mutex_lock(&all->lock);
    for (;;) {
        if (run_errand(w)) continue;
        if (serve_batch(w)) continue;
        if (feed(w)) continue; /* or: expired since serve_batch read the time */
        if (all->errand != NULL && all->errand_worker == w->index) continue; /* came while feeding */
        if (all->stopping) break;
        sleep_until_called(w);
    }
    (void)pthread_mutex_unlock(&all->lock);
    return NULL;
}

static br_status worker_init(scorer *w, br_workers *all, int32_t index)
{
    const size_t seqs = (size_t)all->options.seqs_max;
    w->all = all;
    w->index = index;
    w->device = all->options.devices->device_of[index];
    (void)pthread_cond_init(&w->work, NULL);
    w->work_made = true;
    const br_status status = br_packing_init(&w->packing, device_of(w)->tokens_max, all->options.seqs_max);
    if (status != BR_OK) return status;
    w->quality = br_alloc_array(seqs * BR_CANDIDATES_MAX, sizeof *w->quality);
    w->items = br_alloc_array(seqs, sizeof *w->items);
    if (w->quality == NULL || w->items == NULL) return BR_ENOMEM;
    w->started = pthread_create(&w->thread, NULL, serve, w) == 0;
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
    (void)pthread_mutex_init(&all->lock, NULL);
    (void)pthread_cond_init(&all->ran, NULL);
    all->lock_made = true;
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
    (void)pthread_mutex_lock(&all->lock);
    all->stopping = true;
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (all->workers[i].work_made) (void)pthread_cond_signal(&all->workers[i].work);
    (void)pthread_mutex_unlock(&all->lock);
    for (int32_t i = 0; i < all->options.devices->worker_count; i++)
        if (all->workers[i].started) (void)pthread_join(all->workers[i].thread, NULL);
}

void br_workers_destroy(br_workers *workers)
{
    if (workers == NULL) return;
    if (workers->workers != NULL) {
        stop(workers);
        for (int32_t i = 0; i < workers->options.devices->worker_count; i++) {
            if (workers->workers[i].work_made) (void)pthread_cond_destroy(&workers->workers[i].work);
            br_packing_deinit(&workers->workers[i].packing);
            free(workers->workers[i].quality);
            free(workers->workers[i].items);
        }
        free(workers->workers);
    }
    if (workers->lock_made) {
        (void)pthread_cond_destroy(&workers->ran);
        (void)pthread_mutex_destroy(&workers->lock);
    }
    br_batcher_destroy(workers->batcher);
    free(workers->given_up);
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
    scorer *w = call_one(workers, true);
    (void)pthread_mutex_unlock(&workers->lock);
    wake(w);
    return w != NULL;
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
    scorer *w = fits && count > 0 ? call_one(workers, false) : NULL;
    (void)pthread_mutex_unlock(&workers->lock);
    wake(w); /* after unlocking: the woken thread would only wait for the lock */
    return fits ? BR_OK : BR_EBUSY;
}

bool br_workers_run_on(br_workers *workers, int32_t worker, br_errand_fn errand, void *context)
{
    scorer *w = &workers->workers[worker];
    (void)pthread_mutex_lock(&workers->lock);
    assert(workers->errand == NULL);
    workers->errand = errand;
    workers->errand_context = context;
    workers->errand_worker = worker;
    workers->errand_begun = false;
    (void)pthread_cond_signal(&w->work);
    while (workers->errand != NULL && (workers->errand_begun || !w->stuck))
        (void)pthread_cond_wait(&workers->ran, &workers->lock);
    const bool ran = workers->errand == NULL;
    workers->errand = NULL;
    (void)pthread_mutex_unlock(&workers->lock);
    return ran;
}

/* Passes that do not end. */

/* Takes the jobs of a pass that was under way at too many looks into all->given_up; how many. */
static int32_t take_overdue(scorer *w)
{
    br_workers *all = w->all;
    (void)pthread_mutex_lock(&all->lock);
    const int32_t count = w->held > 0 && ++w->looks > BR_WORKERS_LOOKS ? w->held : 0;
    for (int32_t i = 0; i < count; i++) all->given_up[i] = w->items[i];
    if (count > 0) {
        w->held = 0;
        w->stuck = true;
        all->stations[w->device].stuck++;
        (void)atomic_fetch_or(&all->stuck, UINT32_C(1) << w->device);
        (void)pthread_cond_broadcast(&all->ran);
    }
    (void)pthread_mutex_unlock(&all->lock);
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
        (void)pthread_mutex_lock(&all->lock);
        const int32_t count =
            somebody_works(all) ? 0 : br_batcher_take(all->batcher, all->given_up, all->tokens_max, now_ns);
        (void)pthread_mutex_unlock(&all->lock);
        if (count == 0) return;
        for (int32_t i = 0; i < count; i++) finish((br_job *)all->given_up[i], BR_EDEVICE, now_ns);
    }
}

void br_workers_look(br_workers *workers)
{
    for (int32_t i = 0; i < workers->options.devices->worker_count; i++) {
        scorer *w = &workers->workers[i];
        const int32_t count = take_overdue(w);
        if (count == 0) continue;
        BR_LOG(workers->options.log, BR_LOG_ERROR, "pass_given_up", BR_I64("worker", i),
               BR_I64("device", w->device), BR_I64("queries", count));
        br_metrics_add(workers->options.metrics, BR_COUNTER_passes_given_up, 1);
        fail_batch(w, workers->given_up, count);
    }
    fail_waiting(workers);
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
    (void)pthread_mutex_lock(&workers->lock);
    for (int32_t i = 0; i < workers->options.devices->count; i++)
        out |= (workers->stations[i].out ? UINT32_C(1) : 0) << i;
    (void)pthread_mutex_unlock(&workers->lock);
    return out;
}

void br_workers_readmit(br_workers *workers, int32_t device)
{
    (void)pthread_mutex_lock(&workers->lock);
    workers->stations[device].out = false;
    workers->stations[device].token_ns = 0; /* whether it is slow shows anew */
    wake_all(workers);
    (void)pthread_mutex_unlock(&workers->lock);
}

int32_t br_workers_waiting(br_workers *workers)
{
    (void)pthread_mutex_lock(&workers->lock);
    const int32_t waiting = br_batcher_queries(workers->batcher);
    (void)pthread_mutex_unlock(&workers->lock);
    return waiting;
}
