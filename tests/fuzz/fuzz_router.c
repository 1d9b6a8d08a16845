/*
 * fuzz_router.c - any bytes as router.json.
 *
 * What is accepted has one reference, heads and pairs that differ, prices that
 * are numbers, and a policy whose names are models.
 */
#include <math.h>
#include <stdlib.h>

#include "policy/router.h"

static void demand(bool holds)
{
    if (!holds) abort();
}

static void check_candidates(const br_router *r)
{
    demand(r->candidate_count >= 2 && r->candidate_count <= BR_CANDIDATES_MAX);
    demand(r->reference >= 0 && r->reference < r->candidate_count);
    const br_heads_rule *rule = br_heads_rule_of(r->heads);
    demand(rule->candidates == 0 || rule->candidates == r->candidate_count);
    demand(r->temperature > 0 && r->pooler <= BR_POOLER_RELU);
    for (int32_t i = 0; i < r->candidate_count; i++) {
        const br_candidate *c = &r->candidates[i];
        demand(c->model >= 0 && c->model < r->model_count);
        demand(c->n >= 1 && c->n <= BR_SAMPLES_MAX);
        demand((c->head == -1) == (i == r->reference && !rule->reference_scored));
        demand(c->head < r->head_count);
        for (int32_t k = 0; k < i; k++) {
            demand(r->candidates[k].head != c->head);
            demand(r->candidates[k].model != c->model || r->candidates[k].n != c->n);
        }
    }
}

static void check_names(const br_router *r, const br_str *names, size_t count)
{
    for (size_t i = 0; i < count; i++) demand(br_router_find_model(r, names[i]) >= 0);
}

static void check_router(const br_router *r)
{
    demand(r->name[0] != '\0' && r->source_prefix[0] != '\0');
    demand(r->max_tokens >= BR_SEQ_TOKENS_MIN && r->max_tokens <= BR_SEQ_TOKENS_MAX);
    for (int32_t i = 0; i < r->model_count; i++) {
        demand(isfinite(r->models[i].input_price) && r->models[i].input_price >= 0);
        demand(isfinite(r->models[i].output_price) && r->models[i].output_price >= 0);
        const double average = r->models[i].avg_output_tokens;
        demand(isnan(average) || (isfinite(average) && average >= 0));
    }
    check_candidates(r);
    demand(r->measured.row_count <= BR_POLICY_TABLE_ROWS_MAX);
    for (size_t i = 0; i < r->measured.row_count; i++) {
        const br_policy_row *row = &r->measured.rows[i];
        demand(row->threshold >= 0 && row->threshold <= 1 && row->quality >= 0 && row->quality <= 1);
        demand(isfinite(row->mean_cost) && row->mean_cost >= 0);
        demand(i == 0 || r->measured.rows[i - 1].threshold < row->threshold);
    }
    if (r->policy.has & BR_HAS_MODELS) check_names(r, r->policy.models, r->policy.model_count);
    if (r->policy.has & BR_HAS_EXCLUDE) check_names(r, r->policy.exclude, r->policy.exclude_count);
    if (r->policy.has & BR_HAS_MAX_COST) demand(isfinite(r->policy.max_cost) && r->policy.max_cost >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    br_router *router = malloc(sizeof *router);
    if (router == NULL) return 0;
    br_error error = {0};
    const br_status status = br_router_parse(router, (br_str){(const char *)data, size}, "fuzz", &error);
    demand(status == error.status);
    if (status == BR_OK) check_router(router);
    br_router_deinit(router);
    free(router);
    return 0;
}
