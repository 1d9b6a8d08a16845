/*
 * attention.h - disentangled attention of one head and one sequence at a time. See vector.h for how it is
 * compiled.
 *
 * Everything is a small product  out[row][lane] (+)= sum over units  a[row][unit] . b[unit][lane]:
 * `a` broadcast, `b` streamed, BR_ROWS rows at a time in registers. Scores are kept transposed,
 * [key][query], so softmax needs no sums across lanes and no mask:
 *
 *   content     rows: keys     lanes: queries     b: the block's queries, transposed
 *   p2c band    rows: keys     lanes: distances   b: the position queries from the first distance needed
 *   c2p band    rows: queries  lanes: distances   b: the position keys, then transposed into place
 *   context     rows: queries  lanes: head        b: values
 *
 * A distance is query - key, so the lanes that a row of a band needs are those of the row above, moved by
 * one. A tile of R rows over n lanes needs n + R - 1 distances. They are computed once, and each row is read
 * from its own first lane (the skew). No n x 2n table of position scores is ever made.
 *
 * A block is BLOCK queries against all keys. Rows and lanes beyond a sequence's end compute values that
 * nobody reads.
 */
#ifndef BESTROUTE_ENGINE_CPU_ATTENTION_H
#define BESTROUTE_ENGINE_CPU_ATTENTION_H

#include <assert.h>
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "vector.h"

enum {
    BLOCK = 8 * BR_LANES,            /* queries per block */
    SCORE_STRIDE = BLOCK + BR_LANES, /* not a power of two: rows fall into different cache sets */
    STEP = BR_PAIRS ? 2 : 1,         /* keys per unit of a probability */
};

_Static_assert(BR_LANES % BR_ROWS == 0, "a square of BR_LANES rows is made of whole tiles");
_Static_assert(CPU_MARGIN >= 2 * BR_LANES, "bands may start and end outside a position table");

typedef struct workspace {
    uint32_t *keys;    /* [n, depth_stride] */
    uint32_t *queries; /* [BLOCK, depth_stride] */
    uint32_t *across;  /* [depth_stride, BLOCK]: the queries transposed */
    uint32_t *values;  /* [n / STEP, width]: value rows, or pairs of them interleaved */
    float *scores;     /* [n, SCORE_STRIDE], then probabilities as units [n / STEP, SCORE_STRIDE] */
    float *band;       /* [BR_LANES, band_stride] */
    float *context;    /* [BLOCK, width] */
    float *top;        /* [BLOCK] highest score of each query */
    float *total;      /* [BLOCK] sum of its exponentials */
    size_t depth_stride;
    size_t width; /* of a head, in whole vectors */
    size_t band_stride;
    size_t bytes;
} workspace;

static size_t round_up(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static void *carve(char *base, size_t *used, size_t elements)
{
    void *at = base + *used;
    *used += round_up(elements * 4, BR_ALIGNMENT);
    return at;
}

/* Lays the arrays out for sequences of up to n tokens; `base` is the scratch,
 * or any address when only bytes matter. */
static workspace lay_out(char *base, int32_t n, int32_t head_size)
{
    workspace w = {0};
    const size_t rows = round_up((size_t)n, BR_LANES) + BR_LANES;
    const size_t depth = (size_t)cpu_depth(head_size, BR_PAIRS);
    w.depth_stride = round_up(depth, BR_LANES);
    w.width = round_up((size_t)head_size, BR_LANES);
    w.band_stride = rows + (size_t)(n > BLOCK ? 0 : BLOCK) + 3 * BR_LANES;
    w.keys = carve(base, &w.bytes, rows * w.depth_stride);
    w.queries = carve(base, &w.bytes, (BLOCK + BR_LANES) * w.depth_stride);
    w.across = carve(base, &w.bytes, w.depth_stride * BLOCK);
    w.values = carve(base, &w.bytes, rows * w.width);
    w.scores = carve(base, &w.bytes, rows * SCORE_STRIDE);
    w.band = carve(base, &w.bytes, BR_LANES * w.band_stride);
    w.context = carve(base, &w.bytes, BLOCK * w.width);
    w.top = carve(base, &w.bytes, BLOCK);
    w.total = carve(base, &w.bytes, BLOCK);
    return w;
}

static size_t scratch_bytes(int32_t seq_tokens_max, int32_t head_size)
{
    static char anywhere;
    return lay_out(&anywhere, seq_tokens_max, head_size).bytes;
}

typedef struct product {
    float *out;
    size_t out_stride;
    const uint32_t *a;
    size_t a_row;  /* units from row to row */
    size_t a_unit; /* units from one unit of a row to the next */
    const uint32_t *b;
    size_t b_stride;
    int32_t depth;
    bool add;          /* the sum is added to what `out` holds */
    const float *skew; /* also added, where not NULL: row r starts r places earlier than row 0 */
    size_t skew_stride;
} product;

/* BR_ROWS rows by `vectors` vectors from lane `at`. `vectors` is a constant, so that sums stay in
 * registers. */
BR_INLINE void tile(const product *p, size_t at, const int32_t vectors)
{
    vec sum[BR_ROWS][3];
    BR_UNROLL for (int32_t r = 0; r < BR_ROWS; r++)
    {
        BR_UNROLL for (int32_t v = 0; v < vectors; v++) sum[r][v] = (vec){0};
    }

    const uint32_t *a = p->a;
    const uint32_t *b = p->b + at;
    const size_t a_row = p->a_row;
    const size_t a_unit = p->a_unit;
    const size_t b_stride = p->b_stride;
    for (int32_t k = p->depth; k > 0; k--) {
        uvec lanes[3];
        BR_UNROLL for (int32_t v = 0; v < vectors; v++) lanes[v] = load_units(b + (size_t)v * BR_LANES);
        BR_UNROLL for (int32_t r = 0; r < BR_ROWS; r++)
        {
            const uvec unit = splat_unit(a[(size_t)r * a_row]);
            BR_UNROLL for (int32_t v = 0; v < vectors; v++) sum[r][v] = BR_DOT(sum[r][v], unit, lanes[v]);
        }
        a += a_unit;
        b += b_stride;
    }

    BR_UNROLL for (int32_t r = 0; r < BR_ROWS; r++)
    {
        float *out = p->out + (size_t)r * p->out_stride + at;
        BR_UNROLL for (int32_t v = 0; v < vectors; v++)
        {
            vec s = sum[r][v];
            if (p->add) s += load(out + (size_t)v * BR_LANES);
            if (p->skew != NULL)
                s += load(p->skew + (size_t)r * p->skew_stride - (size_t)r + at + (size_t)v * BR_LANES);
            store(out + (size_t)v * BR_LANES, s);
        }
    }
}

/* BR_ROWS rows, at least `lanes` lanes. Four vectors are faster as two and two than as three and one. */
static void multiply(const product *p, size_t lanes)
{
    size_t at = 0;
    for (size_t left = (lanes + BR_LANES - 1) / BR_LANES; left > 0;) {
        const size_t vectors = left == 4 || left == 2 ? 2 : left >= 3 ? 3 : 1;
        if (vectors == 3)
            tile(p, at, 3);
        else if (vectors == 2)
            tile(p, at, 2);
        else
            tile(p, at, 1);
        at += vectors * BR_LANES;
        left -= vectors;
    }
}

/* Rows of a head, as units, padded with zeros to whole vectors. */
static void pack_rows(uint32_t *out, size_t out_stride, const activation *x, size_t x_stride, int32_t rows,
                      int32_t head_size)
{
    for (int32_t i = 0; i < rows; i++) {
        char *to = (char *)(out + (size_t)i * out_stride);
        const size_t bytes = (size_t)head_size * sizeof *x;
        memcpy(to, x + (size_t)i * x_stride, bytes);
        memset(to + bytes, 0, out_stride * 4 - bytes);
    }
}

/* Value rows in the order in which a unit of probabilities multiplies them. */
static void pack_values(const workspace *w, const activation *x, size_t x_stride, int32_t rows,
                        int32_t head_size)
{
#if BR_PAIRS
    for (int32_t i = 0; i < rows; i += 2) {
        uint32_t *to = w->values + (size_t)(i / 2) * w->width;
        const activation *first = x + (size_t)i * x_stride;
        if (i + 1 < rows) {
            const activation *second = first + x_stride;
            for (int32_t d = 0; d < head_size; d++) to[d] = first[d] | ((uint32_t)second[d] << 16);
        } else {
            for (int32_t d = 0; d < head_size; d++) to[d] = first[d];
        }
    }
#else
    for (int32_t i = 0; i < rows; i++)
        memcpy(w->values + (size_t)i * w->width, x + (size_t)i * x_stride, (size_t)head_size * sizeof *x);
#endif
}

static void transpose_queries(const workspace *w, int32_t rows)
{
    for (int32_t i = 0; i < rows; i += BR_LANES) {
        for (size_t k = 0; k < w->depth_stride; k += BR_LANES) {
            uvec square[BR_LANES];
            BR_UNROLL for (int32_t r = 0; r < BR_LANES; r++) square[r] =
                load_units(w->queries + (size_t)(i + r) * w->depth_stride + k);
            transpose(square);
            BR_UNROLL for (int32_t r = 0; r < BR_LANES; r++)
                store_units(w->across + (k + (size_t)r) * BLOCK + i, square[r]);
        }
    }
}

/* scores[j][i] = q_i . key[i - j] for the block's queries first .. first + rows - 1 and n keys. */
static void score_c2p(const workspace *w, const br_positions *positions, int32_t head, int32_t first,
                      int32_t rows, int32_t n)
{
    const uint32_t *table = positions->key + (size_t)head * positions->depth * positions->stride;
    for (int32_t i = 0; i < rows; i += BR_LANES) {
        for (int32_t r = 0; r < BR_LANES && i + r < rows; r += BR_ROWS) {
            const int32_t column =
                positions->lead + positions->seq_tokens_max - 1 - (first + i + r + BR_ROWS - 1);
            const product band = {
                .out = w->band + (size_t)r * w->band_stride,
                .out_stride = w->band_stride,
                .a = w->queries + (size_t)(i + r) * w->depth_stride,
                .a_row = w->depth_stride,
                .a_unit = 1,
                .b = table + column,
                .b_stride = positions->stride,
                .depth = positions->depth,
            };
            multiply(&band, (size_t)n + BR_ROWS - 1);
        }
        for (int32_t j = 0; j < n; j += BR_LANES) {
            uvec square[BR_LANES];
            BR_UNROLL for (int32_t r = 0; r < BR_LANES; r++)
            {
                const size_t skew = BR_ROWS - 1 - (size_t)r % BR_ROWS;
                square[r] = (uvec)load(w->band + (size_t)r * w->band_stride + j + skew);
            }
            transpose(square);
            BR_UNROLL for (int32_t r = 0; r < BR_LANES; r++)
                store(w->scores + (size_t)(j + r) * SCORE_STRIDE + i, (vec)square[r]);
        }
    }
}

/* scores[j][i] (+)= q_i . k_j + k_j . query[i - j] for the block's queries and n keys. */
static void score_content(const workspace *w, const br_positions *positions, int32_t head, int32_t depth,
                          int32_t first, int32_t rows, int32_t n)
{
    const bool p2c = positions != NULL && positions->query != NULL;
    product content = {
        .out_stride = SCORE_STRIDE,
        .a_row = w->depth_stride,
        .a_unit = 1,
        .b = w->across,
        .b_stride = BLOCK,
        .depth = depth,
        .add = positions != NULL && positions->key != NULL,
        .skew = p2c ? w->band + BR_ROWS - 1 : NULL,
        .skew_stride = w->band_stride,
    };
    for (int32_t j = 0; j < n; j += BR_ROWS) {
        content.a = w->keys + (size_t)j * w->depth_stride;
        content.out = w->scores + (size_t)j * SCORE_STRIDE;
        if (p2c) {
            const int32_t distance = first - (j + BR_ROWS - 1);
            const int32_t column = positions->lead + positions->seq_tokens_max - 1 + distance;
            const product band = {
                .out = w->band,
                .out_stride = w->band_stride,
                .a = content.a,
                .a_row = w->depth_stride,
                .a_unit = 1,
                .b = positions->query + (size_t)head * positions->depth * positions->stride + column,
                .b_stride = positions->stride,
                .depth = depth,
            };
            multiply(&band, (size_t)rows + BR_ROWS - 1);
        }
        multiply(&content, (size_t)rows);
    }
}

/* Scores to exponentials, as probability units; their sums into total. */
static void softmax_block(const workspace *w, int32_t rows, int32_t n)
{
    for (int32_t i = 0; i < rows; i += BR_LANES) {
        const float *score = w->scores + i;
        vec top = load(score);
        for (int32_t j = 1; j < n; j++) top = BR_MAX(load(score + (size_t)j * SCORE_STRIDE), top);

        vec total = {0};
        for (int32_t j = 0; j < n; j += STEP) {
            const vec e = exp_of(load(score + (size_t)j * SCORE_STRIDE) - top);
            total += e;
#if BR_PAIRS
            vec odd = {0};
            if (j + 1 < n) odd = exp_of(load(score + (size_t)(j + 1) * SCORE_STRIDE) - top);
            total += odd;
            const uvec low = __builtin_convertvector((half_lanes)BR_TO_BF16(e), uvec);
            const uvec high = __builtin_convertvector((half_lanes)BR_TO_BF16(odd), uvec);
            store(w->scores + (size_t)(j / 2) * SCORE_STRIDE + i, (vec)(low | (high << 16)));
#else
            store(w->scores + (size_t)j * SCORE_STRIDE + i, e);
#endif
        }
        store(w->total + i, total);
    }
}

static void store_context(const workspace *w, activation *context, size_t context_stride, int32_t rows,
                          int32_t head_size)
{
    for (int32_t i = 0; i < rows; i++) {
        const float *from = w->context + (size_t)i * w->width;
        activation *to = context + (size_t)i * context_stride;
        const float scale = 1.0f / w->total[i];
        int32_t d = 0;
        for (; d + BR_LANES <= head_size; d += BR_LANES)
            store_activation(to + d, load(from + d) * splat(scale));
        for (; d < head_size; d++) to[d] = make_activation(from[d] * scale);
    }
}

static void context_block(const workspace *w, activation *context, size_t context_stride, int32_t rows,
                          int32_t n, int32_t head_size)
{
    for (int32_t i = 0; i < rows; i += BR_ROWS) {
        const product weighted = {
            .out = w->context + (size_t)i * w->width,
            .out_stride = w->width,
            .a = (const uint32_t *)(const void *)w->scores + i,
            .a_row = 1,
            .a_unit = SCORE_STRIDE,
            .b = w->values,
            .b_stride = w->width,
            .depth = (n + STEP - 1) / STEP,
        };
        multiply(&weighted, (size_t)head_size);
    }
    store_context(w, context, context_stride, rows, head_size);
}

static void attend(const br_attention_args *a, const workspace *w, int32_t seq, int32_t head)
{
    const int32_t n = a->offsets[seq + 1] - a->offsets[seq];
    const size_t width = (size_t)a->heads * a->head_size;
    const size_t q_stride = (size_t)a->q_stride;
    const size_t kv_stride = (size_t)a->kv_stride;
    const size_t start = (size_t)a->offsets[seq];
    const size_t column = (size_t)head * a->head_size;
    const activation *query = (const activation *)a->q + start * q_stride + column;
    const activation *key = (const activation *)a->k + start * kv_stride + column;
    const activation *value = (const activation *)a->v + start * kv_stride + column;
    activation *context = (activation *)a->context + start * width + column;
    const bool c2p = a->positions != NULL && a->positions->key != NULL;

    pack_rows(w->keys, w->depth_stride, key, kv_stride, n, a->head_size);
    pack_values(w, value, kv_stride, n, a->head_size);
    for (int32_t first = 0; first < n; first += BLOCK) {
        const int32_t rows = n - first < BLOCK ? n - first : BLOCK;
        pack_rows(w->queries, w->depth_stride, query + (size_t)first * q_stride, q_stride, rows,
                  a->head_size);
        transpose_queries(w, rows);
        if (c2p) score_c2p(w, a->positions, head, first, rows, n);
        score_content(w, a->positions, head, cpu_depth(a->head_size, BR_PAIRS), first, rows, n);
        softmax_block(w, rows, n);
        context_block(w, context + (size_t)first * width, width, rows, n, a->head_size);
    }
}

/* The outer loop goes over heads, so that a head's position tables stay in the cache for all sequences. */
static void attention(const br_attention_args *a, void *scratch)
{
    const workspace w = lay_out(scratch, a->seq_tokens_max, a->head_size);
    assert(a->positions == NULL || a->seq_tokens_max <= a->positions->seq_tokens_max);
    for (int32_t head = 0; head < a->heads; head++)
        for (int32_t seq = 0; seq < a->seqs; seq++) attend(a, &w, seq, head);
}

static float unit_dot(uint32_t a, uint32_t b)
{
#if BR_PAIRS
    return br_bf16_to_f32((uint16_t)a) * br_bf16_to_f32((uint16_t)b) +
           br_bf16_to_f32((uint16_t)(a >> 16)) * br_bf16_to_f32((uint16_t)(b >> 16));
#else
    float x;
    float y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x * y;
#endif
}

/* scores[j] (+)= the position terms of one query at index i against n keys. */
static void score_pooled_positions(const workspace *w, const br_positions *positions, int32_t head, int32_t i,
                                   int32_t n)
{
    const size_t table = (size_t)head * positions->depth * positions->stride;
    if (positions->key != NULL) {
        const int32_t column = positions->lead + positions->seq_tokens_max - 1 - i;
        for (int32_t j = 0; j < n; j += BR_LANES) {
            const uint32_t *key = positions->key + table + column + j;
            vec sum = {0};
            for (int32_t k = 0; k < positions->depth; k++)
                sum = BR_DOT(sum, splat_unit(w->queries[k]), load_units(key + (size_t)k * positions->stride));
            store(w->scores + j, load(w->scores + j) + sum);
        }
    }
    if (positions->query != NULL) {
        for (int32_t j = 0; j < n; j++) {
            const uint32_t *query =
                positions->query + table + positions->lead + positions->seq_tokens_max - 1 + i - j;
            const uint32_t *key = w->keys + (size_t)j * w->depth_stride;
            float sum = 0.0f;
            for (int32_t k = 0; k < positions->depth; k++)
                sum += unit_dot(key[k], query[(size_t)k * positions->stride]);
            w->scores[j] += sum;
        }
    }
}

static void score_pooled_content(const workspace *w, int32_t n)
{
    for (int32_t j = 0; j < n; j++) {
        vec sum = {0};
        for (size_t k = 0; k < w->depth_stride; k += BR_LANES)
            sum = BR_DOT(sum, load_units(w->queries + k),
                         load_units(w->keys + (size_t)j * w->depth_stride + k));
        w->scores[j] = sum_of(sum);
    }
}

/* Scores to probabilities. */
static void softmax_row(float *scores, int32_t n)
{
    const int32_t padded = (int32_t)round_up((size_t)n, BR_LANES);
    for (int32_t j = n; j < padded; j++) scores[j] = -INFINITY;
    float top = scores[0];
    for (int32_t j = 1; j < n; j++)
        if (scores[j] > top) top = scores[j];

    vec total = {0};
    for (int32_t j = 0; j < padded; j += BR_LANES) {
        const vec e = exp_of(load(scores + j) - splat(top));
        store(scores + j, e);
    }
    for (int32_t j = n; j < padded; j++) scores[j] = 0.0f;
    for (int32_t j = 0; j < padded; j += BR_LANES) total += load(scores + j);
    const vec scale = splat(1.0f / sum_of(total));
    for (int32_t j = 0; j < padded; j += BR_LANES) store(scores + j, load(scores + j) * scale);
}

static void attend_pooled(const br_pooled_attention_args *a, const workspace *w, int32_t seq, int32_t head)
{
    const int32_t n = a->offsets[seq + 1] - a->offsets[seq];
    const size_t width = (size_t)a->heads * a->head_size;
    const size_t stride = 2 * width;
    const size_t column = (size_t)head * a->head_size;
    const activation *key = (const activation *)a->kv + (size_t)a->offsets[seq] * stride + column;
    const activation *value = key + width;
    activation *context = (activation *)a->context + (size_t)seq * width + column;

    pack_rows(w->keys, w->depth_stride, key, stride, n, a->head_size);
    pack_rows(w->queries, w->depth_stride, (const activation *)a->query + (size_t)seq * width + column, width,
              1, a->head_size);
    score_pooled_content(w, n);
    if (a->positions != NULL) score_pooled_positions(w, a->positions, head, a->pool_index, n);
    softmax_row(w->scores, n);

    int32_t d = 0;
    for (; d + BR_LANES <= a->head_size; d += BR_LANES) {
        vec sum = {0};
        for (int32_t j = 0; j < n; j++)
            sum = BR_FMA(splat(w->scores[j]), load_activation(value + (size_t)j * stride + d), sum);
        store_activation(context + d, sum);
    }
    for (; d < a->head_size; d++) {
        float sum = 0.0f;
        for (int32_t j = 0; j < n; j++) sum += w->scores[j] * get_activation(value[(size_t)j * stride + d]);
        context[d] = make_activation(sum);
    }
}

static void pooled_attention(const br_pooled_attention_args *a, void *scratch)
{
    const workspace w = lay_out(scratch, a->seq_tokens_max, a->head_size);
    assert(a->positions == NULL || a->seq_tokens_max <= a->positions->seq_tokens_max);
    for (int32_t head = 0; head < a->heads; head++)
        for (int32_t seq = 0; seq < a->seqs; seq++) attend_pooled(a, &w, seq, head);
}

#endif
