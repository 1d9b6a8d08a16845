/* output.c - results as lines of JSON or as a table, and what they add up to. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    COLUMNS_DEFAULT = 110, /* where standard output is no terminal */
    COLUMNS_OTHER = 50,    /* of the table, without prompt and model */
    PROMPT_COLUMNS_MIN = 16,
    PROMPT_COLUMNS_MAX = 70,
    MODEL_COLUMNS_MIN = 5,
    MODEL_COLUMNS_MAX = 28,
};

static int clamp(int value, int least, int most)
{
    return value < least ? least : value > most ? most : value;
}

static int terminal_columns(FILE *to)
{
    struct winsize size;
    if (isatty(fileno(to)) && ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return COLUMNS_DEFAULT;
}

void cli_output_init(cli_output *out, const cli_options *options, const br_answer *info, bool has_lines)
{
    *out = (cli_output){
        .options = options, .info = info, .to = stdout, .has_lines = has_lines, .reference_known = true};
    int widest = 0;
    for (size_t i = 0; i < info->candidate_count; i++) {
        const int columns = cli_text_width(info->candidates[i].model);
        if (columns > widest) widest = columns;
    }
    out->model_columns = clamp(widest, MODEL_COLUMNS_MIN, MODEL_COLUMNS_MAX);
    out->prompt_columns = clamp(terminal_columns(out->to) - COLUMNS_OTHER - out->model_columns,
                                PROMPT_COLUMNS_MIN, PROMPT_COLUMNS_MAX);
}

/* What the reference alone would have cost for this prompt; NAN where the answer does not tell. */
static double reference_cost(const br_answer *info, const br_answer_result *result)
{
    const br_answer_candidate *reference = &info->candidates[info->reference];
    for (size_t i = 0; i < result->candidate_count; i++) {
        const br_answer_candidate *row = &result->candidates[i];
        if (row->n == reference->n && strcmp(row->model, reference->model) == 0) return row->cost;
    }
    return NAN;
}

static void count_answer(cli_output *out, const br_answer_result *result)
{
    out->truncated += result->truncated ? 1 : 0;
    if (out->options->command != CLI_ROUTE) return;
    out->unmet += result->met ? 0 : 1;
    for (size_t i = 0; i < out->info->candidate_count && i < CLI_CANDIDATES_MAX; i++) {
        const br_answer_candidate *candidate = &out->info->candidates[i];
        if (candidate->n == result->n && strcmp(candidate->model, result->model) == 0) out->chosen[i]++;
    }
    if (isfinite(result->cost)) {
        out->cost += result->cost;
    } else {
        out->unpriced++;
    }
    const double alone = reference_cost(out->info, result);
    if (isfinite(alone)) {
        out->reference_cost += alone;
    } else {
        out->reference_known = false;
    }
}

static json_t *json_head(const cli_output *out, const cli_prompt *prompt)
{
    json_t *object = json_object();
    json_object_set_new(object, "index", json_integer((json_int_t)out->prompts));
    if (prompt->line > 0) json_object_set_new(object, "line", json_integer((json_int_t)prompt->line));
    if (prompt->id != NULL) json_object_set(object, "id", prompt->id);
    return object;
}

static json_t *json_error(const char *code, const char *message)
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

static void set_route(json_t *object, const br_answer_result *result, bool explain)
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

static void set_score(json_t *object, const br_answer_result *result)
{
    json_t *qualities = json_array();
    for (size_t i = 0; i < result->quality_count; i++)
        json_array_append_new(qualities, cli_json_real(result->qualities[i]));
    json_object_set_new(object, "quality", qualities);
    json_object_set_new(object, "tokens", json_integer((json_int_t)result->tokens));
    json_object_set_new(object, "truncated", json_boolean(result->truncated));
}

static void print_json(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message)
{
    json_t *object = json_head(out, prompt);
    if (result == NULL) {
        json_object_set_new(object, "error", json_error(code, message));
    } else if (out->options->command == CLI_ROUTE) {
        set_route(object, result, out->options->explain);
    } else {
        set_score(object, result);
    }
    (void)!cli_json_print(out->to, object); /* the stream's own error is looked at once, at the end */
}

static void print_table(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                        const char *code, const char *message)
{
    if (out->prompts == 0) cli_table_head(out);
    if (result == NULL) {
        cli_table_failed(out, prompt, code, message);
    } else if (out->options->command == CLI_ROUTE) {
        cli_table_route(out, prompt, result);
    } else {
        cli_table_score(out, prompt, result);
    }
}

void cli_output_result(cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message)
{
    if (result != NULL && result->error != NULL) {
        code = result->error;
        message = result->message;
        result = NULL;
    }
    if (out->options->json) {
        print_json(out, prompt, result, code, message);
    } else {
        print_table(out, prompt, result, code, message);
    }
    out->prompts++;
    if (result == NULL) {
        out->failed++;
    } else {
        count_answer(out, result);
    }
}

void cli_output_totals(const cli_output *out)
{
    if (!out->options->json) cli_table_totals(out);
}

const char *cli_without_code(const char *text, const char *code)
{
    const size_t bytes = strlen(code);
    return strncmp(text, code, bytes) == 0 && strncmp(text + bytes, ": ", 2) == 0 ? text + bytes + 2 : text;
}

void cli_output_error(bool json, const char *code, const char *message, const char *url)
{
    if (json) {
        json_t *object = json_object();
        json_object_set_new(object, "error", json_error(code, cli_without_code(message, code)));
        if (url != NULL) json_object_set_new(object, "url", cli_json_text(url));
        (void)!cli_json_print(stdout, object);
        fflush(stdout);
    }
    fputs("bestroute: ", stderr);
    cli_text_print(stderr, message, strlen(message), INT32_MAX);
    fputc('\n', stderr);
}

static json_t *json_names(const char *const *names, size_t count)
{
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(array, cli_json_text(names[i]));
    return array;
}

static json_t *json_policy(const br_client_policy *policy)
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

static json_t *json_info(const br_answer *info)
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
    json_object_set_new(object, "policy", json_policy(info->policy));
    if (info->policy_table_count > 0) json_object_set_new(object, "policy_table", json_policy_table(info));
    json_object_set_new(object, "limits", limits);
    json_object_set_new(object, "server", server);
    json_object_set_new(object, "bundle", bundle);
    return object;
}

void cli_output_info(FILE *to, const cli_options *options, const br_answer *info)
{
    if (options->json) {
        (void)!cli_json_print(to, json_info(info));
    } else {
        cli_table_info(to, info);
    }
}
