/* eval.c - `bestroute eval`: what this bundle's decisions would have cost,
 * and how good they would have been. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "json_out.h"
#include "measured.h"
#include "plot.h"

enum {
    CAPS = 101,
    GRID = 50, /* costs at which curves are set against hulls */
    DROPS = 3,
    FAMILIES = 4,
    HULLS = 2,
};

static const double drops[DROPS] = {0.01, 0.02, 0.05};

typedef enum family { THRESHOLD, UTILITY, BUDGET, TWO_MODELS } family;
static const char *const family_names[FAMILIES] = {"threshold", "utility", "budget", "two_models"};
static const char *const hull_names[HULLS] = {"static", "static_per_task"};

typedef struct evaluator {
    const cli_options *options;
    cli_scores scores;
    br_eval_trace traces[FAMILIES];
    br_eval_point *curve; /* scratch, the longest trace */
    br_eval_point *hull[HULLS];
    size_t hull_count[HULLS];
    int32_t partner; /* the candidate of two_models */
    bool has_current;
    br_eval_trace current; /* of the service's default policy, where it has one and that is no pool */
    double grid[GRID];     /* the costs of the analysis under way */
} evaluator;

/* What one set of weights gives. */
typedef struct figures {
    br_eval_point reference;
    double saving[FAMILIES + HULLS][DROPS];
    double above[HULLS][GRID]; /* the threshold curve over each hull */
    double utility_above[HULLS][GRID];
    double quality[FAMILIES][GRID]; /* of the threshold and the utility curve */
    br_eval_point current;
    double measured[BR_EVAL_BINS]; /* mean match of each bin of the calibration */
} figures;

/* Of the candidates cheaper than the reference the one of highest mean quality: Hybrid-LLM's small model. */
static int32_t choose_partner(const cli_scores *s)
{
    const size_t reference = s->info->reference;
    const br_eval_point bar = br_eval_static(&s->table, reference, s->weights);
    int32_t best = -1;
    double quality = -INFINITY;
    for (size_t c = 0; c < s->info->candidate_count; c++) {
        const br_eval_point point = br_eval_static(&s->table, c, s->weights);
        if (c == reference || point.cost >= bar.cost || point.quality <= quality) continue;
        best = (int32_t)c;
        quality = point.quality;
    }
    return best;
}

/* The service's default policy, where one policy decides a prompt by itself. */
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

/* Lambdas fall, caps rise: along every curve the cost rises. */
static br_status make_traces(evaluator *e, br_error *error)
{
    const cli_scores *s = &e->scores;
    const double scale = br_eval_static(&s->table, s->info->reference, s->weights).cost;
    double thresholds[CLI_THRESHOLDS];
    double lambdas[CLI_LAMBDAS];
    double caps[CAPS];
    br_status status = cli_scores_thresholds(thresholds, s);
    if (status != BR_OK) return br_no_memory(error, "the evaluation");
    cli_scores_lambdas(lambdas, s);
    for (int i = 0; i < CAPS; i++) caps[i] = scale * pow(10, -3 + 4.0 * i / (CAPS - 1));
    e->partner = choose_partner(s);
    const struct {
        br_policy_kind kind;
        const double *parameters;
        size_t count;
        int32_t only;
    } wanted[FAMILIES] = {
        [THRESHOLD] = {BR_POLICY_THRESHOLD, thresholds, CLI_THRESHOLDS, -1},
        [UTILITY] = {BR_POLICY_UTILITY, lambdas, CLI_LAMBDAS, -1},
        [BUDGET] = {BR_POLICY_BUDGET, caps, CAPS, -1},
        [TWO_MODELS] = {BR_POLICY_THRESHOLD, thresholds, CLI_THRESHOLDS,
                        e->partner >= 0 ? e->partner : (int32_t)s->info->reference},
    };
    for (int f = 0; f < FAMILIES && status == BR_OK; f++)
        status = br_eval_trace_init(&e->traces[f], &s->table, wanted[f].kind, wanted[f].parameters,
                                    wanted[f].count, wanted[f].only);
    br_policy current;
    e->has_current = find_current(&current, s);
    if (e->has_current && status == BR_OK) status = br_eval_trace_policy(&e->current, &s->table, &current);
    e->curve = calloc(CLI_THRESHOLDS, sizeof *e->curve);
    for (int h = 0; h < HULLS; h++)
        e->hull[h] = calloc(s->table.tasks * s->info->candidate_count + 2, sizeof *e->hull[h]);
    const bool whole = status == BR_OK && e->curve != NULL && e->hull[0] != NULL && e->hull[1] != NULL;
    return whole ? BR_OK : br_no_memory(error, "the evaluation");
}

static void find_savings(double saving[DROPS], const br_eval_point *curve, size_t count,
                         br_eval_point reference)
{
    for (int d = 0; d < DROPS; d++)
        saving[d] = 1 - br_eval_cost_at(curve, count, (1 - drops[d]) * reference.quality) / reference.cost;
}

/* `counts`: how often each row is there. */
static br_status measure(evaluator *e, figures *out, const double *weights, const double *counts,
                         const double *grid)
{
    const br_eval_table *t = &e->scores.table;
    out->reference = br_eval_static(t, e->scores.info->reference, weights);
    e->hull_count[0] = br_eval_static_hull(e->hull[0], t, weights);
    const br_status status = br_eval_task_hull(e->hull[1], &e->hull_count[1], t, weights);
    if (status != BR_OK) return status;
    if (e->has_current) br_eval_curve(&out->current, &e->current, weights);
    br_eval_measured_means(out->measured, t, counts);
    for (int h = 0; h < HULLS; h++)
        find_savings(out->saving[FAMILIES + h], e->hull[h], e->hull_count[h], out->reference);
    for (int f = 0; f < FAMILIES; f++) {
        br_eval_curve(e->curve, &e->traces[f], weights);
        find_savings(out->saving[f], e->curve, e->traces[f].count, out->reference);
        for (int g = 0; g < GRID && grid != NULL && (f == THRESHOLD || f == UTILITY); g++) {
            const double quality = br_eval_quality_at(e->curve, e->traces[f].count, grid[g]);
            out->quality[f][g] = quality;
            for (int h = 0; h < HULLS; h++) {
                const double bar = br_eval_quality_at(e->hull[h], e->hull_count[h], grid[g]);
                (f == THRESHOLD ? out->above : out->utility_above)[h][g] = quality - bar;
            }
        }
    }
    return BR_OK;
}

static json_t *interval(double value, double *samples, size_t count)
{
    json_t *out = json_object();
    json_object_set_new(out, "value", cli_json_real(value));
    json_object_set_new(out, "low", cli_json_real(br_eval_quantile(samples, count, 0.025)));
    json_object_set_new(out, "high", cli_json_real(br_eval_quantile(samples, count, 0.975)));
    return out;
}

typedef double (*picker)(const figures *f, int a, int b);
static double pick_saving(const figures *f, int a, int b)
{
    return f->saving[a][b];
}
static double pick_above(const figures *f, int a, int b)
{
    return f->above[a][b];
}
static double pick_utility_above(const figures *f, int a, int b)
{
    return f->utility_above[a][b];
}
static double pick_quality(const figures *f, int a, int b)
{
    return f->quality[a][b];
}
static double pick_reference_quality(const figures *f, int a, int b)
{
    (void)a;
    (void)b;
    return f->reference.quality;
}
static double pick_reference_cost(const figures *f, int a, int b)
{
    (void)a;
    (void)b;
    return f->reference.cost;
}

static double pick_current_quality(const figures *f, int a, int b)
{
    (void)a;
    (void)b;
    return f->current.quality;
}
static double pick_current_cost(const figures *f, int a, int b)
{
    (void)a;
    (void)b;
    return f->current.cost;
}
static double pick_measured(const figures *f, int a, int b)
{
    (void)b;
    return f->measured[a];
}

typedef struct sample_set {
    const figures *whole;
    const figures *samples;
    size_t count;
    double *scratch; /* [count] */
} sample_set;

static void gather(const sample_set *s, picker pick, int a, int b)
{
    for (size_t i = 0; i < s->count; i++) s->scratch[i] = pick(&s->samples[i], a, b);
}

static json_t *interval_of(const sample_set *s, picker pick, int a, int b)
{
    gather(s, pick, a, b);
    return interval(pick(s->whole, a, b), s->scratch, s->count);
}

static json_t *savings_json(const sample_set *s)
{
    json_t *out = json_object();
    for (int f = 0; f < FAMILIES + HULLS; f++) {
        json_t *list = json_array();
        for (int d = 0; d < DROPS; d++) {
            json_t *entry = interval_of(s, pick_saving, f, d);
            json_object_set_new(entry, "quality_drop", json_real(drops[d]));
            json_array_append_new(list, entry);
        }
        json_object_set_new(out, f < FAMILIES ? family_names[f] : hull_names[f - FAMILIES], list);
    }
    return out;
}

/* Shares of the cost range in which a curve is above a hull, and in which its whole interval is. */
static json_t *above_json(const sample_set *s, picker pick)
{
    json_t *out = json_object();
    for (int h = 0; h < HULLS; h++) {
        int better = 0;
        int clear = 0;
        json_t *list = json_array();
        for (int g = 0; g < GRID; g++) {
            json_t *entry = interval_of(s, pick, h, g);
            better += json_number_value(json_object_get(entry, "value")) > 0;
            clear += json_number_value(json_object_get(entry, "low")) > 0;
            json_array_append_new(list, entry);
        }
        json_object_set_new(out, hull_names[h],
                            json_pack("{sf sf so}", "above", better / (double)GRID, "clear",
                                      clear / (double)GRID, "difference", list));
    }
    return out;
}

static json_t *points_json(const br_eval_point *points, size_t count, const double *parameters)
{
    json_t *out = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *point = json_pack("{sf sf}", "cost", points[i].cost, "quality", points[i].quality);
        if (parameters != NULL) json_object_set_new(point, "parameter", cli_json_real(parameters[i]));
        json_array_append_new(out, point);
    }
    return out;
}

/* What the curves of the two policies have at the costs that they are set against the hulls at. */
static json_t *quality_at_json(const evaluator *e, const sample_set *s)
{
    json_t *out = json_object();
    json_t *costs = json_array();
    for (int g = 0; g < GRID; g++) json_array_append_new(costs, json_real(e->grid[g]));
    json_object_set_new(out, "cost", costs);
    for (int f = THRESHOLD; f <= UTILITY; f++) {
        json_t *list = json_array();
        for (int g = 0; g < GRID; g++) json_array_append_new(list, interval_of(s, pick_quality, f, g));
        json_object_set_new(out, family_names[f], list);
    }
    return out;
}

/* The service's default policy; null where there is none, or a pool. */
static json_t *policy_json(const evaluator *e, const sample_set *s, const double *weights)
{
    if (!e->has_current) return json_null();
    json_t *out = cli_json_policy(e->scores.info->policy);
    json_object_set_new(out, "cost", interval_of(s, pick_current_cost, 0, 0));
    json_object_set_new(out, "quality", interval_of(s, pick_current_quality, 0, 0));
    json_object_set_new(out, "reference_share", json_real(br_eval_reference_share(&e->current, 0, weights)));
    return out;
}

static json_t *calibration_json(const br_eval_table *table, int32_t task, const sample_set *s)
{
    br_eval_bin bins[BR_EVAL_BINS];
    const double error = br_eval_calibration(bins, table, task);
    json_t *list = json_array();
    for (int b = 0; b < BR_EVAL_BINS; b++) {
        json_t *bin = json_pack("{sI sf sf}", "pairs", (json_int_t)bins[b].pairs, "predicted",
                                bins[b].predicted, "measured", bins[b].measured);
        json_t *range = interval_of(s, pick_measured, b, 0);
        json_object_set(bin, "low", json_object_get(range, "low"));
        json_object_set(bin, "high", json_object_get(range, "high"));
        json_decref(range);
        json_array_append_new(list, bin);
    }
    json_t *out = json_object();
    json_object_set_new(out, "expected_error", cli_json_real(error));
    json_object_set_new(out, "bins", list);
    return out;
}

static json_t *candidates_json(const cli_scores *s, const double *weights, int32_t task)
{
    json_t *out = json_array();
    for (size_t c = 0; c < s->info->candidate_count; c++) {
        size_t rows = 0;
        for (size_t r = 0; r < s->table.rows; r++)
            rows += (task < 0 || s->table.task[r] == task) && s->table.measured[br_eval_at(&s->table, r, c)];
        if (rows == 0) continue;
        const br_eval_point point = br_eval_static(&s->table, c, weights);
        json_array_append_new(out, json_pack("{ss si sb sI sf sf}", "model", s->pairs[c].model, "n",
                                             s->pairs[c].n, "reference", c == s->info->reference, "rows",
                                             (json_int_t)rows, "cost", point.cost, "quality", point.quality));
    }
    return out;
}

static json_t *curves_json(evaluator *e, const double *weights)
{
    json_t *out = json_object();
    for (int f = 0; f < FAMILIES; f++) {
        br_eval_curve(e->curve, &e->traces[f], weights);
        json_object_set_new(out, family_names[f],
                            points_json(e->curve, e->traces[f].count, e->traces[f].parameters));
    }
    for (int h = 0; h < HULLS; h++)
        json_object_set_new(out, hull_names[h], points_json(e->hull[h], e->hull_count[h], NULL));
    return out;
}

/* The whole report on one task, or on all (-1). */
static br_status analyse(evaluator *e, json_t **out, int32_t task, br_error *error)
{
    const cli_scores *s = &e->scores;
    const br_eval_table *t = &s->table;
    const size_t count = e->options->bootstrap;
    double *weights = calloc(t->rows, sizeof *weights);
    double *drawn = calloc(t->rows, sizeof *drawn);
    double *counts = calloc(t->rows, sizeof *counts);
    double *scratch = calloc(count + 1, sizeof *scratch);
    figures *samples = calloc(count + 1, sizeof *samples);
    figures whole = {0};
    br_status status = BR_OK;
    if (weights == NULL || drawn == NULL || counts == NULL || scratch == NULL || samples == NULL) {
        status = br_no_memory(error, "the evaluation");
        goto done;
    }
    size_t rows = 0;
    for (size_t r = 0; r < t->rows; r++) {
        const bool taken = task < 0 || t->task[r] == task;
        weights[r] = taken ? s->weights[r] : 0;
        counts[r] = taken;
        rows += taken;
    }
    status = measure(e, &whole, weights, counts, NULL);
    if (status != BR_OK) goto done;
    const double start = fmax(e->hull[0][0].cost, e->hull[1][0].cost);
    for (int g = 0; g < GRID; g++) e->grid[g] = start + (whole.reference.cost - start) * (g + 0.5) / GRID;
    status = measure(e, &whole, weights, counts, e->grid);
    uint64_t state = e->options->seed;
    for (size_t b = 0; b < count && status == BR_OK; b++) {
        br_eval_resample(drawn, t, weights, &state);
        for (size_t r = 0; r < t->rows; r++) counts[r] = weights[r] > 0 ? drawn[r] / weights[r] : 0;
        status = measure(e, &samples[b], drawn, counts, e->grid);
    }
    for (size_t r = 0; r < t->rows; r++) counts[r] = weights[r] > 0;
    if (status == BR_OK)
        status = measure(e, &whole, weights, counts, e->grid); /* the hulls of all rows again */
    if (status != BR_OK) goto done;

    const sample_set set = {&whole, samples, count, scratch};
    const br_eval_point oracle = br_eval_oracle(t, weights);
    json_t *report = json_object();
    json_object_set_new(report, "task", json_string(task < 0 ? "all" : s->records.tasks[task]));
    json_object_set_new(report, "rows", json_integer((json_int_t)rows));
    json_object_set_new(report, "reference",
                        json_pack("{ss si so so}", "model", s->pairs[s->info->reference].model, "n",
                                  s->pairs[s->info->reference].n, "quality",
                                  interval_of(&set, pick_reference_quality, 0, 0), "cost",
                                  interval_of(&set, pick_reference_cost, 0, 0)));
    json_object_set_new(report, "saving", savings_json(&set));
    json_object_set_new(report, "threshold_over", above_json(&set, pick_above));
    json_object_set_new(report, "utility_over", above_json(&set, pick_utility_above));
    json_object_set_new(report, "oracle",
                        json_pack("{sf sf}", "cost", oracle.cost, "quality", oracle.quality));
    json_object_set_new(report, "policy", policy_json(e, &set, weights));
    json_object_set_new(report, "calibration", calibration_json(t, task, &set));
    json_object_set_new(report, "candidates", candidates_json(s, weights, task));
    json_object_set_new(report, "curves", curves_json(e, weights));
    json_object_set_new(report, "quality_at", quality_at_json(e, &set));
    *out = report;

done:
    free(weights);
    free(drawn);
    free(counts);
    free(scratch);
    free(samples);
    return status;
}

/* The table. */

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void print_percent(const json_t *entry)
{
    char text[48];
    if (isnan(number(entry, "value")))
        snprintf(text, sizeof text, "never");
    else
        snprintf(text, sizeof text, "%.1f %% [%.1f, %.1f]", 100 * number(entry, "value"),
                 100 * number(entry, "low"), 100 * number(entry, "high"));
    printf("  %-24s", text);
}

static void print_savings(const json_t *report)
{
    static const char *const words[FAMILIES + HULLS] = {"threshold",  "utility",        "budget",
                                                        "two models", "static mixture", "static per task"};
    printf("  %-18s  %-24s  %-24s  %-24s\n", "cost saved at", "1 % less quality", "2 %", "5 %");
    for (int f = 0; f < FAMILIES + HULLS; f++) {
        const json_t *list = json_object_get(json_object_get(report, "saving"),
                                             f < FAMILIES ? family_names[f] : hull_names[f - FAMILIES]);
        printf("  %-18s", words[f]);
        for (size_t d = 0; d < DROPS; d++) print_percent(json_array_get(list, d));
        putchar('\n');
    }
}

static void print_report(const json_t *report)
{
    const json_t *reference = json_object_get(report, "reference");
    const json_t *quality = json_object_get(reference, "quality");
    const json_t *cost = json_object_get(reference, "cost");
    printf("\n%s: %d prompts; the reference alone: quality %.4f [%.4f, %.4f], USD %.3f per 1000 prompts\n",
           json_string_value(json_object_get(report, "task")),
           (int)json_integer_value(json_object_get(report, "rows")), number(quality, "value"),
           number(quality, "low"), number(quality, "high"), 1000 * number(cost, "value"));
    print_savings(report);
    for (int h = 0; h < HULLS; h++) {
        const json_t *threshold = json_object_get(json_object_get(report, "threshold_over"), hull_names[h]);
        const json_t *utility = json_object_get(json_object_get(report, "utility_over"), hull_names[h]);
        printf("  above the hull of %s over %.0f %% of the cost range, "
               "clear of it over %.0f %% (utility: %.0f, %.0f)\n",
               h == 0 ? "static choices" : "choices per task", 100 * number(threshold, "above"),
               100 * number(threshold, "clear"), 100 * number(utility, "above"),
               100 * number(utility, "clear"));
    }
    const json_t *oracle = json_object_get(report, "oracle");
    printf("  oracle: quality %.4f at USD %.3f per 1000; calibration error %.4f\n", number(oracle, "quality"),
           1000 * number(oracle, "cost"), number(json_object_get(report, "calibration"), "expected_error"));
}

static void print_candidates(const json_t *report)
{
    const json_t *list = json_object_get(report, "candidates");
    printf("\n  %-52s %6s %9s %12s\n", "the same for every prompt (reference where unmeasured)", "rows",
           "quality", "USD per 1000");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        char name[80];
        snprintf(name, sizeof name, "%s x %d", json_string_value(json_object_get(c, "model")),
                 (int)json_integer_value(json_object_get(c, "n")));
        printf("  %-52s %6d %9.4f %12.3f\n", name, (int)json_integer_value(json_object_get(c, "rows")),
               number(c, "quality"), 1000 * number(c, "cost"));
    }
}

static br_status evaluate(evaluator *e, json_t *document, br_error *error)
{
    const cli_scores *s = &e->scores;
    br_status status = make_traces(e, error);
    json_t *tasks = json_array();
    json_object_set_new(document, "tasks", tasks);
    for (int32_t task = 0; task < (int32_t)s->records.task_count && status == BR_OK; task++) {
        json_t *report = NULL;
        status = analyse(e, &report, task, error);
        if (status == BR_OK) json_array_append_new(tasks, report);
    }
    json_t *all = NULL;
    if (status == BR_OK) status = analyse(e, &all, -1, error);
    if (status == BR_OK) json_object_set_new(document, "all", all);
    return status;
}

static void print_document(const evaluator *e, const json_t *document)
{
    const cli_options *o = e->options;
    const json_t *tasks = json_object_get(document, "tasks");
    const json_t *all = json_object_get(document, "all");
    printf("bundle %s  %s\n%zu prompts of split '%s'; %zu records passed over; selector strength %g; %s\n",
           e->scores.info->bundle_name, e->scores.info->bundle_hash, e->scores.records.row_count, o->split,
           e->scores.records.passed_over, o->selector,
           o->by_task ? "each task weighs the same" : "each prompt weighs the same");
    printf("intervals: 95 %%, %u bootstrap samples of %zu stories within tasks, seed %u\n",
           (unsigned)o->bootstrap, e->scores.table.stories, (unsigned)o->seed);
    for (size_t i = 0; i < json_array_size(tasks) && json_array_size(tasks) > 1; i++)
        print_report(json_array_get(tasks, i));
    print_report(all);
    print_candidates(all);
}

cli_exit cli_eval(const cli_options *options, br_client *client)
{
    evaluator e = {.options = options};
    br_error error = {0};
    if (options->plot != NULL && br_plot_check(&error) != BR_OK)
        return cli_report(options, CLI_EXIT_USAGE, &error);
    json_t *document = json_object();
    br_status status = cli_scores_load(&e.scores, options, client, &error);
    if (status == BR_OK) {
        cli_scores_describe(document, &e.scores, options);
        status = evaluate(&e, document, &error);
    }
    if (status == BR_OK && !options->json) print_document(&e, document);
    if (status == BR_OK && options->json) (void)!cli_json_print(stdout, json_incref(document));

    cli_exit code = cli_scores_exit_of(&e.scores, status);
    for (int f = 0; f < FAMILIES; f++) br_eval_trace_deinit(&e.traces[f]);
    br_eval_trace_deinit(&e.current);
    for (int h = 0; h < HULLS; h++) free(e.hull[h]);
    free(e.curve);
    cli_scores_deinit(&e.scores);
    code = code == CLI_EXIT_OK ? cli_scores_plot(document, options) : cli_report(options, code, &error);
    json_decref(document);
    return code;
}
