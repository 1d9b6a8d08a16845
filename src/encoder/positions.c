/*
 * positions.c - see positions.h.
 *
 * The projection takes most of the time of loading: 2 * R * C * C multiply-adds per layer (7 GFLOP in all for
 * the 44M shape at 512 tokens). Two outputs times one panel of rows stay in registers; a panel (C * 64 bytes)
 * stays in the L2 cache while all weights are read once.
 */
#include "positions.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "engine/host/host.h"

enum { OUTPUTS = 2, LANES = 4 };

/* Four floats, which the compiler keeps in one register on every supported machine. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

static size_t panel_count(const position_rows *rows)
{
    return ((size_t)rows->reached + PANEL_ROWS - 1) / PANEL_ROWS;
}

/* Numbers the rows that some distance reaches, in the order of distances; source_of[r] is the row of the
 * table. */
static void number_rows(position_rows *rows, const br_model *model, int32_t seq_tokens_max,
                        int32_t *number_of, int32_t *source_of)
{
    for (int32_t i = 0; i < 2 * model->position_span; i++) number_of[i] = -1;
    for (int32_t i = 0; i < rows->distances; i++) {
        const int32_t row = br_model_position_row(model, i - (seq_tokens_max - 1));
        if (number_of[row] < 0) {
            source_of[rows->reached] = row;
            number_of[row] = rows->reached++;
        }
        rows->row_of[i] = number_of[row];
    }
}

br_status position_rows_init(position_rows *rows, const br_model *model, int32_t seq_tokens_max,
                             const float *table, const float *gamma, const float *beta)
{
    const size_t width = (size_t)model->width;
    const size_t span = 2 * (size_t)model->position_span;
    *rows = (position_rows){.distances = 2 * seq_tokens_max - 1, .width = model->width};
    int32_t *number_of = br_alloc_array(span, sizeof *number_of);
    int32_t *source_of = br_alloc_array(span, sizeof *source_of);
    float *normal = br_alloc_array(width, sizeof *normal);
    rows->row_of = br_alloc_array((size_t)rows->distances, sizeof *rows->row_of);
    br_status status = BR_ENOMEM;
    if (number_of == NULL || source_of == NULL || normal == NULL || rows->row_of == NULL) goto done;

    number_rows(rows, model, seq_tokens_max, number_of, source_of);
    const size_t floats = panel_count(rows) * PANEL_ROWS * width;
    rows->panels = br_alloc_array(floats, sizeof *rows->panels);
    if (rows->panels == NULL) goto done;
    memset(rows->panels, 0, floats * sizeof *rows->panels);
    for (size_t r = 0; r < (size_t)rows->reached; r++) {
        const float *row = table + (size_t)source_of[r] * width;
        if (gamma != NULL) {
            br_host_layernorm_row(normal, row, gamma, beta, model->layer_norm_epsilon, model->width);
            row = normal;
        }
        float *panel = rows->panels + r / PANEL_ROWS * PANEL_ROWS * width;
        for (size_t c = 0; c < width; c++) panel[c * PANEL_ROWS + r % PANEL_ROWS] = row[c];
    }
    status = BR_OK;

done:
    free(number_of);
    free(source_of);
    free(normal);
    if (status != BR_OK) position_rows_deinit(rows);
    return status;
}

void position_rows_deinit(position_rows *rows)
{
    free(rows->row_of);
    free(rows->panels);
    *rows = (position_rows){0};
}

/* products[o][r] = weight[o] . row r of the panel, for two outputs and sixteen rows. */
static void multiply_panel(float products[OUTPUTS][PANEL_ROWS], const float *panel, const float *first,
                           const float *second, size_t width)
{
    lanes a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
    lanes b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (size_t c = 0; c < width; c++) {
        lanes x0, x1, x2, x3;
        memcpy(&x0, panel + c * PANEL_ROWS, sizeof x0);
        memcpy(&x1, panel + c * PANEL_ROWS + LANES, sizeof x1);
        memcpy(&x2, panel + c * PANEL_ROWS + 2 * LANES, sizeof x2);
        memcpy(&x3, panel + c * PANEL_ROWS + 3 * LANES, sizeof x3);
        a0 += first[c] * x0, a1 += first[c] * x1, a2 += first[c] * x2, a3 += first[c] * x3;
        b0 += second[c] * x0, b1 += second[c] * x1, b2 += second[c] * x2, b3 += second[c] * x3;
    }
    memcpy(products[0], (lanes[4]){a0, a1, a2, a3}, sizeof products[0]);
    memcpy(products[1], (lanes[4]){b0, b1, b2, b3}, sizeof products[1]);
}

/* out [R, C] */
static void project(float *out, const position_rows *rows, const float *weight, const float *bias)
{
    const size_t width = (size_t)rows->width;
    for (size_t p = 0; p < panel_count(rows); p++) {
        const float *panel = rows->panels + p * PANEL_ROWS * width;
        const size_t first_row = p * PANEL_ROWS;
        const size_t left = (size_t)rows->reached - first_row;
        const size_t count = left < PANEL_ROWS ? left : PANEL_ROWS;
        for (size_t o = 0; o < width; o += OUTPUTS) {
            const size_t second = o + 1 < width ? o + 1 : o; /* an odd width computes its last output twice */
            float products[OUTPUTS][PANEL_ROWS];
            multiply_panel(products, panel, weight + o * width, weight + second * width, width);
            for (size_t r = 0; r < count; r++) {
                out[(first_row + r) * width + o] = products[0][r] + bias[o];
                out[(first_row + r) * width + second] = products[second - o][r] + bias[second];
            }
        }
    }
}

br_status position_rows_zeros(float **out, const position_rows *rows)
{
    const size_t count = (size_t)rows->distances * (size_t)rows->width;
    *out = br_alloc_array(count, sizeof **out);
    if (*out == NULL) return BR_ENOMEM;
    memset(*out, 0, count * sizeof **out);
    return BR_OK;
}

br_status position_rows_project(float **out, const position_rows *rows, const float *weight,
                                const float *bias)
{
    const size_t width = (size_t)rows->width;
    *out = NULL;
    float *reached = br_alloc_array((size_t)rows->reached * width, sizeof *reached);
    float *expanded = br_alloc_array((size_t)rows->distances * width, sizeof *expanded);
    br_status status = BR_ENOMEM;
    if (reached == NULL || expanded == NULL) goto done;

    project(reached, rows, weight, bias);
    for (size_t i = 0; i < (size_t)rows->distances; i++)
        memcpy(expanded + i * width, reached + (size_t)rows->row_of[i] * width, width * sizeof *expanded);
    *out = expanded;
    expanded = NULL;
    status = BR_OK;

done:
    free(reached);
    free(expanded);
    return status;
}
