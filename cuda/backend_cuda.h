/*
 * backend_cuda.h - what the two halves of the CUDA backend share. For this folder, and for bench_cuda.
 *
 *   backend_cuda.c   the device, its memory, what is made from weights
 *   stream_cuda.c    streams: copies, recorded passes, the ops
 */
#ifndef BESTROUTE_CUDA_BACKEND_CUDA_H
#define BESTROUTE_CUDA_BACKEND_CUDA_H

#include "engine/backend.h"
#include "gemm.h"
#include "kernels.h"

typedef struct cuda_backend {
    br_backend base;
    int device;
    br_queue queue; /* without a stream: each br_stream has a copy with its own */
    gemm_choices *choices;
    br_pieces *pieces; /* the list that memory for weights is added to; NULL: none */
    bool empty;        /* memory for weights is allocated, but not written */
} cuda_backend;

struct br_matrix {
    void *weight;        /* [outputs, inputs], activation, or e4m3 where it has a scale */
    float *weight_scale; /* [outputs], or NULL */
    void *bias;          /* [outputs], activation; float where `own` */
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
    bool own; /* our own kernel multiplies it, not cuBLASLt */
};

struct br_embedding {
    void *table; /* [V, C], activation */
    int32_t width;
};

struct br_positions {
    br_position_tables tables;
    void *memory; /* of both tables */
};

static inline cuda_backend *cuda(br_backend *backend)
{
    return (cuda_backend *)backend;
}

/* Entries of the table, in stream_cuda.c. */
br_status cuda_stream_create(br_backend *backend, br_stream **out, const br_model *model,
                             const br_stream_shape *shape, br_error *error);
void cuda_stream_destroy(br_stream *stream);
size_t cuda_stream_bytes(const br_stream *stream);
br_status cuda_upload(br_stream *stream, void *device, const void *host, size_t bytes);
br_status cuda_download(br_stream *stream, void *host, const void *device, size_t bytes);
int32_t cuda_pass_shapes(const br_stream *stream, br_pass_shape out[BR_PASS_SHAPES_MAX]);
br_status cuda_record(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context);
br_status cuda_run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context);
br_status cuda_wait(br_stream *stream);
br_status cuda_embed_layernorm(br_stream *stream, const br_embed_args *a);
br_status cuda_linear(br_stream *stream, const br_linear_args *a);
br_status cuda_attention(br_stream *stream, const br_attention_args *a);
br_status cuda_pooled_attention(br_stream *stream, const br_pooled_attention_args *a);
br_status cuda_layernorm(br_stream *stream, const br_layernorm_args *a);
br_status cuda_gather_rows(br_stream *stream, const br_gather_args *a);
br_status cuda_heads(br_stream *stream, const br_heads_args *a);

#endif
