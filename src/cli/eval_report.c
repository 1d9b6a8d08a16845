/* eval_report.c - see eval_report.h. */
#include "eval_report.h"

#include "json_out.h"

const char *const cli_sweep_keys[BR_SWEEPS] = {
    [BR_SWEEP_THRESHOLD] = "threshold",
    [BR_SWEEP_UTILITY] = "utility",
    [BR_SWEEP_BUDGET] = "budget",
    [BR_SWEEP_TWO_MODELS] = "two_models",
};
const char *const cli_hull_keys[BR_HULLS] = {
    [BR_HULL_STATIC] = "static",
    [BR_HULL_PER_TASK] = "static_per_task",
};

static json_t *interval_json(const br_analysis *a, const double *figure)
{
    const br_interval interval = br_analysis_interval(a, figure);
    json_t *out = json_object();
    json_object_set_new(out, "value", cli_json_real(interval.value));
    json_object_set_new(out, "low", cli_json_real(interval.low));
    json_object_set_new(out, "high", cli_json_real(interval.high));
    return out;
}

static json_t *reference_json(const br_analysis *a, const cli_scores *s)
{
    const br_records_pair *pair = &s->pairs[s->info->reference];
    return json_pack("{ss si so so}", "model", pair->model, "n", pair->n, "quality",
                     interval_json(a, &a->whole.reference.quality), "cost",
                     interval_json(a, &a->whole.reference.cost));
}

static json_t *drops_json(const br_analysis *a, const double savings[BR_ANALYSIS_DROPS])
{
    json_t *out = json_array();
    for (int d = 0; d < BR_ANALYSIS_DROPS; d++) {
        json_t *entry = interval_json(a, &savings[d]);
        json_object_set_new(entry, "quality_drop", json_real(br_analysis_drops[d]));
        json_array_append_new(out, entry);
    }
    return out;
}

static json_t *savings_json(const br_analysis *a)
{
    json_t *out = json_object();
    for (int s = 0; s < BR_SWEEPS; s++)
        json_object_set_new(out, cli_sweep_keys[s], drops_json(a, a->whole.sweep_saving[s]));
    for (int h = 0; h < BR_HULLS; h++)
        json_object_set_new(out, cli_hull_keys[h], drops_json(a, a->whole.hull_saving[h]));
    return out;
}

/* Shares of the cost range in which the curve is above each hull, and in which its whole interval is
 * ("clear"). */
static json_t *above_json(const br_analysis *a, br_sweep sweep)
{
    json_t *out = json_object();
    for (int h = 0; h < BR_HULLS; h++) {
        int above = 0;
        int clear = 0;
        json_t *list = json_array();
        for (int i = 0; i < BR_ANALYSIS_COSTS; i++) {
            const double *difference = &a->whole.above[sweep][h][i];
            const br_interval interval = br_analysis_interval(a, difference);
            above += interval.value > 0;
            clear += interval.low > 0;
            json_array_append_new(list, interval_json(a, difference));
        }
        json_object_set_new(out, cli_hull_keys[h],
                            json_pack("{sf sf so}", "above", above / (double)BR_ANALYSIS_COSTS, "clear",
                                      clear / (double)BR_ANALYSIS_COSTS, "difference", list));
    }
    return out;
}

static json_t *oracle_json(const br_analysis *a)
{
    const br_eval_point oracle = br_eval_oracle(a->table, a->weights);
    return json_pack("{sf sf}", "cost", oracle.cost, "quality", oracle.quality);
}

/* The service's default policy; null where there is none, or a pool. */
static json_t *policy_json(const br_analysis *a, const cli_scores *s)
{
    if (!a->replay->has_current) return json_null();
    json_t *out = cli_json_policy(s->info->policy);
    json_object_set_new(out, "cost", interval_json(a, &a->whole.current.cost));
    json_object_set_new(out, "quality", interval_json(a, &a->whole.current.quality));
    json_object_set_new(out, "reference_share",
                        json_real(br_eval_reference_share(&a->replay->current, 0, a->weights)));
    return out;
}

static json_t *calibration_json(const br_analysis *a)
{
    br_eval_bin bins[BR_EVAL_BINS];
    const double error = br_eval_calibration(bins, a->table, a->task);
    json_t *list = json_array();
    for (int b = 0; b < BR_EVAL_BINS; b++) {
        const br_interval measured = br_analysis_interval(a, &a->whole.measured[b]);
        json_t *bin = json_pack("{sI sf sf}", "pairs", (json_int_t)bins[b].pairs, "predicted",
                                bins[b].predicted, "measured", bins[b].measured);
        json_object_set_new(bin, "low", cli_json_real(measured.low));
        json_object_set_new(bin, "high", cli_json_real(measured.high));
        json_array_append_new(list, bin);
    }
    json_t *out = json_object();
    json_object_set_new(out, "expected_error", cli_json_real(error));
    json_object_set_new(out, "bins", list);
    return out;
}

static size_t rows_measured(const br_analysis *a, size_t candidate)
{
    size_t rows = 0;
    for (size_t r = 0; r < a->table->rows; r++) {
        const bool taken = a->task < 0 || a->table->task[r] == a->task;
        rows += taken && a->table->measured[br_eval_at(a->table, r, candidate)];
    }
    return rows;
}

static json_t *candidates_json(const br_analysis *a, const cli_scores *s)
{
    json_t *out = json_array();
    for (size_t c = 0; c < s->info->candidate_count; c++) {
        const size_t rows = rows_measured(a, c);
        if (rows == 0) continue;
        const br_eval_point point = br_eval_static(a->table, c, a->weights);
        json_array_append_new(out, json_pack("{ss si sb sI sf sf}", "model", s->pairs[c].model, "n",
                                             s->pairs[c].n, "reference", c == s->info->reference, "rows",
                                             (json_int_t)rows, "cost", point.cost, "quality", point.quality));
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

static json_t *curves_json(const br_analysis *a)
{
    json_t *out = json_object();
    br_eval_point curve[BR_SWEEP_SETTINGS_MAX];
    for (int s = 0; s < BR_SWEEPS; s++) {
        const br_eval_trace *trace = &a->replay->sweeps[s];
        br_eval_curve(curve, trace, a->weights);
        json_object_set_new(out, cli_sweep_keys[s], points_json(curve, trace->count, trace->parameters));
    }
    for (int h = 0; h < BR_HULLS; h++)
        json_object_set_new(out, cli_hull_keys[h], points_json(a->hulls[h], a->hull_counts[h], NULL));
    return out;
}

/* The quality of the two curves at the costs at which they are compared with the hulls. */
static json_t *quality_at_json(const br_analysis *a)
{
    json_t *out = json_object();
    json_t *costs = json_array();
    for (int i = 0; i < BR_ANALYSIS_COSTS; i++) json_array_append_new(costs, json_real(a->costs[i]));
    json_object_set_new(out, "cost", costs);
    for (int s = 0; s < BR_ANALYSIS_CURVES; s++) {
        json_t *list = json_array();
        for (int i = 0; i < BR_ANALYSIS_COSTS; i++)
            json_array_append_new(list, interval_json(a, &a->whole.quality[s][i]));
        json_object_set_new(out, cli_sweep_keys[s], list);
    }
    return out;
}

json_t *cli_eval_report(const br_analysis *a, const cli_scores *s)
{
    json_t *out = json_object();
    json_object_set_new(out, "task", json_string(a->task < 0 ? "all" : s->records.tasks[a->task]));
    json_object_set_new(out, "rows", json_integer((json_int_t)a->rows));
    json_object_set_new(out, "reference", reference_json(a, s));
    json_object_set_new(out, "saving", savings_json(a));
    json_object_set_new(out, "threshold_over", above_json(a, BR_SWEEP_THRESHOLD));
    json_object_set_new(out, "utility_over", above_json(a, BR_SWEEP_UTILITY));
    json_object_set_new(out, "oracle", oracle_json(a));
    json_object_set_new(out, "policy", policy_json(a, s));
    json_object_set_new(out, "calibration", calibration_json(a));
    json_object_set_new(out, "candidates", candidates_json(a, s));
    json_object_set_new(out, "curves", curves_json(a));
    json_object_set_new(out, "quality_at", quality_at_json(a));
    return out;
}
