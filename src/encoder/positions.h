/*
 * positions.h - the relative embeddings that a bundle's prompts can reach, and their projection. For
 * weights.c alone.
 *
 * Log buckets map many distances to one row of rel_embeddings, so only the rows
 * that some distance in (-S, S) reaches are normalised and projected; the
 * result is expanded to one row per distance.
 *
 *   distance   -S+1 ... -1 0 1 ... S-1
 *   reached      0  ...              R-1     row_of, R distinct
 */
#ifndef BESTROUTE_ENCODER_POSITIONS_H
#define BESTROUTE_ENCODER_POSITIONS_H

#include <stdint.h>

#include "bundle/model.h"

typedef struct position_rows {
    int32_t *row_of;   /* [2S - 1]: which reached row belongs to distance + S - 1 */
    float *panels;     /* reached rows, in panels of PANEL_ROWS: [panels][C][PANEL_ROWS], zero-filled */
    int32_t reached;   /* R */
    int32_t distances; /* 2S - 1 */
    int32_t width;     /* C */
} position_rows;

enum { PANEL_ROWS = 16 };

/* `table` [2 * position_span, C]; gamma, beta [C] or NULL for no LayerNorm. BR_ENOMEM.
 * Release with position_rows_deinit, which also accepts a zeroed struct. */
BR_NODISCARD br_status position_rows_init(position_rows *rows, const br_model *model, int32_t seq_tokens_max,
                                          const float *table, const float *gamma, const float *beta);
void position_rows_deinit(position_rows *rows);

/* *out [2S - 1, C] = reached rows times weight^T [C, C] plus bias [C], one row per distance; the caller
 * frees it. BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status position_rows_project(float **out, const position_rows *rows, const float *weight,
                                             const float *bias);

/* The same table filled with zeros, without the work of projecting. */
BR_NODISCARD br_status position_rows_zeros(float **out, const position_rows *rows);

#endif
