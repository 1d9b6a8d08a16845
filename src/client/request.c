/* request.c - a client's call, checked and turned into a request, and that into a message. */
#include "request.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/limits.h"
#include "core/memory.h"

/* Where a field stands, for errors: in "queries[3]", or in the call itself. */
typedef struct place {
    bool in_query;
    size_t query;
} place;

static br_status refuse(br_error *error, const place *at, const char *field, const char *what)
{
    if (!at->in_query) return br_fail(error, BR_EINVAL, "%s: %s", field, what);
    return br_fail(error, BR_EINVAL, "queries[%zu].%s: %s", at->query, field, what);
}

static br_status take_real(br_policy_spec *out, uint32_t bit, double *to, bool given, double value,
                           const char *field, const place *at, br_error *error)
{
    if (!given) return BR_OK;
    if (!isfinite(value)) return refuse(error, at, field, "not a finite number");
    out->has |= bit;
    *to = value;
    return BR_OK;
}

static br_status take_names(const br_str **out, size_t *out_count, const char *const *names, size_t count,
                            const char *field, const place *at, br_arena *arena, br_error *error)
{
    br_str *views = br_arena_array(arena, count, sizeof *views);
    if (views == NULL) return br_no_memory(error, "%zu names", count);
    for (size_t i = 0; i < count; i++) {
        if (names == NULL || names[i] == NULL) return refuse(error, at, field, "a name is NULL");
        views[i] = br_str_from(names[i]);
    }
    *out = views;
    *out_count = count;
    return BR_OK;
}

static br_status take_words(br_policy_spec *out, const br_client_policy *policy, const place *at,
                            br_error *error)
{
    if (policy->kind != NULL) {
        if (!br_policy_kind_parse(&out->kind, br_str_from(policy->kind)))
            return refuse(error, at, "policy.kind", "no kind of that name");
        out->has |= BR_HAS_KIND;
    }
    if (policy->fallback != NULL) {
        if (!br_fallback_parse(&out->fallback, br_str_from(policy->fallback)))
            return refuse(error, at, "policy.fallback", "no fallback of that name");
        out->has |= BR_HAS_FALLBACK;
    }
    if (policy->max_n != 0) {
        out->max_n = policy->max_n;
        out->has |= BR_HAS_MAX_N;
    }
    return BR_OK;
}

static br_status take_policy(br_policy_spec *out, const br_client_policy *policy, const place *at,
                             br_arena *arena, br_error *error)
{
    br_status status = take_words(out, policy, at, error);
    if (status != BR_OK) return status;

    const struct {
        uint32_t bit;
        bool given;
        double *to;
        double value;
        const char *field;
    } reals[] = {
        {BR_HAS_THRESHOLD, policy->has_threshold, &out->threshold, policy->threshold, "policy.threshold"},
        {BR_HAS_MAX_COST, policy->has_max_cost, &out->max_cost, policy->max_cost, "policy.max_cost"},
        {BR_HAS_LAMBDA, policy->has_lambda, &out->lambda, policy->lambda, "policy.lambda"},
        {BR_HAS_TOLERANCE, policy->has_tolerance, &out->tolerance, policy->tolerance, "policy.tolerance"},
        {BR_HAS_TOTAL_BUDGET, policy->has_total_budget, &out->total_budget, policy->total_budget,
         "policy.total_budget"},
    };
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        status = take_real(out, reals[i].bit, reals[i].to, reals[i].given, reals[i].value, reals[i].field, at,
                           error);
        if (status != BR_OK) return status;
    }

    if (policy->model_count > 0) {
        out->has |= BR_HAS_MODELS;
        status = take_names(&out->models, &out->model_count, policy->models, policy->model_count,
                            "policy.models", at, arena, error);
        if (status != BR_OK) return status;
    }
    if (policy->exclude_count > 0) {
        out->has |= BR_HAS_EXCLUDE;
        return take_names(&out->exclude, &out->exclude_count, policy->exclude, policy->exclude_count,
                          "policy.exclude", at, arena, error);
    }
    return BR_OK;
}

static br_status take_counts(br_counts *out, bool given, uint64_t all, const br_client_count *by_model,
                             size_t count, const char *field, const place *at, br_arena *arena,
                             br_error *error)
{
    if (given) {
        if (count > 0) return refuse(error, at, field, "both one number and numbers by model");
        out->form = BR_COUNTS_ALL;
        out->all = all;
        return BR_OK;
    }
    if (count == 0) return BR_OK;

    br_count_entry *entries = br_arena_array(arena, count, sizeof *entries);
    if (entries == NULL) return br_no_memory(error, "%zu counts", count);
    for (size_t i = 0; i < count; i++) {
        if (by_model == NULL || by_model[i].model == NULL)
            return refuse(error, at, field, "a model's name is NULL");
        entries[i] = (br_count_entry){.model = br_str_from(by_model[i].model), .count = by_model[i].tokens};
    }
    *out = (br_counts){.form = BR_COUNTS_BY_MODEL, .entries = entries, .entry_count = count};
    return BR_OK;
}

static br_status take_query(br_query *out, const br_client_query *query, const place *at, br_arena *arena,
                            br_error *error)
{
    const bool has_tokens = query->tokens != NULL || query->token_count > 0;
    if (query->text != NULL && has_tokens) return refuse(error, at, "text", "given together with tokens");
    if (query->text == NULL && query->tokens == NULL)
        return refuse(error, at, "text", "neither text nor tokens");

    out->has_text = query->text != NULL;
    if (out->has_text) out->text = (br_str){query->text, query->text_bytes};
    out->tokens = query->tokens;
    out->token_count = query->token_count;

    br_status status = take_counts(&out->prompt_tokens, query->has_prompt_tokens, query->prompt_tokens,
                                   query->prompt_tokens_by_model, query->prompt_tokens_by_model_count,
                                   "prompt_tokens", at, arena, error);
    if (status != BR_OK) return status;
    status = take_counts(&out->output_tokens, query->has_output_tokens, query->output_tokens,
                         query->output_tokens_by_model, query->output_tokens_by_model_count, "output_tokens",
                         at, arena, error);
    if (status != BR_OK) return status;

    out->max_cost = INFINITY; /* absent */
    if (query->has_max_cost) {
        if (!isfinite(query->max_cost)) return refuse(error, at, "max_cost", "not a finite number");
        out->max_cost = query->max_cost;
    }
    return query->policy == NULL ? BR_OK : take_policy(&out->policy, query->policy, at, arena, error);
}

br_status br_client_make_request(br_request *out, br_op op, const br_client_call *call, br_arena *arena,
                                 br_error *error)
{
    *out = (br_request){.op = op};
    if (call == NULL) return BR_OK;
    if (call->query_count == 0) return br_fail(error, BR_EINVAL, "queries: there are none");
    if (call->queries == NULL) return br_fail(error, BR_EINVAL, "queries: NULL");

    out->has_deadline = call->has_deadline;
    out->deadline_ms = call->deadline_ms;
    out->explain = op == BR_OP_ROUTE && call->explain;
    if (op == BR_OP_ROUTE && call->policy != NULL) {
        const br_status status = take_policy(&out->policy, call->policy, &(place){0}, arena, error);
        if (status != BR_OK) return status;
    }

    out->queries = br_arena_array(arena, call->query_count, sizeof *out->queries);
    if (out->queries == NULL) return br_no_memory(error, "%zu queries", call->query_count);
    out->query_count = call->query_count;
    for (size_t i = 0; i < call->query_count; i++) {
        const place at = {.in_query = true, .query = i};
        const br_status status = take_query(&out->queries[i], &call->queries[i], &at, arena, error);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

typedef struct cursor {
    char *at; /* NULL: only counts */
    size_t bytes;
} cursor;

static int write_bytes(void *sink, const char *bytes, size_t size)
{
    cursor *to = sink;
    if (to->at != NULL) memcpy(to->at + to->bytes, bytes, size);
    to->bytes += size;
    return 0;
}

/* Encodes twice, first only to count the bytes: a message of nng that grows piece by piece is copied each
 * time. */
br_status br_client_pack(nng_msg **out, const br_request *request, br_error *error)
{
    cursor to = {0};
    int failed = br_request_encode(request, &to, write_bytes);
    assert(failed == 0);
    if (to.bytes > BR_MESSAGE_BYTES_MAX)
        return br_fail(error, BR_ETOOBIG, "too_large: the message has %zu bytes, at most %d are allowed",
                       to.bytes, BR_MESSAGE_BYTES_MAX);

    failed = nng_msg_alloc(out, to.bytes);
    if (failed != 0) return br_no_memory(error, "a message of %zu bytes", to.bytes);
    to = (cursor){.at = nng_msg_body(*out)};
    failed = br_request_encode(request, &to, write_bytes);
    assert(failed == 0);
    assert(to.bytes == nng_msg_len(*out));
    (void)failed;
    return BR_OK;
}
