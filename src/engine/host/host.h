/*
 * host.h - what the engines on the host share: memory is the process's own, an op is done when it returns,
 * and the embedding keeps the type that it has in the file.
 *
 * The first functions are entries of a br_backend_table; the last ones are parts of ops.
 * Used by: reference, cpu; encoder/positions.c.
 */
#ifndef BESTROUTE_ENGINE_HOST_HOST_H
#define BESTROUTE_ENGINE_HOST_HOST_H

#include "engine/backend.h"

struct br_embedding {
    void *table; /* [V, C] in the type of the file */
    br_dtype type;
    int32_t width;
};

br_status br_host_embedding_create(br_backend *backend, br_embedding **out, const br_tensor *table,
                                   br_error *error);
void br_host_embedding_destroy(br_backend *backend, br_embedding *embedding);
br_status br_host_vector_create(br_backend *backend, float **out, const float *source, size_t count,
                                br_error *error);
void *br_host_alloc(br_backend *backend, size_t bytes);
void br_host_free(br_backend *backend, void *memory);
br_status br_host_copy(br_stream *stream, void *to, const void *from, size_t bytes);
br_status br_host_run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context);
br_status br_host_wait(br_stream *stream);

/* The entries above, in the initialiser of an engine's table. */
#define BR_HOST_ENTRIES                                                                                      \
    .embedding_create = br_host_embedding_create, .embedding_destroy = br_host_embedding_destroy,            \
    .vector_create = br_host_vector_create, .alloc = br_host_alloc, .free = br_host_free,                    \
    .upload = br_host_copy, .download = br_host_copy, .run = br_host_run, .wait = br_host_wait

/* row [C] = the token's row of the embedding plus its position: the input of embed_layernorm's LayerNorm.
 * `*seq` is the token's sequence: start with 0, and take the tokens in ascending order. */
void br_host_embed_token(float *row, const br_embed_args *args, int32_t token, int32_t *seq);

/* The op, for rows in the backend's types. */
void br_host_gather_rows(const br_backend *backend, const br_gather_args *args);

/* y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, in double; x and y may be the same row. */
void br_host_layernorm_row(float *y, const float *x, const float *gamma, const float *beta, float epsilon,
                           int32_t width);

/* A row of logits to its softmax, or with `complement` to 1 - softmax. In double, since 1 - softmax may be
 * small. */
void br_host_softmax_row(float *row, int32_t count, bool complement);

#endif
