/* totals.c - counts of choices and failures, sums of costs. */
#include "totals.h"

#include <math.h>
#include <string.h>

void cli_totals_init(cli_totals *totals, const br_answer *info, bool of_route)
{
    *totals = (cli_totals){.info = info, .of_route = of_route, .reference_known = true};
}

/* What the reference alone would have cost for this prompt; NAN where the answer does not say. */
static double reference_cost(const br_answer *info, const br_answer_result *result)
{
    const br_answer_candidate *reference = &info->candidates[info->reference];
    for (size_t i = 0; i < result->candidate_count; i++) {
        const br_answer_candidate *row = &result->candidates[i];
        if (row->n == reference->n && strcmp(row->model, reference->model) == 0) return row->cost;
    }
    return NAN;
}

static void add_route(cli_totals *totals, const br_answer_result *result)
{
    const br_answer *info = totals->info;
    totals->unmet += result->met ? 0 : 1;
    for (size_t i = 0; i < info->candidate_count && i < BR_CANDIDATES_MAX; i++) {
        const br_answer_candidate *candidate = &info->candidates[i];
        if (candidate->n == result->n && strcmp(candidate->model, result->model) == 0) totals->chosen[i]++;
    }
    if (isfinite(result->cost)) {
        totals->cost += result->cost;
    } else {
        totals->unpriced++;
    }
    const double alone = reference_cost(info, result);
    if (isfinite(alone)) {
        totals->reference_cost += alone;
    } else {
        totals->reference_known = false;
    }
}

void cli_totals_add(cli_totals *totals, const br_answer_result *result)
{
    totals->prompts++;
    if (result == NULL) {
        totals->failed++;
        return;
    }
    totals->truncated += result->truncated ? 1 : 0;
    if (totals->of_route) add_route(totals, result);
}
