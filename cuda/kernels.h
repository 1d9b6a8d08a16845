/*
 * kernels.h - all launchers of the CUDA engine. Each op has one, in the file of that name.
 *
 * A launcher checks that there is a kernel for its arguments, returns at once for zero rows, and enqueues the
 * kernel on the queue's stream. BR_ENOTSUP: there is no kernel for the shape. BR_EDEVICE: the launch failed.
 * It allocates nothing and never waits.
 *
 * Residual and activation share one element type on this engine, so ops work in place.
 *
 * Uses: backend (the argument structs).  Used by: backend_cuda, gemm.
 */
#ifndef BESTROUTE_CUDA_KERNELS_H
#define BESTROUTE_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "core/limits.h"
#include "engine/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The stream that kernels are enqueued on, and what the device offers them. */
typedef struct br_queue {
    cudaStream_t stream;
    int32_t multiprocessors;
    size_t shared_bytes_max; /* of one block, with opt-in */
    bool multiplies_e4m3;    /* sm_89 and newer */
    bool has_warpgroups;     /* sm_90 alone: wgmma */
    bool overlaps;           /* a kernel may begin before the one before it ends (sm_90 and newer) */
} br_queue;

/* Position tables on the device, one block of rows per head: [H, 2S - 1, D], so that a run of
 * distances is one run of bytes. A term the model lacks is NULL. */
typedef struct br_position_tables {
    const void *key;
    const void *query;
    int32_t seq_tokens_max; /* S */
} br_position_tables;

/* Allow some kernels to use more than 48 KiB of shared memory. Once per device. */
br_status br_linear_prepare(const br_queue *queue);
br_status br_attention_band_prepare(const br_queue *queue);

br_status br_launch_embed_layernorm(const br_embed_args *args, const void *table, int32_t width,
                                    br_dtype type, const br_queue *queue);
br_status br_launch_layernorm(const br_layernorm_args *args, br_dtype type, const br_queue *queue);
br_status br_launch_gather_rows(const br_gather_args *args, br_dtype type, const br_queue *queue);
br_status br_launch_heads(const br_heads_args *args, br_dtype type, const br_queue *queue);

/* y = gelu(y), elementwise in place, erf form; for products of cuBLASLt, which lacks it. */
br_status br_launch_gelu(void *y, size_t count, br_dtype type, const br_queue *queue);

/* Our own products, y [rows, outputs] from x [rows, inputs] and weight [outputs, inputs]:
 *   without scales   16-bit, gelu(x weight^T + bias) with the exact GELU
 *   with scales      x and weight are e4m3, y float16; in every epilogue
 *                    (x weight^T) * x_scale[row] * weight_scale[output] + bias */
typedef struct br_own_linear_args {
    const void *x;
    const void *weight;
    const float *x_scale;      /* [rows] or NULL */
    const float *weight_scale; /* [outputs] or NULL */
    const float *bias;         /* [outputs] */
    void *y;
    int32_t rows;
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
} br_own_linear_args;

/* True where br_launch_linear has a kernel for these sizes; `type` is y's. */
bool br_linear_fits(int32_t outputs, int32_t inputs, br_epilogue epilogue, bool e4m3, br_dtype type,
                    const br_queue *queue);
br_status br_launch_linear(const br_own_linear_args *args, br_dtype type, const br_queue *queue);

/* For full batches on sm_90. Only br_launch_linear and br_linear_prepare call these. */
br_status br_launch_linear_warpgroup(const br_own_linear_args *args, br_dtype type, const br_queue *queue);
br_status br_linear_warpgroup_prepare(void);

/* quantized[row] = e4m3(x[row] / scale[row]), scale[row] = max |x[row]| / 448; x [rows, width] is float16. */
br_status br_launch_quantize_rows(void *quantized, float *scale, const void *x, int32_t rows, int32_t width,
                                  const br_queue *queue);

/* The band kernel on tensor cores: 16-bit types, heads of 32 and 64. */
bool br_attention_band_fits(const br_attention_args *args, br_dtype type, const br_queue *queue);
br_status br_launch_attention_band(const br_attention_args *args, const br_position_tables *positions,
                                   br_dtype type, const br_queue *queue);

/* Every other shape and type, one query at a time. */
br_status br_launch_attention_rows(const br_attention_args *args, const br_position_tables *positions,
                                   br_dtype type, const br_queue *queue);
br_status br_launch_pooled_attention(const br_pooled_attention_args *args,
                                     const br_position_tables *positions, br_dtype type,
                                     const br_queue *queue);

#ifdef __cplusplus
}
#endif

#endif
