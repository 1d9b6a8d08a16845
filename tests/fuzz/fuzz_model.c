/*
 * fuzz_model.c - any bytes as config.json.
 *
 * What is accepted is within the limits, and every distance has a row.
 */
#include <stdlib.h>

#include "bundle/model.h"
#include "core/limits.h"

static void demand(bool holds)
{
    if (!holds) abort();
}

static void check_model(const br_model *m)
{
    demand(m->width >= 1 && m->width <= BR_WIDTH_MAX);
    demand(m->layers >= 1 && m->layers <= BR_LAYERS_MAX);
    demand(m->heads >= 1 && m->heads <= BR_HEADS_MAX);
    demand(m->head_size * m->heads == m->width);
    demand(m->ffn_width >= 1 && m->ffn_width <= BR_FFN_MAX);
    demand(m->vocab >= 1 && m->vocab <= BR_VOCAB_MAX);
    demand(m->layer_norm_epsilon >= 0);
    demand(m->absolute_positions >= 0 && m->absolute_positions <= BR_VOCAB_MAX);
    demand((m->absolute_positions > 0) == (m->family != BR_FAMILY_DEBERTA));
    demand((m->token_types > 0) == (m->family == BR_FAMILY_BERT));
    if (!m->relative_attention) return;

    demand(m->position_span >= 1 && m->position_span <= BR_POSITION_SPAN_MAX);
    for (int32_t distance = 1 - BR_SEQ_TOKENS_MAX; distance < BR_SEQ_TOKENS_MAX; distance++) {
        const int32_t row = br_model_position_row(m, distance);
        demand(row >= 0 && row < 2 * m->position_span);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    br_model model;
    br_error error = {0};
    const br_status status = br_model_parse(&model, (br_str){(const char *)data, size}, "fuzz", &error);
    demand(status == error.status);
    if (status == BR_OK) check_model(&model);
    return 0;
}
