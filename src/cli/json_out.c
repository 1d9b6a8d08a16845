/* json_out.c - see json_out.h. */
#include "json_out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"

void cli_json_print(FILE *to, json_t *value)
{
    if (value == NULL) return;
    /* 15 digits: what a person wrote as 0.1 reads 0.1 again. */
    (void)json_dumpf(value, to, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(value);
    (void)fputc('\n', to);
}

json_t *cli_json_text(const char *text)
{
    const size_t bytes = strlen(text);
    if (br_utf8_invalid_at(text, bytes) == bytes) return json_stringn(text, bytes);
    char *shown = strdup(text);
    if (shown == NULL) return NULL;
    for (char *c = shown; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    json_t *value = json_string(shown);
    free(shown);
    return value;
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_prompt(const cli_prompt *prompt, size_t index)
{
    json_t *object = json_object();
    json_object_set_new(object, "index", json_integer((json_int_t)index));
    if (prompt->line > 0) json_object_set_new(object, "line", json_integer((json_int_t)prompt->line));
    if (prompt->id != NULL) json_object_set(object, "id", prompt->id);
    return object;
}

json_t *cli_json_error(const char *code, const char *message)
{
    json_t *object = json_object();
    json_object_set_new(object, "code", json_string(code));
    json_object_set_new(object, "message", cli_json_text(message));
    return object;
}

static json_t *json_candidates(const br_answer_result *result)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < result->candidate_count; i++) {
        const br_answer_candidate *candidate = &result->candidates[i];
        json_t *row = json_object();
        json_object_set_new(row, "model", cli_json_text(candidate->model));
        json_object_set_new(row, "n", json_integer(candidate->n));
        json_object_set_new(row, "quality", cli_json_real(candidate->quality));
        json_object_set_new(row, "cost", cli_json_real(candidate->cost));
        json_object_set_new(row, "allowed", json_boolean(candidate->allowed));
        json_object_set_new(row, "reason", cli_json_text(candidate->reason));
        json_array_append_new(rows, row);
    }
    return rows;
}

void cli_json_add_route(json_t *object, const br_answer_result *result, bool explain)
{
    json_object_set_new(object, "model", cli_json_text(result->model));
    json_object_set_new(object, "n", json_integer(result->n));
    json_object_set_new(object, "quality", cli_json_real(result->quality));
    json_object_set_new(object, "cost", cli_json_real(result->cost));
    json_object_set_new(object, "met", json_boolean(result->met));
    json_object_set_new(object, "margin", cli_json_real(result->margin));
    json_object_set_new(object, "tokens", json_integer((json_int_t)result->tokens));
    json_object_set_new(object, "truncated", json_boolean(result->truncated));
    if (explain) json_object_set_new(object, "candidates", json_candidates(result));
}

void cli_json_add_score(json_t *object, const br_answer_result *result)
{
    json_t *qualities = json_array();
    for (size_t i = 0; i < result->quality_count; i++)
        json_array_append_new(qualities, cli_json_real(result->qualities[i]));
    json_object_set_new(object, "quality", qualities);
    json_object_set_new(object, "tokens", json_integer((json_int_t)result->tokens));
    json_object_set_new(object, "truncated", json_boolean(result->truncated));
}

static json_t *json_names(const char *const *names, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(array, cli_json_text(names[i]));
    return array;
}

json_t *cli_json_policy(const br_client_policy *policy)
{
    json_t *object = json_object();
    if (policy->kind != NULL) json_object_set_new(object, "kind", json_string(policy->kind));
    if (policy->has_threshold) json_object_set_new(object, "threshold", cli_json_real(policy->threshold));
    if (policy->has_max_cost) json_object_set_new(object, "max_cost", cli_json_real(policy->max_cost));
    if (policy->has_lambda) json_object_set_new(object, "lambda", cli_json_real(policy->lambda));
    if (policy->has_tolerance) json_object_set_new(object, "tolerance", cli_json_real(policy->tolerance));
    if (policy->has_total_budget)
        json_object_set_new(object, "total_budget", cli_json_real(policy->total_budget));
    if (policy->model_count > 0)
        json_object_set_new(object, "models", json_names(policy->models, policy->model_count));
    if (policy->exclude_count > 0)
        json_object_set_new(object, "exclude", json_names(policy->exclude, policy->exclude_count));
    if (policy->max_n > 0) json_object_set_new(object, "max_n", json_integer(policy->max_n));
    if (policy->fallback != NULL) json_object_set_new(object, "fallback", json_string(policy->fallback));
    return object;
}

static json_t *json_models(const br_answer *info)
{
    json_t *models = json_object();
    for (size_t i = 0; i < info->model_count; i++) {
        const br_answer_model *model = &info->models[i];
        json_t *row = json_object();
        json_object_set_new(row, "input_price",
                            model->has_price ? cli_json_real(model->input_price) : json_null());
        json_object_set_new(row, "output_price",
                            model->has_price ? cli_json_real(model->output_price) : json_null());
        json_object_set_new(row, "avg_output_tokens", cli_json_real(model->avg_output_tokens));
        json_object_set_new(row, "input_per_sample", json_boolean(model->input_per_sample));
        json_object_set_new(models, model->name, row);
    }
    return models;
}

static json_t *json_policy_table(const br_answer *info)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < info->policy_table_count; i++) {
        const br_answer_policy_row *from = &info->policy_table[i];
        json_t *row = json_object();
        json_object_set_new(row, "threshold", cli_json_real(from->threshold));
        json_object_set_new(row, "reference_share", cli_json_real(from->reference_share));
        json_object_set_new(row, "mean_cost", cli_json_real(from->mean_cost));
        json_object_set_new(row, "quality", cli_json_real(from->quality));
        json_array_append_new(rows, row);
    }
    json_t *table = json_object();
    json_object_set_new(table, "kind", json_string("threshold"));
    json_object_set_new(table, "rows", json_integer((json_int_t)info->policy_table_prompts));
    json_object_set_new(table, "table", rows);
    return table;
}

json_t *cli_json_info(const br_answer *info)
{
    json_t *candidates = json_array();
    for (size_t i = 0; i < info->candidate_count; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "model", cli_json_text(info->candidates[i].model));
        json_object_set_new(row, "n", json_integer(info->candidates[i].n));
        json_array_append_new(candidates, row);
    }
    json_t *limits = json_object();
    json_object_set_new(limits, "max_queries", json_integer((json_int_t)info->max_queries));
    json_object_set_new(limits, "max_tokens", json_integer((json_int_t)info->max_tokens));
    json_object_set_new(limits, "max_message_bytes", json_integer((json_int_t)info->max_message_bytes));
    json_object_set_new(limits, "max_text_bytes", json_integer((json_int_t)info->max_text_bytes));
    json_t *server = json_object();
    json_object_set_new(server, "version", cli_json_text(info->version));
    json_object_set_new(server, "engine", cli_json_text(info->engine));
    json_object_set_new(server, "precision", cli_json_text(info->precision));
    json_object_set_new(server, "devices", json_names(info->devices, info->device_count));
    json_t *bundle = json_object();
    json_object_set_new(bundle, "name", cli_json_text(info->bundle_name));
    json_object_set_new(bundle, "hash", cli_json_text(info->bundle_hash));

    json_t *object = json_object();
    json_object_set_new(object, "candidates", candidates);
    json_object_set_new(object, "reference", json_integer((json_int_t)info->reference));
    json_object_set_new(object, "models", json_models(info));
    json_object_set_new(object, "policy", cli_json_policy(info->policy));
    if (info->policy_table_count > 0) json_object_set_new(object, "policy_table", json_policy_table(info));
    json_object_set_new(object, "limits", limits);
    json_object_set_new(object, "server", server);
    json_object_set_new(object, "bundle", bundle);
    return object;
}
