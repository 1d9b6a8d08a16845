/* evaluation.c - replay, curves, hulls, calibration, bootstrap. */
#include "evaluation.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/random.h"

br_status br_eval_table_init(br_eval_table *out, const br_router *router, size_t rows, size_t tasks)
{
    const size_t cells = rows * (size_t)router->candidate_count + 1;
    *out = (br_eval_table){.router = router, .rows = rows, .tasks = tasks};
    out->task = calloc(rows + 1, sizeof *out->task);
    out->story = calloc(rows + 1, sizeof *out->story);
    out->story_row = calloc(rows + 1, sizeof *out->story_row);
    out->predicted = calloc(cells, sizeof *out->predicted);
    out->measured = calloc(cells, sizeof *out->measured);
    out->quality = calloc(cells, sizeof *out->quality);
    out->match = calloc(cells, sizeof *out->match);
    out->paid = calloc(cells, sizeof *out->paid);
    out->prompt_tokens = calloc(rows + 1, sizeof *out->prompt_tokens);
    const bool whole = out->task != NULL && out->story != NULL && out->story_row != NULL &&
                       out->predicted != NULL && out->measured != NULL && out->quality != NULL &&
                       out->match != NULL && out->paid != NULL && out->prompt_tokens != NULL;
    for (size_t r = 0; r < rows && whole; r++) {
        out->story[r] = (int32_t)r;
        out->story_row[r] = r;
    }
    out->stories = rows;
    if (whole) return BR_OK;
    br_eval_table_deinit(out);
    return BR_ENOMEM;
}

void br_eval_table_deinit(br_eval_table *table)
{
    free(table->task);
    free(table->story);
    free(table->story_row);
    free(table->predicted);
    free(table->measured);
    free(table->quality);
    free(table->match);
    free(table->paid);
    free(table->prompt_tokens);
    *table = (br_eval_table){0};
}

void br_eval_set_stories(br_eval_table *table, const int32_t *story)
{
    table->stories = 0;
    for (size_t r = 0; r < table->rows; r++) {
        assert(story[r] >= 0);
        assert(story[r] <= (int32_t)table->stories);
        table->story[r] = story[r];
        if (story[r] == (int32_t)table->stories) table->story_row[table->stories++] = r;
    }
}

static br_policy make_policy(br_policy_kind kind, double parameter)
{
    return (br_policy){
        .kind = kind,
        .fallback = BR_FALLBACK_REFERENCE,
        .threshold = parameter,
        .lambda = parameter,
        .max_cost = kind == BR_POLICY_BUDGET ? parameter : INFINITY,
        .allowed_models = UINT64_MAX,
        .max_n = UINT32_MAX,
    };
}

/* The candidate that the policy chooses on a row, of those measured there. */
static size_t choose(const br_eval_table *t, size_t row, const br_policy *policy, int32_t only)
{
    const br_router *router = t->router;
    br_option options[BR_CANDIDATES_MAX];
    uint64_t prompt_tokens[BR_MODELS_MAX];
    double output_tokens[BR_MODELS_MAX];
    for (int32_t m = 0; m < router->model_count; m++) {
        prompt_tokens[m] = t->prompt_tokens[row];
        output_tokens[m] = router->models[m].avg_output_tokens;
    }
    const br_query_costs costs = {prompt_tokens, output_tokens, INFINITY};
    br_policy_table(options, router, policy, t->predicted + br_eval_at(t, row, 0), &costs);
    for (int32_t c = 0; c < router->candidate_count; c++) {
        const bool taken = c == router->reference || only < 0 || c == only;
        if (!taken || !t->measured[br_eval_at(t, row, (size_t)c)]) options[c].reason = BR_REASON_FILTERED;
    }
    const br_decision decision = br_policy_decide(options, router, policy);
    return (size_t)(decision.candidate >= 0 ? decision.candidate : router->reference);
}

static br_status allocate_trace(br_eval_trace *out, size_t count, size_t rows)
{
    *out = (br_eval_trace){.count = count, .rows = rows};
    out->parameters = calloc(count + 1, sizeof *out->parameters);
    out->points = calloc(count * rows + 1, sizeof *out->points);
    out->reference = calloc(count * rows + 1, sizeof *out->reference);
    if (out->parameters != NULL && out->points != NULL && out->reference != NULL) return BR_OK;
    br_eval_trace_deinit(out);
    return BR_ENOMEM;
}

/* Policy `index` of the trace, on every row. */
static void replay(br_eval_trace *out, size_t index, const br_eval_table *table, const br_policy *policy,
                   int32_t only)
{
    for (size_t r = 0; r < table->rows; r++) {
        const size_t chosen = choose(table, r, policy, only);
        const size_t cell = br_eval_at(table, r, chosen);
        out->points[index * table->rows + r] = (br_eval_point){table->paid[cell], table->quality[cell]};
        out->reference[index * table->rows + r] = (int32_t)chosen == table->router->reference;
    }
}

br_status br_eval_trace_init(br_eval_trace *out, const br_eval_table *table, br_policy_kind kind,
                             const double *parameters, size_t count, int32_t only)
{
    const br_status status = allocate_trace(out, count, table->rows);
    for (size_t i = 0; i < count && status == BR_OK; i++) {
        const br_policy policy = make_policy(kind, parameters[i]);
        out->parameters[i] = parameters[i];
        replay(out, i, table, &policy, only);
    }
    return status;
}

br_status br_eval_trace_policy(br_eval_trace *out, const br_eval_table *table, const br_policy *policy)
{
    assert(policy->kind != BR_POLICY_POOL);
    const br_status status = allocate_trace(out, 1, table->rows);
    if (status == BR_OK) replay(out, 0, table, policy, -1);
    return status;
}

void br_eval_trace_deinit(br_eval_trace *trace)
{
    free(trace->parameters);
    free(trace->points);
    free(trace->reference);
    *trace = (br_eval_trace){0};
}

void br_eval_curve(br_eval_point *out, const br_eval_trace *trace, const double *weights)
{
    for (size_t i = 0; i < trace->count; i++) {
        const br_eval_point *points = trace->points + i * trace->rows;
        br_eval_point sum = {0, 0};
        double total = 0;
        for (size_t r = 0; r < trace->rows; r++) {
            sum.cost += weights[r] * points[r].cost;
            sum.quality += weights[r] * points[r].quality;
            total += weights[r];
        }
        out[i] = (br_eval_point){sum.cost / total, sum.quality / total};
    }
}

double br_eval_reference_share(const br_eval_trace *trace, size_t index, const double *weights)
{
    double sum = 0;
    double total = 0;
    for (size_t r = 0; r < trace->rows; r++) {
        if (trace->reference[index * trace->rows + r]) sum += weights[r];
        total += weights[r];
    }
    return sum / total;
}

/* The mean over the rows of one task (-1: all), as shares of the total weight of all rows. */
static br_eval_point static_part(const br_eval_table *t, size_t candidate, int32_t task,
                                 const double *weights)
{
    const size_t reference = (size_t)t->router->reference;
    br_eval_point sum = {0, 0};
    double total = 0;
    for (size_t r = 0; r < t->rows; r++) {
        total += weights[r];
        if (task >= 0 && t->task[r] != task) continue;
        const size_t own = br_eval_at(t, r, candidate);
        const size_t cell = t->measured[own] ? own : br_eval_at(t, r, reference);
        sum.cost += weights[r] * t->paid[cell];
        sum.quality += weights[r] * t->quality[cell];
    }
    return (br_eval_point){sum.cost / total, sum.quality / total};
}

br_eval_point br_eval_static(const br_eval_table *table, size_t candidate, const double *weights)
{
    return static_part(table, candidate, -1, weights);
}

br_eval_point br_eval_oracle(const br_eval_table *t, const double *weights)
{
    br_eval_point sum = {0, 0};
    double total = 0;
    for (size_t r = 0; r < t->rows; r++) {
        size_t best = br_eval_at(t, r, (size_t)t->router->reference);
        const double bar = t->quality[best];
        for (size_t c = 0; c < (size_t)t->router->candidate_count; c++) {
            const size_t cell = br_eval_at(t, r, c);
            const bool good = t->measured[cell] && t->quality[cell] >= bar;
            if (good && t->paid[cell] < t->paid[best]) best = cell;
        }
        sum.cost += weights[r] * t->paid[best];
        sum.quality += weights[r] * t->quality[best];
        total += weights[r];
    }
    return (br_eval_point){sum.cost / total, sum.quality / total};
}

static int by_cost(const void *a, const void *b)
{
    const br_eval_point *x = a;
    const br_eval_point *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    return x->quality > y->quality ? -1 : x->quality < y->quality;
}

/* Positive where b lies above the line from a to c. */
static double above(br_eval_point a, br_eval_point b, br_eval_point c)
{
    return (b.quality - a.quality) * (c.cost - a.cost) - (c.quality - a.quality) * (b.cost - a.cost);
}

size_t br_eval_hull(br_eval_point *points, size_t count)
{
    qsort(points, count, sizeof *points, by_cost);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && points[i].quality <= points[kept - 1].quality) continue; /* dearer and no better */
        while (kept >= 2 && above(points[kept - 2], points[kept - 1], points[i]) <= 0) kept--;
        points[kept++] = points[i];
    }
    return kept;
}

size_t br_eval_static_hull(br_eval_point *out, const br_eval_table *table, const double *weights)
{
    const size_t candidates = (size_t)table->router->candidate_count;
    for (size_t c = 0; c < candidates; c++) out[c] = static_part(table, c, -1, weights);
    return br_eval_hull(out, candidates);
}

/* Of edges: the cost and the quality of a step. */
static int by_slope(const void *a, const void *b)
{
    const br_eval_point *x = a;
    const br_eval_point *y = b;
    const double difference = x->quality * y->cost - y->quality * x->cost;
    return difference > 0 ? -1 : difference < 0;
}

br_status br_eval_task_hull(br_eval_point *out, size_t *count, const br_eval_table *table,
                            const double *weights)
{
    const size_t candidates = (size_t)table->router->candidate_count;
    br_eval_point *points = calloc(candidates + 1, sizeof *points);
    br_eval_point *edges = calloc(table->tasks * candidates + 1, sizeof *edges);
    if (points == NULL || edges == NULL) {
        free(points);
        free(edges);
        return BR_ENOMEM;
    }
    /* The sum of concave curves starts at the sum of their starts and takes their edges in falling order of
     * slope. */
    br_eval_point at = {0, 0};
    size_t edge_count = 0;
    for (size_t task = 0; task < table->tasks; task++) {
        for (size_t c = 0; c < candidates; c++) points[c] = static_part(table, c, (int32_t)task, weights);
        const size_t kept = br_eval_hull(points, candidates);
        at.cost += points[0].cost;
        at.quality += points[0].quality;
        for (size_t i = 1; i < kept; i++) {
            edges[edge_count++] = (br_eval_point){points[i].cost - points[i - 1].cost,
                                                  points[i].quality - points[i - 1].quality};
        }
    }
    qsort(edges, edge_count, sizeof *edges, by_slope);
    out[0] = at;
    for (size_t i = 0; i < edge_count; i++) {
        at.cost += edges[i].cost;
        at.quality += edges[i].quality;
        out[i + 1] = at;
    }
    *count = edge_count + 1;
    free(points);
    free(edges);
    return BR_OK;
}

double br_eval_quality_at(const br_eval_point *points, size_t count, double cost)
{
    double best = NAN;
    double highest = -INFINITY;
    double dearest = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (points[i].quality > highest) highest = points[i].quality;
        if (points[i].cost > dearest) dearest = points[i].cost;
        if (points[i].cost == cost && !(best >= points[i].quality)) best = points[i].quality;
        if (i + 1 == count) break;
        const br_eval_point a = points[i].cost <= points[i + 1].cost ? points[i] : points[i + 1];
        const br_eval_point b = points[i].cost <= points[i + 1].cost ? points[i + 1] : points[i];
        if (cost < a.cost || cost > b.cost || a.cost == b.cost) continue;
        const double share = (cost - a.cost) / (b.cost - a.cost);
        const double quality = a.quality + share * (b.quality - a.quality);
        if (!(best >= quality)) best = quality;
    }
    return cost > dearest ? highest : best;
}

double br_eval_cost_at(const br_eval_point *points, size_t count, double quality)
{
    double least = NAN;
    for (size_t i = 0; i < count; i++) {
        if (points[i].quality >= quality && !(least <= points[i].cost)) least = points[i].cost;
        if (i + 1 == count) break;
        const br_eval_point a = points[i];
        const br_eval_point b = points[i + 1];
        const bool crosses = (a.quality < quality) != (b.quality < quality);
        if (!crosses) continue;
        const double cost = a.cost + (quality - a.quality) / (b.quality - a.quality) * (b.cost - a.cost);
        if (!(least <= cost)) least = cost;
    }
    return least;
}

/* Whether the cell takes part in the calibration: it is measured, and not the reference's. */
static bool is_judged(const br_eval_table *t, size_t row, int32_t candidate)
{
    return candidate != t->router->reference && t->measured[br_eval_at(t, row, (size_t)candidate)];
}

static int bin_of(float predicted)
{
    return (int)fmin((double)predicted * BR_EVAL_BINS, BR_EVAL_BINS - 1);
}

double br_eval_calibration(br_eval_bin bins[BR_EVAL_BINS], const br_eval_table *t, int32_t task)
{
    memset(bins, 0, BR_EVAL_BINS * sizeof *bins);
    size_t pairs = 0;
    for (size_t r = 0; r < t->rows; r++) {
        if (task >= 0 && t->task[r] != task) continue;
        for (int32_t c = 0; c < t->router->candidate_count; c++) {
            const size_t cell = br_eval_at(t, r, (size_t)c);
            if (!is_judged(t, r, c)) continue;
            const int bin = bin_of(t->predicted[cell]);
            bins[bin].pairs++;
            bins[bin].predicted += (double)t->predicted[cell];
            bins[bin].measured += t->match[cell];
            pairs++;
        }
    }
    double error = 0;
    for (int b = 0; b < BR_EVAL_BINS; b++) {
        if (bins[b].pairs == 0) continue;
        error += fabs(bins[b].predicted - bins[b].measured);
        bins[b].predicted /= (double)bins[b].pairs;
        bins[b].measured /= (double)bins[b].pairs;
    }
    return pairs == 0 ? NAN : error / (double)pairs;
}

void br_eval_measured_means(double out[BR_EVAL_BINS], const br_eval_table *t, const double *counts)
{
    double sums[BR_EVAL_BINS] = {0};
    double totals[BR_EVAL_BINS] = {0};
    for (size_t r = 0; r < t->rows; r++) {
        for (int32_t c = 0; c < t->router->candidate_count && counts[r] > 0; c++) {
            const size_t cell = br_eval_at(t, r, (size_t)c);
            if (!is_judged(t, r, c)) continue;
            const int bin = bin_of(t->predicted[cell]);
            sums[bin] += counts[r] * t->match[cell];
            totals[bin] += counts[r];
        }
    }
    for (int b = 0; b < BR_EVAL_BINS; b++) out[b] = totals[b] > 0 ? sums[b] / totals[b] : NAN;
}

static size_t rows_of(const br_eval_table *t, int32_t task)
{
    size_t count = 0;
    for (size_t r = 0; r < t->rows; r++) count += t->task[r] == task;
    return count;
}

void br_eval_weights(double *weights, const br_eval_table *t, bool by_task)
{
    for (size_t task = 0; task < t->tasks; task++) {
        const size_t count = rows_of(t, (int32_t)task);
        const double each = by_task ? 1.0 / ((double)t->tasks * (double)count) : 1.0 / (double)t->rows;
        for (size_t r = 0; r < t->rows; r++)
            if (t->task[r] == (int32_t)task) weights[r] = each;
    }
}

void br_eval_resample(double *out, const br_eval_table *t, const double *weights, uint64_t *state)
{
    /* First out[story] counts how often each story is drawn; a task draws as often as it has stories. Then
     * each row takes its story's count, from the last row to the first: a story's number is at most the index
     * of any of its rows, so no count is overwritten before its last row has read it. */
    memset(out, 0, t->rows * sizeof *out);
    for (size_t story = 0; story < t->stories; story++) {
        size_t other;
        do {
            other = (size_t)(br_random_bits(state) % t->stories);
        } while (t->task[t->story_row[other]] != t->task[t->story_row[story]]);
        out[other] += 1;
    }
    for (size_t r = t->rows; r-- > 0;) out[r] = weights[r] * out[t->story[r]];
    for (size_t task = 0; task < t->tasks; task++) {
        double had = 0;
        double has = 0;
        for (size_t r = 0; r < t->rows; r++) {
            if (t->task[r] != (int32_t)task) continue;
            had += weights[r];
            has += out[r];
        }
        for (size_t r = 0; r < t->rows && has > 0; r++)
            if (t->task[r] == (int32_t)task) out[r] *= had / has;
    }
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double br_eval_quantile(double *values, size_t count, double q)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!isnan(values[i])) values[kept++] = values[i];
    if (kept == 0) return NAN;
    qsort(values, kept, sizeof *values, by_value);
    const double at = q * (double)(kept - 1);
    const size_t low = (size_t)at;
    const size_t high = low + 1 < kept ? low + 1 : low;
    return values[low] + (at - (double)low) * (values[high] - values[low]);
}
