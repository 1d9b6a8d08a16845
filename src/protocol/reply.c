/*
 * reply.c - reply messages, encoded. Decoding is in reply_decode.c.
 */
#include "reply.h"

#include <assert.h>
#include <math.h>

#include "core/utf8.h"
#include "fields.h"

static void pack_key_str(br_packer *packer, const char *key, br_str value)
{
    br_pack_word(packer, key);
    br_pack_str(packer, value);
}

static void pack_key_uint(br_packer *packer, const char *key, uint64_t value)
{
    br_pack_word(packer, key);
    br_pack_uint(packer, value);
}

static void pack_key_real(br_packer *packer, const char *key, double value)
{
    br_pack_word(packer, key);
    br_pack_real(packer, value);
}

static void pack_key_bool(br_packer *packer, const char *key, bool value)
{
    br_pack_word(packer, key);
    br_pack_bool(packer, value);
}

/* A message may quote bytes from outside, but a string on the wire must be UTF-8. Cut at
 * BR_ERROR_TEXT_BYTES. */
static void pack_message(br_packer *packer, br_str message)
{
    char text[BR_ERROR_TEXT_BYTES] = "";
    const size_t size = message.size < sizeof text ? message.size : sizeof text;
    if (size > 0) memcpy(text, message.data, size);
    size_t at = 0;
    while ((at += br_utf8_invalid_at(text + at, size - at)) < size) text[at] = '?';
    pack_key_str(packer, "message", (br_str){text, size});
}

static void pack_error(br_packer *packer, br_code code, br_str message, const uint64_t *retry_ms)
{
    assert(code != BR_CODE_NONE);
    br_pack_word(packer, "error");
    br_pack_map(packer, retry_ms == NULL ? 2 : 3);
    pack_key_str(packer, "code", br_str_from(br_code_name(code)));
    pack_message(packer, message);
    if (retry_ms != NULL) pack_key_uint(packer, "retry_ms", *retry_ms);
}

static void pack_candidates(br_packer *packer, const br_reply_candidate *candidates, size_t count,
                            bool explained)
{
    br_pack_word(packer, "candidates");
    br_pack_array(packer, count);
    for (size_t i = 0; i < count; i++) {
        const br_reply_candidate *candidate = &candidates[i];
        br_pack_map(packer, explained ? 6 : 2);
        pack_key_str(packer, "model", candidate->model);
        pack_key_uint(packer, "n", candidate->n);
        if (!explained) continue;
        pack_key_real(packer, "quality", candidate->quality);
        pack_key_real(packer, "cost", candidate->cost);
        pack_key_bool(packer, "allowed", candidate->allowed);
        pack_key_str(packer, "reason", candidate->reason);
    }
}

static void pack_route_result(br_packer *packer, const br_reply_result *result)
{
    const bool explained = result->candidate_count > 0;
    br_pack_map(packer, explained ? 9 : 8);
    pack_key_str(packer, "model", result->model);
    pack_key_uint(packer, "n", result->n);
    pack_key_real(packer, "quality", result->quality);
    pack_key_real(packer, "cost", result->cost);
    pack_key_bool(packer, "met", result->met);
    pack_key_real(packer, "margin", result->margin);
    pack_key_uint(packer, "tokens", result->tokens);
    pack_key_bool(packer, "truncated", result->truncated);
    if (explained) pack_candidates(packer, result->candidates, result->candidate_count, true);
}

static void pack_score_result(br_packer *packer, const br_reply_result *result)
{
    br_pack_map(packer, 3);
    pack_key_uint(packer, "tokens", result->tokens);
    pack_key_bool(packer, "truncated", result->truncated);
    br_pack_word(packer, "quality");
    br_pack_array(packer, result->quality_count);
    for (size_t i = 0; i < result->quality_count; i++) br_pack_real(packer, result->qualities[i]);
}

static void pack_results(br_packer *packer, const br_reply *reply)
{
    br_pack_word(packer, "results");
    br_pack_array(packer, reply->result_count);
    for (size_t i = 0; i < reply->result_count; i++) {
        const br_reply_result *result = &reply->results[i];
        if (result->code != BR_CODE_NONE) {
            br_pack_map(packer, 1);
            pack_error(packer, result->code, result->message, NULL);
        } else if (reply->op == BR_OP_SCORE) {
            pack_score_result(packer, result);
        } else {
            pack_route_result(packer, result);
        }
    }
}

/* A model without prices has nil for both, not absent keys: a typed client has to read one form only. */
static void pack_models(br_packer *packer, const br_info *info)
{
    br_pack_word(packer, "models");
    br_pack_map(packer, info->model_count);
    for (size_t i = 0; i < info->model_count; i++) {
        const br_info_model *model = &info->models[i];
        br_pack_str(packer, model->name);
        br_pack_map(packer, 4);
        pack_key_real(packer, "input_price", model->has_price ? model->input_price : NAN);
        pack_key_real(packer, "output_price", model->has_price ? model->output_price : NAN);
        pack_key_real(packer, "avg_output_tokens", model->avg_output_tokens);
        pack_key_bool(packer, "input_per_sample", model->input_per_sample);
    }
}

static void pack_measured(br_packer *packer, const br_measured_policy *measured)
{
    br_pack_word(packer, "policy_table");
    br_pack_map(packer, 3);
    pack_key_str(packer, "kind", br_str_from(br_policy_kind_name(BR_POLICY_THRESHOLD)));
    pack_key_uint(packer, "rows", measured->prompts);
    br_pack_word(packer, "table");
    br_pack_array(packer, measured->row_count);
    for (size_t i = 0; i < measured->row_count; i++) {
        const br_policy_row *row = &measured->rows[i];
        br_pack_map(packer, 4);
        pack_key_real(packer, "threshold", row->threshold);
        pack_key_real(packer, "reference_share", row->reference_share);
        pack_key_real(packer, "mean_cost", row->mean_cost);
        pack_key_real(packer, "quality", row->quality);
    }
}

static void pack_info(br_packer *packer, const br_info *info)
{
    pack_candidates(packer, info->candidates, info->candidate_count, false);
    pack_key_uint(packer, "reference", info->reference);
    pack_models(packer, info);
    br_pack_word(packer, "policy");
    br_policy_pack(packer, &info->policy);
    if (info->measured.row_count > 0) pack_measured(packer, &info->measured);

    br_pack_word(packer, "limits");
    br_pack_map(packer, 4);
    pack_key_uint(packer, "max_queries", info->max_queries);
    pack_key_uint(packer, "max_tokens", info->max_tokens);
    pack_key_uint(packer, "max_message_bytes", info->max_message_bytes);
    pack_key_uint(packer, "max_text_bytes", info->max_text_bytes);

    br_pack_word(packer, "server");
    br_pack_map(packer, 4);
    pack_key_str(packer, "version", info->version);
    pack_key_str(packer, "engine", info->engine);
    pack_key_str(packer, "precision", info->precision);
    br_pack_word(packer, "devices");
    br_pack_array(packer, info->device_count);
    for (size_t i = 0; i < info->device_count; i++) br_pack_str(packer, info->devices[i]);
}

static void pack_stats(br_packer *packer, const br_reply *reply)
{
    br_pack_word(packer, "stats");
    br_pack_map(packer, reply->stat_count);
    for (size_t i = 0; i < reply->stat_count; i++) {
        const br_stat *stat = &reply->stats[i];
        br_pack_str(packer, stat->name);
        if (stat->is_real) {
            br_pack_real(packer, stat->real);
        } else {
            br_pack_uint(packer, stat->count);
        }
    }
}

static void pack_bundle(br_packer *packer, const br_reply *reply)
{
    br_pack_word(packer, "bundle");
    br_pack_map(packer, 2);
    pack_key_str(packer, "name", reply->bundle_name);
    pack_key_str(packer, "hash", reply->bundle_hash);
}

static void pack_timing(br_packer *packer, const br_timing *timing)
{
    br_pack_word(packer, "timing");
    br_pack_map(packer, 5);
    pack_key_uint(packer, "tokenize", timing->tokenize_us);
    pack_key_uint(packer, "queue", timing->queue_us);
    pack_key_uint(packer, "compute", timing->compute_us);
    pack_key_uint(packer, "total", timing->total_us);
    pack_key_uint(packer, "batch", timing->batch);
}

/* The number of keys that the op adds to the reply. */
static size_t part_size(const br_reply *reply)
{
    if (!reply->ok) return 1;
    if (reply->op == BR_OP_INFO) return reply->info->measured.row_count > 0 ? 7 : 6;
    return reply->op == BR_OP_ROUTE || reply->op == BR_OP_SCORE || reply->op == BR_OP_STATS;
}

int br_reply_encode(const br_reply *reply, void *sink, br_write_fn write)
{
    br_packer packer;
    br_packer_init(&packer, sink, write);

    br_pack_map(&packer, 3 + part_size(reply) + reply->has_bundle + reply->has_timing);
    pack_key_uint(&packer, "v", BR_PROTOCOL_VERSION);
    br_pack_word(&packer, "id");
    if (reply->id.size > 0) {
        br_pack_raw(&packer, reply->id);
    } else {
        br_pack_nil(&packer);
    }
    pack_key_bool(&packer, "ok", reply->ok);

    if (!reply->ok) {
        pack_error(&packer, reply->code, reply->message, reply->has_retry ? &reply->retry_ms : NULL);
    } else if (reply->op == BR_OP_ROUTE || reply->op == BR_OP_SCORE) {
        pack_results(&packer, reply);
    } else if (reply->op == BR_OP_INFO) {
        pack_info(&packer, reply->info);
    } else if (reply->op == BR_OP_STATS) {
        pack_stats(&packer, reply);
    }
    if (reply->has_bundle) pack_bundle(&packer, reply);
    if (reply->has_timing) pack_timing(&packer, &reply->timing);
    return br_packer_finish(&packer);
}
