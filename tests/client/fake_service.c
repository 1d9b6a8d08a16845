/* fake_service.c - the scripted service of fake_service.h. */
#include "fake_service.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/util/platform.h>

static int append(void *sink, const char *bytes, size_t size)
{
    fake_reply *to = sink;
    if (size > sizeof to->bytes - to->used) return -1;
    memcpy(to->bytes + to->used, bytes, size);
    to->used += size;
    return 0;
}

static const double fake_qualities[] = {0.25, 0.5};
static const br_reply_candidate fake_candidates[] = {
    {.model = {"small", 5}, .n = 2, .quality = 0.5, .cost = 0.001, .allowed = true},
    {.model = {"large", 5}, .n = 1, .quality = 1, .cost = NAN, .reason = {"no_price", 8}},
};
static const br_info_model fake_models[] = {
    {.name = {"small", 5},
     .has_price = true,
     .input_price = 1e-6,
     .output_price = 2e-6,
     .avg_output_tokens = 100},
    {.name = {"large", 5}},
};
static const br_policy_row fake_rows[] = {
    {.threshold = 0.25, .reference_share = 0, .mean_cost = 0.0005, .quality = 0.5},
    {.threshold = 0.5, .reference_share = 0.25, .mean_cost = 0.001, .quality = 0.75},
};
static const br_str fake_names[] = {{"small", 5}};
static const br_str fake_devices[] = {{"cpu0", 4}, {"cpu1", 4}};

/* n is the size of the text, so a caller can tell that an answer is its own. The text "bad" gives an
 * error. */
static void fill_results(br_reply_result *results, const br_request *request, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const br_query *query = i < request->query_count ? &request->queries[i] : &request->queries[0];
        results[i] = (br_reply_result){
            .model = BR_STR_LITERAL("small"),
            .n = query->has_text ? query->text.size : query->token_count,
            .quality = 0.75,
            .cost = 0.002,
            .met = true,
            .margin = 0.25,
            .tokens = 7,
            .truncated = true,
        };
        if (request->op == BR_OP_SCORE) {
            results[i].qualities = fake_qualities;
            results[i].quality_count = 2;
        }
        if (request->explain) {
            results[i].candidates = fake_candidates;
            results[i].candidate_count = 2;
        }
        if (br_str_equal(query->text, BR_STR_LITERAL("bad")))
            results[i] =
                (br_reply_result){.code = BR_CODE_INFEASIBLE, .message = BR_STR_LITERAL("nothing fits")};
    }
}

void fake_answer(const fake *f, fake_reply *to, const br_request *request, br_arena *arena)
{
    static const br_info info = {
        .candidates = fake_candidates,
        .candidate_count = 2,
        .reference = 1,
        .models = fake_models,
        .model_count = 2,
        .policy = {.has = BR_HAS_KIND | BR_HAS_THRESHOLD | BR_HAS_MODELS | BR_HAS_FALLBACK,
                   .kind = BR_POLICY_THRESHOLD,
                   .threshold = 0.5,
                   .fallback = BR_FALLBACK_REFERENCE,
                   .models = fake_names,
                   .model_count = 1},
        .measured = {.rows = fake_rows, .row_count = 2, .prompts = 12},
        .max_queries = 64,
        .max_tokens = 128,
        .max_message_bytes = 1 << 20,
        .max_text_bytes = 1 << 16,
        .version = {"9.9", 3},
        .engine = {"reference", 9},
        .precision = {"f32", 3},
        .devices = fake_devices,
        .device_count = 2,
    };
    const size_t count = request->query_count + f->extra_results;
    br_reply_result *results = br_arena_array(arena, count, sizeof *results);
    fill_results(results, request, count);
    const br_reply reply = {
        .ok = true,
        .op = request->op,
        .results = results,
        .result_count = count,
        .has_bundle = true,
        .bundle_name = BR_STR_LITERAL("tiny"),
        .bundle_hash = BR_STR_LITERAL("5f0c"),
        .has_timing = true,
        .timing = {.tokenize_us = 1, .queue_us = 2, .compute_us = 3, .total_us = 4, .batch = 5},
        .info = request->op == BR_OP_INFO ? &info : NULL,
    };
    const int failed = br_reply_encode(&reply, to, append);
    assert(failed == 0);
    (void)failed;
}

static void note_request(fake *f, const br_request *request)
{
    atomic_fetch_add(&f->requests, 1);
    if (request->op == BR_OP_PING) {
        atomic_fetch_add(&f->pings, 1);
        return;
    }
    atomic_store(&f->last_deadline_ms, request->has_deadline ? request->deadline_ms : 0);
    pthread_mutex_lock(&f->mutex);
    snprintf(f->last_bundle, sizeof f->last_bundle, "%.*s", (int)request->bundle.size,
             request->bundle.size == 0 ? "" : request->bundle.data);
    f->last_policy = request->policy;
    pthread_mutex_unlock(&f->mutex);
}

/* Takes one of `left`, if there is one; -1: there always is. */
static bool take_one(atomic_int *left)
{
    int now = atomic_load(left);
    while (now > 0 && !atomic_compare_exchange_weak(left, &now, now - 1)) continue;
    return now != 0;
}

static void refuse(const fake *f, fake_reply *to, br_code code, br_str message)
{
    const br_reply reply = {
        .code = code, .message = message, .has_retry = f->retry_ms > 0, .retry_ms = f->retry_ms};
    br_reply_encode(&reply, to, append);
}

/* A real service answers pings as long as it lives: of all refusals only not_ready is an answer to a ping
 * too. */
static bool take_refusal(fake *f, bool is_ping)
{
    if (is_ping) return f->refusal == BR_CODE_NOT_READY && atomic_load(&f->refusals) != 0;
    return take_one(&f->refusals);
}

/* False: nothing is sent. */
static bool play(fake *f, fake_reply *to, nng_msg *message)
{
    br_arena arena;
    br_arena_init(&arena);
    const br_request_limits limits = {.queries_max = 1024,
                                      .text_bytes_max = 1 << 20,
                                      .message_bytes_max = 1 << 26,
                                      .admin = strstr(f->url, "admin") != NULL};
    br_request request;
    br_error error = {0};
    const br_code code =
        br_request_decode(&request, nng_msg_body(message), nng_msg_len(message), &limits, &arena, &error);
    note_request(f, &request);
    const bool is_ping = request.op == BR_OP_PING && f->is_fleet;
    bool answers = true;
    to->used = 0;
    if (f->delay_ms > 0 && !is_ping) nng_msleep((nng_duration)f->delay_ms);

    if (!is_ping && take_one(&f->closes)) {
        nng_pipe_close(nng_msg_get_pipe(message));
        answers = false;
    } else if (atomic_load(&f->silent)) {
        answers = false;
    } else if (f->bytes != NULL && !is_ping) {
        append(to, f->bytes, f->byte_count);
    } else if (code != BR_CODE_NONE) {
        refuse(f, to, code, br_str_from(error.text));
    } else if (take_refusal(f, is_ping)) {
        refuse(f, to, f->refusal, BR_STR_LITERAL("as the script says"));
    } else {
        fake_answer(f, to, &request, &arena);
    }
    br_arena_deinit(&arena);
    return answers;
}

static void send_reply(fake_worker *worker, const fake_reply *reply)
{
    nng_msg *message;
    if (nng_msg_alloc(&message, 0) != 0 || nng_msg_append(message, reply->bytes, reply->used) != 0) abort();
    nng_aio_set_msg(worker->aio, message);
    nng_ctx_send(worker->context, worker->aio);
    nng_aio_wait(worker->aio);
    if (nng_aio_result(worker->aio) != 0) nng_msg_free(nng_aio_get_msg(worker->aio));
}

static void *serve(void *context)
{
    fake_worker *worker = context;
    fake_reply *to = malloc(sizeof *to);
    if (to == NULL) abort();
    for (;;) {
        nng_ctx_recv(worker->context, worker->aio);
        nng_aio_wait(worker->aio);
        if (nng_aio_result(worker->aio) != 0) break;
        nng_msg *message = nng_aio_get_msg(worker->aio);
        const bool answers = play(worker->owner, to, message);
        nng_msg_free(message);
        if (answers) send_reply(worker, to);
    }
    free(to);
    return NULL;
}

void fake_start(fake *f)
{
    static atomic_int serial;
    if (f->url[0] == '\0')
        snprintf(f->url, sizeof f->url, "inproc://client-%d-%d", (int)getpid(), atomic_fetch_add(&serial, 1));
    pthread_mutex_init(&f->mutex, NULL);
    int failed = nng_rep0_open(&f->socket);
    if (failed == 0) failed = nng_listen(f->socket, f->url, NULL, 0);
    for (int i = 0; failed == 0 && i < FAKE_WORKERS; i++) {
        fake_worker *worker = &f->workers[i];
        worker->owner = f;
        failed = nng_ctx_open(&worker->context, f->socket);
        if (failed == 0) failed = nng_aio_alloc(&worker->aio, NULL, NULL);
        if (failed == 0) failed = pthread_create(&worker->thread, NULL, serve, worker);
    }
    if (failed == 0) return;
    fprintf(stderr, "%s: %s\n", f->url, nng_strerror(failed));
    abort();
}

/* nng must not close a socket while one of its contexts is in use. */
void fake_stop(fake *f)
{
    for (int i = 0; i < FAKE_WORKERS; i++) {
        fake_worker *worker = &f->workers[i];
        nng_aio_stop(worker->aio); /* this and every later use of it fails */
        pthread_join(worker->thread, NULL);
        nng_ctx_close(worker->context);
        nng_aio_free(worker->aio);
    }
    nng_close(f->socket);
    pthread_mutex_destroy(&f->mutex);
}
