/* analysis.c - see analysis.h. */
#include "analysis.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const double br_analysis_drops[BR_ANALYSIS_DROPS] = {0.01, 0.02, 0.05};

static_assert((int)BR_SWEEP_THRESHOLD == 0 && (int)BR_SWEEP_UTILITY == BR_ANALYSIS_CURVES - 1,
              "the first sweeps are those compared with the hulls");

br_status br_replay_init(br_replay *out, const br_eval_table *table, const double *weights,
                         const br_policy *current)
{
    *out = (br_replay){.has_current = current != NULL};
    br_status status = BR_OK;
    for (int s = 0; s < BR_SWEEPS && status == BR_OK; s++)
        status = br_sweep_trace(&out->sweeps[s], table, (br_sweep)s, weights);
    if (status == BR_OK && current != NULL) status = br_eval_trace_policy(&out->current, table, current);
    return status;
}

void br_replay_deinit(br_replay *replay)
{
    for (int s = 0; s < BR_SWEEPS; s++) br_eval_trace_deinit(&replay->sweeps[s]);
    br_eval_trace_deinit(&replay->current);
}

static void find_savings(double saving[BR_ANALYSIS_DROPS], const br_eval_point *curve, size_t count,
                         br_eval_point reference)
{
    for (int d = 0; d < BR_ANALYSIS_DROPS; d++) {
        const double quality = (1 - br_analysis_drops[d]) * reference.quality;
        saving[d] = 1 - br_eval_cost_at(curve, count, quality) / reference.cost;
    }
}

static br_status make_hulls(br_analysis *a, const double *weights)
{
    a->hull_counts[BR_HULL_STATIC] = br_eval_static_hull(a->hulls[BR_HULL_STATIC], a->table, weights);
    return br_eval_task_hull(a->hulls[BR_HULL_PER_TASK], &a->hull_counts[BR_HULL_PER_TASK], a->table,
                             weights);
}

/* Compares the curve of sweep `s` with the hulls. */
static void compare(const br_analysis *a, br_figures *out, int s, size_t count)
{
    for (int i = 0; i < BR_ANALYSIS_COSTS; i++) {
        const double quality = br_eval_quality_at(a->curve, count, a->costs[i]);
        out->quality[s][i] = quality;
        for (int h = 0; h < BR_HULLS; h++)
            out->above[s][h][i] = quality - br_eval_quality_at(a->hulls[h], a->hull_counts[h], a->costs[i]);
    }
}

/* `counts`: how often each row is there. */
static br_status measure(br_analysis *a, br_figures *out, const double *weights, const double *counts)
{
    const br_status status = make_hulls(a, weights);
    if (status != BR_OK) return status;
    out->reference = br_eval_static(a->table, (size_t)a->table->router->reference, weights);
    if (a->replay->has_current) br_eval_curve(&out->current, &a->replay->current, weights);
    br_eval_measured_means(out->measured, a->table, counts);
    for (int h = 0; h < BR_HULLS; h++)
        find_savings(out->hull_saving[h], a->hulls[h], a->hull_counts[h], out->reference);
    for (int s = 0; s < BR_SWEEPS; s++) {
        const br_eval_trace *trace = &a->replay->sweeps[s];
        br_eval_curve(a->curve, trace, weights);
        find_savings(out->sweep_saving[s], a->curve, trace->count, out->reference);
        if (s < BR_ANALYSIS_CURVES) compare(a, out, s, trace->count);
    }
    return BR_OK;
}

static bool allocate(br_analysis *a)
{
    const size_t rows = a->table->rows;
    const size_t corners = a->table->tasks * (size_t)a->table->router->candidate_count + 2;
    a->weights = calloc(rows + 1, sizeof *a->weights);
    a->drawn = calloc(rows + 1, sizeof *a->drawn);
    a->counts = calloc(rows + 1, sizeof *a->counts);
    a->samples = calloc(a->sample_count + 1, sizeof *a->samples);
    a->sorted = calloc(a->sample_count + 1, sizeof *a->sorted);
    a->curve = calloc(BR_SWEEP_SETTINGS_MAX, sizeof *a->curve);
    for (int h = 0; h < BR_HULLS; h++) a->hulls[h] = calloc(corners, sizeof *a->hulls[h]);
    return a->weights != NULL && a->drawn != NULL && a->counts != NULL && a->samples != NULL &&
           a->sorted != NULL && a->curve != NULL && a->hulls[0] != NULL && a->hulls[1] != NULL;
}

static void take_task(br_analysis *a, const double *weights)
{
    for (size_t r = 0; r < a->table->rows; r++) {
        const bool taken = a->task < 0 || a->table->task[r] == a->task;
        a->weights[r] = taken ? weights[r] : 0;
        a->rows += taken;
    }
}

/* From the cost at which both hulls have begun to the cost of the reference. */
static br_status choose_costs(br_analysis *a)
{
    const br_status status = make_hulls(a, a->weights);
    if (status != BR_OK) return status;
    const double first = fmax(a->hulls[0][0].cost, a->hulls[1][0].cost);
    const double last = br_eval_static(a->table, (size_t)a->table->router->reference, a->weights).cost;
    for (int i = 0; i < BR_ANALYSIS_COSTS; i++)
        a->costs[i] = first + (last - first) * (i + 0.5) / BR_ANALYSIS_COSTS;
    return BR_OK;
}

static br_status bootstrap(br_analysis *a, uint64_t seed)
{
    br_status status = BR_OK;
    for (size_t s = 0; s < a->sample_count && status == BR_OK; s++) {
        br_eval_resample(a->drawn, a->table, a->weights, &seed);
        for (size_t r = 0; r < a->table->rows; r++)
            a->counts[r] = a->weights[r] > 0 ? a->drawn[r] / a->weights[r] : 0;
        status = measure(a, &a->samples[s], a->drawn, a->counts);
    }
    return status;
}

br_status br_analysis_init(br_analysis *out, const br_eval_table *table, const br_replay *replay,
                           const double *weights, int32_t task, size_t sample_count, uint64_t seed)
{
    *out = (br_analysis){.table = table, .replay = replay, .task = task, .sample_count = sample_count};
    if (!allocate(out)) return BR_ENOMEM;
    take_task(out, weights);
    br_status status = choose_costs(out);
    if (status == BR_OK) status = bootstrap(out, seed);
    if (status != BR_OK) return status;
    for (size_t r = 0; r < table->rows; r++) out->counts[r] = out->weights[r] > 0;
    return measure(out, &out->whole, out->weights, out->counts); /* last: its hulls stay */
}

void br_analysis_deinit(br_analysis *analysis)
{
    free(analysis->weights);
    free(analysis->drawn);
    free(analysis->counts);
    free(analysis->samples);
    free(analysis->sorted);
    free(analysis->curve);
    for (int h = 0; h < BR_HULLS; h++) free(analysis->hulls[h]);
    *analysis = (br_analysis){0};
}

br_interval br_analysis_interval(const br_analysis *analysis, const double *figure)
{
    const size_t offset = (size_t)((const char *)figure - (const char *)&analysis->whole);
    assert(offset <= sizeof analysis->whole - sizeof *figure);
    for (size_t s = 0; s < analysis->sample_count; s++)
        memcpy(&analysis->sorted[s], (const char *)&analysis->samples[s] + offset, sizeof *figure);
    return (br_interval){
        .value = *figure,
        .low = br_eval_quantile(analysis->sorted, analysis->sample_count, 0.025),
        .high = br_eval_quantile(analysis->sorted, analysis->sample_count, 0.975),
    };
}
