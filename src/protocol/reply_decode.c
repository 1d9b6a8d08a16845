/*
 * reply_decode.c - reply messages, decoded for clients.
 *
 * Lenient where the contract lets a newer service say more (unknown keys, codes
 * and ops), strict about the types of what it reads.
 */
#include <math.h>

#include "core/memory.h"
#include "fields.h"
#include "reply.h"

enum {
    V,
    ID,
    OK,
    RESULTS,
    BUNDLE,
    TIMING,
    ERROR,
    CANDIDATES,
    REFERENCE,
    MODELS,
    POLICY,
    POLICY_TABLE,
    LIMITS,
    SERVER,
    STATS,
    REPLY_KEYS,
};

static const br_str reply_keys[REPLY_KEYS] = {
    [V] = BR_KEY("v"),
    [ID] = BR_KEY("id"),
    [OK] = BR_KEY("ok"),
    [RESULTS] = BR_KEY("results"),
    [BUNDLE] = BR_KEY("bundle"),
    [TIMING] = BR_KEY("timing"),
    [ERROR] = BR_KEY("error"),
    [CANDIDATES] = BR_KEY("candidates"),
    [REFERENCE] = BR_KEY("reference"),
    [MODELS] = BR_KEY("models"),
    [POLICY] = BR_KEY("policy"),
    [POLICY_TABLE] = BR_KEY("policy_table"),
    [LIMITS] = BR_KEY("limits"),
    [SERVER] = BR_KEY("server"),
    [STATS] = BR_KEY("stats"),
};

/* The least bytes an element of an array of maps takes; keeps a short message from sizing a large array. */
enum { ELEMENT_BYTES_MIN = 8 };

typedef struct decoder {
    br_arena *arena;
    br_error *error;
} decoder;

/* A number, or nil for one that is not there. */
static br_status read_optional_real(const br_fields *fields, size_t key, double *out)
{
    *out = NAN;
    if (!br_field_present(fields, key)) return BR_OK;
    br_reader reader = br_field_reader(fields, key);
    if (br_read(&reader).type == BR_WIRE_NIL) return BR_OK;
    return br_field_real(fields, key, out);
}

/* Reads the map of a key that is present. */
static br_status read_map(br_fields *out, const br_fields *fields, size_t key, const br_str *keys,
                          size_t key_count, br_place *place)
{
    *place = (br_place){.outer = fields->place, .name = fields->keys[key].data, .index = -1};
    br_reader reader = br_field_reader(fields, key);
    return br_fields_read(out, &reader, keys, key_count, BR_UNKNOWN_SKIPPED, place, fields->error);
}

/* An array of maps: positions the reader at the first and hands out zeroed elements of `size` bytes. */
static br_status read_maps(const br_fields *fields, size_t key, const decoder *d, size_t size,
                           br_reader *reader, void **elements, size_t *count)
{
    uint32_t found;
    br_status status = br_field_array(fields, key, reader, &found);
    if (status != BR_OK) return status;
    if (found > (size_t)(reader->end - reader->at) / ELEMENT_BYTES_MIN) {
        return br_field_fail(fields, key, BR_EFORMAT, "too short for its count");
    }
    *elements = br_arena_array(d->arena, found, size);
    if (*elements == NULL) return br_field_no_memory(fields, key);
    *count = found;
    return BR_OK;
}

static br_status read_error(const br_fields *fields, size_t key, br_code *code, br_str *message,
                            bool *has_retry, uint64_t *retry_ms)
{
    enum { CODE, MESSAGE, RETRY_MS, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("code"), BR_KEY("message"), BR_KEY("retry_ms")};
    br_place place;
    br_fields error;
    br_str word = {0};
    br_status status = read_map(&error, fields, key, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_str(&error, CODE, &word);
    if (status == BR_OK) status = br_field_str(&error, MESSAGE, message);
    if (status == BR_OK) status = br_field_uint(&error, RETRY_MS, retry_ms);
    if (status != BR_OK) return status;
    *has_retry = br_field_present(&error, RETRY_MS);
    *code = br_code_parse(word);
    if (*code == BR_CODE_NONE) *code = BR_CODE_INTERNAL;
    return BR_OK;
}

static br_status read_candidate(br_reply_candidate *out, br_reader *reader, const br_place *place,
                                br_error *error)
{
    enum { MODEL, N, QUALITY, COST, ALLOWED, REASON, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("model"), BR_KEY("n"),       BR_KEY("quality"),
                                      BR_KEY("cost"),  BR_KEY("allowed"), BR_KEY("reason")};
    br_fields fields;
    br_status status = br_fields_read(&fields, reader, keys, KEYS, BR_UNKNOWN_SKIPPED, place, error);
    if (status == BR_OK) status = br_field_str(&fields, MODEL, &out->model);
    if (status == BR_OK) status = br_field_uint(&fields, N, &out->n);
    if (status == BR_OK) status = read_optional_real(&fields, QUALITY, &out->quality);
    if (status == BR_OK) status = read_optional_real(&fields, COST, &out->cost);
    if (status == BR_OK) status = br_field_bool(&fields, ALLOWED, &out->allowed);
    if (status == BR_OK) status = br_field_str(&fields, REASON, &out->reason);
    return status;
}

static br_status read_candidates(const br_fields *fields, size_t key, const decoder *d,
                                 const br_reply_candidate **out, size_t *count)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_reader reader;
    void *elements;
    br_status status = read_maps(fields, key, d, sizeof **out, &reader, &elements, count);
    if (status != BR_OK) return status;
    br_reply_candidate *candidates = elements;
    for (size_t i = 0; i < *count && status == BR_OK; i++) {
        const br_place place = {.outer = fields->place, .name = "candidates", .index = (int64_t)i};
        status = read_candidate(&candidates[i], &reader, &place, d->error);
    }
    *out = candidates;
    return status;
}

/* `quality` is one number in a result of route and an array in one of score. */
static br_status read_quality(br_reply_result *out, const br_fields *fields, size_t key, const decoder *d)
{
    out->quality = NAN;
    if (!br_field_present(fields, key)) return BR_OK;
    br_reader reader = br_field_reader(fields, key);
    br_wire head = br_read(&reader);
    if (head.type != BR_WIRE_ARRAY) return read_optional_real(fields, key, &out->quality);

    double *qualities = br_arena_array(d->arena, head.as.count, sizeof *qualities);
    if (qualities == NULL) return br_field_no_memory(fields, key);
    for (uint32_t i = 0; i < head.as.count; i++) {
        br_wire value = br_read(&reader);
        if (value.type == BR_WIRE_FLOAT) {
            qualities[i] = value.as.real;
        } else if (value.type == BR_WIRE_UINT) {
            qualities[i] = (double)value.as.uint;
        } else if (value.type == BR_WIRE_NIL) {
            qualities[i] = NAN; /* so a number that is not finite is written */
        } else {
            return br_field_expected(fields, key, "numbers", value);
        }
    }
    out->qualities = qualities;
    out->quality_count = head.as.count;
    return BR_OK;
}

static br_status read_result(br_reply_result *out, br_reader *reader, const br_place *place, const decoder *d)
{
    enum { FAILED, MODEL, N, QUALITY, COST, MET, MARGIN, TOKENS, TRUNCATED, TABLE, KEYS };
    static const br_str keys[KEYS] = {
        [FAILED] = BR_KEY("error"),     [MODEL] = BR_KEY("model"),   [N] = BR_KEY("n"),
        [QUALITY] = BR_KEY("quality"),  [COST] = BR_KEY("cost"),     [MET] = BR_KEY("met"),
        [MARGIN] = BR_KEY("margin"),    [TOKENS] = BR_KEY("tokens"), [TRUNCATED] = BR_KEY("truncated"),
        [TABLE] = BR_KEY("candidates"),
    };
    br_fields fields;
    br_status status = br_fields_read(&fields, reader, keys, KEYS, BR_UNKNOWN_SKIPPED, place, d->error);
    if (status != BR_OK) return status;
    if (br_field_present(&fields, FAILED)) {
        bool has_retry;
        uint64_t retry_ms;
        return read_error(&fields, FAILED, &out->code, &out->message, &has_retry, &retry_ms);
    }
    status = br_field_str(&fields, MODEL, &out->model);
    if (status == BR_OK) status = br_field_uint(&fields, N, &out->n);
    if (status == BR_OK) status = read_quality(out, &fields, QUALITY, d);
    if (status == BR_OK) status = read_optional_real(&fields, COST, &out->cost);
    if (status == BR_OK) status = br_field_bool(&fields, MET, &out->met);
    if (status == BR_OK) status = br_field_real(&fields, MARGIN, &out->margin);
    if (status == BR_OK) status = br_field_uint(&fields, TOKENS, &out->tokens);
    if (status == BR_OK) status = br_field_bool(&fields, TRUNCATED, &out->truncated);
    if (status == BR_OK) status = read_candidates(&fields, TABLE, d, &out->candidates, &out->candidate_count);
    return status;
}

static br_status read_results(br_reply *out, const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, RESULTS)) return BR_OK;
    br_reader reader;
    void *elements;
    br_status status =
        read_maps(fields, RESULTS, d, sizeof *out->results, &reader, &elements, &out->result_count);
    if (status != BR_OK) return status;
    br_reply_result *results = elements;
    for (size_t i = 0; i < out->result_count && status == BR_OK; i++) {
        const br_place place = {.name = "results", .index = (int64_t)i};
        status = read_result(&results[i], &reader, &place, d);
    }
    out->results = results;
    return status;
}

static br_status read_bundle(br_reply *out, const br_fields *fields)
{
    enum { NAME, HASH, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("name"), BR_KEY("hash")};
    if (!br_field_present(fields, BUNDLE)) return BR_OK;
    br_place place;
    br_fields bundle;
    br_status status = read_map(&bundle, fields, BUNDLE, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_str(&bundle, NAME, &out->bundle_name);
    if (status == BR_OK) status = br_field_str(&bundle, HASH, &out->bundle_hash);
    out->has_bundle = status == BR_OK;
    return status;
}

static br_status read_timing(br_reply *out, const br_fields *fields)
{
    enum { TOKENIZE, QUEUE, COMPUTE, TOTAL, BATCH, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("tokenize"), BR_KEY("queue"), BR_KEY("compute"), BR_KEY("total"),
                                      BR_KEY("batch")};
    if (!br_field_present(fields, TIMING)) return BR_OK;
    br_place place;
    br_fields timing;
    br_status status = read_map(&timing, fields, TIMING, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_uint(&timing, TOKENIZE, &out->timing.tokenize_us);
    if (status == BR_OK) status = br_field_uint(&timing, QUEUE, &out->timing.queue_us);
    if (status == BR_OK) status = br_field_uint(&timing, COMPUTE, &out->timing.compute_us);
    if (status == BR_OK) status = br_field_uint(&timing, TOTAL, &out->timing.total_us);
    if (status == BR_OK) status = br_field_uint(&timing, BATCH, &out->timing.batch);
    out->has_timing = status == BR_OK;
    return status;
}

static br_status read_model(br_info_model *out, br_reader *reader, const br_place *place, br_error *error)
{
    enum { INPUT_PRICE, OUTPUT_PRICE, AVG_OUTPUT_TOKENS, INPUT_PER_SAMPLE, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("input_price"), BR_KEY("output_price"),
                                      BR_KEY("avg_output_tokens"), BR_KEY("input_per_sample")};
    br_fields fields;
    br_status status = br_fields_read(&fields, reader, keys, KEYS, BR_UNKNOWN_SKIPPED, place, error);
    if (status == BR_OK) status = read_optional_real(&fields, INPUT_PRICE, &out->input_price);
    if (status == BR_OK) status = read_optional_real(&fields, OUTPUT_PRICE, &out->output_price);
    if (status == BR_OK) status = read_optional_real(&fields, AVG_OUTPUT_TOKENS, &out->avg_output_tokens);
    if (status == BR_OK) status = br_field_bool(&fields, INPUT_PER_SAMPLE, &out->input_per_sample);
    out->has_price = isfinite(out->input_price) && isfinite(out->output_price);
    return status;
}

/* A map from the names of models to what is known of each. */
static br_status read_models(br_info *out, const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, MODELS)) return BR_OK;
    br_reader reader = br_field_reader(fields, MODELS);
    br_wire head = br_read(&reader);
    if (head.type != BR_WIRE_MAP) return br_field_expected(fields, MODELS, "a map", head);
    br_info_model *models = br_arena_array(d->arena, head.as.count, sizeof *models);
    if (models == NULL) return br_field_no_memory(fields, MODELS);
    for (uint32_t i = 0; i < head.as.count; i++) {
        br_wire name = br_read(&reader);
        if (name.type != BR_WIRE_STR) return br_field_expected(fields, MODELS, "names as keys", name);
        models[i].name = name.as.bytes;
        const br_place place = {.name = "models", .index = (int64_t)i};
        br_status status = read_model(&models[i], &reader, &place, d->error);
        if (status != BR_OK) return status;
    }
    out->models = models;
    out->model_count = head.as.count;
    return BR_OK;
}

static br_status read_limits(br_info *out, const br_fields *fields)
{
    enum { MAX_QUERIES, MAX_TOKENS, MAX_MESSAGE_BYTES, MAX_TEXT_BYTES, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("max_queries"), BR_KEY("max_tokens"),
                                      BR_KEY("max_message_bytes"), BR_KEY("max_text_bytes")};
    if (!br_field_present(fields, LIMITS)) return BR_OK;
    br_place place;
    br_fields limits;
    br_status status = read_map(&limits, fields, LIMITS, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_uint(&limits, MAX_QUERIES, &out->max_queries);
    if (status == BR_OK) status = br_field_uint(&limits, MAX_TOKENS, &out->max_tokens);
    if (status == BR_OK) status = br_field_uint(&limits, MAX_MESSAGE_BYTES, &out->max_message_bytes);
    if (status == BR_OK) status = br_field_uint(&limits, MAX_TEXT_BYTES, &out->max_text_bytes);
    return status;
}

static br_status read_server(br_info *out, const br_fields *fields, const decoder *d)
{
    enum { VERSION, ENGINE, PRECISION, DEVICES, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("version"), BR_KEY("engine"), BR_KEY("precision"),
                                      BR_KEY("devices")};
    if (!br_field_present(fields, SERVER)) return BR_OK;
    br_place place;
    br_fields server;
    br_status status = read_map(&server, fields, SERVER, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_str(&server, VERSION, &out->version);
    if (status == BR_OK) status = br_field_str(&server, ENGINE, &out->engine);
    if (status == BR_OK) status = br_field_str(&server, PRECISION, &out->precision);
    if (status == BR_OK) {
        status = br_field_strs(&server, DEVICES, BR_WORKERS_MAX, d->arena, &out->devices, &out->device_count);
    }
    return status;
}

static br_status read_policy_row(br_policy_row *out, br_reader *reader, const br_place *place,
                                 br_error *error)
{
    enum { THRESHOLD, REFERENCE_SHARE, MEAN_COST, QUALITY, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("threshold"), BR_KEY("reference_share"), BR_KEY("mean_cost"),
                                      BR_KEY("quality")};
    br_fields fields;
    br_status status = br_fields_read(&fields, reader, keys, KEYS, BR_UNKNOWN_SKIPPED, place, error);
    if (status == BR_OK) status = read_optional_real(&fields, THRESHOLD, &out->threshold);
    if (status == BR_OK) status = read_optional_real(&fields, REFERENCE_SHARE, &out->reference_share);
    if (status == BR_OK) status = read_optional_real(&fields, MEAN_COST, &out->mean_cost);
    if (status == BR_OK) status = read_optional_real(&fields, QUALITY, &out->quality);
    return status;
}

/* A table of another kind comes from a newer service and is ignored. */
static br_status read_measured(br_info *out, const br_fields *fields, const decoder *d)
{
    enum { KIND, ROWS, TABLE, KEYS };
    static const br_str keys[KEYS] = {BR_KEY("kind"), BR_KEY("rows"), BR_KEY("table")};
    if (!br_field_present(fields, POLICY_TABLE)) return BR_OK;
    br_place place;
    br_fields measured;
    br_str kind = {0};
    br_status status = read_map(&measured, fields, POLICY_TABLE, keys, KEYS, &place);
    if (status == BR_OK) status = br_field_str(&measured, KIND, &kind);
    if (status != BR_OK) return status;
    if (!br_str_equal(kind, BR_STR_LITERAL("threshold")) || !br_field_present(&measured, TABLE)) return BR_OK;
    status = br_field_uint(&measured, ROWS, &out->measured.prompts);
    br_reader reader;
    void *elements;
    if (status == BR_OK)
        status = read_maps(&measured, TABLE, d, sizeof *out->measured.rows, &reader, &elements,
                           &out->measured.row_count);
    if (status != BR_OK) return status;
    br_policy_row *rows = elements;
    for (size_t i = 0; i < out->measured.row_count && status == BR_OK; i++) {
        const br_place row = {.outer = &place, .name = "table", .index = (int64_t)i};
        status = read_policy_row(&rows[i], &reader, &row, d->error);
    }
    out->measured.rows = rows;
    return status;
}

/* The keys of `info`. Such a reply is recognised by its list of candidates. */
static br_status read_info(br_reply *out, const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, CANDIDATES)) return BR_OK;
    br_info *info = br_arena_array(d->arena, 1, sizeof *info);
    if (info == NULL) return br_no_memory(d->error, "the reply");
    br_status status = read_candidates(fields, CANDIDATES, d, &info->candidates, &info->candidate_count);
    if (status == BR_OK) status = br_field_uint(fields, REFERENCE, &info->reference);
    if (status == BR_OK) status = read_models(info, fields, d);
    if (status == BR_OK) status = read_measured(info, fields, d);
    if (status == BR_OK) status = read_limits(info, fields);
    if (status == BR_OK) status = read_server(info, fields, d);
    if (status == BR_OK && br_field_present(fields, POLICY)) {
        br_reader reader = br_field_reader(fields, POLICY);
        status = br_policy_read(&info->policy, &reader, false, NULL, d->arena, d->error);
    }
    out->info = info;
    return status;
}

static br_status read_stats(br_reply *out, const br_fields *fields, const decoder *d)
{
    if (!br_field_present(fields, STATS)) return BR_OK;
    br_reader reader = br_field_reader(fields, STATS);
    br_wire head = br_read(&reader);
    if (head.type != BR_WIRE_MAP) return br_field_expected(fields, STATS, "a map", head);
    br_stat *stats = br_arena_array(d->arena, head.as.count, sizeof *stats);
    if (stats == NULL) return br_field_no_memory(fields, STATS);
    for (uint32_t i = 0; i < head.as.count; i++) {
        br_wire name = br_read(&reader);
        if (name.type != BR_WIRE_STR) return br_field_expected(fields, STATS, "names as keys", name);
        stats[i].name = name.as.bytes;
        br_wire value = br_read(&reader);
        stats[i].is_real = value.type != BR_WIRE_UINT;
        if (value.type == BR_WIRE_UINT) {
            stats[i].count = value.as.uint;
        } else if (value.type == BR_WIRE_FLOAT) {
            stats[i].real = value.as.real;
        } else if (value.type == BR_WIRE_NIL) {
            stats[i].real = NAN;
        } else {
            return br_field_expected(fields, STATS, "numbers as values", value);
        }
    }
    out->stats = stats;
    out->stat_count = head.as.count;
    return BR_OK;
}

static br_status decode(br_reply *out, br_reader *reader, const decoder *d)
{
    br_fields fields;
    uint64_t version = 0;
    br_status status =
        br_fields_read(&fields, reader, reply_keys, REPLY_KEYS, BR_UNKNOWN_SKIPPED, NULL, d->error);
    if (status != BR_OK) return status;
    if (!br_reader_done(reader)) return br_fail(d->error, BR_EFORMAT, "the message: bytes after its end");

    status = br_field_uint(&fields, V, &version);
    if (status != BR_OK) return status;
    if (version != BR_PROTOCOL_VERSION)
        return br_field_fail(&fields, V, BR_EFORMAT, "not a reply of version 1");
    if (!br_field_present(&fields, OK)) return br_field_fail(&fields, OK, BR_EFORMAT, "missing");
    status = br_field_bool(&fields, OK, &out->ok);
    if (status != BR_OK) return status;
    if (br_field_present(&fields, ID)) {
        br_reader id = br_field_reader(&fields, ID);
        const uint8_t *start = id.at;
        br_skip(&id);
        out->id = (br_str){(const char *)start, (size_t)(id.at - start)};
    }
    if (!out->ok) {
        if (!br_field_present(&fields, ERROR)) return br_field_fail(&fields, ERROR, BR_EFORMAT, "missing");
        status = read_error(&fields, ERROR, &out->code, &out->message, &out->has_retry, &out->retry_ms);
    }
    if (status == BR_OK) status = read_results(out, &fields, d);
    if (status == BR_OK) status = read_bundle(out, &fields);
    if (status == BR_OK) status = read_timing(out, &fields);
    if (status == BR_OK) status = read_info(out, &fields, d);
    if (status == BR_OK) status = read_stats(out, &fields, d);
    return status;
}

br_status br_reply_decode(br_reply *out, const void *message, size_t size, br_arena *arena, br_error *error)
{
    *out = (br_reply){0};
    const decoder d = {.arena = arena, .error = error};
    br_reader reader = br_reader_make(message, size);
    br_status status = decode(out, &reader, &d);
    if (status == BR_OK || status == BR_ENOMEM) return status;
    if (error != NULL) error->status = BR_EFORMAT;
    return BR_EFORMAT;
}
