/* test_workers.c - the threads: jobs, errands, expiry, abandonment. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "core/clock.h"
#include "support/oom.h"
#include "support/service_fixture.h"
#include "workers/workers.h"

enum { JOBS = 40, TOKENS = 4 };

static br_loaded *loaded; /* without an encoder: qualities are BR_NOOP_QUALITY */
static br_metrics metrics;
static br_devices several[3]; /* one device with 1, 2, 3 workers */

static int open_loaded(void **state)
{
    (void)state;
    for (int32_t i = 0; i < 3; i++) {
        if (br_devices_add(&several[i], NULL, i + 1) != BR_OK) return -1;
        br_devices_fit(&several[i], 128, 1);
    }
    const br_loaded_options options = {
        .folder = service_tiny_bundle(), .devices = &several[2], .seqs_max = 8};
    br_error error = {0};
    br_metrics_init(&metrics);
    return br_loaded_create(&loaded, &options, &error) == BR_OK ? 0 : -1;
}

static int close_loaded(void **state)
{
    (void)state;
    if (!br_loaded_release(loaded)) return -1;
    br_loaded_destroy(loaded);
    return 0;
}

static br_workers_options options_for(int32_t count)
{
    return (br_workers_options){
        .devices = &several[count - 1], .seqs_max = 8, .queue_max = JOBS, .metrics = &metrics};
}

typedef struct work {
    br_job job; /* first */
    float quality[BR_CANDIDATES_MAX];
    atomic_bool done;
} work;

static void on_done(br_job *job)
{
    atomic_store(&((work *)job)->done, true);
}

static void fill(work *w, uint64_t deadline_ns)
{
    static const int32_t ids[TOKENS] = {1, 2049, 600, 2};
    memset(w, 0, sizeof *w);
    w->job = (br_job){
        .item = {.deadline_ns = deadline_ns, .group = loaded, .tokens = TOKENS},
        .ids = ids,
        .quality = w->quality,
        .done = on_done,
    };
}

static void wait_done(work *w)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (!atomic_load(&w->done)) assert_true(br_clock_now_ns() < until_ns);
}

static void push(br_workers *workers, work *w, int32_t count)
{
    br_job *jobs[JOBS];
    for (int32_t i = 0; i < count; i++) jobs[i] = &w[i].job;
    assert_int_equal(br_workers_push(workers, jobs, count), BR_OK);
}

static void test_every_job_comes_back_scored(void **state)
{
    (void)state;
    static work w[JOBS];
    const br_workers_options options = options_for(2);
    br_workers *workers;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    for (int i = 0; i < JOBS; i++) fill(&w[i], UINT64_MAX);
    push(workers, w, JOBS);
    for (int i = 0; i < JOBS; i++) {
        wait_done(&w[i]);
        assert_int_equal(w[i].job.status, BR_OK);
        assert_true(w[i].quality[0] == BR_NOOP_QUALITY);
        assert_true(w[i].job.queued_ns <= w[i].job.started_ns);
        assert_true(w[i].job.started_ns <= w[i].job.finished_ns);
        assert_in_range(w[i].job.batch, 1, 8);
    }
    assert_int_equal(br_workers_waiting(workers), 0);
    br_workers_destroy(workers);
}

static void test_destroying_finishes_what_was_pushed(void **state)
{
    (void)state;
    static work w[JOBS];
    const br_workers_options options = options_for(1);
    br_workers *workers;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    for (int i = 0; i < JOBS; i++) fill(&w[i], UINT64_MAX);
    push(workers, w, JOBS);
    br_workers_destroy(workers);
    for (int i = 0; i < JOBS; i++) assert_true(atomic_load(&w[i].done));
}

typedef struct leader {
    work own; /* first */
    work follower;
    br_workers *workers;
    atomic_bool leaving;
} leader;

static void push_follower(br_job *job)
{
    leader *l = (leader *)job;
    while (!atomic_load(&l->leaving)) (void)sched_yield();
    nng_msleep(20); /* into br_workers_destroy */
    push(l->workers, &l->follower, 1);
    on_done(job);
}

/* With deadlines: the workers still set the alarm that watches them. */
static void test_what_is_pushed_while_destroying_is_finished(void **state)
{
    (void)state;
    static leader l;
    const br_workers_options options = options_for(1);
    assert_int_equal(br_workers_create(&l.workers, &options), BR_OK);
    const uint64_t deadline_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    fill(&l.own, deadline_ns);
    fill(&l.follower, deadline_ns);
    l.own.job.done = push_follower;
    push(l.workers, &l.own, 1);
    atomic_store(&l.leaving, true);
    br_workers_destroy(l.workers);
    assert_true(atomic_load(&l.own.done));
    assert_true(atomic_load(&l.follower.done));
}

typedef struct holder {
    br_workers *workers;
    pthread_t thread;
    atomic_bool held;
    atomic_bool released;
    int32_t ran_on;
} holder;

static void wait_released(void *context, int32_t worker)
{
    holder *h = context;
    h->ran_on = worker;
    atomic_store(&h->held, true);
    while (!atomic_load(&h->released)) (void)sched_yield();
}

static void *run_errand(void *argument)
{
    holder *h = argument;
    assert_true(br_workers_run_on(h->workers, 0, wait_released, h));
    return NULL;
}

static void hold(holder *h, br_workers *workers)
{
    memset(h, 0, sizeof *h);
    h->workers = workers;
    h->ran_on = -1;
    assert_int_equal(pthread_create(&h->thread, NULL, run_errand, h), 0);
    while (!atomic_load(&h->held)) (void)sched_yield();
}

static void release(holder *h)
{
    atomic_store(&h->released, true);
    assert_int_equal(pthread_join(h->thread, NULL), 0);
}

static void test_queued_jobs_leave_together_up_to_the_batch_limit(void **state)
{
    (void)state;
    static work w[12];
    const br_workers_options options = options_for(1);
    br_workers *workers;
    holder h;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    hold(&h, workers);
    assert_int_equal(h.ran_on, 0);
    for (int i = 0; i < 12; i++) fill(&w[i], UINT64_MAX);
    push(workers, w, 5);
    push(workers, w + 5, 7);
    assert_int_equal(br_workers_waiting(workers), 12);
    release(&h);
    for (int i = 0; i < 12; i++) wait_done(&w[i]);
    for (int i = 0; i < 12; i++) assert_int_equal(w[i].job.batch, i < 8 ? 8 : 4);
    br_workers_destroy(workers);
}

static void test_expired_jobs_come_back_uncomputed(void **state)
{
    (void)state;
    static work w[3];
    const uint64_t batches = br_metrics_get(&metrics, BR_COUNTER_batches);
    const br_workers_options options = options_for(1);
    br_workers *workers;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    for (int i = 0; i < 3; i++) fill(&w[i], 1);
    push(workers, w, 3);
    for (int i = 0; i < 3; i++) {
        wait_done(&w[i]);
        assert_int_equal(w[i].job.status, BR_ETIMEDOUT);
        assert_int_equal(w[i].job.started_ns, 0);
    }
    assert_int_equal(br_metrics_get(&metrics, BR_COUNTER_batches), batches);
    br_workers_destroy(workers);
}

/* The only worker is held, as if by a long pass. */
static void test_a_deadline_that_passes_in_the_queue_is_told_at_once(void **state)
{
    (void)state;
    static const int64_t away_ms[] = {30, 10, 20}; /* each is the earliest in its turn */
    static work w[4];
    const br_workers_options options = options_for(1);
    br_workers *workers;
    holder h;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    hold(&h, workers);
    const uint64_t now_ns = br_clock_now_ns();
    for (int i = 0; i < 3; i++) fill(&w[i], now_ns + (uint64_t)away_ms[i] * BR_NS_PER_MS);
    fill(&w[3], UINT64_MAX);
    for (int i = 0; i < 4; i++) push(workers, &w[i], 1);
    for (int i = 0; i < 3; i++) wait_done(&w[i]);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(w[i].job.status, BR_ETIMEDOUT);
        assert_true(w[i].job.finished_ns >= w[i].job.item.deadline_ns);
    }
    assert_false(atomic_load(&w[3].done));
    assert_int_equal(br_workers_waiting(workers), 1);
    release(&h);
    br_workers_destroy(workers);
    assert_int_equal(w[3].job.status, BR_OK);
}

static void test_a_push_that_does_not_fit_keeps_nothing(void **state)
{
    (void)state;
    static work w[JOBS];
    const br_workers_options options = options_for(1);
    br_workers *workers;
    holder h;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    hold(&h, workers);
    for (int i = 0; i < JOBS; i++) fill(&w[i], UINT64_MAX);
    push(workers, w, JOBS - 1);
    static work more[2];
    for (int i = 0; i < 2; i++) fill(&more[i], UINT64_MAX);
    br_job *two[2] = {&more[0].job, &more[1].job};
    assert_int_equal(br_workers_push(workers, two, 2), BR_EBUSY);
    assert_int_equal(br_workers_waiting(workers), JOBS - 1);
    push(workers, w + JOBS - 1, 1);
    release(&h);
    br_workers_destroy(workers);
    for (int i = 0; i < JOBS; i++) assert_true(atomic_load(&w[i].done));
    assert_false(atomic_load(&more[0].done));
}

static void test_abandoned_jobs_come_back_closed(void **state)
{
    (void)state;
    static work w[20];
    const br_workers_options options = options_for(1);
    br_workers *workers;
    holder h;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    hold(&h, workers);
    for (int i = 0; i < 20; i++) fill(&w[i], UINT64_MAX);
    push(workers, w, 20);
    br_workers_abandon(workers);
    release(&h);
    br_workers_destroy(workers);
    for (int i = 0; i < 20; i++) {
        assert_true(atomic_load(&w[i].done));
        assert_int_equal(w[i].job.status, BR_ECLOSED);
    }
}

static void note_worker(void *context, int32_t worker)
{
    *(int32_t *)context = worker;
}

static void test_an_errand_runs_on_the_worker_it_names(void **state)
{
    (void)state;
    const br_workers_options options = options_for(3);
    br_workers *workers;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    assert_int_equal(br_workers_count(workers), 3);
    for (int32_t i = 0; i < 3; i++) {
        int32_t ran_on = -1;
        assert_true(br_workers_run_on(workers, i, note_worker, &ran_on));
        assert_int_equal(ran_on, i);
    }
    br_workers_destroy(workers);
    br_workers_destroy(NULL);
}

static void wait_for_job(void *context, int32_t worker)
{
    (void)worker;
    wait_done(context);
}

/* The job and the errand come to the same sleeping worker at once; another sleeps. */
static void test_a_job_waits_for_no_errand_of_the_worker_called_for_it(void **state)
{
    (void)state;
    const br_workers_options options = options_for(2);
    br_workers *workers;
    assert_int_equal(br_workers_create(&workers, &options), BR_OK);
    for (int i = 0; i < 100; i++) {
        static work w;
        fill(&w, UINT64_MAX);
        push(workers, &w, 1);
        assert_true(br_workers_run_on(workers, 0, wait_for_job, &w));
    }
    br_workers_destroy(workers);
}

static void test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    br_status status = BR_EINTERNAL;
    const br_workers_options options = options_for(2);
    BR_OOM_SWEEP({
        br_workers *workers;
        status = br_workers_create(&workers, &options);
        br_workers_destroy(workers);
    });
    assert_int_equal(status, BR_OK);
}

typedef struct kitchen {
    br_workers *workers;
    work w[4];
    atomic_int served;
} kitchen;

static bool serve_one(void *context)
{
    kitchen *k = context;
    const int i = atomic_fetch_add(&k->served, 1);
    if (i < 0 || i >= 4) return false; /* below 0: not open yet */
    push(k->workers, &k->w[i], 1);
    return true;
}

static void test_a_nudged_worker_feeds_itself_before_it_scores(void **state)
{
    (void)state;
    static kitchen k;
    br_workers_options options = options_for(1);
    options.feed = serve_one;
    options.feed_context = &k;
    atomic_store(&k.served, -1000000);
    assert_int_equal(br_workers_create(&k.workers, &options), BR_OK);
    for (int i = 0; i < 4; i++) fill(&k.w[i], UINT64_MAX);
    holder h;
    hold(&h, k.workers);
    assert_false(br_workers_nudge(k.workers)); /* the only one is busy */
    atomic_store(&k.served, 0);
    release(&h);
    for (int i = 0; i < 4; i++) {
        wait_done(&k.w[i]);
        assert_int_equal(k.w[i].job.batch, 4); /* it fed until there was no more, then scored all */
    }
    br_workers_destroy(k.workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_job_comes_back_scored),
        cmocka_unit_test(test_destroying_finishes_what_was_pushed),
        cmocka_unit_test(test_what_is_pushed_while_destroying_is_finished),
        cmocka_unit_test(test_queued_jobs_leave_together_up_to_the_batch_limit),
        cmocka_unit_test(test_expired_jobs_come_back_uncomputed),
        cmocka_unit_test(test_a_deadline_that_passes_in_the_queue_is_told_at_once),
        cmocka_unit_test(test_a_push_that_does_not_fit_keeps_nothing),
        cmocka_unit_test(test_abandoned_jobs_come_back_closed),
        cmocka_unit_test(test_an_errand_runs_on_the_worker_it_names),
        cmocka_unit_test(test_a_job_waits_for_no_errand_of_the_worker_called_for_it),
        cmocka_unit_test(test_every_failing_allocation_is_survived),
        cmocka_unit_test(test_a_nudged_worker_feeds_itself_before_it_scores),
    };
    return cmocka_run_group_tests(tests, open_loaded, close_loaded);
}
