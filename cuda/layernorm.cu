/*
 * layernorm.cu - residual[t, :] = layernorm(residual[t, :]), in place
 *
 *   residual = (x - mean) / sqrt(var + epsilon) * gamma + beta      [T, C]
 *
 * The sum with the residual is the GEMM's before it (beta = 1).
 *
 * Work      one warp owns one row; four warps make a block; no block-wide sync.
 * Registers a lane holds C / 32 values in float (layernorm.cuh).
 * Traffic   2 * C * sizeof(T) bytes per row, and gamma and beta once per row from L1. Bound by memory.
 * Numerics  see layernorm.cuh.
 * Limits    any C; those of whole 16-byte vectors and at most 8 per lane stay in registers.
 * Checked   tests/test_op_layernorm.c against loops in double.
 */
#include "layernorm.cuh"

namespace
{

constexpr int kWarpsPerBlock = 4;

template <typename T, int kVectors>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    layernorm_kernel(T *__restrict__ residual, const float *__restrict__ gamma,
                     const float *__restrict__ beta, int rows, int width, float epsilon)
{
    const int row = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    let_successor_start();
    wait_for_predecessor();
    if (row >= rows) return; /* a whole warp leaves together: warp_sum stays legal */
    T *at = residual + static_cast<size_t>(row) * width;
    if constexpr (kVectors == 0) {
        normalise_any_row(at, at, gamma, beta, width, lane, epsilon);
    } else {
        row_in_registers<T, kVectors> x;
        x.load(at, width, lane);
        x.normalise(width, lane, epsilon);
        x.store(at, gamma, beta, width, lane);
    }
}

} // namespace

br_status br_launch_layernorm(const br_layernorm_args *a, br_dtype type, const br_queue *queue)
{
    if (a->rows == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return with_vectors(vectors_per_lane(a->width, type), [&](auto vectors) {
            return launch(layernorm_kernel<T, decltype(vectors)::value>, ceil_div(a->rows, kWarpsPerBlock),
                          kWarpsPerBlock * kWarp, 0, queue, static_cast<T *>(a->residual), a->gamma, a->beta,
                          a->rows, a->width, a->epsilon);
        });
    });
}
