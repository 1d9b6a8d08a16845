/*
 * answer.c - a decoded reply, copied into one block that the caller frees.
 *
 *   | br_answer | results | candidates | models | policy | policy table | qualities | pointers | characters |
 *
 * The block is measured first and filled after. Everything before the characters is a multiple of 8 bytes.
 * The sums cannot overflow: the size of a message keeps every count below 2^27.
 */
#include "answer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

typedef struct block {
    br_answer_result *results;
    br_answer_candidate *candidates;
    br_answer_model *models;
    br_client_policy *policy;
    br_answer_policy_row *rows;
    double *qualities;
    const char **pointers;
    char *characters;
} block;

typedef struct measure {
    size_t results;
    size_t candidates;
    size_t models;
    size_t policies;
    size_t rows;
    size_t qualities;
    size_t pointers;
    size_t characters;
} measure;

static_assert(sizeof(br_answer) % 8 == 0, "what follows stays aligned");
static_assert(sizeof(br_answer_result) % 8 == 0, "what follows stays aligned");
static_assert(sizeof(br_answer_candidate) % 8 == 0, "what follows stays aligned");
static_assert(sizeof(br_answer_model) % 8 == 0, "what follows stays aligned");
static_assert(sizeof(br_answer_policy_row) % 8 == 0, "what follows stays aligned");
static_assert(sizeof(br_client_policy) % 8 == 0, "what follows stays aligned");

static void add_text(measure *total, br_str text)
{
    if (text.size > 0) total->characters += text.size + 1;
}

static void add_names(measure *total, const br_str *names, size_t count)
{
    total->pointers += count;
    for (size_t i = 0; i < count; i++) add_text(total, names[i]);
}

static br_status add_candidates(measure *total, const br_reply_candidate *candidates, size_t count,
                                br_error *error)
{
    total->candidates += count;
    for (size_t i = 0; i < count; i++) {
        if (candidates[i].n > UINT32_MAX)
            return br_fail(error, BR_EFORMAT, "candidates[%zu].n is too large", i);
        add_text(total, candidates[i].model);
        add_text(total, candidates[i].reason);
    }
    return BR_OK;
}

static br_status add_result(measure *total, const br_reply_result *result, size_t index, br_error *error)
{
    add_text(total, result->message);
    if (result->code != BR_CODE_NONE) return BR_OK;

    if (result->n > UINT32_MAX) return br_fail(error, BR_EFORMAT, "results[%zu].n is too large", index);
    add_text(total, result->model);
    total->qualities += result->quality_count;
    return add_candidates(total, result->candidates, result->candidate_count, error);
}

static br_status add_info(measure *total, const br_info *info, br_error *error)
{
    if (info->reference >= info->candidate_count)
        return br_fail(error, BR_EFORMAT, "reference is no index of candidates");
    add_text(total, info->version);
    add_text(total, info->engine);
    add_text(total, info->precision);
    add_names(total, info->devices, info->device_count);
    total->policies = 1;
    total->rows = info->measured.row_count;
    if ((info->policy.has & BR_HAS_MODELS) != 0)
        add_names(total, info->policy.models, info->policy.model_count);
    if ((info->policy.has & BR_HAS_EXCLUDE) != 0)
        add_names(total, info->policy.exclude, info->policy.exclude_count);
    total->models = info->model_count;
    for (size_t i = 0; i < info->model_count; i++) add_text(total, info->models[i].name);
    return add_candidates(total, info->candidates, info->candidate_count, error);
}

static br_status measure_reply(measure *total, const br_reply *reply, br_error *error)
{
    total->results = reply->result_count;
    for (size_t i = 0; i < reply->result_count; i++) {
        const br_status status = add_result(total, &reply->results[i], i, error);
        if (status != BR_OK) return status;
    }
    add_text(total, reply->bundle_name);
    add_text(total, reply->bundle_hash);
    return reply->info == NULL ? BR_OK : add_info(total, reply->info, error);
}

static const char *put_text(block *to, br_str text)
{
    if (text.size == 0) return "";
    char *copy = to->characters;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    to->characters += text.size + 1;
    return copy;
}

static const char *const *put_names(block *to, const br_str *names, size_t count)
{
    const char **copies = to->pointers;
    to->pointers += count;
    for (size_t i = 0; i < count; i++) copies[i] = put_text(to, names[i]);
    return copies;
}

static const br_answer_candidate *put_candidates(block *to, const br_reply_candidate *candidates,
                                                 size_t count)
{
    br_answer_candidate *copies = to->candidates;
    to->candidates += count;
    for (size_t i = 0; i < count; i++) {
        copies[i] = (br_answer_candidate){
            .model = put_text(to, candidates[i].model),
            .n = (uint32_t)candidates[i].n,
            .quality = candidates[i].quality,
            .cost = candidates[i].cost,
            .allowed = candidates[i].allowed,
            .reason = put_text(to, candidates[i].reason),
        };
    }
    return copies;
}

static void put_result(block *to, br_answer_result *out, const br_reply_result *result)
{
    out->message = put_text(to, result->message);
    out->model = "";
    if (result->code != BR_CODE_NONE) {
        out->error = br_code_name(result->code);
        return;
    }
    out->model = put_text(to, result->model);
    out->n = (uint32_t)result->n;
    out->quality = result->quality;
    out->cost = result->cost;
    out->met = result->met;
    out->margin = result->margin;
    out->tokens = result->tokens;
    out->truncated = result->truncated;

    out->qualities = to->qualities;
    out->quality_count = result->quality_count;
    if (result->quality_count > 0)
        memcpy(to->qualities, result->qualities, result->quality_count * sizeof *to->qualities);
    to->qualities += result->quality_count;
    out->candidates = put_candidates(to, result->candidates, result->candidate_count);
    out->candidate_count = result->candidate_count;
}

static const br_client_policy *put_policy(block *to, const br_policy_spec *policy)
{
    br_client_policy *out = to->policy;
    const uint32_t has = policy->has;
    *out = (br_client_policy){
        .kind = (has & BR_HAS_KIND) != 0 ? br_policy_kind_name(policy->kind) : NULL,
        .fallback = (has & BR_HAS_FALLBACK) != 0 ? br_fallback_name(policy->fallback) : NULL,
        .has_threshold = (has & BR_HAS_THRESHOLD) != 0,
        .has_max_cost = (has & BR_HAS_MAX_COST) != 0,
        .has_lambda = (has & BR_HAS_LAMBDA) != 0,
        .has_tolerance = (has & BR_HAS_TOLERANCE) != 0,
        .has_total_budget = (has & BR_HAS_TOTAL_BUDGET) != 0,
        .threshold = policy->threshold,
        .max_cost = policy->max_cost,
        .lambda = policy->lambda,
        .tolerance = policy->tolerance,
        .total_budget = policy->total_budget,
        .max_n = (has & BR_HAS_MAX_N) != 0 ? policy->max_n : 0,
    };
    if ((has & BR_HAS_MODELS) != 0) {
        out->models = put_names(to, policy->models, policy->model_count);
        out->model_count = policy->model_count;
    }
    if ((has & BR_HAS_EXCLUDE) != 0) {
        out->exclude = put_names(to, policy->exclude, policy->exclude_count);
        out->exclude_count = policy->exclude_count;
    }
    return out;
}

static const br_answer_model *put_models(block *to, const br_info_model *models, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to->models[i] = (br_answer_model){
            .name = put_text(to, models[i].name),
            .has_price = models[i].has_price,
            .input_price = models[i].input_price,
            .output_price = models[i].output_price,
            .avg_output_tokens = models[i].avg_output_tokens,
            .input_per_sample = models[i].input_per_sample,
        };
    }
    return to->models;
}

static const br_answer_policy_row *put_rows(block *to, const br_measured_policy *measured)
{
    for (size_t i = 0; i < measured->row_count; i++) {
        to->rows[i] = (br_answer_policy_row){
            .threshold = measured->rows[i].threshold,
            .reference_share = measured->rows[i].reference_share,
            .mean_cost = measured->rows[i].mean_cost,
            .quality = measured->rows[i].quality,
        };
    }
    return to->rows;
}

static void put_info(block *to, br_answer *out, const br_info *info)
{
    out->candidates = put_candidates(to, info->candidates, info->candidate_count);
    out->candidate_count = info->candidate_count;
    out->reference = info->reference;
    out->models = put_models(to, info->models, info->model_count);
    out->model_count = info->model_count;
    out->policy = put_policy(to, &info->policy);
    out->policy_table = put_rows(to, &info->measured);
    out->policy_table_count = info->measured.row_count;
    out->policy_table_prompts = info->measured.prompts;
    out->max_queries = info->max_queries;
    out->max_tokens = info->max_tokens;
    out->max_message_bytes = info->max_message_bytes;
    out->max_text_bytes = info->max_text_bytes;
    out->version = put_text(to, info->version);
    out->engine = put_text(to, info->engine);
    out->precision = put_text(to, info->precision);
    out->devices = put_names(to, info->devices, info->device_count);
    out->device_count = info->device_count;
}

static br_answer *allocate(block *to, const measure *total)
{
    const size_t fixed_bytes = sizeof(br_answer) + total->results * sizeof *to->results +
                               total->candidates * sizeof *to->candidates +
                               total->models * sizeof *to->models + total->policies * sizeof *to->policy +
                               total->rows * sizeof *to->rows + total->qualities * sizeof *to->qualities +
                               total->pointers * sizeof *to->pointers;
    br_answer *answer = calloc(1, fixed_bytes + total->characters);
    if (answer == NULL) return NULL;

    to->results = (br_answer_result *)(answer + 1);
    to->candidates = (br_answer_candidate *)(to->results + total->results);
    to->models = (br_answer_model *)(to->candidates + total->candidates);
    to->policy = (br_client_policy *)(to->models + total->models);
    to->rows = (br_answer_policy_row *)(to->policy + total->policies);
    to->qualities = (double *)(to->rows + total->rows);
    to->pointers = (const char **)(to->qualities + total->qualities);
    to->characters = (char *)(to->pointers + total->pointers);
    return answer;
}

br_status br_client_make_answer(br_answer **out, const br_reply *reply, br_error *error)
{
    *out = NULL;
    measure total = {0};
    const br_status status = measure_reply(&total, reply, error);
    if (status != BR_OK) return status;

    block to;
    br_answer *answer = allocate(&to, &total);
    if (answer == NULL) return br_no_memory(error, "an answer");

    answer->results = to.results;
    answer->result_count = reply->result_count;
    for (size_t i = 0; i < reply->result_count; i++) put_result(&to, &to.results[i], &reply->results[i]);
    answer->bundle_name = put_text(&to, reply->bundle_name);
    answer->bundle_hash = put_text(&to, reply->bundle_hash);
    answer->tokenize_us = reply->timing.tokenize_us;
    answer->queue_us = reply->timing.queue_us;
    answer->compute_us = reply->timing.compute_us;
    answer->total_us = reply->timing.total_us;
    answer->batch = reply->timing.batch;
    answer->version = answer->engine = answer->precision = "";
    if (reply->info != NULL) put_info(&to, answer, reply->info);
    *out = answer;
    return BR_OK;
}

void br_answer_free(br_answer *answer)
{
    free(answer);
}
