/* measured.c - reads records and puts the service's qualities beside them. */
#include "measured.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/scores.h"
#include "eval/stories.h"
#include "json_out.h"

cli_exit cli_scores_exit_of(const cli_scores *scores, br_status status)
{
    /* Once the service's info is there, what fails are files and their content. */
    const bool own = status == BR_EIO || status == BR_EFORMAT || status == BR_EINVAL || status == BR_ETOOBIG;
    return scores->info != NULL && own ? CLI_EXIT_USAGE : cli_exit_of(status);
}

/* The part of the bundle that `info` describes: enough to decide as the service decides. */
static br_status make_router(cli_scores *s, br_error *error)
{
    const br_answer *info = s->info;
    if (info->candidate_count == 0 || info->candidate_count > BR_CANDIDATES_MAX ||
        info->model_count > BR_MODELS_MAX || info->reference >= info->candidate_count)
        return br_fail(error, BR_EFORMAT, "the service's info names no usable candidates");
    s->router = calloc(1, sizeof *s->router);
    if (s->router == NULL) return br_no_memory(error, "the evaluation");
    for (size_t m = 0; m < info->model_count; m++) {
        br_priced_model *model = &s->router->models[s->router->model_count++];
        snprintf(model->name, sizeof model->name, "%s", info->models[m].name);
        model->has_price = info->models[m].has_price;
        model->input_price = info->models[m].input_price;
        model->output_price = info->models[m].output_price;
        model->avg_output_tokens = info->models[m].avg_output_tokens;
        model->input_per_sample = info->models[m].input_per_sample;
    }
    for (size_t c = 0; c < info->candidate_count; c++) {
        const int32_t model = br_router_find_model(s->router, br_str_from(info->candidates[c].model));
        if (model < 0)
            return br_fail(error, BR_EFORMAT, "the service's info names a candidate without its model");
        s->router->candidates[c] = (br_candidate){
            .model = model, .n = (int32_t)info->candidates[c].n, .head = (int32_t)c, .scale = 1};
        s->pairs[c] = (br_records_pair){s->router->models[model].name, (int32_t)info->candidates[c].n};
    }
    s->router->candidate_count = (int32_t)info->candidate_count;
    s->router->head_count = (int32_t)info->candidate_count;
    s->router->reference = (int32_t)info->reference;
    return BR_OK;
}

static br_status read_records(cli_scores *s, const cli_options *options, br_error *error)
{
    const br_records_options how = {
        .pairs = s->pairs,
        .pair_count = s->info->candidate_count,
        .split = strcmp(options->split, "all") == 0 ? NULL : options->split,
        .single = options->single,
        .second_half = options->second_half,
    };
    for (size_t i = 0; i < options->data.count; i++) {
        const br_status status = br_records_read(&s->records, options->data.items[i], &how, error);
        if (status != BR_OK) return status;
    }
    if (s->records.row_count > 0) return BR_OK;
    return br_fail(error, BR_EINVAL, "no record of split '%s' with a reference among %zu", options->split,
                   s->records.passed_over);
}

/* USD for the answer as it was measured: with its own length where that is known. */
static double paid(const cli_scores *s, const br_records_row *row, size_t candidate)
{
    const br_router *router = s->router;
    const int32_t model = router->candidates[candidate].model;
    const bool reference = (int32_t)candidate == router->reference;
    const double tokens = reference ? row->reference_output_tokens : row->measures[candidate].output_tokens;
    uint64_t prompt_tokens[BR_MODELS_MAX];
    double output_tokens[BR_MODELS_MAX];
    prompt_tokens[model] = row->prompt_tokens;
    output_tokens[model] = isfinite(tokens) ? tokens : router->models[model].avg_output_tokens;
    const br_query_costs costs = {prompt_tokens, output_tokens, INFINITY};
    return br_candidate_cost(router, (int32_t)candidate, &costs);
}

static br_status fill_table(cli_scores *s, const cli_options *options, br_error *error)
{
    const size_t candidates = s->info->candidate_count;
    size_t measured = 0;
    if (br_eval_table_init(&s->table, s->router, s->records.row_count, s->records.task_count) != BR_OK)
        return br_no_memory(error, "the evaluation");
    for (size_t r = 0; r < s->records.row_count; r++) {
        const br_records_row *row = &s->records.rows[r];
        s->table.task[r] = row->task;
        s->table.prompt_tokens[r] = row->prompt_tokens;
        for (size_t c = 0; c < candidates; c++) {
            const size_t cell = br_eval_at(&s->table, r, c);
            const br_records_measure *m = &row->measures[c];
            const bool reference = c == s->info->reference;
            s->table.paid[cell] = paid(s, row, c);
            s->table.measured[cell] = reference || (m->measured && !isnan(s->table.paid[cell]));
            s->table.quality[cell] =
                reference ? row->reference_quality
                          : (1 - options->selector) * m->first_quality + options->selector * m->quality;
            s->table.match[cell] = reference ? 1 : m->match;
            if (!reference && s->table.measured[cell]) measured++;
        }
        if (isnan(s->table.paid[br_eval_at(&s->table, r, s->info->reference)]))
            return br_fail(error, BR_EINVAL,
                           "the bundle's reference has no price, or neither record '%s' nor the bundle tells "
                           "how long its answer is: there is nothing to save from",
                           row->id);
    }
    if (measured > 0) return BR_OK;
    return br_fail(error, BR_EINVAL, "no record has a measured candidate of bundle '%s'",
                   s->info->bundle_name);
}

static br_status score_batch(cli_scores *s, br_client *client, size_t first, size_t count, br_error *error)
{
    br_client_query queries[CLI_BATCH_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        queries[i].text = s->records.rows[first + i].prompt;
        queries[i].text_bytes = s->records.rows[first + i].prompt_bytes;
    }
    br_answer *answer;
    const br_client_call call = {.queries = queries, .query_count = count};
    br_status status = br_client_score(client, &answer, &call, error);
    if (status != BR_OK) return status;
    for (size_t i = 0; i < count && status == BR_OK; i++) {
        const br_answer_result *result = &answer->results[i];
        if (result->error != NULL) {
            status = br_fail(error, BR_EINTERNAL, "record '%s': %s: %s", s->records.rows[first + i].id,
                             result->error, result->message);
        } else if (result->quality_count != s->info->candidate_count ||
                   strcmp(answer->bundle_hash, s->info->bundle_hash) != 0) {
            status = br_fail(error, BR_EINTERNAL, "the service changed its bundle meanwhile; run it again");
        }
        for (size_t c = 0; c < s->info->candidate_count && status == BR_OK; c++)
            s->table.predicted[br_eval_at(&s->table, first + i, c)] = (float)result->qualities[c];
    }
    br_answer_free(answer);
    return status;
}

static br_status score_all(cli_scores *s, const cli_options *options, br_client *client, br_error *error)
{
    const size_t batch = options->batch < s->info->max_queries ? options->batch : s->info->max_queries;
    br_status status = BR_OK;
    for (size_t at = 0; at < s->records.row_count && status == BR_OK; at += batch) {
        const size_t left = s->records.row_count - at;
        status = score_batch(s, client, at, left < batch ? left : batch, error);
    }
    return status;
}

/* Takes for each record the line with its id. Lines that no record takes belong to other splits. */
static br_status take_scores(cli_scores *s, const char *path, br_error *error)
{
    const size_t candidates = s->info->candidate_count;
    br_score_file file;
    br_status status = br_score_file_read(&file, path, candidates, error);
    for (size_t r = 0; r < s->records.row_count && status == BR_OK; r++) {
        const float *qualities = br_score_file_find(&file, s->records.rows[r].id);
        if (qualities == NULL)
            status = br_fail(error, BR_EINVAL, "%s: no line has the id '%s' of a record", path,
                             s->records.rows[r].id);
        else
            memcpy(s->table.predicted + br_eval_at(&s->table, r, 0), qualities,
                   candidates * sizeof *qualities);
    }
    br_score_file_deinit(&file);
    return status;
}

br_status cli_scores_load(cli_scores *out, const cli_options *options, br_client *client, br_error *error)
{
    *out = (cli_scores){0};
    br_status status = br_client_info(client, &out->info, error);
    if (status == BR_OK) status = make_router(out, error);
    if (status == BR_OK) status = read_records(out, options, error);
    if (status == BR_OK) status = fill_table(out, options, error);
    if (status != BR_OK) return status;

    status = options->scores == NULL ? score_all(out, options, client, error)
                                     : take_scores(out, options->scores, error);
    if (status != BR_OK) return status;
    int32_t *story = calloc(out->records.row_count + 1, sizeof *story);
    if (story == NULL || br_stories_number(story, &out->records) != BR_OK) {
        free(story);
        return br_no_memory(error, "the evaluation");
    }
    br_eval_set_stories(&out->table, story);
    free(story);
    out->weights = calloc(out->records.row_count, sizeof *out->weights);
    if (out->weights == NULL) return br_no_memory(error, "the evaluation");
    br_eval_weights(out->weights, &out->table, options->by_task);
    return BR_OK;
}

void cli_scores_deinit(cli_scores *scores)
{
    br_eval_table_deinit(&scores->table);
    br_records_deinit(&scores->records);
    br_answer_free(scores->info);
    free(scores->router);
    free(scores->weights);
    *scores = (cli_scores){0};
}

void cli_scores_describe(json_t *report, const cli_scores *scores, const cli_options *options)
{
    json_t *data = json_array();
    for (size_t i = 0; i < options->data.count; i++)
        json_array_append_new(data, cli_json_text(options->data.items[i]));
    json_object_set_new(
        report, "bundle",
        json_pack("{ss ss}", "name", scores->info->bundle_name, "hash", scores->info->bundle_hash));
    json_object_set_new(report, "data", data);
    json_object_set_new(report, "split", cli_json_text(options->split));
    json_object_set_new(report, "scores",
                        options->scores != NULL ? cli_json_text(options->scores) : json_null());
    json_object_set_new(report, "single", json_boolean(options->single));
    json_object_set_new(report, "second_half", json_boolean(options->second_half));
    json_object_set_new(report, "selector", json_real(options->selector));
    json_object_set_new(report, "weights", json_string(options->by_task ? "tasks" : "rows"));
    json_object_set_new(report, "rows", json_integer((json_int_t)scores->records.row_count));
    json_object_set_new(report, "passed_over", json_integer((json_int_t)scores->records.passed_over));
    json_object_set_new(report, "stories", json_integer((json_int_t)scores->table.stories));
    json_object_set_new(report, "bootstrap", json_integer(options->bootstrap));
    json_object_set_new(report, "seed", json_integer(options->seed));
}
