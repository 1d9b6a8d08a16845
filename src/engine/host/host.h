/*
 * host.h - what the engines on the host have alike: memory is the process's own, everything happens at once
 * on the caller's thread, and the embedding stays in the type of the file.
 *
 * The functions fit a br_backend_table.  Used by: backend_reference, backend_cpu.
 */
#ifndef BESTROUTE_ENGINE_HOST_HOST_H
#define BESTROUTE_ENGINE_HOST_HOST_H

#include "engine/backend.h"

struct br_embedding {
    void *table; /* [V, C] in the type of the file */
    br_dtype type;
    int32_t width;
};

br_status host_embedding_create(br_backend *backend, br_embedding **out, const br_tensor *table,
                                br_error *error);
void host_embedding_destroy(br_backend *backend, br_embedding *embedding);
br_status host_vector_create(br_backend *backend, float **out, const float *source, size_t count,
                             br_error *error);
void *host_alloc(br_backend *backend, size_t bytes);
void host_free(br_backend *backend, void *memory);
br_status host_copy(br_stream *stream, void *to, const void *from, size_t bytes);
br_status host_run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context);
br_status host_wait(br_stream *stream);

/* The op, for rows in the backend's types. */
void host_gather_rows(const br_backend *backend, const br_gather_args *args);

#endif
