/*
 * heads.cu - quality[b] = activation(x . weight[k] + bias[k] for all k), x = layernorm(residual[b])
 *
 * The LayerNorm is that of the last layer, of pooled rows alone; without gamma the rows are normalised
 * already. With `unit` x is divided by its norm.
 *
 * Work      a block owns kRows rows: one warp normalises each into shared memory, then its four
 *           warps share the heads, each reading a head's weights once for all the rows. A softmax is
 *           taken afterwards, one warp to a row, over the logits that the block has just written.
 * Shared    kRows * C floats.
 * Traffic   C * sizeof(T) per row, and K * C * 4 bytes of weights per block, which L2 serves.
 * Numerics  the normalised row is not rounded; sums and activations in float.
 * Limits    C floats fit 48 KiB of shared memory.
 * Checked   tests/engine/test_op_heads.c against loops in double.
 */
#include "device.cuh"
#include "gelu.cuh"

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

/* x[c] = x[c] / |x|, by one warp, in shared memory. */
__device__ void divide_by_norm(float *x, int width, int lane)
{
    __syncwarp();
    float squares = 0;
    for (int c = lane; c < width; c += kWarp) squares += x[c] * x[c];
    const float scale = 1.0f / sqrtf(warp_sum(squares));
    for (int c = lane; c < width; c += kWarp) x[c] *= scale;
}

__device__ float activated(float z, br_activation activation)
{
    switch (activation) {
    case BR_ACTIVATION_SIGMOID:
        return 1.0f / (1.0f + expf(-z));
    case BR_ACTIVATION_TANH:
        return tanhf(z);
    case BR_ACTIVATION_GELU:
        return gelu(z);
    case BR_ACTIVATION_RELU:
        return z < 0.0f ? 0.0f : z; /* NaN stays */
    default:
        return z; /* softmax_row computes it for the whole row */
    }
}

/* A row of logits to its softmax, or with `complement` to 1 - softmax, by one warp. */
__device__ void softmax_row(float *z, int count, bool complement, int lane)
{
    float highest = -INFINITY;
    for (int k = lane; k < count; k += kWarp) highest = fmaxf(highest, z[k]);
    highest = warp_max(highest);
    float total = 0;
    for (int k = lane; k < count; k += kWarp) total += expf(z[k] - highest);
    total = warp_sum(total);
    for (int k = lane; k < count; k += kWarp) {
        const float own = expf(z[k] - highest);
        z[k] = (complement ? total - own : own) / total;
    }
}

template <typename T, int kRows>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    heads_kernel(float *__restrict__ quality, const T *__restrict__ residual, const float *__restrict__ gamma,
                 const float *__restrict__ beta, const float *__restrict__ weight,
                 const float *__restrict__ bias, int seqs, int width, int heads_count, float epsilon,
                 br_activation activation, bool unit)
{
    extern __shared__ float rows[]; /* [kRows, width] */
    const int warp = threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int first = blockIdx.x * kRows;
    wait_for_predecessor();
    if (warp < kRows) {
        float *row = rows + warp * width;
        const int seq = min(first + warp, seqs - 1); /* beyond the end the last row is read again */
        const T *from = residual + static_cast<size_t>(seq) * width;
        for (int c = lane; c < width; c += kWarp) row[c] = widen(from[c]);
        __syncwarp();
        if (gamma != nullptr) normalise_shared(row, gamma, beta, epsilon, width, lane);
        if (unit) divide_by_norm(row, width, lane);
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
                quality[static_cast<size_t>(first + r) * heads_count + k] = activated(logit, activation);
        }
    }
    if (activation != BR_ACTIVATION_SOFTMAX && activation != BR_ACTIVATION_COMPLEMENT) return;
    __syncthreads(); /* every warp's logits are written */
    if (warp < kRows && first + warp < seqs)
        softmax_row(quality + static_cast<size_t>(first + warp) * heads_count, heads_count,
                    activation == BR_ACTIVATION_COMPLEMENT, lane);
}

} // namespace

br_status br_launch_heads(const br_heads_args *a, br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0) return BR_OK;
    const size_t row_bytes = static_cast<size_t>(a->width) * sizeof(float);
    if (row_bytes > kSharedBytesMax) return BR_ENOTSUP;
    const bool several = kWarpsPerBlock * row_bytes <= kSharedBytesMax;
    return with_type(a->wide ? BR_F32 : type, [&](auto element) {
        using T = decltype(element);
        const auto go = [&](auto rows) {
            constexpr int kRows = decltype(rows)::value;
            return launch(heads_kernel<T, kRows>, ceil_div(a->seqs, kRows), kWarpsPerBlock * kWarp,
                          kRows * row_bytes, queue, a->quality, static_cast<const T *>(a->residual), a->gamma,
                          a->beta, a->weight, a->bias, a->seqs, a->width, a->heads_count, a->epsilon,
                          a->activation, a->unit);
        };
        return several ? go(constant<kWarpsPerBlock>()) : go(constant<1>());
    });
}
