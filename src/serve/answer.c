/* answer.c - see answer.h. */
#include "answer.h"

#include <assert.h>

#include "core/clock.h"

/* The answer of one call while it is put together; all of it in the call's arena. */
typedef struct answer {
    br_call *call;
    const br_router *router;
    br_reply_result *results; /* [queries] */
    br_option *options;       /* [queries or 1, candidates] */
    size_t options_stride;    /* 0 when one table serves all queries in turn */
    uint64_t *prompt_tokens;  /* [models] */
    double *output_tokens;    /* [models] */
} answer;

static void fill_error(br_reply_result *result, br_code code, const char *text)
{
    *result = (br_reply_result){.code = code, .message = br_str_from(text)};
}

static bool fill_score(answer *a, size_t i)
{
    const query_state *q = &a->call->queries[i];
    br_reply_result *result = &a->results[i];
    const int32_t candidates = a->router->candidate_count;
    double *qualities = br_arena_array(&a->call->arena, (size_t)candidates, sizeof *qualities);
    if (qualities == NULL) return false;
    for (int32_t c = 0; c < candidates; c++) {
        const int32_t head = a->router->candidates[c].head;
        qualities[c] = head < 0 ? 1.0 : (double)q->job.quality[head];
        if (qualities[c] >= 0.0 && qualities[c] <= 1.0) continue;
        fill_error(result, BR_CODE_INTERNAL, "a score is not a probability");
        return true;
    }
    result->tokens = (uint64_t)q->prompt.tokens;
    result->truncated = q->prompt.truncated;
    result->qualities = qualities;
    result->quality_count = (size_t)candidates;
    return true;
}

static void fill_prompt_tokens(answer *a, const query_state *q)
{
    const br_counts *counts = &q->query->prompt_tokens;
    const uint64_t all = counts->form == BR_COUNTS_ALL ? counts->all : q->prompt.text_tokens;
    for (int32_t m = 0; m < a->router->model_count; m++) a->prompt_tokens[m] = all;
    if (counts->form != BR_COUNTS_BY_MODEL) return;
    for (size_t i = 0; i < counts->entry_count; i++) {
        const int32_t m = br_router_find_model(a->router, counts->entries[i].model);
        assert(m >= 0); /* prepare looked it up */
        a->prompt_tokens[m] = counts->entries[i].count;
    }
}

static void fill_output_tokens(answer *a, const query_state *q)
{
    const br_counts *counts = &q->query->output_tokens;
    for (int32_t m = 0; m < a->router->model_count; m++)
        a->output_tokens[m] =
            counts->form == BR_COUNTS_ALL ? (double)counts->all : a->router->models[m].avg_output_tokens;
    if (counts->form != BR_COUNTS_BY_MODEL) return;
    for (size_t i = 0; i < counts->entry_count; i++) {
        const int32_t m = br_router_find_model(a->router, counts->entries[i].model);
        assert(m >= 0); /* prepare looked it up */
        a->output_tokens[m] = (double)counts->entries[i].count;
    }
}

static br_option *table_of(answer *a, size_t i)
{
    return a->options + i * a->options_stride;
}

static void fill_table(answer *a, size_t i)
{
    const query_state *q = &a->call->queries[i];
    fill_prompt_tokens(a, q);
    fill_output_tokens(a, q);
    const br_query_costs costs = {
        .prompt_tokens = a->prompt_tokens,
        .output_tokens = a->output_tokens,
        .max_cost = q->query->max_cost,
    };
    br_policy_table(table_of(a, i), a->router, q->policy, q->job.quality, &costs);
}

static bool fill_explanation(answer *a, size_t i)
{
    const size_t count = (size_t)a->router->candidate_count;
    br_reply_candidate *rows = br_arena_array(&a->call->arena, count, sizeof *rows);
    if (rows == NULL) return false;
    const br_option *options = table_of(a, i);
    for (size_t c = 0; c < count; c++) {
        const br_candidate *candidate = &a->router->candidates[c];
        rows[c] = (br_reply_candidate){
            .model = br_str_from(a->router->models[candidate->model].name),
            .n = (uint64_t)candidate->n,
            .quality = options[c].quality,
            .cost = options[c].cost,
            .allowed = options[c].reason != BR_REASON_FILTERED,
            .reason = br_str_from(br_reason_name(options[c].reason)),
        };
    }
    a->results[i].candidates = rows;
    a->results[i].candidate_count = count;
    return true;
}

static bool fill_decision(answer *a, size_t i, const br_decision *decision)
{
    const query_state *q = &a->call->queries[i];
    br_reply_result *result = &a->results[i];
    if (decision->status == BR_EINFEASIBLE) {
        fill_error(result, BR_CODE_INFEASIBLE, "nothing satisfies the policy");
        return true;
    }
    if (decision->status != BR_OK) {
        fill_error(result, BR_CODE_INTERNAL, "a score is not a probability");
        return true;
    }
    const br_candidate *chosen = &a->router->candidates[decision->candidate];
    *result = (br_reply_result){
        .model = br_str_from(a->router->models[chosen->model].name),
        .n = (uint64_t)chosen->n,
        .quality = decision->quality,
        .cost = decision->cost,
        .met = decision->met,
        .margin = decision->margin,
        .tokens = (uint64_t)q->prompt.tokens,
        .truncated = q->prompt.truncated,
    };
    return !a->call->request.explain || fill_explanation(a, i);
}

static bool in_pool(const query_state *q)
{
    return q->error.code == BR_CODE_NONE && q->policy->kind == BR_POLICY_POOL;
}

static bool decide_pool(answer *a)
{
    br_call *call = a->call;
    const size_t count = call->request.query_count;
    br_shared_budget_query *members = br_arena_array(&call->arena, count, sizeof *members);
    void *scratch = br_arena_array(&call->arena, 1, br_shared_budget_scratch_bytes(a->router, count));
    if (members == NULL || scratch == NULL) return false;
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (!in_pool(&call->queries[i])) continue;
        members[size++] =
            (br_shared_budget_query){.options = table_of(a, i), .policy = call->queries[i].policy};
    }
    br_shared_budget_decide(members, size, a->router, call->policy.total_budget, scratch);
    size_t member = 0;
    for (size_t i = 0; i < count; i++)
        if (in_pool(&call->queries[i]) && !fill_decision(a, i, &members[member++].decision)) return false;
    return true;
}

static bool fill_route(answer *a)
{
    br_call *call = a->call;
    const size_t count = call->request.query_count;
    const size_t candidates = (size_t)a->router->candidate_count;
    const bool pool = call->policy.kind == BR_POLICY_POOL;
    a->options_stride = pool || call->request.explain ? candidates : 0;
    a->options = br_arena_array(&call->arena, a->options_stride > 0 ? count * candidates : candidates,
                                sizeof *a->options);
    a->prompt_tokens = br_arena_array(&call->arena, (size_t)a->router->model_count, sizeof *a->prompt_tokens);
    a->output_tokens = br_arena_array(&call->arena, (size_t)a->router->model_count, sizeof *a->output_tokens);
    if (a->options == NULL || a->prompt_tokens == NULL || a->output_tokens == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        const query_state *q = &call->queries[i];
        if (q->error.code != BR_CODE_NONE) continue;
        fill_table(a, i);
        if (in_pool(q)) continue;
        const br_decision decision = br_policy_decide(table_of(a, i), a->router, q->policy);
        if (!fill_decision(a, i, &decision)) return false;
    }
    return !pool || decide_pool(a);
}

static bool fill_results(answer *a)
{
    br_call *call = a->call;
    const size_t count = call->request.query_count;
    a->results = br_arena_array(&call->arena, count, sizeof *a->results);
    if (a->results == NULL) return false;
    for (size_t i = 0; i < count; i++) {
        const br_query_error *error = &call->queries[i].error;
        if (error->code != BR_CODE_NONE)
            fill_error(&a->results[i], error->code, error->text);
        else if (call->request.op == BR_OP_SCORE && !fill_score(a, i))
            return false;
    }
    if (call->request.op == BR_OP_ROUTE && !fill_route(a)) return false;
    uint64_t failed = 0;
    for (size_t i = 0; i < count; i++) failed += a->results[i].code != BR_CODE_NONE;
    br_metrics_add(&call->server->metrics, BR_COUNTER_queries_failed, failed);
    return true;
}

/* Nanoseconds. tokenize: summed over the queries; queue and compute: of the slowest query. */
static void measure(const br_call *call, uint64_t ns[BR_REQUEST_HISTOGRAM_COUNT])
{
    for (size_t i = 0; i < call->request.query_count; i++) {
        const query_state *q = &call->queries[i];
        ns[BR_HISTOGRAM_request_tokenize] += q->tokenize_ns;
        if (q->job.started_ns == 0) continue;
        const uint64_t queue_ns = q->job.started_ns - q->job.queued_ns;
        const uint64_t compute_ns = q->job.finished_ns - q->job.started_ns;
        if (queue_ns > ns[BR_HISTOGRAM_request_queue]) ns[BR_HISTOGRAM_request_queue] = queue_ns;
        if (compute_ns > ns[BR_HISTOGRAM_request_compute]) ns[BR_HISTOGRAM_request_compute] = compute_ns;
    }
    ns[BR_HISTOGRAM_request] = br_clock_now_ns() - call->arrival_ns;
}

/* Also counts the request in the metrics. */
static br_timing timing_of(const br_call *call)
{
    uint64_t ns[BR_REQUEST_HISTOGRAM_COUNT] = {0};
    measure(call, ns);
    br_metrics_request(&call->server->metrics, ns);
    br_timing timing = {
        .tokenize_us = ns[BR_HISTOGRAM_request_tokenize] / BR_NS_PER_US,
        .queue_us = ns[BR_HISTOGRAM_request_queue] / BR_NS_PER_US,
        .compute_us = ns[BR_HISTOGRAM_request_compute] / BR_NS_PER_US,
        .total_us = ns[BR_HISTOGRAM_request] / BR_NS_PER_US,
    };
    for (size_t i = 0; i < call->request.query_count; i++)
        if ((uint64_t)call->queries[i].job.batch > timing.batch)
            timing.batch = (uint64_t)call->queries[i].job.batch;
    return timing;
}

/* The error code of all queries, if they share one that is then answered for the whole request; else NONE. */
static br_code shared_error(const br_call *call)
{
    const br_code code = call->queries[0].error.code;
    if (code != BR_CODE_DEADLINE && code != BR_CODE_NOT_READY) return BR_CODE_NONE;
    for (size_t i = 1; i < call->request.query_count; i++)
        if (call->queries[i].error.code != code) return BR_CODE_NONE;
    return code;
}

static void reply_results(br_call *call)
{
    const br_bundle *bundle = br_loaded_bundle(call->pin.loaded);
    answer a = {.call = call, .router = &bundle->router};
    if (!fill_results(&a)) {
        br_call_refuse(call, BR_CODE_INTERNAL, "out of memory");
        return;
    }
    const br_reply reply = {
        .id = call->request.id,
        .ok = true,
        .op = call->request.op,
        .results = a.results,
        .result_count = call->request.query_count,
        .has_bundle = true,
        .bundle_name = br_str_from(bundle->router.name),
        .bundle_hash = br_str_from(bundle->hash),
        .has_timing = true,
        .timing = timing_of(call),
    };
    br_call_reply(call, &reply);
}

void answer_finish(br_call *call)
{
    /* Before the reply is sent: a client that asks again at once finds its room in the queue free. */
    atomic_fetch_sub(&call->server->admitted, (int64_t)call->request.query_count);
    const br_code code = shared_error(call);
    if (code != BR_CODE_NONE)
        br_call_refuse(call, code, call->queries[0].error.text);
    else
        reply_results(call);
}
