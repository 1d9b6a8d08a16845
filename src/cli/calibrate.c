/*
 * calibrate.c - `bestroute calibrate`: the threshold or lambda that meets a target on the user's own records.
 *
 *   measured -> trace of every setting -> the one that meets the target -> intervals -> router.json, report
 */
#include "calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "eval/sweep.h"
#include "json_out.h"
#include "measured.h"
#include "plot.h"
#include "router_file.h"

enum { TABLE_ROWS = 21 };

/* What one setting gives. */
typedef struct outcome {
    double setting; /* threshold or lambda */
    double reference_share;
    double cost;
    double quality;
} outcome;

enum { OUTCOME_FIGURES = sizeof(outcome) / sizeof(double) };

typedef struct calibration {
    const cli_options *options;
    cli_scores scores;
    const char *kind;                           /* of the policy: "threshold" or "utility" */
    const char *setting;                        /* what it is set by: its key in router.json */
    br_eval_trace trace;                        /* of every setting; the cost rises along it */
    br_eval_point curve[BR_SWEEP_SETTINGS_MAX]; /* scratch */
    size_t index;                               /* of the setting chosen */
    outcome chosen;                             /* on all records */
    /* Intervals, in the order of outcome: of the setting, as each sample would have chosen it; of the rest,
     * as the setting chosen on all records gives them. */
    double low[OUTCOME_FIGURES];
    double high[OUTCOME_FIGURES];
    json_t *table; /* of evenly spaced thresholds */
    json_t *report;
} calibration;

static outcome outcome_at(calibration *c, size_t index, const double *weights)
{
    br_eval_curve(c->curve, &c->trace, weights);
    return (outcome){c->trace.parameters[index], br_eval_reference_share(&c->trace, index, weights),
                     c->curve[index].cost, c->curve[index].quality};
}

/* The best setting that meets the target: the dearest that is cheap enough, or the cheapest that is good
 * enough. False: none meets it. */
static bool find(calibration *c, size_t *index, const double *weights)
{
    const cli_options *o = c->options;
    const br_eval_point reference = br_eval_static(&c->scores.table, c->scores.info->reference, weights);
    br_eval_curve(c->curve, &c->trace, weights);
    if (o->has_target_quality) {
        for (size_t i = 0; i < c->trace.count; i++) {
            *index = i;
            if (c->curve[i].quality >= o->target_quality * reference.quality) return true;
        }
        return false;
    }
    for (size_t i = c->trace.count; i-- > 0;) {
        *index = i;
        const bool good = o->has_reduce_cost
                              ? c->curve[i].cost <= (1 - o->reduce_cost) * reference.cost
                              : br_eval_reference_share(&c->trace, i, weights) <= o->reference_share;
        if (good) return true;
    }
    return false;
}

static json_t *outcome_json(const char *setting, outcome o)
{
    return json_pack("{sf sf sf sf}", setting, o.setting, "reference_share", o.reference_share, "mean_cost",
                     o.cost, "quality", o.quality);
}

/* What every setting gives. */
static json_t *curve_json(calibration *c)
{
    json_t *out = json_array();
    br_eval_curve(c->curve, &c->trace, c->scores.weights);
    for (size_t i = 0; i < c->trace.count; i++) {
        const double share = br_eval_reference_share(&c->trace, i, c->scores.weights);
        const outcome o = {c->trace.parameters[i], share, c->curve[i].cost, c->curve[i].quality};
        json_array_append_new(out, outcome_json(c->setting, o));
    }
    return out;
}

static json_t *target_json(const cli_options *o)
{
    if (o->has_reduce_cost) return json_pack("{sf}", "reduce_cost", o->reduce_cost);
    if (o->has_reference_share) return json_pack("{sf}", "reference_share", o->reference_share);
    return json_pack("{sf}", "quality", o->target_quality);
}

static json_t *reference_json(const calibration *c)
{
    const size_t reference = c->scores.info->reference;
    const br_eval_point point = br_eval_static(&c->scores.table, reference, c->scores.weights);
    return json_pack("{ss si sf sf}", "model", c->scores.pairs[reference].model, "n",
                     c->scores.pairs[reference].n, "cost", point.cost, "quality", point.quality);
}

/* What each of evenly spaced thresholds would have given: "policy_table" of the bundle. */
static br_status make_table(calibration *c, br_error *error)
{
    double thresholds[TABLE_ROWS];
    for (int i = 0; i < TABLE_ROWS; i++) thresholds[i] = i / (double)(TABLE_ROWS - 1);
    br_eval_trace trace;
    if (br_eval_trace_init(&trace, &c->scores.table, BR_POLICY_THRESHOLD, thresholds, TABLE_ROWS, -1) !=
        BR_OK)
        return br_no_memory(error, "the calibration");
    br_eval_point curve[TABLE_ROWS];
    br_eval_curve(curve, &trace, c->scores.weights);
    json_t *rows = json_array();
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        const double share = br_eval_reference_share(&trace, i, c->scores.weights);
        const outcome o = {thresholds[i], share, curve[i].cost, curve[i].quality};
        json_array_append_new(rows, outcome_json("threshold", o));
    }
    br_eval_trace_deinit(&trace);
    c->table =
        json_pack("{ss sI so}", "kind", "threshold", "rows", (json_int_t)c->scores.table.rows, "table", rows);
    return BR_OK;
}

/* Fills low and high. */
static br_status bootstrap(calibration *c, br_error *error)
{
    const size_t count = c->options->bootstrap;
    double *drawn = calloc(c->scores.table.rows, sizeof *drawn);
    double *samples = calloc(OUTCOME_FIGURES * count + 1, sizeof *samples);
    if (drawn == NULL || samples == NULL) {
        free(drawn);
        free(samples);
        return br_no_memory(error, "the calibration");
    }
    uint64_t state = c->options->seed;
    for (size_t b = 0; b < count; b++) {
        br_eval_resample(drawn, &c->scores.table, c->scores.weights, &state);
        size_t own;
        samples[b] = find(c, &own, drawn) ? c->trace.parameters[own] : NAN;
        const outcome o = outcome_at(c, c->index, drawn);
        samples[count + b] = o.reference_share;
        samples[2 * count + b] = o.cost;
        samples[3 * count + b] = o.quality;
    }
    for (int i = 0; i < OUTCOME_FIGURES; i++) {
        c->low[i] = br_eval_quantile(samples + (size_t)i * count, count, 0.025);
        c->high[i] = br_eval_quantile(samples + (size_t)i * count, count, 0.975);
    }
    free(drawn);
    free(samples);
    return BR_OK;
}

static void print_outcome(const calibration *c)
{
    const outcome *o = &c->chosen;
    const br_eval_point reference =
        br_eval_static(&c->scores.table, c->scores.info->reference, c->scores.weights);
    printf("%-16s %.4f  [%.4f, %.4f]\n", c->setting, o->setting, c->low[0], c->high[0]);
    printf("to the reference %.1f %%  [%.1f, %.1f]\n", 100 * o->reference_share, 100 * c->low[1],
           100 * c->high[1]);
    printf("USD per 1000     %.4f  [%.4f, %.4f]; the reference alone %.4f: %.1f %% less\n", 1000 * o->cost,
           1000 * c->low[2], 1000 * c->high[2], 1000 * reference.cost, 100 * (1 - o->cost / reference.cost));
    printf("quality          %.4f  [%.4f, %.4f]; the reference alone %.4f\n", o->quality, c->low[3],
           c->high[3], reference.quality);
    printf("on %zu prompts of split '%s'; 95 %% intervals\n", c->scores.table.rows, c->options->split);
    if (c->options->dry_run)
        puts("nothing written (--dry-run)");
    else
        printf("written to %s/router.json; the service takes it up with `bestroute reload`\n",
               c->options->bundle);
}

static json_t *intervals_json(const calibration *c)
{
    const char *const keys[OUTCOME_FIGURES] = {c->setting, "reference_share", "mean_cost", "quality"};
    json_t *out = json_object();
    for (int i = 0; i < OUTCOME_FIGURES; i++) {
        json_t *pair = json_array();
        json_array_append_new(pair, cli_json_real(c->low[i]));
        json_array_append_new(pair, cli_json_real(c->high[i]));
        json_object_set_new(out, keys[i], pair);
    }
    return out;
}

/* All that is known of the setting chosen and of the others. */
static json_t *report_json(calibration *c)
{
    json_t *out = outcome_json(c->setting, c->chosen);
    json_object_set_new(out, "intervals", intervals_json(c));
    json_object_set(out, "policy_table", c->table);
    json_object_set_new(out, "written", json_boolean(!c->options->dry_run));
    cli_scores_describe(out, &c->scores, c->options);
    json_object_set_new(out, "policy", json_string(c->kind));
    json_object_set_new(out, "target", target_json(c->options));
    json_object_set_new(out, "reference", reference_json(c));
    json_object_set_new(out, "curve", curve_json(c));
    return out;
}

static br_status choose_setting(calibration *c, br_error *error)
{
    const char *kind = c->options->policy.kind;
    const bool utility = kind != NULL && strcmp(kind, "utility") == 0;
    c->kind = utility ? "utility" : "threshold";
    c->setting = utility ? "lambda" : "threshold";
    const br_status status = br_sweep_trace(
        &c->trace, &c->scores.table, utility ? BR_SWEEP_UTILITY : BR_SWEEP_THRESHOLD, c->scores.weights);
    if (status != BR_OK) return br_no_memory(error, "the calibration");
    if (!find(c, &c->index, c->scores.weights))
        return br_fail(error, BR_EINFEASIBLE, "no %s reaches the target on these records", c->setting);
    c->chosen = outcome_at(c, c->index, c->scores.weights);
    return BR_OK;
}

static br_status update_bundle(calibration *c, br_error *error)
{
    if (c->options->dry_run) return BR_OK;
    json_t *policy = json_pack("{ss sf}", "kind", c->kind, c->setting, c->chosen.setting);
    const br_status status = cli_router_file_set_policy(c->options->bundle, &c->scores,
                                                        c->options->urls.items[0], policy, c->table, error);
    json_decref(policy);
    return status;
}

static br_status run(calibration *c, br_client *client, br_error *error)
{
    br_status status = cli_scores_load(&c->scores, c->options, client, error);
    if (status == BR_OK) status = choose_setting(c, error);
    if (status == BR_OK) status = bootstrap(c, error);
    if (status == BR_OK) status = make_table(c, error);
    if (status == BR_OK) status = update_bundle(c, error);
    if (status != BR_OK) return status;
    c->report = report_json(c);
    if (c->options->json) {
        cli_json_print(stdout, json_incref(c->report));
    } else {
        print_outcome(c);
    }
    return BR_OK;
}

static void destroy(calibration *c)
{
    br_eval_trace_deinit(&c->trace);
    cli_scores_deinit(&c->scores);
    json_decref(c->table);
    json_decref(c->report);
    free(c);
}

cli_exit cli_calibrate(const cli_options *options, br_client *client)
{
    br_error error = {0};
    if (options->plot != NULL && br_plot_check(&error) != BR_OK)
        return cli_report(options, CLI_EXIT_USAGE, &error);
    calibration *c = calloc(1, sizeof *c);
    if (c == NULL) {
        (void)!br_no_memory(&error, "the calibration");
        return cli_report(options, CLI_EXIT_BROKEN, &error);
    }
    c->options = options;
    const br_status status = run(c, client, &error);
    cli_exit code = cli_scores_exit_of(&c->scores, status);
    code = code == CLI_EXIT_OK ? cli_report_plot(options, c->report) : cli_report(options, code, &error);
    destroy(c);
    return code;
}
