/*
 * embed_layernorm.cu - residual[t, :] = layernorm(table[ids[t], :])
 *
 * Work      one warp owns one token at a time; see layernorm.cuh.
 * Registers a lane holds C / 32 values in float (layernorm.cuh).
 * Traffic   2 * C * sizeof(T) bytes per token. Bound by memory: rows of the table come from anywhere.
 * Numerics  see layernorm.cuh. The table is in the activation type.
 * Limits    any C; ids are in 0 .. V - 1, checked where they enter the service.
 * Checked   tests/test_op_embed_layernorm.c against loops in double.
 */
#include "layernorm.cuh"

namespace
{

template <typename T, int kVectors>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    embed_layernorm_kernel(T *__restrict__ residual, const T *__restrict__ table, const int *__restrict__ ids,
                           const float *__restrict__ gamma, const float *__restrict__ beta, int tokens,
                           int width, float epsilon)
{
    extern __shared__ __align__(16) float affine[];
    const int lane = threadIdx.x % kWarp;
    let_successor_start();
    if (kVectors > 0) share_affine(affine, gamma, beta, width);
    wait_for_predecessor();
    __syncthreads();
    for (int token = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp; token < tokens;
         token += gridDim.x * kWarpsPerBlock) {
        const T *from = table + static_cast<size_t>(ids[token]) * width;
        T *to = residual + static_cast<size_t>(token) * width;
        normalise_row<T, kVectors>(to, from, affine, gamma, beta, width, lane, epsilon);
    }
}

} // namespace

br_status br_launch_embed_layernorm(const br_embed_args *a, const void *table, int32_t width, br_dtype type,
                                    const br_queue *queue)
{
    if (a->tokens == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return with_vectors(vectors_per_lane(width, type), [&](auto vectors) {
            constexpr int kVectors = decltype(vectors)::value;
            const size_t shared_bytes = kVectors > 0 ? 2 * sizeof(float) * width : 0;
            return launch(embed_layernorm_kernel<T, kVectors>, blocks_for_rows(a->tokens, queue),
                          kWarpsPerBlock * kWarp, shared_bytes, queue, static_cast<T *>(a->residual),
                          static_cast<const T *>(table), a->ids, a->gamma, a->beta, a->tokens, width,
                          a->epsilon);
        });
    });
}
