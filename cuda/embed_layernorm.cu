/*
 * embed_layernorm.cu - residual[t, :] = layernorm(table[ids[t], :] + positions[t within its sequence, :])
 *
 * Work      a block owns a run of tokens, one warp one of them at a time; see layernorm.cuh. With positions
 *           the block counts the sequences that end before its run, and fetches each offset once; its warps
 *           count on from there.
 * Registers a lane holds C / 32 values in float (layernorm.cuh).
 * Traffic   2 * C * sizeof(T) bytes per token, and with positions 4 * C more and the offsets once per block.
 *           Bound by memory: rows of the table come from anywhere.
 * Numerics  see layernorm.cuh. The table is in the activation type, positions are float32;
 *           their sum is not rounded.
 * Limits    any C; ids are in 0 .. V - 1, checked where they enter the service. Tokens behind the last
 *           sequence, the padding of a recorded pass, take position 0.
 * Checked   tests/engine/test_op_embed_layernorm.c against loops in double.
 */
#include "layernorm.cuh"

namespace
{

/* Rows of float32, one per index in a sequence; NULL: none. */
struct absolute_positions {
    const float *rows;
    const int *offsets;
    int seqs;
};

/* How many of the sequences end at `token` or before: all threads of the block call it. */
__device__ int count_ended(const int *offsets, int seqs, int token)
{
    int ended = 0;
    for (int first = 0; first < seqs; first += kWarpsPerBlock * kWarp) {
        const int seq = first + static_cast<int>(threadIdx.x);
        ended += __syncthreads_count(seq < seqs && offsets[seq + 1] <= token);
    }
    return ended;
}

/* The same, if at least `ended` of them do; all lanes of the warp call it. */
__device__ int count_ended_from(int ended, const int *offsets, int seqs, int token, int lane)
{
    for (;;) {
        const int seq = ended + lane;
        const int more = __popc(__ballot_sync(kAllLanes, seq < seqs && offsets[seq + 1] <= token));
        ended += more;
        if (more < kWarp) return ended;
    }
}

/* The row of positions that `token` takes, of `ended` sequences before its own. */
__device__ const float *position_of(const absolute_positions &positions, int ended, int token, int width)
{
    const int index = ended < positions.seqs ? token - positions.offsets[ended] : 0;
    return positions.rows + static_cast<size_t>(index) * width;
}

/* The row `from` plus that of `position`, normalised into `to` by one warp. */
template <typename T, int kVectors>
__device__ void normalise_sum(T *to, const T *from, const float *position, const float *affine,
                              const float *gamma, const float *beta, int width, int lane, float epsilon)
{
    if constexpr (kVectors == 0) {
        normalise_any_row(
            to, [=](int c) { return widen(from[c]) + position[c]; }, gamma, beta, width, lane, epsilon);
    } else {
        row_in_registers<T, kVectors> x;
        x.load_wide(position, width, lane);
        x.add(from, width, lane);
        x.normalise(width, lane, epsilon);
        x.store(to, affine, affine + width, width, lane);
    }
}

/* How many blocks a multiprocessor must be able to hold; two are launched. 0 demands nothing: without
 * positions the compiler then uses few registers, and the first blocks of the next kernel find room beside
 * ours. Elsewhere it would rather spill a few bytes than use more registers; a demand of two allows it 128 of
 * them, and one, for the longest rows with positions, still more. */
template <typename T, int kVectors, bool kPositions>
constexpr int kBlocksHeld = sizeof(T) == 4 ? 2
                            : !kPositions  ? 0
                            : kVectors < 8 ? 2
                                           : 1;

template <typename T, int kVectors, bool kPositions>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp, kBlocksHeld<T, kVectors, kPositions>)
    embed_layernorm_kernel(T *__restrict__ residual, const T *__restrict__ table, const int *__restrict__ ids,
                           absolute_positions positions, const float *__restrict__ gamma,
                           const float *__restrict__ beta, int tokens, int tokens_per_block, int width,
                           float epsilon)
{
    extern __shared__ __align__(16) float affine[];
    const int lane = threadIdx.x % kWarp;
    const int first = blockIdx.x * tokens_per_block;
    const int end = min(tokens, first + tokens_per_block);
    let_successor_start();
    if (kVectors > 0) share_affine(affine, gamma, beta, width);
    int ended = 0;
    if constexpr (kPositions) ended = count_ended(positions.offsets, positions.seqs, first);
    wait_for_predecessor();
    __syncthreads();
    for (int token = first + threadIdx.x / kWarp; token < end; token += kWarpsPerBlock) {
        const T *from = table + static_cast<size_t>(ids[token]) * width;
        T *to = residual + static_cast<size_t>(token) * width;
        if constexpr (kPositions) {
            ended = count_ended_from(ended, positions.offsets, positions.seqs, token, lane);
            const float *position = position_of(positions, ended, token, width);
            normalise_sum<T, kVectors>(to, from, position, affine, gamma, beta, width, lane, epsilon);
        } else {
            normalise_row<T, kVectors>(to, from, affine, gamma, beta, width, lane, epsilon);
        }
    }
}

} // namespace

br_status br_launch_embed_layernorm(const br_embed_args *a, const void *table, int32_t width, br_dtype type,
                                    const br_queue *queue)
{
    if (a->tokens == 0) return BR_OK;
    const int blocks = blocks_for_rows(a->tokens, queue);
    const int tokens_per_block =
        ceil_div(a->tokens, static_cast<int64_t>(blocks) * kWarpsPerBlock) * kWarpsPerBlock;
    const absolute_positions positions = {a->positions, a->offsets, a->seqs};
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return with_vectors(vectors_per_lane(width, type), [&](auto vectors) {
            constexpr int kVectors = decltype(vectors)::value;
            const size_t shared_bytes = kVectors > 0 ? 2 * sizeof(float) * width : 0;
            const auto kernel = positions.rows != nullptr ? embed_layernorm_kernel<T, kVectors, true>
                                                          : embed_layernorm_kernel<T, kVectors, false>;
            return launch(kernel, blocks, kWarpsPerBlock * kWarp, shared_bytes, queue,
                          static_cast<T *>(a->residual), static_cast<const T *>(table), a->ids, positions,
                          a->gamma, a->beta, a->tokens, tokens_per_block, width, a->epsilon);
        });
    });
}
