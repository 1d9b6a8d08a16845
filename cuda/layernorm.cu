/*
 * layernorm.cu - residual[t, :] = layernorm(residual[t, :]), in place
 *
 *   residual = (x - mean) / sqrt(var + epsilon) * gamma + beta      [T, C]
 *
 * The GEMM before it has added to the residual already (beta = 1).
 *
 * Work      one warp owns one row at a time; see layernorm.cuh.
 * Registers a lane holds C / 32 values in float (layernorm.cuh).
 * Traffic   2 * C * sizeof(T) bytes per row, and gamma and beta once per block. Bound by memory.
 * Numerics  see layernorm.cuh.
 * Limits    any C; those of whole 16-byte vectors and at most 8 per lane stay in registers.
 * Checked   tests/engine/test_op_layernorm.c against loops in double.
 */
#include "layernorm.cuh"

namespace
{

template <typename T, int kVectors>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    layernorm_kernel(T *__restrict__ residual, const float *__restrict__ gamma,
                     const float *__restrict__ beta, int rows, int width, float epsilon)
{
    extern __shared__ __align__(16) float affine[];
    const int lane = threadIdx.x % kWarp;
    let_successor_start();
    if (kVectors > 0) share_affine(affine, gamma, beta, width);
    wait_for_predecessor();
    __syncthreads();
    for (int row = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; row < rows;
         row += gridDim.x * kWarpsPerBlock) {
        T *at = residual + static_cast<size_t>(row) * width;
        normalise_row<T, kVectors>(at, at, affine, gamma, beta, width, lane, epsilon);
    }
}

} // namespace

br_status br_launch_layernorm(const br_layernorm_args *a, br_dtype type, const br_queue *queue)
{
    if (a->rows == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return with_vectors(vectors_per_lane(a->width, type), [&](auto vectors) {
            constexpr int kVectors = decltype(vectors)::value;
            const size_t shared_bytes = kVectors > 0 ? 2 * sizeof(float) * a->width : 0;
            return launch(layernorm_kernel<T, kVectors>, blocks_for_rows(a->rows, queue),
                          kWarpsPerBlock * kWarp, shared_bytes, queue, static_cast<T *>(a->residual),
                          a->gamma, a->beta, a->rows, a->width, a->epsilon);
        });
    });
}
