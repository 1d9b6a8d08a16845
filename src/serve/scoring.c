/* scoring.c - see scoring.h. */
#include "scoring.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"
#include "in_flight.h"
#include "score_cache.h"

/* One line when overload begins, then at most one a second. */
static void log_overload(br_server *server, int64_t admitted, uint64_t retry_ms, uint64_t now_ns)
{
    atomic_fetch_add(&server->overloads_unlogged, 1);
    uint64_t logged_ns = atomic_load(&server->overload_logged_ns);
    if (logged_ns != 0 && now_ns - logged_ns < 1000 * (uint64_t)BR_NS_PER_MS) return;
    if (!atomic_compare_exchange_strong(&server->overload_logged_ns, &logged_ns, now_ns)) return;
    BR_LOG(server->log, BR_LOG_WARN, "overloaded",
           BR_I64("refused", atomic_exchange(&server->overloads_unlogged, 0)), BR_I64("admitted", admitted),
           BR_I64("queue_max", server->config->queue_max), BR_I64("retry_ms", retry_ms));
}

void scoring_admit(br_call *call)
{
    br_server *server = call->server;
    if (!br_call_pin(call, true)) return;
    const int64_t count = (int64_t)call->request.query_count;
    const int64_t before = atomic_fetch_add(&server->admitted, count);
    if (before + count > server->config->queue_max) {
        atomic_fetch_sub(&server->admitted, count);
        const uint64_t retry_ms =
            br_metrics_retry_ms(&server->metrics, (uint64_t)before, server->devices.worker_count);
        log_overload(server, before, retry_ms, call->arrival_ns);
        br_call_refuse_overload(call, retry_ms, "the queue is full, try again later");
        return;
    }
    br_metrics_add(&server->metrics, BR_COUNTER_queries, (uint64_t)count);
    tokenizer_queue_add(server->tokenizer_queue, &call->entry); /* the call may be gone from here on */
    if (!br_workers_nudge(server->workers)) tokenizer_queue_wake(server->tokenizer_queue);
}

/* Ends an admitted call with one error for the whole request. */
static void refuse_admitted(br_call *call, br_code code, const char *text)
{
    atomic_fetch_sub(&call->server->admitted, (int64_t)call->request.query_count);
    br_call_refuse(call, code, text);
}

static void fail_query(query_state *q, br_code code, const char *text)
{
    char *copy = br_arena_array(&q->call->arena, strlen(text) + 1, 1);
    if (copy != NULL) memcpy(copy, text, strlen(text));
    q->error = (br_query_error){.code = code, .text = copy != NULL ? copy : "out of memory"};
}

/* The request's policy. The `max_cost` that the kind `budget` requires may come from the queries, if each of
 * them has one. */
static br_status resolve_request(br_call *call, const br_policy_spec *base, br_error *error)
{
    br_policy_spec checked = *base;
    double cap = call->request.query_count > 0 ? 0.0 : INFINITY;
    for (size_t i = 0; i < call->request.query_count; i++)
        if (call->request.queries[i].max_cost > cap) cap = call->request.queries[i].max_cost;
    if ((base->has & BR_HAS_MAX_COST) == 0) br_policy_spec_cap(&checked, cap);
    return br_policy_resolve(&call->policy, &br_loaded_bundle(call->pin.loaded)->router, &checked, error);
}

static size_t index_of(const query_state *q)
{
    return (size_t)(q - q->call->queries);
}

static void resolve_query(query_state *q, const br_policy_spec *base)
{
    const br_query *query = q->query;
    q->policy = &q->call->policy;
    const bool own_cap = isfinite(query->max_cost) && (base->has & BR_HAS_MAX_COST) == 0;
    if (query->policy.has == 0 && !own_cap) return;

    br_policy_spec merged = *base;
    br_policy_spec_merge(&merged, &query->policy);
    br_policy_spec_cap(&merged, query->max_cost);
    br_policy *resolved = br_arena_array(&q->call->arena, 1, sizeof *resolved);
    if (resolved == NULL) {
        fail_query(q, BR_CODE_INTERNAL, "out of memory");
        return;
    }
    br_error error = {0};
    if (br_policy_resolve(resolved, &br_loaded_bundle(q->call->pin.loaded)->router, &merged, &error) !=
        BR_OK) {
        char text[sizeof error.text + 48];
        (void)snprintf(text, sizeof text, "queries[%zu].policy.%s", index_of(q), error.text);
        fail_query(q, BR_CODE_BAD_REQUEST, text);
        return;
    }
    /* A query cannot ask for a pool by itself: the decoder refuses that. */
    assert(resolved->kind != BR_POLICY_POOL || q->call->policy.kind == BR_POLICY_POOL);
    q->policy = resolved;
}

static void check_counts(query_state *q, const br_counts *counts, const char *key)
{
    const br_router *router = &br_loaded_bundle(q->call->pin.loaded)->router;
    if (counts->form != BR_COUNTS_BY_MODEL || q->error.code != BR_CODE_NONE) return;
    for (size_t i = 0; i < counts->entry_count; i++) {
        const br_str name = counts->entries[i].model;
        if (br_router_find_model(router, name) >= 0) continue;
        br_error error = {0};
        const int shown = (int)(name.size < BR_NAME_BYTES_MAX ? name.size : BR_NAME_BYTES_MAX);
        const br_status status =
            br_fail(&error, BR_EINVAL, "queries[%zu].%s: unknown model \"%.*s\"; nearest is \"%s\"",
                    index_of(q), key, shown, name.data, br_router_nearest_model(router, name));
        (void)status;
        fail_query(q, BR_CODE_BAD_REQUEST, error.text);
        return;
    }
}

static void prepare_query(query_state *q, const br_policy_spec *base)
{
    q->error = q->query->error;
    if (q->error.code == BR_CODE_NONE && q->call->request.op == BR_OP_ROUTE) {
        resolve_query(q, base);
        check_counts(q, &q->query->prompt_tokens, "prompt_tokens");
        check_counts(q, &q->query->output_tokens, "output_tokens");
    }
}

static void on_job_done(br_job *job);

static bool allocate_queries(br_call *call)
{
    const br_router *router = &br_loaded_bundle(call->pin.loaded)->router;
    const size_t count = call->request.query_count;
    const size_t tokens = (size_t)router->max_tokens;
    const size_t heads = (size_t)router->head_count;
    call->queries = br_arena_array(&call->arena, count, sizeof *call->queries);
    int32_t *ids = br_arena_array(&call->arena, count * tokens, sizeof *ids);
    float *quality = br_arena_array(&call->arena, count * heads, sizeof *quality);
    if (call->queries == NULL || ids == NULL || quality == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        call->queries[i] = (query_state){
            .job = {.item = {.deadline_ns = call->deadline_ns,
                             .group = call->pin.loaded,
                             .client = call->client},
                    .ids = ids + i * tokens,
                    .quality = quality + i * heads,
                    .done = on_job_done},
            .call = call,
            .query = &call->request.queries[i],
            .ids = ids + i * tokens,
        };
    }
    return true;
}

static int32_t prepare(tokenizer_queue_entry *entry)
{
    br_call *call = (br_call *)entry;
    if (!allocate_queries(call)) {
        refuse_admitted(call, BR_CODE_INTERNAL, "out of memory");
        return 0;
    }
    br_policy_spec base = policy_defaults_apply(call->pin.defaults, call->pin.loaded);
    br_policy_spec_merge(&base, &call->request.policy);
    if (call->request.op == BR_OP_ROUTE) {
        br_error error = {0};
        if (resolve_request(call, &base, &error) != BR_OK) {
            char text[sizeof error.text + 16];
            (void)snprintf(text, sizeof text, "policy.%s", error.text);
            refuse_admitted(call, BR_CODE_BAD_REQUEST, text);
            return 0;
        }
    }
    const int32_t count = (int32_t)call->request.query_count;
    for (int32_t i = 0; i < count; i++) prepare_query(&call->queries[i], &base);
    atomic_store_explicit(&call->remaining, count, memory_order_relaxed);
    return count;
}

/* `count` queries of the call are finished; the call may be gone afterwards. */
static void finish_queries(br_call *call, int32_t count)
{
    if (count == 0) return;
    const int before = atomic_fetch_sub_explicit(&call->remaining, count, memory_order_acq_rel);
    assert(before >= count);
    if (before == count) br_call_answer(call);
}

static void expire(query_state *q)
{
    br_metrics_add(&q->call->server->metrics, BR_COUNTER_queries_expired, 1);
    q->error =
        (br_query_error){.code = BR_CODE_DEADLINE, .text = "the deadline passed before this was computed"};
}

/* Writes the ids of one query, or notes its error. Does not touch the arena: other threads tokenise queries
 * of the same call. */
static void tokenize(query_state *q)
{
    const br_bundle *bundle = br_loaded_bundle(q->call->pin.loaded);
    const br_query *query = q->query;
    const uint64_t start_ns = br_clock_now_ns();
    if (start_ns >= q->call->deadline_ns) {
        expire(q);
        return;
    }
    const br_status status =
        query->has_text
            ? br_bundle_prompt_from_text(bundle, query->text, q->ids, &q->prompt)
            : br_bundle_prompt_from_ids(bundle, query->tokens, query->token_count, q->ids, &q->prompt);
    q->tokenize_ns = br_clock_now_ns() - start_ns;
    switch (status) {
    case BR_OK:
        q->job.item.tokens = q->prompt.tokens;
        return;
    case BR_EFORMAT:
        q->error = (br_query_error){BR_CODE_BAD_REQUEST, "text: not UTF-8"};
        return;
    case BR_EINVAL:
        q->error = (br_query_error){BR_CODE_BAD_REQUEST, "tokens: an id that no text of this bundle yields"};
        return;
    default:
        q->error = (br_query_error){BR_CODE_INTERNAL, br_status_text(status)};
        return;
    }
}

static bool find_in_cache(query_state *q)
{
    br_server *server = q->call->server;
    if (server->cache == NULL) return false;
    const br_bundle *bundle = br_loaded_bundle(q->call->pin.loaded);
    const bool found = score_cache_get(server->cache, bundle->digest[0], q->job.ids, q->job.item.tokens,
                                       q->job.quality, bundle->router.head_count);
    br_metrics_add(&server->metrics, found ? BR_COUNTER_cache_hits : BR_COUNTER_cache_misses, 1);
    if (!found) return false;
    q->job.queued_ns = q->job.started_ns = q->job.finished_ns = br_clock_now_ns();
    return true;
}

/* Tokenises. True: the query is to be queued. *finished: its result or error is known already. */
static bool make_job(query_state *q, bool *finished)
{
    *finished = true;
    if (q->error.code == BR_CODE_NONE) tokenize(q);
    if (q->error.code != BR_CODE_NONE || find_in_cache(q)) return false;
    *finished = false;
    if (!in_flight_follow(q->call->server->in_flight, q)) return true;
    br_metrics_add(&q->call->server->metrics, BR_COUNTER_queries_shared, 1);
    return false;
}

/* Cannot fail: admission keeps the queue within its bound. */
static void push(br_server *server, br_job *const *jobs, int32_t count)
{
    const br_status status = br_workers_push(server->workers, jobs, count);
    assert(status == BR_OK);
    (void)status;
}

static void run(tokenizer_queue_entry *entry, int32_t first, int32_t count)
{
    br_call *call = (br_call *)entry;
    br_server *server = call->server;
    br_job *jobs[TOKENIZER_RUN] = {NULL};
    int32_t ready = 0;
    int32_t finished = 0;
    for (int32_t i = first; i < first + count; i++) {
        bool is_finished;
        if (make_job(&call->queries[i], &is_finished)) jobs[ready++] = &call->queries[i].job;
        finished += is_finished ? 1 : 0;
    }
    /* Once the jobs are pushed and the finished queries are counted, the call may be answered and gone. */
    push(server, jobs, ready);
    finish_queries(call, finished);
}

const tokenizer_queue_work scoring_work = {.prepare = prepare, .run = run};

bool scoring_feed(void *queue)
{
    return tokenizer_queue_help(queue);
}

/* The leader's result becomes the follower's own. */
static void copy_result(query_state *q, const query_state *leader)
{
    const size_t heads = (size_t)br_loaded_bundle(q->call->pin.loaded)->router.head_count;
    memcpy(q->job.quality, leader->job.quality, heads * sizeof *q->job.quality);
    q->job.queued_ns = leader->job.queued_ns;
    q->job.started_ns = leader->job.started_ns;
    q->job.finished_ns = leader->job.finished_ns;
    q->job.batch = leader->job.batch;
}

/* Called while the leader's call still lives; the leader is finished afterwards. */
static void finish_followers(query_state *leader)
{
    br_server *server = leader->call->server;
    query_state *next = in_flight_end(server->in_flight, leader);
    while (next != NULL) {
        query_state *q = next;
        next = q->next_follower;
        if (leader->job.status == BR_OK) {
            copy_result(q, leader);
            finish_queries(q->call, 1);
        } else {
            push(server, (br_job *const[]){&q->job}, 1);
        }
    }
}

static void remember(const query_state *q)
{
    br_server *server = q->call->server;
    if (server->cache == NULL) return;
    const br_bundle *bundle = br_loaded_bundle(q->call->pin.loaded);
    score_cache_put(server->cache, bundle->digest[0], q->job.ids, q->job.item.tokens, q->job.quality,
                    bundle->router.head_count);
}

static void on_job_done(br_job *job)
{
    query_state *q = (query_state *)job;
    if (job->status == BR_OK) remember(q);
    finish_followers(q);
    switch (job->status) {
    case BR_OK:
        break;
    case BR_ETIMEDOUT:
        expire(q);
        break;
    case BR_ECLOSED:
        q->error = (br_query_error){BR_CODE_NOT_READY, "the service is shutting down"};
        break;
    default:
        q->error = (br_query_error){BR_CODE_INTERNAL, "the engine failed"};
        break;
    }
    finish_queries(q->call, 1);
}
