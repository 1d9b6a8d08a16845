/*
 * plan.h - where each activation lives in an encoder's one workspace.
 *
 * Sizes follow from the model, the largest batch and the two element types of the backend. Buffers that are
 * not needed at the same time share bytes; the list says when each is needed.
 *
 *   name       shape        type        written by            read until
 *   ids        [T]          int32       upload                embed
 *   offsets    [B + 1]      int32       upload                the last attention and gather
 *   residual   [T, C]       residual    embed                 gather_rows
 *   input      [T, C]       activation  embed, layernorm      next GEMM (is residual if the types agree)
 *   qkv        [T, 3C]      activation  linear                attention
 *   context    [T, C]       activation  attention             linear
 *   ffn        [T, F]       activation  linear (gelu)         linear; shares bytes with qkv + context
 *   pooled_*   the same for one row per sequence in the last layer
 *   pooler     [B, C]       float32     heads                 heads; nothing without a pooler
 *   quality    [B, K]       float32     heads                 download
 */
#ifndef BESTROUTE_ENCODER_PLAN_H
#define BESTROUTE_ENCODER_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bundle/model.h"
#include "core/dtype.h"

#define WORKSPACE_LIST(X)                                                                                    \
    X(ids)                                                                                                   \
    X(offsets)                                                                                               \
    X(residual)                                                                                              \
    X(input)                                                                                                 \
    X(qkv)                                                                                                   \
    X(context)                                                                                               \
    X(ffn)                                                                                                   \
    X(pooled_residual)                                                                                       \
    X(pooled_input)                                                                                          \
    X(pooled_query)                                                                                          \
    X(pooled_context)                                                                                        \
    X(pooled_ffn)                                                                                            \
    X(pooler)                                                                                                \
    X(quality)

typedef struct workspace_plan {
#define WORKSPACE_FIELD(name) size_t name; /* byte offset, a multiple of BR_ALIGNMENT */
    WORKSPACE_LIST(WORKSPACE_FIELD)
#undef WORKSPACE_FIELD
    size_t total_bytes;
} workspace_plan;

typedef struct workspace_shape {
    int32_t tokens_max;  /* T */
    int32_t seqs_max;    /* B */
    int32_t heads_count; /* K, quality heads */
    br_dtype residual;
    br_dtype activation;
    bool has_pooler;
} workspace_shape;

void workspace_plan_make(workspace_plan *plan, const br_model *model, const workspace_shape *shape);

#endif
