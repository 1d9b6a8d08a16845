/*
 * gemm.h - the matrix products of one stream, through cuBLASLt.
 *
 *   y [rows, outputs] = x [rows, inputs] weight[outputs, inputs]^T + bias[outputs] (+ y)
 *
 * The algorithm for a shape is chosen once, when the shape is first prepared. It is cuBLASLt's own first
 * guess, or the fastest of its guesses if the backend was told to measure (gemm_choices.h).
 *
 * Belongs to one stream and its thread. Uses: error, dtype.  Used by: backend_cuda.
 */
#ifndef BESTROUTE_CUDA_GEMM_H
#define BESTROUTE_CUDA_GEMM_H

#include <cuda_runtime_api.h>

#include "bestroute/error.h"
#include "core/dtype.h"
#include "gemm_choices.h"

typedef struct br_gemm br_gemm;

enum { BR_GEMM_WORKSPACE_BYTES = 32 << 20 }; /* of each stream; cuBLAS recommends this for Hopper */

typedef struct br_gemm_shape {
    int32_t rows;
    int32_t outputs;
    int32_t inputs;
    bool accumulate; /* adds to y */
} br_gemm_shape;

typedef struct br_gemm_args {
    br_gemm_shape shape;
    const void *x;
    const void *weight;
    const void *bias; /* in the type of x, weight and y */
    void *y;
} br_gemm_args;

/* Allocates its workspace. `choices` is NULL, or outlives the object. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status br_gemm_create(br_gemm **out, br_dtype type, gemm_choices *choices, br_error *error);
void br_gemm_destroy(br_gemm *gemm);

/* Chooses the shape's algorithm, if it has none yet. Allocates; may measure.
 * BR_ENOTSUP: cuBLASLt has no algorithm for it. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status br_gemm_prepare(br_gemm *gemm, const br_gemm_shape *shape);

/* Enqueues the product. Allocates nothing if the shape was prepared. Statuses of br_gemm_prepare. */
BR_NODISCARD br_status br_gemm_run(br_gemm *gemm, const br_gemm_args *args, cudaStream_t stream);

#endif
