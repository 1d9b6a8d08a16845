/*
 * request.c - request messages, decoded and encoded.
 */
#include "request.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "core/utf8.h"
#include "fields.h"

enum { V, OP, ID, DEADLINE_MS, QUERIES, POLICY, EXPLAIN, BUNDLE, REQUEST_KEYS };

static const br_str request_keys[REQUEST_KEYS] = {
    [V] = BR_KEY("v"),
    [OP] = BR_KEY("op"),
    [ID] = BR_KEY("id"),
    [DEADLINE_MS] = BR_KEY("deadline_ms"),
    [QUERIES] = BR_KEY("queries"),
    [POLICY] = BR_KEY("policy"),
    [EXPLAIN] = BR_KEY("explain"),
    [BUNDLE] = BR_KEY("bundle"), /* last: the data socket does not know it */
};

enum { TEXT, TOKENS, PROMPT_TOKENS, OUTPUT_TOKENS, MAX_COST, QUERY_POLICY, QUERY_KEYS };

static const br_str query_keys[QUERY_KEYS] = {
    [TEXT] = BR_KEY("text"),
    [TOKENS] = BR_KEY("tokens"),
    [PROMPT_TOKENS] = BR_KEY("prompt_tokens"),
    [OUTPUT_TOKENS] = BR_KEY("output_tokens"),
    [MAX_COST] = BR_KEY("max_cost"),
    [QUERY_POLICY] = BR_KEY("policy"),
};

static const struct {
    const char *name;
    bool admin;
} ops[] = {
    [BR_OP_NONE] = {"", false},
    [BR_OP_ROUTE] = {"route", false},
    [BR_OP_SCORE] = {"score", false},
    [BR_OP_INFO] = {"info", false},
    [BR_OP_PING] = {"ping", false},
    [BR_OP_RELOAD] = {"reload", true},
    [BR_OP_DRAIN] = {"drain", true},
    [BR_OP_SHUTDOWN] = {"shutdown", true},
    [BR_OP_SET_DEFAULTS] = {"set_defaults", true},
    [BR_OP_STATS] = {"stats", true},
};

typedef struct decoder {
    br_request *out;
    const br_request_limits *limits;
    br_arena *arena;
    br_error *error;
} decoder;

const char *br_op_name(br_op op)
{
    assert((size_t)op < sizeof ops / sizeof *ops);
    return ops[op].name;
}

/* One number, or a map of model to number. A bundle has at most BR_MODELS_MAX models, so a longer map
 * repeats one or names an unknown one; the bound keeps the search for repeated names short. */
static br_status read_counts(br_counts *out, const br_fields *fields, size_t key, br_arena *arena)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_reader reader = br_field_reader(fields, key);
    br_wire head = br_read(&reader);
    if (head.type == BR_WIRE_UINT) {
        *out = (br_counts){.form = BR_COUNTS_ALL, .all = head.as.uint};
        return BR_OK;
    }
    if (head.type != BR_WIRE_MAP) {
        return br_field_expected(fields, key, "an unsigned integer or a map of them", head);
    }
    if (head.as.count > BR_MODELS_MAX) {
        return br_field_fail(fields, key, BR_EINVAL, "names %" PRIu32 " models, a bundle has at most %d",
                             head.as.count, BR_MODELS_MAX);
    }

    size_t used = 0;
    br_count_entry *entries = br_arena_array(arena, head.as.count, sizeof *entries);
    if (entries == NULL) return br_field_no_memory(fields, key);
    for (uint32_t i = 0; i < head.as.count; i++) {
        br_wire model = br_read(&reader);
        if (model.type != BR_WIRE_STR)
            return br_field_expected(fields, key, "names of models as keys", model);
        for (size_t j = 0; j < used; j++) {
            if (br_str_equal(entries[j].model, model.as.bytes)) {
                return br_field_fail(fields, key, BR_EINVAL, "a model is named twice");
            }
        }
        br_wire count = br_read(&reader);
        if (count.type == BR_WIRE_NIL) continue;
        if (count.type != BR_WIRE_UINT)
            return br_field_expected(fields, key, "unsigned integers as values", count);
        entries[used++] = (br_count_entry){.model = model.as.bytes, .count = count.as.uint};
    }
    *out = (br_counts){.form = BR_COUNTS_BY_MODEL, .entries = entries, .entry_count = used};
    return BR_OK;
}

static br_status read_text(br_query *out, const br_fields *fields, const br_request_limits *limits)
{
    br_status status = br_field_str(fields, TEXT, &out->text);
    if (status != BR_OK) return status;
    if (out->text.size > limits->text_bytes_max) {
        return br_field_fail(fields, TEXT, BR_ETOOBIG, "%zu bytes, the limit is %zu", out->text.size,
                             limits->text_bytes_max);
    }
    size_t valid = br_utf8_invalid_at(out->text.data, out->text.size);
    if (valid < out->text.size) return br_field_fail(fields, TEXT, BR_EINVAL, "not UTF-8 at byte %zu", valid);
    out->has_text = true;
    return BR_OK;
}

static br_status read_tokens(br_query *out, const br_fields *fields, const decoder *d)
{
    br_reader reader;
    uint32_t count;
    br_status status = br_field_array(fields, TOKENS, &reader, &count);
    if (status != BR_OK) return status;
    if (count > d->limits->text_bytes_max) {
        return br_field_fail(fields, TOKENS, BR_ETOOBIG, "%" PRIu32 " tokens, the limit is %zu", count,
                             d->limits->text_bytes_max);
    }
    uint32_t *tokens = br_arena_array(d->arena, count, sizeof *tokens);
    if (tokens == NULL) return br_field_no_memory(fields, TOKENS);
    for (uint32_t i = 0; i < count; i++) {
        br_wire token = br_read(&reader);
        if (token.type != BR_WIRE_UINT) return br_field_expected(fields, TOKENS, "unsigned integers", token);
        if (token.as.uint > UINT32_MAX) {
            return br_field_fail(fields, TOKENS, BR_EINVAL, "%" PRIu64 " is no token", token.as.uint);
        }
        tokens[i] = (uint32_t)token.as.uint;
    }
    out->tokens = tokens;
    out->token_count = count;
    return BR_OK;
}

static br_status read_query_policy(br_query *out, const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, QUERY_POLICY)) return BR_OK;
    br_reader reader = br_field_reader(fields, QUERY_POLICY);
    br_status status = br_policy_read(&out->policy, &reader, true, fields->place, d->arena, fields->error);
    if (status != BR_OK) return status;
    const br_policy_spec *policy = &out->policy;
    if ((policy->has & BR_HAS_TOTAL_BUDGET) != 0) {
        return br_field_fail(fields, QUERY_POLICY, BR_EINVAL, "total_budget belongs to the request's policy");
    }
    if ((policy->has & BR_HAS_KIND) != 0 && policy->kind == BR_POLICY_POOL) {
        return br_field_fail(fields, QUERY_POLICY, BR_EINVAL, "kind pool belongs to the request's policy");
    }
    if (d->out->op != BR_OP_ROUTE) out->policy = (br_policy_spec){0};
    return BR_OK;
}

static br_status read_query_values(br_query *out, const br_fields *fields, const decoder *d)
{
    const bool has_text = br_field_present(fields, TEXT);
    if (has_text == br_field_present(fields, TOKENS)) {
        return br_field_fail(fields, TEXT, BR_EINVAL, "expected exactly one of text and tokens, found %s",
                             has_text ? "both" : "neither");
    }
    br_status status = has_text ? read_text(out, fields, d->limits) : read_tokens(out, fields, d);
    if (status == BR_OK) status = read_counts(&out->prompt_tokens, fields, PROMPT_TOKENS, d->arena);
    if (status == BR_OK) status = read_counts(&out->output_tokens, fields, OUTPUT_TOKENS, d->arena);
    if (status == BR_OK) status = br_field_real(fields, MAX_COST, &out->max_cost);
    if (status == BR_OK && out->max_cost < 0) {
        status =
            br_field_fail(fields, MAX_COST, BR_EINVAL, "expected a number >= 0, found %g", out->max_cost);
    }
    if (status == BR_OK) status = read_query_policy(out, fields, d);
    return status;
}

/* The query keeps its own error, in the arena. */
static br_status keep_query_error(br_query *out, const br_error *failure, const decoder *d)
{
    const size_t size = strlen(failure->text) + 1;
    char *text = br_arena_array(d->arena, size, 1);
    if (text == NULL) return br_no_memory(d->error, "the request");
    memcpy(text, failure->text, size);
    *out = (br_query){.error = {BR_CODE_BAD_REQUEST, text}, .max_cost = INFINITY};
    return BR_OK;
}

/* Reads one query and moves the reader past it, also where the query is wrong. Fails only where the whole
 * request is affected. */
static br_status read_query(br_query *out, br_reader *reader, size_t index, const decoder *d)
{
    *out = (br_query){.max_cost = INFINITY};
    br_reader peek = *reader;
    br_wire head = br_read(&peek);
    if (head.type != BR_WIRE_MAP) {
        return br_fail(d->error, BR_EINVAL, "queries[%zu]: expected a map, found %s", index,
                       br_wire_type_name(head.type));
    }

    const br_place place = {.name = "queries", .index = (int64_t)index};
    br_error failure;
    br_fields fields;
    br_status status =
        br_fields_read(&fields, reader, query_keys, QUERY_KEYS, BR_UNKNOWN_REFUSED, &place, &failure);
    if (status == BR_OK) status = read_query_values(out, &fields, d);
    if (status == BR_EINVAL) return keep_query_error(out, &failure, d);
    if (status != BR_OK) return br_fail(d->error, status, "%s", failure.text);
    return BR_OK;
}

static br_status read_queries(const br_fields *fields, const decoder *d)
{
    const bool wanted = d->out->op == BR_OP_ROUTE || d->out->op == BR_OP_SCORE;
    if (!br_field_present(fields, QUERIES)) {
        return wanted ? br_field_fail(fields, QUERIES, BR_EINVAL, "missing") : BR_OK;
    }
    br_reader reader;
    uint32_t count;
    br_status status = br_field_array(fields, QUERIES, &reader, &count);
    if (status != BR_OK || !wanted) return status;
    if (count == 0) return br_field_fail(fields, QUERIES, BR_EINVAL, "expected at least one query");
    if (count > d->limits->queries_max) {
        return br_field_fail(fields, QUERIES, BR_ETOOBIG, "%" PRIu32 " queries, the limit is %zu", count,
                             d->limits->queries_max);
    }
    br_query *queries = br_arena_array(d->arena, count, sizeof *queries);
    if (queries == NULL) return br_field_no_memory(fields, QUERIES);
    for (uint32_t i = 0; i < count; i++) {
        status = read_query(&queries[i], &reader, i, d);
        if (status != BR_OK) return status;
    }
    d->out->queries = queries;
    d->out->query_count = count;
    return BR_OK;
}

static br_status read_id(const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, ID)) return BR_OK;
    br_reader reader = br_field_reader(fields, ID);
    const uint8_t *start = reader.at;
    br_wire id = br_read(&reader);
    if (id.type == BR_WIRE_ARRAY || id.type == BR_WIRE_MAP || id.type == BR_WIRE_EXT) {
        return br_field_expected(fields, ID, "a scalar", id);
    }
    const size_t size = (size_t)(reader.at - start);
    if (size > BR_ID_BYTES_MAX) {
        return br_field_fail(fields, ID, BR_EINVAL, "%zu bytes on the wire, at most %d are echoed", size,
                             BR_ID_BYTES_MAX);
    }
    d->out->id = (br_str){(const char *)start, size};
    return BR_OK;
}

static br_status read_version(const br_fields *fields)
{
    if (!br_field_present(fields, V)) return br_field_fail(fields, V, BR_EINVAL, "missing");
    uint64_t version = 0;
    br_status status = br_field_uint(fields, V, &version);
    if (status == BR_OK && version != BR_PROTOCOL_VERSION) {
        status = br_field_fail(fields, V, BR_ENOTSUP, "version %" PRIu64 ", this service speaks %d", version,
                               BR_PROTOCOL_VERSION);
    }
    return status;
}

static br_status read_op(const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, OP)) return br_field_fail(fields, OP, BR_EINVAL, "missing");
    br_str word = {0};
    br_status status = br_field_str(fields, OP, &word);
    if (status != BR_OK) return status;
    for (size_t op = BR_OP_NONE + 1; op < sizeof ops / sizeof *ops; op++) {
        if (!br_str_equal(word, br_str_from(ops[op].name))) continue;
        if (ops[op].admin != d->limits->admin) {
            return br_field_fail(fields, OP, BR_ENOTSUP, "%s belongs to the %s socket", ops[op].name,
                                 ops[op].admin ? "admin" : "data");
        }
        d->out->op = (br_op)op;
        return BR_OK;
    }
    return br_field_fail(fields, OP, BR_ENOTSUP, "unknown op \"%.*s\"",
                         (int)(word.size < 40 ? word.size : 40), word.data);
}

static br_status read_policy(const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, POLICY)) {
        return d->out->op == BR_OP_SET_DEFAULTS ? br_field_fail(fields, POLICY, BR_EINVAL, "missing") : BR_OK;
    }
    br_reader reader = br_field_reader(fields, POLICY);
    br_status status = br_policy_read(&d->out->policy, &reader, true, NULL, d->arena, d->error);
    if (d->out->op != BR_OP_ROUTE && d->out->op != BR_OP_SET_DEFAULTS) d->out->policy = (br_policy_spec){0};
    return status;
}

static br_status read_bundle(const br_fields *fields, const decoder *d)
{
    if (!d->limits->admin || !br_field_present(fields, BUNDLE)) return BR_OK;
    br_str folder = {0};
    br_status status = br_field_str(fields, BUNDLE, &folder);
    if (status != BR_OK) return status;
    if (folder.size == 0 || memchr(folder.data, 0, folder.size) != NULL) {
        return br_field_fail(fields, BUNDLE, BR_EINVAL, "expected the path of a folder");
    }
    d->out->bundle = folder;
    return BR_OK;
}

/* The whole message is one map: notes where its keys stand. */
static br_status read_message(br_fields *out, const decoder *d, const void *message, size_t size)
{
    br_reader reader = br_reader_make(message, size);
    const size_t key_count = d->limits->admin ? REQUEST_KEYS : BUNDLE;
    const br_status status =
        br_fields_read(out, &reader, request_keys, key_count, BR_UNKNOWN_NEAR_REFUSED, NULL, d->error);
    if (status == BR_EFORMAT || br_reader_done(&reader)) return status;
    return br_fail(d->error, BR_EFORMAT, "the message: %zu bytes after its end",
                   (size_t)(reader.end - reader.at));
}

static br_status read_deadline(const br_fields *fields, const decoder *d)
{
    d->out->has_deadline = br_field_present(fields, DEADLINE_MS);
    return br_field_uint(fields, DEADLINE_MS, &d->out->deadline_ms);
}

/* In the order in which faults are reported. */
static br_status read_values(const br_fields *fields, const decoder *d)
{
    br_status status = br_field_present(fields, OP) ? read_op(fields, d) : br_fields_unknown(fields);
    if (status == BR_OK) status = br_fields_unknown(fields);
    if (status == BR_OK && !br_field_present(fields, OP)) status = read_op(fields, d);
    if (status == BR_OK) status = read_deadline(fields, d);
    if (status == BR_OK) status = br_field_bool(fields, EXPLAIN, &d->out->explain);
    if (status == BR_OK) status = read_policy(fields, d);
    if (status == BR_OK) status = read_bundle(fields, d);
    if (status == BR_OK) status = read_queries(fields, d);
    return status;
}

/* The id is read first, because every refusal echoes it, but a fault in it is reported only after the
 * version's. */
static br_status decode(const decoder *d, const void *message, size_t size)
{
    br_fields fields;
    br_status status = read_message(&fields, d, message, size);
    br_error id_error;
    br_status id_status = BR_OK;
    if (status != BR_EFORMAT) {
        fields.error = &id_error;
        id_status = read_id(&fields, d);
        fields.error = d->error;
    }
    if (size > d->limits->message_bytes_max) {
        return br_fail(d->error, BR_ETOOBIG, "the message: %zu bytes, the limit is %zu", size,
                       d->limits->message_bytes_max);
    }
    if (status == BR_OK) status = read_version(&fields);
    if (status != BR_OK) return status;
    if (id_status != BR_OK) return br_fail(d->error, id_status, "%s", id_error.text);
    return read_values(&fields, d);
}

br_code br_request_decode(br_request *out, const void *message, size_t size, const br_request_limits *limits,
                          br_arena *arena, br_error *error)
{
    *out = (br_request){0};
    const decoder d = {.out = out, .limits = limits, .arena = arena, .error = error};
    switch (decode(&d, message, size)) {
    case BR_OK:
        return BR_CODE_NONE;
    case BR_ETOOBIG:
        return BR_CODE_TOO_LARGE;
    case BR_ENOTSUP:
        return BR_CODE_UNSUPPORTED;
    case BR_ENOMEM:
        return BR_CODE_INTERNAL;
    default:
        return BR_CODE_BAD_REQUEST;
    }
}

static void pack_counts(br_packer *packer, size_t key, const br_counts *counts)
{
    if (counts->form == BR_COUNTS_NONE) return;
    br_pack_str(packer, query_keys[key]);
    if (counts->form == BR_COUNTS_ALL) {
        br_pack_uint(packer, counts->all);
        return;
    }
    br_pack_map(packer, counts->entry_count);
    for (size_t i = 0; i < counts->entry_count; i++) {
        br_pack_str(packer, counts->entries[i].model);
        br_pack_uint(packer, counts->entries[i].count);
    }
}

static void pack_query(br_packer *packer, const br_query *query)
{
    const bool has_max_cost = isfinite(query->max_cost);
    br_pack_map(packer, (size_t)1 + (query->prompt_tokens.form != BR_COUNTS_NONE) +
                            (query->output_tokens.form != BR_COUNTS_NONE) + has_max_cost +
                            (query->policy.has != 0));
    if (query->has_text) {
        br_pack_str(packer, query_keys[TEXT]);
        br_pack_str(packer, query->text);
    } else {
        br_pack_str(packer, query_keys[TOKENS]);
        br_pack_array(packer, query->token_count);
        for (size_t i = 0; i < query->token_count; i++) br_pack_uint(packer, query->tokens[i]);
    }
    pack_counts(packer, PROMPT_TOKENS, &query->prompt_tokens);
    pack_counts(packer, OUTPUT_TOKENS, &query->output_tokens);
    if (has_max_cost) {
        br_pack_str(packer, query_keys[MAX_COST]);
        br_pack_real(packer, query->max_cost);
    }
    if (query->policy.has != 0) {
        br_pack_str(packer, query_keys[QUERY_POLICY]);
        br_policy_pack(packer, &query->policy);
    }
}

static void pack_queries(br_packer *packer, const br_request *request)
{
    br_pack_str(packer, request_keys[QUERIES]);
    br_pack_array(packer, request->query_count);
    for (size_t i = 0; i < request->query_count; i++) pack_query(packer, &request->queries[i]);
}

int br_request_encode(const br_request *request, void *sink, br_write_fn write)
{
    assert(request->op != BR_OP_NONE);
    br_packer packer;
    br_packer_init(&packer, sink, write);

    const bool has_policy = request->policy.has != 0 || request->op == BR_OP_SET_DEFAULTS;
    br_pack_map(&packer, (size_t)2 + (request->id.size > 0) + request->has_deadline +
                             (request->query_count > 0) + has_policy + request->explain +
                             (request->bundle.size > 0));
    br_pack_str(&packer, request_keys[V]);
    br_pack_uint(&packer, BR_PROTOCOL_VERSION);
    br_pack_str(&packer, request_keys[OP]);
    br_pack_word(&packer, br_op_name(request->op));
    if (request->id.size > 0) {
        br_pack_str(&packer, request_keys[ID]);
        br_pack_raw(&packer, request->id);
    }
    if (request->has_deadline) {
        br_pack_str(&packer, request_keys[DEADLINE_MS]);
        br_pack_uint(&packer, request->deadline_ms);
    }
    if (request->query_count > 0) pack_queries(&packer, request);
    if (has_policy) {
        br_pack_str(&packer, request_keys[POLICY]);
        br_policy_pack(&packer, &request->policy);
    }
    if (request->explain) {
        br_pack_str(&packer, request_keys[EXPLAIN]);
        br_pack_bool(&packer, true);
    }
    if (request->bundle.size > 0) {
        br_pack_str(&packer, request_keys[BUNDLE]);
        br_pack_str(&packer, request->bundle);
    }
    return br_packer_finish(&packer);
}
