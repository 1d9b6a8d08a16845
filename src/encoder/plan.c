/*
 * plan.c - see plan.h. Offsets are given from the front. `ffn` starts where `qkv` starts, since neither qkv
 * nor context is read after `ffn` is written.
 */
#include "plan.h"

#include <assert.h>

#include "core/memory.h"

/* The end of a buffer of that size: where the next one starts. */
static size_t after(size_t offset, size_t rows, size_t columns, size_t element_bytes)
{
    const size_t end = offset + rows * columns * element_bytes;
    return (end + BR_ALIGNMENT - 1) / BR_ALIGNMENT * BR_ALIGNMENT;
}

void workspace_plan_make(workspace_plan *plan, const br_model *model, const workspace_shape *shape)
{
    assert(shape->tokens_max > 0);
    assert(shape->seqs_max > 0);
    assert(shape->heads_count > 0);

    const size_t tokens = (size_t)shape->tokens_max;
    const size_t seqs = (size_t)shape->seqs_max;
    const size_t width = (size_t)model->width;
    const size_t ffn_width = (size_t)model->ffn_width;
    const size_t residual = br_dtype_bytes(shape->residual);
    const size_t activation = br_dtype_bytes(shape->activation);
    const bool aliased = shape->residual == shape->activation;

    size_t end = 0;
    plan->ids = end, end = after(end, tokens, 1, sizeof(int32_t));
    plan->offsets = end, end = after(end, seqs + 1, 1, sizeof(int32_t));

    plan->residual = end, end = after(end, tokens, width, residual);
    plan->input = aliased ? plan->residual : end;
    if (!aliased) end = after(end, tokens, width, activation);

    plan->qkv = end, end = after(end, tokens, 3 * width, activation);
    plan->context = end, end = after(end, tokens, width, activation);
    plan->ffn = plan->qkv;
    const size_t ffn_end = after(plan->ffn, tokens, ffn_width, activation);
    if (ffn_end > end) end = ffn_end;

    plan->pooled_residual = end, end = after(end, seqs, width, residual);
    plan->pooled_input = aliased ? plan->pooled_residual : end;
    if (!aliased) end = after(end, seqs, width, activation);

    plan->pooled_query = end, end = after(end, seqs, width, activation);
    plan->pooled_context = end, end = after(end, seqs, width, activation);
    plan->pooled_ffn = end, end = after(end, seqs, ffn_width, activation);
    plan->pooler = end, end = after(end, shape->has_pooler ? seqs : 0, width, sizeof(float));
    plan->quality = end, end = after(end, seqs, (size_t)shape->heads_count, sizeof(float));
    plan->total_bytes = end;
}
