/*
 * reference.c - the oracle that other engines are compared with: plain loops, never optimised.
 *
 * Every sum is taken in double and rounded once, when it is stored: to float32, or in precisions bf16 and f16
 * to the 16-bit type for activations, weights and position tables. This rounding is the only error that
 * counts.
 *
 * A row is widened to float before it is used, so each op is written once for all activation types.
 */
#include "reference.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "core/memory.h"
#include "host.h"

struct br_matrix {
    float *weight; /* [outputs, inputs], already rounded to the activation type */
    float *bias;   /* [outputs] */
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
};

struct br_positions {
    float *key;   /* [2S - 1, C] or NULL; already rounded to the activation type */
    float *query; /* likewise */
    int32_t seq_tokens_max;
};

struct br_stream {
    br_backend *backend;
    float *row;    /* one widened row of the widest matrix input */
    float *key;    /* [S, D] of one sequence and head */
    float *value;  /* [S, D] */
    float *scores; /* [S] */
    float *query;  /* [D] */
    double *sums;  /* [D] */
};

static void widen(float *out, const void *rows, size_t first, int32_t count, br_dtype type)
{
    for (int32_t i = 0; i < count; i++) out[i] = br_dtype_get(rows, first + (size_t)i, type);
}

/* A copy of source[count], each element rounded to `type`. NULL: no memory. */
static float *rounded_copy(const float *source, size_t count, br_dtype type)
{
    float *copy = br_alloc_array(count, sizeof *copy);
    if (copy == NULL) return NULL;
    for (size_t i = 0; i < count; i++) copy[i] = br_dtype_rounded(source[i], type);
    return copy;
}

/* Eight running sums let the compiler use the machine's vectors; in double the order of additions does not
 * matter. */
static double dot(const float *a, const float *b, int32_t count)
{
    enum { LANES = 8 };
    double sums[LANES] = {0};
    int32_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int32_t lane = 0; lane < LANES; lane++) sums[lane] += (double)a[i + lane] * (double)b[i + lane];
    double sum = 0;
    for (int32_t lane = 0; lane < LANES; lane++) sum += sums[lane];
    for (; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static void matrix_destroy(br_backend *backend, br_matrix *matrix)
{
    (void)backend;
    if (matrix == NULL) return;
    free(matrix->weight);
    free(matrix->bias);
    free(matrix);
}

static br_status matrix_create(br_backend *backend, br_matrix **out, const br_matrix_source *source,
                               br_error *error)
{
    *out = NULL;
    br_matrix *matrix = calloc(1, sizeof *matrix);
    if (matrix == NULL) goto fail;
    matrix->outputs = source->outputs;
    matrix->inputs = source->inputs;
    matrix->epilogue = source->epilogue;
    matrix->weight =
        rounded_copy(source->weight, (size_t)source->outputs * (size_t)source->inputs, backend->activation);
    matrix->bias = rounded_copy(source->bias, (size_t)source->outputs, BR_F32);
    if (matrix->weight == NULL || matrix->bias == NULL) goto fail;

    *out = matrix;
    return BR_OK;

fail:
    matrix_destroy(backend, matrix);
    return br_no_memory(error, "a matrix of %d x %d", (int)source->outputs, (int)source->inputs);
}

static void positions_destroy(br_backend *backend, br_positions *positions)
{
    (void)backend;
    if (positions == NULL) return;
    free(positions->key);
    free(positions->query);
    free(positions);
}

static br_status positions_create(br_backend *backend, br_positions **out, const br_positions_source *source,
                                  br_error *error)
{
    *out = NULL;
    const size_t rows = 2 * (size_t)source->seq_tokens_max - 1;
    const size_t count = rows * (size_t)source->heads * (size_t)source->head_size;
    br_positions *positions = calloc(1, sizeof *positions);
    if (positions == NULL) goto fail;
    positions->seq_tokens_max = source->seq_tokens_max;
    if (source->key != NULL) {
        positions->key = rounded_copy(source->key, count, backend->activation);
        if (positions->key == NULL) goto fail;
    }
    if (source->query != NULL) {
        positions->query = rounded_copy(source->query, count, backend->activation);
        if (positions->query == NULL) goto fail;
    }
    *out = positions;
    return BR_OK;

fail:
    positions_destroy(backend, positions);
    return br_no_memory(error, "%zu projected positions", rows);
}

static void stream_destroy(br_stream *stream)
{
    if (stream == NULL) return;
    free(stream->row);
    free(stream->key);
    free(stream->value);
    free(stream->scores);
    free(stream->query);
    free(stream->sums);
    free(stream);
}

static br_status stream_create(br_backend *backend, br_stream **out, const br_model *model,
                               const br_stream_shape *shape, br_error *error)
{
    *out = NULL;
    const size_t head_size = (size_t)model->head_size;
    const size_t seq_tokens_max = (size_t)shape->seq_tokens_max;
    const size_t widest = (size_t)(model->width > model->ffn_width ? model->width : model->ffn_width);
    br_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) goto fail;
    stream->backend = backend;
    stream->row = br_alloc_array(widest, sizeof *stream->row);
    stream->key = br_alloc_array(seq_tokens_max * head_size, sizeof *stream->key);
    stream->value = br_alloc_array(seq_tokens_max * head_size, sizeof *stream->value);
    stream->scores = br_alloc_array(seq_tokens_max, sizeof *stream->scores);
    stream->query = br_alloc_array(head_size, sizeof *stream->query);
    stream->sums = br_alloc_array(head_size, sizeof *stream->sums);
    if (stream->row == NULL || stream->key == NULL || stream->value == NULL) goto fail;
    if (stream->scores == NULL || stream->query == NULL || stream->sums == NULL) goto fail;

    *out = stream;
    return BR_OK;

fail:
    stream_destroy(stream);
    return br_no_memory(error, "a stream's scratch");
}

/* Normalises `row` and stores it twice, at element `first`. */
static void normalise(const br_backend *backend, void *residual, void *input, size_t first, float *row,
                      const float *gamma, const float *beta, float epsilon, int32_t width)
{
    br_host_layernorm_row(row, row, gamma, beta, epsilon, width);
    for (int32_t c = 0; c < width; c++) {
        br_dtype_set(residual, first + (size_t)c, backend->residual, row[c]);
        if (input != residual) br_dtype_set(input, first + (size_t)c, backend->activation, row[c]);
    }
}

static br_status embed_layernorm(br_stream *stream, const br_embed_args *a)
{
    const int32_t width = a->embedding->width;
    int32_t seq = 0;
    for (int32_t t = 0; t < a->tokens; t++) {
        br_host_embed_token(stream->row, a, t, &seq);
        normalise(stream->backend, a->residual, a->input, (size_t)t * (size_t)width, stream->row, a->gamma,
                  a->beta, a->epsilon, width);
    }
    return BR_OK;
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x * sqrt(0.5)));
}

static br_status linear(br_stream *stream, const br_linear_args *a)
{
    const br_matrix *m = a->matrix;
    const br_dtype activation = stream->backend->activation;
    const br_dtype residual = stream->backend->residual;
    for (int32_t r = 0; r < a->rows; r++) {
        widen(stream->row, a->x, (size_t)r * (size_t)m->inputs, m->inputs, activation);
        for (int32_t o = 0; o < m->outputs; o++) {
            const size_t at = (size_t)r * (size_t)m->outputs + (size_t)o;
            const float *weight = m->weight + (size_t)o * (size_t)m->inputs;
            const double product = dot(stream->row, weight, m->inputs) + (double)m->bias[o];
            switch (m->epilogue) {
            case BR_EPILOGUE_STORE:
                br_dtype_set(a->y, at, activation, (float)product);
                break;
            case BR_EPILOGUE_GELU:
                br_dtype_set(a->y, at, activation, (float)gelu(product));
                break;
            case BR_EPILOGUE_ACCUMULATE:
                br_dtype_set(a->y, at, residual, (float)((double)br_dtype_get(a->y, at, residual) + product));
                break;
            }
        }
    }
    return BR_OK;
}

/* The keys and values of one sequence and head, in stream->key and stream->value. */
typedef struct attended {
    int32_t tokens;
    int32_t head_size;
    size_t head_column; /* head * D: where the head starts in a row of positions */
    size_t width;
    const br_positions *positions;
} attended;

static void gather_keys(br_stream *stream, const attended *a, const void *k, const void *v, size_t first,
                        size_t stride)
{
    const br_dtype type = stream->backend->activation;
    for (int32_t j = 0; j < a->tokens; j++) {
        const size_t to = (size_t)j * (size_t)a->head_size;
        const size_t from = first + (size_t)j * stride;
        widen(stream->key + to, k, from, a->head_size, type);
        widen(stream->value + to, v, from, a->head_size, type);
    }
}

static double score(const br_stream *stream, const attended *a, int32_t i, int32_t j)
{
    const float *key = stream->key + (size_t)j * (size_t)a->head_size;
    double sum = dot(stream->query, key, a->head_size);
    if (a->positions == NULL) return sum;

    const size_t row = (size_t)(i - j + a->positions->seq_tokens_max - 1);
    const size_t at = row * a->width + a->head_column;
    if (a->positions->key != NULL) sum += dot(stream->query, a->positions->key + at, a->head_size);
    if (a->positions->query != NULL) sum += dot(key, a->positions->query + at, a->head_size);
    return sum;
}

/* One row of attention: stream->query at index i against the gathered keys. */
static void attend(br_stream *stream, const attended *a, int32_t i, void *context, size_t context_at)
{
    const br_dtype type = stream->backend->activation;
    double highest = -(double)INFINITY;
    for (int32_t j = 0; j < a->tokens; j++) {
        stream->scores[j] = (float)score(stream, a, i, j);
        if ((double)stream->scores[j] > highest) highest = (double)stream->scores[j];
    }
    double total = 0;
    for (int32_t d = 0; d < a->head_size; d++) stream->sums[d] = 0;
    for (int32_t j = 0; j < a->tokens; j++) {
        const double weight = exp((double)stream->scores[j] - highest);
        const double stored = (double)br_dtype_rounded((float)weight, type);
        const float *value = stream->value + (size_t)j * (size_t)a->head_size;
        total += weight;
        for (int32_t d = 0; d < a->head_size; d++) stream->sums[d] += stored * (double)value[d];
    }
    for (int32_t d = 0; d < a->head_size; d++)
        br_dtype_set(context, context_at + (size_t)d, type, (float)(stream->sums[d] / total));
}

static br_status attention(br_stream *stream, const br_attention_args *a)
{
    const size_t head_size = (size_t)a->head_size;
    const size_t width = (size_t)a->heads * head_size;
    const br_dtype type = stream->backend->activation;
    for (int32_t b = 0; b < a->seqs; b++) {
        const size_t first = (size_t)a->offsets[b];
        const int32_t tokens = a->offsets[b + 1] - a->offsets[b];
        for (size_t column = 0; column < width; column += head_size) {
            const attended one = {tokens, a->head_size, column, width, a->positions};
            gather_keys(stream, &one, a->k, a->v, first * (size_t)a->kv_stride + column,
                        (size_t)a->kv_stride);
            for (int32_t i = 0; i < tokens; i++) {
                const size_t row = first + (size_t)i;
                widen(stream->query, a->q, row * (size_t)a->q_stride + column, a->head_size, type);
                attend(stream, &one, i, a->context, row * width + column);
            }
        }
    }
    return BR_OK;
}

static br_status pooled_attention(br_stream *stream, const br_pooled_attention_args *a)
{
    const size_t head_size = (size_t)a->head_size;
    const size_t width = (size_t)a->heads * head_size;
    const br_dtype type = stream->backend->activation;
    const char *value = (const char *)a->kv + width * br_dtype_bytes(type);
    for (int32_t b = 0; b < a->seqs; b++) {
        const size_t first = (size_t)a->offsets[b];
        const int32_t tokens = a->offsets[b + 1] - a->offsets[b];
        for (size_t column = 0; column < width; column += head_size) {
            const attended one = {tokens, a->head_size, column, width, a->positions};
            const size_t at = (size_t)b * width + column;
            gather_keys(stream, &one, a->kv, value, first * 2 * width + column, 2 * width);
            widen(stream->query, a->query, at, a->head_size, type);
            attend(stream, &one, a->pool_index, a->context, at);
        }
    }
    return BR_OK;
}

static br_status layernorm(br_stream *stream, const br_layernorm_args *a)
{
    for (int32_t r = 0; r < a->rows; r++) {
        const size_t first = (size_t)r * (size_t)a->width;
        widen(stream->row, a->residual, first, a->width, stream->backend->residual);
        normalise(stream->backend, a->residual, a->input, first, stream->row, a->gamma, a->beta, a->epsilon,
                  a->width);
    }
    return BR_OK;
}

static br_status gather_rows(br_stream *stream, const br_gather_args *a)
{
    br_host_gather_rows(stream->backend, a);
    return BR_OK;
}

static double activated(double z, br_activation activation)
{
    switch (activation) {
    case BR_ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-z));
    case BR_ACTIVATION_TANH:
        return tanh(z);
    case BR_ACTIVATION_GELU:
        return gelu(z);
    case BR_ACTIVATION_RELU:
        return z < 0 ? 0 : z; /* NaN stays */
    case BR_ACTIVATION_SOFTMAX:
    case BR_ACTIVATION_COMPLEMENT:
        return z; /* computed over the whole row, in heads() */
    }
    return z;
}

static br_status heads(br_stream *stream, const br_heads_args *a)
{
    const br_dtype type = a->wide ? BR_F32 : stream->backend->residual;
    for (int32_t b = 0; b < a->seqs; b++) {
        const size_t first = (size_t)b * (size_t)a->width;
        float *quality = a->quality + (size_t)b * (size_t)a->heads_count;
        widen(stream->row, a->residual, first, a->width, type);
        if (a->gamma != NULL)
            br_host_layernorm_row(stream->row, stream->row, a->gamma, a->beta, a->epsilon, a->width);
        const double norm = a->unit ? sqrt(dot(stream->row, stream->row, a->width)) : 1;
        for (int32_t k = 0; k < a->heads_count; k++) {
            const double z = dot(stream->row, a->weight + (size_t)k * (size_t)a->width, a->width) / norm;
            quality[k] = (float)activated(z + (double)a->bias[k], a->activation);
        }
        if (a->activation == BR_ACTIVATION_SOFTMAX) br_host_softmax_row(quality, a->heads_count, false);
        if (a->activation == BR_ACTIVATION_COMPLEMENT) br_host_softmax_row(quality, a->heads_count, true);
    }
    return BR_OK;
}

static void close_reference(br_backend *backend)
{
    free(backend);
}

br_status br_backend_open_reference(br_backend **out, br_precision precision, br_error *error)
{
    static const br_backend_table table = {
        .engine = "reference",
        BR_HOST_ENTRIES,
        .close = close_reference,
        .matrix_create = matrix_create,
        .matrix_destroy = matrix_destroy,
        .positions_create = positions_create,
        .positions_destroy = positions_destroy,
        .stream_create = stream_create,
        .stream_destroy = stream_destroy,
        .embed_layernorm = embed_layernorm,
        .linear = linear,
        .attention = attention,
        .pooled_attention = pooled_attention,
        .layernorm = layernorm,
        .gather_rows = gather_rows,
        .heads = heads,
    };
    *out = NULL;
    if (precision == BR_PRECISION_FP8)
        return br_fail(error, BR_ENOTSUP,
                       "engine reference: precision fp8 is not supported; engine cuda has it");
    br_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) return br_no_memory(error, "the reference engine");
    *backend = (br_backend){
        .table = &table,
        .precision = precision == BR_PRECISION_AUTO ? BR_PRECISION_F32 : precision,
        .residual = BR_F32,
        .activation = br_precision_dtype(precision),
        .batch_tokens = 512,
        .device = "plain loops",
    };
    *out = backend;
    return BR_OK;
}
