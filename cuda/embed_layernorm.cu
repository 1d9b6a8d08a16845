/*
 * embed_layernorm.cu - residual[t, :] = layernorm(table[ids[t], :])
 *
 * Work      one warp owns one token; four warps make a block; no block-wide sync.
 * Registers a lane holds C / 32 values in float (layernorm.cuh).
 * Traffic   2 * C * sizeof(T) bytes per token. Bound by memory: rows of the table come from anywhere.
 * Numerics  see layernorm.cuh. The table is in the activation type.
 * Limits    any C; ids are in 0 .. V - 1, checked where they enter the service.
 * Checked   tests/test_op_embed_layernorm.c against loops in double.
 */
#include "layernorm.cuh"

namespace
{

constexpr int kWarpsPerBlock = 4;

template <typename T, int kVectors>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    embed_layernorm_kernel(T *__restrict__ residual, const T *__restrict__ table, const int *__restrict__ ids,
                           const float *__restrict__ gamma, const float *__restrict__ beta, int tokens,
                           int width, float epsilon)
{
    const int token = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    let_successor_start();
    wait_for_predecessor();
    if (token >= tokens) return; /* a whole warp leaves together: warp_sum stays legal */
    const T *from = table + static_cast<size_t>(ids[token]) * width;
    T *to = residual + static_cast<size_t>(token) * width;
    if constexpr (kVectors == 0) {
        normalise_any_row(to, from, gamma, beta, width, lane, epsilon);
    } else {
        row_in_registers<T, kVectors> x;
        x.load(from, width, lane);
        x.normalise(width, lane, epsilon);
        x.store(to, gamma, beta, width, lane);
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
            return launch(embed_layernorm_kernel<T, decltype(vectors)::value>,
                          ceil_div(a->tokens, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, queue,
                          static_cast<T *>(a->residual), static_cast<const T *>(table), a->ids, a->gamma,
                          a->beta, a->tokens, width, a->epsilon);
        });
    });
}
