/*
 * load.c - see load.h.
 *
 *   slot: idle -> sending -> receiving -> idle          on nng's threads; an open loop starts elsewhere
 *
 * A closed loop's slots send again by themselves; an open loop's go to the list of idle ones, where the
 * thread that keeps the schedule takes them.
 */
#include "load.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nng/nng.h> /* first: the others need it */

#include <nng/protocol/reqrep0/req.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"
#include "protocol/reply.h"
#include "schedule.h"
#include "usage.h"

enum { LIVE_MS = 500, ARENA_KEEP = 1 << 20 };

typedef struct load load;

typedef struct slot {
    load *load;
    struct slot *next_idle;
    nng_ctx ctx;
    nng_aio *aio;
    int connection;
    bool receiving;
    uint64_t due_ns;
    int request; /* its number in prompts */
    br_arena arena;
} slot;

struct load {
    const load_options *options;
    const prompts *prompts;
    load_result *result;
    nng_socket sockets[LOAD_URLS_MAX * 16];
    int socket_count;
    slot *slots;
    int slot_count;
    uint64_t start_ns;
    uint64_t from_ns; /* measured: due in [from, until) */
    uint64_t until_ns;
    _Atomic uint64_t next_request;
    _Atomic uint64_t taken; /* measured requests that may be sent, against options->requests */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    slot *idle;
    int busy;
};

static bool is_measured(const load *l, uint64_t due_ns)
{
    return due_ns >= l->from_ns && due_ns < l->until_ns;
}

static void count(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_fetch_add_explicit(counter, amount, memory_order_relaxed);
}

/* Sends the next request. False: it is over. */
static bool send_next(slot *s, uint64_t due_ns)
{
    load *l = s->load;
    const uint64_t now_ns = br_clock_now_ns();
    if (due_ns >= l->until_ns) return false;
    if (is_measured(l, due_ns)) {
        if (l->options->requests != 0 && atomic_fetch_add(&l->taken, 1) >= l->options->requests) return false;
        count(&l->result->sent, 1);
        histogram_add(&l->result->late, now_ns > due_ns ? now_ns - due_ns : 0);
    }
    s->request = (int)(atomic_fetch_add(&l->next_request, 1) % (uint64_t)l->prompts->count);
    const br_str request = l->prompts->requests[s->request];
    if (l->options->recorder != NULL) recorder_sent(l->options->recorder, now_ns, s->connection, s->request);
    nng_msg *message;
    if (nng_msg_alloc(&message, request.size) != 0) abort();
    memcpy(nng_msg_body(message), request.data, request.size);
    s->receiving = false;
    s->due_ns = due_ns;
    nng_aio_set_msg(s->aio, message);
    nng_ctx_send(s->ctx, s->aio);
    return true;
}

/* The slot has nothing to do; in an open loop it waits in the list of idle ones. */
static void rest(slot *s)
{
    load *l = s->load;
    br_lock(&l->lock);
    s->next_idle = l->idle;
    l->idle = s;
    l->busy--;
    br_cond_signal(&l->changed);
    br_unlock(&l->lock);
}

static void count_results(const slot *s, const br_reply *reply)
{
    load_result *r = s->load->result;
    recorder *learner = s->load->options->recorder;
    for (size_t i = 0; i < reply->result_count; i++) {
        const br_reply_result *one = &reply->results[i];
        if (one->code == BR_CODE_NONE) {
            count(&r->queries, 1);
            count(&r->tokens, one->tokens);
            if (learner != NULL) recorder_answered(learner, s->request, (int)i, one->tokens);
        } else {
            count(&r->query_errors[one->code], 1);
        }
    }
    histogram_add(&r->tokenize, reply->timing.tokenize_us);
    histogram_add(&r->queue, reply->timing.queue_us);
    histogram_add(&r->compute, reply->timing.compute_us);
    histogram_add(&r->total, reply->timing.total_us);
    const uint64_t batch = reply->timing.batch < LOAD_BATCH_MAX ? reply->timing.batch : LOAD_BATCH_MAX;
    count(&r->batches[batch], 1);
}

static void look_into(slot *s, nng_msg *message, uint64_t took_ns)
{
    load_result *r = s->load->result;
    count(&r->answered, 1);
    br_reply reply = {.ok = true};
    if (!s->load->options->raw) {
        br_error error = {0};
        if (br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), &s->arena, &error) !=
                BR_OK ||
            (reply.ok && reply.result_count != (size_t)s->load->options->queries)) {
            br_arena_reset(&s->arena, ARENA_KEEP);
            count(&r->broken, 1);
            return;
        }
    }
    if (!reply.ok) {
        count(&r->refused[reply.code], 1);
        histogram_add(&r->refusal, took_ns);
        return;
    }
    count(&r->ok, 1);
    histogram_add(&r->latency, took_ns);
    if (s->load->options->raw)
        count(&r->queries, (uint64_t)s->load->options->queries);
    else
        count_results(s, &reply);
    br_arena_reset(&s->arena, ARENA_KEEP);
}

static void on_event(void *argument)
{
    slot *s = argument;
    load *l = s->load;
    const int failed = nng_aio_result(s->aio);
    if (failed == NNG_ECLOSED || failed == NNG_ECANCELED) return;
    if (failed == 0 && !s->receiving) {
        s->receiving = true;
        nng_ctx_recv(s->ctx, s->aio);
        return;
    }
    const uint64_t now_ns = br_clock_now_ns();
    const bool measured = is_measured(l, s->due_ns);
    if (failed != 0) {
        if (!s->receiving) nng_msg_free(nng_aio_get_msg(s->aio));
        if (measured) count(failed == NNG_ETIMEDOUT ? &l->result->timed_out : &l->result->broken, 1);
    } else {
        nng_msg *message = nng_aio_get_msg(s->aio);
        if (measured) look_into(s, message, now_ns - s->due_ns);
        nng_msg_free(message);
    }
    if (l->options->rate > 0 || !send_next(s, now_ns)) rest(s);
}

static void sleep_until(uint64_t ns)
{
    const struct timespec until = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

static void say(const load *l, uint64_t *said_ns, uint64_t *said_queries)
{
    const load_options *o = l->options;
    const load_result *r = l->result;
    const uint64_t now_ns = br_clock_now_ns();
    if (!o->live || now_ns - *said_ns < LIVE_MS * (uint64_t)BR_NS_PER_MS) return;
    const double seconds = (double)(now_ns - *said_ns) / 1e9;
    const uint64_t queries = atomic_load(&r->queries);
    const bool warm = now_ns >= l->from_ns;
    (void)fprintf(
        stderr, "\r%g%s  %s %5.1f s  %9.0f queries/s  p50 %.2f ms  p99 %.2f ms  %llu refused \033[K",
        o->rate > 0 ? o->rate : o->in_flight, o->rate > 0 ? "/s" : " in flight",
        warm ? "measured" : "warming up", (double)(now_ns - (warm ? l->from_ns : l->start_ns)) / 1e9,
        (double)(queries - *said_queries) / seconds, (double)histogram_percentile(&r->latency, 0.5) / 1e6,
        (double)histogram_percentile(&r->latency, 0.99) / 1e6,
        (unsigned long long)(atomic_load(&r->answered) - atomic_load(&r->ok)));
    *said_ns = now_ns;
    *said_queries = queries;
}

static slot *take_idle(load *l, uint64_t until_ns)
{
    br_lock(&l->lock);
    while (l->idle == NULL && br_clock_now_ns() < until_ns)
        br_cond_wait_until(&l->changed, &l->lock, until_ns);
    slot *s = l->idle;
    if (s != NULL) {
        l->idle = s->next_idle;
        l->busy++;
    }
    br_unlock(&l->lock);
    return s;
}

static bool is_used_up(load *l)
{
    return l->options->requests != 0 && atomic_load(&l->taken) >= l->options->requests;
}

static void run_open(load *l, uint64_t start_ns)
{
    schedule times;
    schedule_init(&times, l->options->rate, l->options->poisson, l->options->seed);
    uint64_t said_ns = start_ns;
    uint64_t said_queries = 0;
    const uint64_t patience_ns = l->until_ns + (uint64_t)l->options->timeout_ms * (uint64_t)BR_NS_PER_MS;
    for (;;) {
        const uint64_t due_ns = start_ns + schedule_next(&times);
        if (due_ns >= l->until_ns || is_used_up(l)) return;
        if (due_ns > br_clock_now_ns()) sleep_until(due_ns);
        slot *s = take_idle(l, patience_ns);
        if (s == NULL) return;
        if (!send_next(s, due_ns)) rest(s);
        say(l, &said_ns, &said_queries);
    }
}

static void run_closed(load *l, uint64_t start_ns)
{
    uint64_t said_ns = start_ns;
    uint64_t said_queries = 0;
    for (int i = 0; i < l->slot_count; i++) {
        slot *s = take_idle(l, UINT64_MAX / 2);
        if (!send_next(s, br_clock_now_ns())) rest(s);
    }
    while (br_clock_now_ns() < l->until_ns && !is_used_up(l)) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 20 * BR_NS_PER_MS}, NULL);
        say(l, &said_ns, &said_queries);
    }
}

/* Waits until every request under way is answered or has timed out. */
static void settle(load *l)
{
    br_lock(&l->lock);
    while (l->busy > 0) br_cond_wait(&l->changed, &l->lock);
    br_unlock(&l->lock);
}

static br_status connect_all(load *l, br_error *error)
{
    const int url_count = (int)l->options->urls.count;
    for (int i = 0; i < url_count * l->options->connections; i++) {
        const char *url = l->options->urls.items[i % url_count];
        nng_socket *socket = &l->sockets[l->socket_count];
        int failed = nng_req0_open(socket);
        if (failed == 0) l->socket_count++;
        if (failed == 0) failed = nng_socket_set_ms(*socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
        if (failed == 0) failed = nng_dial(*socket, url, NULL, 0);
        if (failed != 0) return br_fail(error, BR_EIO, "%s: %s", url, nng_strerror(failed));
    }
    return BR_OK;
}

static br_status make_slots(load *l, br_error *error)
{
    l->slots = calloc((size_t)l->options->in_flight, sizeof *l->slots);
    if (l->slots == NULL) return br_no_memory(error, "the load");
    for (int i = 0; i < l->options->in_flight; i++) {
        slot *s = &l->slots[i];
        *s = (slot){.load = l, .next_idle = l->idle, .connection = i % l->socket_count};
        br_arena_init(&s->arena);
        if (nng_ctx_open(&s->ctx, l->sockets[s->connection]) != 0 || nng_aio_alloc(&s->aio, on_event, s) != 0)
            return br_fail(error, BR_ENOMEM, "no context for request %d", i);
        nng_aio_set_timeout(s->aio, l->options->timeout_ms);
        l->slot_count = i + 1;
        l->idle = s;
    }
    return BR_OK;
}

static bool make_histograms(load_result *r)
{
    return histogram_init(&r->latency) && histogram_init(&r->refusal) && histogram_init(&r->late) &&
           histogram_init(&r->tokenize) && histogram_init(&r->queue) && histogram_init(&r->compute) &&
           histogram_init(&r->total);
}

void load_deinit(load_result *r)
{
    histogram *const all[] = {&r->latency, &r->refusal, &r->late, &r->tokenize,
                              &r->queue,   &r->compute, &r->total};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) histogram_deinit(all[i]);
}

static void run(load *l)
{
    const load_options *o = l->options;
    const uint64_t start_ns = br_clock_now_ns();
    l->start_ns = start_ns;
    l->from_ns = start_ns + (uint64_t)(o->warmup_s * 1e9);
    l->until_ns = l->from_ns + (uint64_t)(o->seconds * 1e9);
    const double server_s = usage_of_process_s(o->server_pid);
    const double client_s = usage_of_this_s();
    if (o->rate > 0)
        run_open(l, start_ns);
    else
        run_closed(l, start_ns);
    const uint64_t sent_ns = br_clock_now_ns();
    settle(l);
    /* A request that was sent before the end and answered after it counts, and so does the time until
     * then. */
    const uint64_t end_ns = o->rate > 0 ? br_clock_now_ns() : sent_ns;
    l->result->seconds = end_ns > l->from_ns ? (double)(end_ns - l->from_ns) / 1e9 : 0;
    const double whole_s = (double)(br_clock_now_ns() - start_ns) / 1e9;
    const double server_end_s = usage_of_process_s(o->server_pid);
    l->result->server_cpu = server_s >= 0 && server_end_s >= 0 ? (server_end_s - server_s) / whole_s : -1;
    l->result->client_cpu = (usage_of_this_s() - client_s) / whole_s;
    if (o->live) (void)fprintf(stderr, "\r\033[K");
}

br_status load_run(load_result *out, const load_options *options, const prompts *source, br_error *error)
{
    memset(out, 0, sizeof *out);
    load *l = calloc(1, sizeof *l);
    if (l == NULL || !make_histograms(out)) {
        free(l);
        return br_no_memory(error, "the load");
    }
    l->options = options;
    l->prompts = source;
    l->result = out;
    br_mutex_init(&l->lock);
    br_cond_init(&l->changed);

    br_status status = connect_all(l, error);
    if (status == BR_OK) status = make_slots(l, error);
    if (status == BR_OK) run(l);
    for (int i = 0; i < l->slot_count; i++) {
        nng_aio_stop(l->slots[i].aio);
        nng_aio_free(l->slots[i].aio);
        (void)nng_ctx_close(l->slots[i].ctx);
        br_arena_deinit(&l->slots[i].arena);
    }
    for (int i = 0; i < l->socket_count; i++) (void)nng_close(l->sockets[i]);
    br_cond_destroy(&l->changed);
    br_mutex_destroy(&l->lock);
    free(l->slots);
    free(l);
    return status;
}
