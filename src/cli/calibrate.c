/* calibrate.c - `bestroute calibrate`: the threshold or lambda that meets a target on the user's own
 * records. */
#include "calibrate.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "json_out.h"
#include "measured.h"
#include "plot.h"

enum { TABLE_ROWS = 21, PATH_BYTES = 4096 };

typedef struct outcome {
    double parameter; /* threshold or lambda */
    double reference_share;
    double cost;
    double quality;
} outcome;

typedef struct calibration {
    const cli_options *options;
    cli_scores scores;
    const char *parameter; /* what the policy is set by: its key in router.json */
    const char *kind;
    br_eval_trace trace; /* along it costs rise */
    br_eval_point curve[CLI_PARAMETERS_MAX];
    json_t *report; /* of a run that succeeded */
} calibration;

static outcome outcome_at(calibration *c, size_t index, const double *weights)
{
    br_eval_curve(c->curve, &c->trace, weights);
    return (outcome){c->trace.parameters[index], br_eval_reference_share(&c->trace, index, weights),
                     c->curve[index].cost, c->curve[index].quality};
}

/* The best parameter that meets the target: the dearest that is cheap enough, or the cheapest that is good
 * enough. False where none is. */
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

static json_t *outcome_json(const char *parameter, outcome o)
{
    return json_pack("{sf sf sf sf}", parameter, o.parameter, "reference_share", o.reference_share,
                     "mean_cost", o.cost, "quality", o.quality);
}

/* What every parameter of the curve gives. */
static json_t *curve_json(calibration *c)
{
    json_t *out = json_array();
    br_eval_curve(c->curve, &c->trace, c->scores.weights);
    for (size_t i = 0; i < c->trace.count; i++) {
        const double share = br_eval_reference_share(&c->trace, i, c->scores.weights);
        const outcome o = {c->trace.parameters[i], share, c->curve[i].cost, c->curve[i].quality};
        json_array_append_new(out, outcome_json(c->parameter, o));
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

/* What each of evenly spaced thresholds would have given. */
static json_t *make_table(calibration *c, br_error *error)
{
    double thresholds[TABLE_ROWS];
    for (int i = 0; i < TABLE_ROWS; i++) thresholds[i] = i / (double)(TABLE_ROWS - 1);
    br_eval_trace trace;
    if (br_eval_trace_init(&trace, &c->scores.table, BR_POLICY_THRESHOLD, thresholds, TABLE_ROWS, -1) !=
        BR_OK) {
        (void)!br_no_memory(error, "the calibration");
        return NULL;
    }
    br_eval_point curve[TABLE_ROWS];
    br_eval_curve(curve, &trace, c->scores.weights);
    json_t *table = json_array();
    for (size_t i = 0; i < TABLE_ROWS; i++) {
        const double share = br_eval_reference_share(&trace, i, c->scores.weights);
        const outcome o = {thresholds[i], share, curve[i].cost, curve[i].quality};
        json_array_append_new(table, outcome_json("threshold", o));
    }
    br_eval_trace_deinit(&trace);
    json_t *out = json_pack("{ss sI so}", "kind", "threshold", "rows", (json_int_t)c->scores.table.rows,
                            "table", table);
    return out;
}

/* Four intervals: of the parameter as each sample would have chosen it, and of what the chosen one gives. */
static br_status bootstrap(calibration *c, size_t index, double low[4], double high[4], br_error *error)
{
    const size_t count = c->options->bootstrap;
    const size_t rows = c->scores.table.rows;
    double *drawn = calloc(rows, sizeof *drawn);
    double *samples = calloc(4 * count + 1, sizeof *samples);
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
        const outcome o = outcome_at(c, index, drawn);
        samples[count + b] = o.reference_share;
        samples[2 * count + b] = o.cost;
        samples[3 * count + b] = o.quality;
    }
    for (int i = 0; i < 4; i++) {
        low[i] = br_eval_quantile(samples + (size_t)i * count, count, 0.025);
        high[i] = br_eval_quantile(samples + (size_t)i * count, count, 0.975);
    }
    free(drawn);
    free(samples);
    return BR_OK;
}

/* The new file beside the old one, then in its place: a reader sees one or the other, whole. */
static br_status replace_file(const char *path, const json_t *document, br_error *error)
{
    char beside[PATH_BYTES + 8];
    snprintf(beside, sizeof beside, "%s.XXXXXX", path);
    const int fd = mkstemp(beside);
    if (fd < 0) return br_fail(error, BR_EIO, "%s: %s", beside, strerror(errno));
    const bool written = fchmod(fd, 0644) == 0 && json_dumpfd(document, fd, JSON_INDENT(2)) == 0 &&
                         write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    const int reason = errno;
    const bool closed = close(fd) == 0;
    if (written && closed && rename(beside, path) == 0) return BR_OK;
    const int last = written && closed ? errno : reason;
    (void)unlink(beside);
    return br_fail(error, BR_EIO, "%s: %s", path, strerror(last));
}

/* The folder must hold the bundle that the service scored with, as far as its candidates tell. */
static bool is_served(const json_t *router, const cli_scores *s)
{
    const json_t *list = json_object_get(router, "candidates");
    const json_t *name = json_object_get(router, "name");
    if (!json_is_string(name) || strcmp(json_string_value(name), s->info->bundle_name) != 0) return false;
    if (json_array_size(list) != s->info->candidate_count) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *model = json_object_get(json_array_get(list, i), "model");
        const json_int_t n = json_integer_value(json_object_get(json_array_get(list, i), "n"));
        if (!json_is_string(model) || strcmp(json_string_value(model), s->pairs[i].model) != 0) return false;
        if (n != s->pairs[i].n) return false;
    }
    return true;
}

static br_status update_bundle(calibration *c, double parameter, json_t *table, br_error *error)
{
    char path[PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/router.json", c->options->bundle) >= sizeof path)
        return br_fail(error, BR_EINVAL, "--bundle: the path is too long");
    json_error_t where;
    json_t *router = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (router == NULL) return br_fail(error, BR_EINVAL, "%s:%d: %s", path, where.line, where.text);
    br_status status;
    if (!is_served(router, &c->scores)) {
        status = br_fail(error, BR_EINVAL, "%s is not the bundle '%s' that the service at %s has loaded",
                         path, c->scores.info->bundle_name, c->options->urls.items[0]);
    } else {
        json_object_set_new(router, "policy", json_pack("{ss sf}", "kind", c->kind, c->parameter, parameter));
        json_object_set(router, "policy_table", table);
        status = replace_file(path, router, error);
    }
    json_decref(router);
    return status;
}

static void print_outcome(const calibration *c, outcome o, const double *low, const double *high)
{
    const br_eval_point reference =
        br_eval_static(&c->scores.table, c->scores.info->reference, c->scores.weights);
    printf("%-16s %.4f  [%.4f, %.4f]\n", c->parameter, o.parameter, low[0], high[0]);
    printf("to the reference %.1f %%  [%.1f, %.1f]\n", 100 * o.reference_share, 100 * low[1], 100 * high[1]);
    printf("USD per 1000     %.4f  [%.4f, %.4f]; the reference alone %.4f: %.1f %% less\n", 1000 * o.cost,
           1000 * low[2], 1000 * high[2], 1000 * reference.cost, 100 * (1 - o.cost / reference.cost));
    printf("quality          %.4f  [%.4f, %.4f]; the reference alone %.4f\n", o.quality, low[3], high[3],
           reference.quality);
    printf("on %zu prompts of split '%s'; 95 %% intervals\n", c->scores.table.rows, c->options->split);
    if (c->options->dry_run)
        puts("nothing written (--dry-run)");
    else
        printf("written to %s/router.json; the service takes it up with `bestroute reload`\n",
               c->options->bundle);
}

/* All that is known of the setting chosen and of the others. */
static json_t *report_json(calibration *c, outcome chosen, const double low[4], const double high[4],
                           json_t *table)
{
    const char *const keys[] = {c->parameter, "reference_share", "mean_cost", "quality"};
    json_t *out = outcome_json(c->parameter, chosen);
    json_t *intervals = json_object();
    for (int i = 0; i < 4; i++) {
        json_t *pair = json_array();
        json_array_append_new(pair, cli_json_real(low[i]));
        json_array_append_new(pair, cli_json_real(high[i]));
        json_object_set_new(intervals, keys[i], pair);
    }
    json_object_set_new(out, "intervals", intervals);
    json_object_set(out, "policy_table", table);
    json_object_set_new(out, "written", json_boolean(!c->options->dry_run));
    cli_scores_describe(out, &c->scores, c->options);
    json_object_set_new(out, "policy", json_string(c->kind));
    json_object_set_new(out, "target", target_json(c->options));
    json_object_set_new(out, "reference", reference_json(c));
    json_object_set_new(out, "curve", curve_json(c));
    return out;
}

static br_status run(calibration *c, br_client *client, br_error *error)
{
    br_status status = cli_scores_load(&c->scores, c->options, client, error);
    if (status != BR_OK) return status;
    const bool utility = c->options->policy.kind != NULL && strcmp(c->options->policy.kind, "utility") == 0;
    c->kind = utility ? "utility" : "threshold";
    c->parameter = utility ? "lambda" : "threshold";
    double parameters[CLI_PARAMETERS_MAX];
    if (utility)
        cli_scores_lambdas(parameters, &c->scores);
    else
        status = cli_scores_thresholds(parameters, &c->scores);
    if (status == BR_OK)
        status =
            br_eval_trace_init(&c->trace, &c->scores.table, utility ? BR_POLICY_UTILITY : BR_POLICY_THRESHOLD,
                               parameters, utility ? CLI_LAMBDAS : CLI_THRESHOLDS, -1);
    if (status != BR_OK) return br_fail(error, status, "out of memory");
    size_t index;
    if (!find(c, &index, c->scores.weights))
        return br_fail(error, BR_EINFEASIBLE, "no %s reaches the target on these records", c->parameter);
    const outcome chosen = outcome_at(c, index, c->scores.weights);
    double low[4];
    double high[4];
    status = bootstrap(c, index, low, high, error);
    if (status != BR_OK) return status;
    json_t *table = make_table(c, error);
    if (table == NULL) return BR_ENOMEM;
    if (!c->options->dry_run) status = update_bundle(c, chosen.parameter, table, error);
    if (status == BR_OK && !c->options->json) print_outcome(c, chosen, low, high);
    if (status == BR_OK) c->report = report_json(c, chosen, low, high, table);
    if (status == BR_OK && c->options->json) (void)!cli_json_print(stdout, json_incref(c->report));
    json_decref(table);
    return status;
}

cli_exit cli_calibrate(const cli_options *options, br_client *client)
{
    calibration *c = calloc(1, sizeof *c);
    br_error error = {0};
    cli_exit code = CLI_EXIT_BROKEN;
    if (options->plot != NULL && br_plot_check(&error) != BR_OK) {
        code = CLI_EXIT_USAGE;
    } else if (c != NULL) {
        c->options = options;
        const br_status status = run(c, client, &error);
        code = cli_scores_exit_of(&c->scores, status);
        br_eval_trace_deinit(&c->trace);
        cli_scores_deinit(&c->scores);
    }
    code = code == CLI_EXIT_OK ? cli_scores_plot(c->report, options) : cli_report(options, code, &error);
    if (c != NULL) json_decref(c->report);
    free(c);
    return code;
}
