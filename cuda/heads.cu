/*
 * heads.cu - quality[b, k] = sigmoid(layernorm(residual[b]) . weight[k] + bias[k])
 *
 * The LayerNorm is the last layer's, of pooled rows alone; without gamma the rows come normalised.
 *
 * Work      a block owns kRows rows: one warp normalises each into shared memory, then its four
 *           warps share the heads, each reading a head's weights once for all the rows.
 * Shared    kRows * C floats.
 * Traffic   C * sizeof(T) per row, and K * C * 4 bytes of weights per block, which L2 serves.
 * Numerics  the normalised row is not rounded; sums and the sigmoid in float.
 * Limits    C floats fit 48 KiB of shared memory.
 * Checked   tests/test_op_heads.c against loops in double.
 */
#include "device.cuh"

namespace
{

constexpr int kWarpsPerBlock = 4;
constexpr size_t kSharedBytesMax = 48 << 10;

/* x[c] = (x[c] - mean) / sqrt(var + epsilon) * gamma[c] + beta[c], by one warp, in shared memory. */
__device__ void normalise_shared(float *x, const float *gamma, const float *beta, float epsilon, int width,
                                 int lane)
{
    float sum = 0;
    for (int c = lane; c < width; c += kWarp) sum += x[c];
    const float mean = warp_sum(sum) / width;
    float squares = 0;
    for (int c = lane; c < width; c += kWarp) squares += (x[c] - mean) * (x[c] - mean);
    const float scale = 1.0f / sqrtf(warp_sum(squares) / width + epsilon);
    for (int c = lane; c < width; c += kWarp) x[c] = (x[c] - mean) * scale * gamma[c] + beta[c];
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    heads_kernel(float *__restrict__ quality, const T *__restrict__ residual, const float *__restrict__ gamma,
                 const float *__restrict__ beta, const float *__restrict__ weight,
                 const float *__restrict__ bias, int seqs, int width, int heads_count, float epsilon)
{
    extern __shared__ float rows[]; /* [kRows, width] */
    const int warp = threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int first = blockIdx.x * kRows;
    wait_for_predecessor();
    if (warp < kRows) {
        float *row = rows + warp * width;
        const int seq = min(first + warp, seqs - 1); /* beyond the end: the last row once more */
        const T *from = residual + static_cast<size_t>(seq) * width;
        for (int c = lane; c < width; c += kWarp) row[c] = widen(from[c]);
        __syncwarp();
        if (gamma != nullptr) normalise_shared(row, gamma, beta, epsilon, width, lane);
    }
    __syncthreads();
    for (int k = warp; k < heads_count; k += kWarpsPerBlock) {
        const float *w = weight + static_cast<size_t>(k) * width;
        float sums[kRows] = {};
        for (int c = lane; c < width; c += kWarp) {
#pragma unroll
            for (int r = 0; r < kRows; r++) sums[r] += rows[r * width + c] * w[c];
        }
#pragma unroll
        for (int r = 0; r < kRows; r++) {
            const float logit = warp_sum(sums[r]) + bias[k];
            if (lane == 0 && first + r < seqs)
                quality[static_cast<size_t>(first + r) * heads_count + k] = 1.0f / (1.0f + expf(-logit));
        }
    }
}

} // namespace

br_status br_launch_heads(const br_heads_args *a, br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0) return BR_OK;
    const size_t row_bytes = static_cast<size_t>(a->width) * sizeof(float);
    if (row_bytes > kSharedBytesMax) return BR_ENOTSUP;
    const bool several = kWarpsPerBlock * row_bytes <= kSharedBytesMax;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        const auto go = [&](auto rows) {
            constexpr int kRows = decltype(rows)::value;
            return launch(heads_kernel<T, kRows>, ceil_div(a->seqs, kRows), kWarpsPerBlock * kWarp,
                          kRows * row_bytes, queue, a->quality, static_cast<const T *>(a->residual), a->gamma,
                          a->beta, a->weight, a->bias, a->seqs, a->width, a->heads_count, a->epsilon);
        };
        return several ? go(constant<kWarpsPerBlock>()) : go(constant<1>());
    });
}
