/*
 * eval.c - `bestroute eval`: what this bundle's decisions would have cost, and how good the answers would
 * have been.
 *
 *   measured: records, scores -> analysis: each task, and all -> report -> JSON, table, plot
 */
#include "eval.h"

#include <math.h>
#include <stdio.h>

#include "core/memory.h"
#include "eval/analysis.h"
#include "eval_report.h"
#include "eval_table.h"
#include "json_out.h"
#include "measured.h"
#include "plot.h"

/* The service's default policy. False: it has none, or a pool, which decides no prompt by itself. */
static bool find_current(br_policy *out, const cli_scores *s)
{
    const br_client_policy *policy = s->info->policy;
    br_policy_kind kind;
    if (policy == NULL || policy->kind == NULL || !br_policy_kind_parse(&kind, br_str_from(policy->kind)) ||
        kind == BR_POLICY_POOL)
        return false;
    *out = (br_policy){
        .kind = kind,
        .fallback = BR_FALLBACK_BEST,
        .threshold = policy->threshold,
        .tolerance = policy->tolerance,
        .lambda = policy->lambda,
        .max_cost = policy->has_max_cost ? policy->max_cost : INFINITY,
        .allowed_models = policy->model_count == 0 ? UINT64_MAX : 0,
        .max_n = policy->max_n > 0 ? policy->max_n : UINT32_MAX,
    };
    if (policy->fallback != NULL) (void)br_fallback_parse(&out->fallback, br_str_from(policy->fallback));
    for (size_t i = 0; i < policy->model_count; i++) {
        const int32_t model = br_router_find_model(s->router, br_str_from(policy->models[i]));
        if (model >= 0) out->allowed_models |= UINT64_C(1) << model;
    }
    for (size_t i = 0; i < policy->exclude_count; i++) {
        const int32_t model = br_router_find_model(s->router, br_str_from(policy->exclude[i]));
        if (model >= 0) out->allowed_models &= ~(UINT64_C(1) << model);
    }
    return true;
}

/* The report on one task, or on all (-1). */
static br_status analyse(json_t **report, const cli_scores *s, const br_replay *replay,
                         const cli_options *options, int32_t task)
{
    br_analysis analysis;
    const br_status status =
        br_analysis_init(&analysis, &s->table, replay, s->weights, task, options->bootstrap, options->seed);
    *report = status == BR_OK ? cli_eval_report(&analysis, s) : NULL;
    br_analysis_deinit(&analysis);
    return status;
}

/* Adds "tasks" and "all". */
static br_status evaluate(json_t *document, const cli_scores *s, const cli_options *options)
{
    br_policy current;
    br_replay replay;
    json_t *report;
    json_t *tasks = json_array();
    json_object_set_new(document, "tasks", tasks);
    br_status status =
        br_replay_init(&replay, &s->table, s->weights, find_current(&current, s) ? &current : NULL);
    for (int32_t task = 0; task < (int32_t)s->records.task_count && status == BR_OK; task++) {
        status = analyse(&report, s, &replay, options, task);
        if (status == BR_OK) json_array_append_new(tasks, report);
    }
    if (status == BR_OK) status = analyse(&report, s, &replay, options, -1);
    if (status == BR_OK) json_object_set_new(document, "all", report);
    br_replay_deinit(&replay);
    return status;
}

cli_exit cli_eval(const cli_options *options, br_client *client)
{
    br_error error = {0};
    if (options->plot != NULL && br_plot_check(&error) != BR_OK)
        return cli_report(options, CLI_EXIT_USAGE, &error);
    cli_scores scores;
    json_t *document = json_object();
    br_status status = cli_scores_load(&scores, options, client, &error);
    if (status == BR_OK) {
        cli_scores_describe(document, &scores, options);
        status = evaluate(document, &scores, options);
        if (status != BR_OK) (void)!br_no_memory(&error, "the evaluation");
    }
    if (status == BR_OK && !options->json) cli_eval_table(document, options, &scores);
    if (status == BR_OK && options->json) cli_json_print(stdout, json_incref(document));

    cli_exit code = cli_scores_exit_of(&scores, status);
    cli_scores_deinit(&scores);
    code = code == CLI_EXIT_OK ? cli_report_plot(options, document) : cli_report(options, code, &error);
    json_decref(document);
    return code;
}
