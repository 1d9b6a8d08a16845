/* sweep.c - the settings of each sweep. */
#include "sweep.h"

#include <math.h>
#include <stdlib.h>

enum { THRESHOLDS = BR_SWEEP_SETTINGS_MAX, LAMBDAS = 161, CAPS = 101 };

static br_eval_point reference_alone(const br_eval_table *t, const double *weights)
{
    return br_eval_static(t, (size_t)t->router->reference, weights);
}

static int32_t partner_of_reference(const br_eval_table *t, const double *weights)
{
    const br_eval_point reference = reference_alone(t, weights);
    int32_t best = t->router->reference;
    double quality = -INFINITY;
    for (int32_t c = 0; c < t->router->candidate_count; c++) {
        const br_eval_point point = br_eval_static(t, (size_t)c, weights);
        if (c == t->router->reference || point.cost >= reference.cost || point.quality <= quality) continue;
        best = c;
        quality = point.quality;
    }
    return best;
}

/* out[THRESHOLDS] */
static br_status make_thresholds(double *out, const br_eval_table *t)
{
    const size_t candidates = (size_t)t->router->candidate_count;
    double *values = calloc(t->rows * candidates + 1, sizeof *values);
    if (values == NULL) return BR_ENOMEM;
    size_t count = 0;
    for (size_t cell = 0; cell < t->rows * candidates; cell++) {
        const bool reference = (int32_t)(cell % candidates) == t->router->reference;
        if (t->measured[cell] && !reference) values[count++] = (double)t->predicted[cell];
    }
    (void)br_eval_quantile(values, count, 0); /* sorts */
    out[0] = 0;
    for (size_t i = 1; i + 1 < THRESHOLDS; i++)
        out[i] = count == 0 ? 1 : values[(size_t)((double)(count - 1) * (double)(i - 1) / (THRESHOLDS - 3))];
    out[THRESHOLDS - 1] = 1;
    free(values);
    return BR_OK;
}

br_status br_sweep_trace(br_eval_trace *out, const br_eval_table *table, br_sweep sweep,
                         const double *weights)
{
    double settings[BR_SWEEP_SETTINGS_MAX];
    const double scale = reference_alone(table, weights).cost;
    br_status status = BR_OK;
    *out = (br_eval_trace){0};
    switch (sweep) {
    case BR_SWEEP_UTILITY:
        for (int i = 0; i < LAMBDAS; i++) settings[i] = pow(10, 3 - 6.0 * i / (LAMBDAS - 1)) / scale;
        return br_eval_trace_init(out, table, BR_POLICY_UTILITY, settings, LAMBDAS, -1);
    case BR_SWEEP_BUDGET:
        for (int i = 0; i < CAPS; i++) settings[i] = scale * pow(10, -3 + 4.0 * i / (CAPS - 1));
        return br_eval_trace_init(out, table, BR_POLICY_BUDGET, settings, CAPS, -1);
    case BR_SWEEP_THRESHOLD:
    case BR_SWEEP_TWO_MODELS:
        break;
    }
    const int32_t only = sweep == BR_SWEEP_TWO_MODELS ? partner_of_reference(table, weights) : -1;
    status = make_thresholds(settings, table);
    if (status != BR_OK) return status;
    return br_eval_trace_init(out, table, BR_POLICY_THRESHOLD, settings, THRESHOLDS, only);
}
