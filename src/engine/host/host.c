/* host.c - see host.h. */
#include "host.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

void br_host_embedding_destroy(br_backend *backend, br_embedding *embedding)
{
    (void)backend;
    if (embedding == NULL) return;
    free(embedding->table);
    free(embedding);
}

br_status br_host_embedding_create(br_backend *backend, br_embedding **out, const br_tensor *table,
                                   br_error *error)
{
    *out = NULL;
    assert(table->readable);
    assert(table->rank == 2);
    br_embedding *embedding = calloc(1, sizeof *embedding);
    if (embedding == NULL) goto fail;
    embedding->type = table->type;
    embedding->width = (int32_t)table->shape[1];
    embedding->table = br_alloc_array(table->bytes, 1);
    if (embedding->table == NULL) goto fail;
    memcpy(embedding->table, table->data, table->bytes);

    *out = embedding;
    return BR_OK;

fail:
    br_host_embedding_destroy(backend, embedding);
    return br_no_memory(error, "an embedding of %zu bytes", table->bytes);
}

br_status br_host_vector_create(br_backend *backend, float **out, const float *source, size_t count,
                                br_error *error)
{
    (void)backend;
    *out = br_alloc_array(count, sizeof **out);
    if (*out == NULL) return br_no_memory(error, "a vector of %zu", count);
    memcpy(*out, source, count * sizeof **out);
    return BR_OK;
}

void *br_host_alloc(br_backend *backend, size_t bytes)
{
    (void)backend;
    return br_alloc_array(bytes, 1);
}

void br_host_free(br_backend *backend, void *memory)
{
    (void)backend;
    free(memory);
}

br_status br_host_copy(br_stream *stream, void *to, const void *from, size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
    return BR_OK;
}

br_status br_host_run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context)
{
    (void)key;
    return enqueue(stream, context);
}

br_status br_host_wait(br_stream *stream)
{
    (void)stream;
    return BR_OK;
}

void br_host_embed_token(float *row, const br_embed_args *args, int32_t token, int32_t *seq)
{
    const br_embedding *e = args->embedding;
    const size_t width = (size_t)e->width;
    const size_t row_bytes = width * br_dtype_bytes(e->type);
    br_dtype_to_f32(row, (const char *)e->table + (size_t)args->ids[token] * row_bytes, e->type, width);
    if (args->positions == NULL) return;

    while (token >= args->offsets[*seq + 1]) *seq += 1;
    const float *position = args->positions + (size_t)(token - args->offsets[*seq]) * width;
    for (size_t c = 0; c < width; c++) row[c] += position[c];
}

void br_host_gather_rows(const br_backend *backend, const br_gather_args *args)
{
    const size_t residual_bytes = (size_t)args->width * br_dtype_bytes(backend->residual);
    const size_t input_bytes = (size_t)args->width * br_dtype_bytes(backend->activation);
    for (int32_t b = 0; b < args->seqs; b++) {
        const size_t from = (size_t)args->offsets[b] + (size_t)args->pool_index;
        const size_t to = (size_t)b;
        memcpy((char *)args->pooled_residual + to * residual_bytes,
               (const char *)args->residual + from * residual_bytes, residual_bytes);
        if (args->pooled_input == args->pooled_residual) continue;
        memcpy((char *)args->pooled_input + to * input_bytes, (const char *)args->input + from * input_bytes,
               input_bytes);
    }
}

void br_host_layernorm_row(float *y, const float *x, const float *gamma, const float *beta, float epsilon,
                           int32_t width)
{
    double mean = 0;
    for (int32_t c = 0; c < width; c++) mean += (double)x[c];
    mean /= width;
    double variance = 0;
    for (int32_t c = 0; c < width; c++) variance += ((double)x[c] - mean) * ((double)x[c] - mean);
    variance /= width;
    const double scale = 1 / sqrt(variance + (double)epsilon);
    for (int32_t c = 0; c < width; c++)
        y[c] = (float)(((double)x[c] - mean) * scale * (double)gamma[c] + (double)beta[c]);
}

void br_host_softmax_row(float *row, int32_t count, bool complement)
{
    double highest = -(double)INFINITY;
    for (int32_t k = 0; k < count; k++) highest = (double)row[k] > highest ? (double)row[k] : highest;
    double total = 0;
    for (int32_t k = 0; k < count; k++) total += exp((double)row[k] - highest);
    for (int32_t k = 0; k < count; k++) {
        const double own = exp((double)row[k] - highest);
        row[k] = (float)((complement ? total - own : own) / total);
    }
}
