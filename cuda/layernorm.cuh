/*
 * layernorm.cuh - one row normalised by one warp, for the ops that end in a LayerNorm.
 *
 *   y = (x - mean) / sqrt(var + epsilon) * gamma + beta
 *
 * Work      a block's warps take rows in turn, so that gamma and beta are fetched once for several of them.
 * Registers a lane holds the row's 16-byte vectors lane, lane + 32, ...: read once, used three times.
 * Shared    gamma and beta, fetched in whole sectors while the previous kernel ends: they are weights.
 * Numerics  sums in float; variance around the mean: E[x^2] - m^2 cancels when |m| is large.
 *           Rounded once, at the store.
 */
#ifndef BESTROUTE_CUDA_LAYERNORM_CUH
#define BESTROUTE_CUDA_LAYERNORM_CUH

#include "device.cuh"

namespace
{

constexpr int kWarpsPerBlock = 8;

/* Copies gamma and beta to shared[2, width]; visible to the block after a barrier. */
__device__ inline void share_affine(float *shared, const float *gamma, const float *beta, int width)
{
    for (int column = threadIdx.x * 4; column < width; column += kWarpsPerBlock * kWarp * 4) {
        *reinterpret_cast<float4 *>(shared + column) = *reinterpret_cast<const float4 *>(gamma + column);
        *reinterpret_cast<float4 *>(shared + width + column) =
            *reinterpret_cast<const float4 *>(beta + column);
    }
}

/* A lane's four or eight floats of shared memory, the lanes' side by side. Of eight, every other four lanes
 * take the second half first: eight lanes then meet 32 banks. */
__device__ inline void load_neighbours(float (&out)[4], const float *from, int lane)
{
    (void)lane;
    *reinterpret_cast<float4 *>(out) = *reinterpret_cast<const float4 *>(from);
}
__device__ inline void load_neighbours(float (&out)[8], const float *from, int lane)
{
    const bool turned = (lane & 4) != 0;
    const float4 first = *reinterpret_cast<const float4 *>(from + (turned ? 4 : 0));
    const float4 second = *reinterpret_cast<const float4 *>(from + (turned ? 0 : 4));
    *reinterpret_cast<float4 *>(out) = turned ? second : first;
    *reinterpret_cast<float4 *>(out + 4) = turned ? first : second;
}

__device__ inline float4 load_or_zero(const float *row, int column, int width)
{
    return column < width ? *reinterpret_cast<const float4 *>(row + column) : float4{0, 0, 0, 0};
}

/* A lane's four or eight floats from column `first` on, zeros behind the row's end. */
__device__ inline void load_spread(float (&out)[4], const float *row, int first, int width, int lane)
{
    *reinterpret_cast<float4 *>(out) = load_or_zero(row, first + lane * 4, width);
}

/* Of eight, neighbours fetch 16 bytes each and then trade. Lane l wants the 16 bytes number 2l and 2l + 1 of
 * 64; lane s has fetched numbers s and s + 32. In one trade even lanes give what the lower half of the warp
 * wants first and odd lanes what the upper half wants second, in the other trade the rest:
 *   lanes      0..15 take   from      16..31 take   from
 *   trade 0    first        2l        second        2l - 31
 *   trade 1    second       2l + 1    first         2l - 32 */
__device__ inline void load_spread(float (&out)[8], const float *row, int first, int width, int lane)
{
    const float4 near = load_or_zero(row, first + lane * 4, width);
    const float4 far = load_or_zero(row, first + (lane + kWarp) * 4, width);
    const bool odd = lane % 2 != 0;
    const bool upper = lane >= kWarp / 2;
    const int even_source = 2 * lane % kWarp;
    const float given[2][4] = {
        {odd ? far.x : near.x, odd ? far.y : near.y, odd ? far.z : near.z, odd ? far.w : near.w},
        {odd ? near.x : far.x, odd ? near.y : far.y, odd ? near.z : far.z, odd ? near.w : far.w}};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float zeroth = __shfl_sync(kAllLanes, given[0][i], even_source + (upper ? 1 : 0));
        const float other = __shfl_sync(kAllLanes, given[1][i], even_source + (upper ? 0 : 1));
        out[i] = upper ? other : zeroth;
        out[4 + i] = upper ? zeroth : other;
    }
}

/* Rows of up to kVectors * 32 vectors, a whole number of them. */
template <typename T, int kVectors> struct row_in_registers {
    static constexpr int kPack = vec<T>::kCount;
    float x[kVectors][kPack];

    /* use(x, value) for each of the lane's values of `row`, zeros behind the row's end. */
    template <typename Use> __device__ void for_each(const T *row, int width, int lane, Use use)
    {
#pragma unroll
        for (int v = 0; v < kVectors; v++) {
            const int column = (v * kWarp + lane) * kPack;
            vec<T> packed = {};
            if (column < width) packed = load_vec(row + column);
#pragma unroll
            for (int i = 0; i < kPack; i++) use(x[v][i], widen(packed.at[i]));
        }
    }

    __device__ void load(const T *row, int width, int lane)
    {
        for_each(row, width, lane, [](float &to, float value) { to = value; });
    }

    __device__ void add(const T *row, int width, int lane)
    {
        for_each(row, width, lane, [](float &to, float value) { to += value; });
    }

    /* For rows of float32 tables: neighbouring lanes read neighbouring 16 bytes, so that whole sectors are
     * read. All lanes of the warp call it. */
    __device__ void load_wide(const float *row, int width, int lane)
    {
#pragma unroll
        for (int v = 0; v < kVectors; v++) load_spread(x[v], row, v * kWarp * kPack, width, lane);
    }

    /* Leaves (x - mean) / sqrt(var + epsilon) in x. All lanes of the warp call it. */
    __device__ void normalise(int width, int lane, float epsilon)
    {
        float sum = 0;
#pragma unroll
        for (int v = 0; v < kVectors; v++)
#pragma unroll
            for (int i = 0; i < kPack; i++) sum += x[v][i];
        const float mean = warp_sum(sum) / width;
        float squares = 0;
#pragma unroll
        for (int v = 0; v < kVectors; v++) {
            if ((v * kWarp + lane) * kPack >= width) continue;
#pragma unroll
            for (int i = 0; i < kPack; i++) {
                x[v][i] -= mean;
                squares += x[v][i] * x[v][i];
            }
        }
        const float scale = 1.0f / sqrtf(warp_sum(squares) / width + epsilon);
#pragma unroll
        for (int v = 0; v < kVectors; v++)
#pragma unroll
            for (int i = 0; i < kPack; i++) x[v][i] *= scale;
    }

    /* gamma and beta are in shared memory. */
    __device__ void store(T *row, const float *gamma, const float *beta, int width, int lane) const
    {
#pragma unroll
        for (int v = 0; v < kVectors; v++) {
            const int column = (v * kWarp + lane) * kPack;
            if (column >= width) continue;
            float scale[kPack];
            float shift[kPack];
            load_neighbours(scale, gamma + column, lane);
            load_neighbours(shift, beta + column, lane);
            vec<T> packed;
#pragma unroll
            for (int i = 0; i < kPack; i++) packed.at[i] = narrow<T>(x[v][i] * scale[i] + shift[i]);
            store_vec(row + column, packed);
        }
    }
};

/* Rows of any width, read(column) three times each. */
template <typename T, typename Read>
__device__ void normalise_any_row(T *to, Read read, const float *gamma, const float *beta, int width,
                                  int lane, float epsilon)
{
    float sum = 0;
    for (int c = lane; c < width; c += kWarp) sum += read(c);
    const float mean = warp_sum(sum) / width;
    float squares = 0;
    for (int c = lane; c < width; c += kWarp) {
        const float centred = read(c) - mean;
        squares += centred * centred;
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / width + epsilon);
    for (int c = lane; c < width; c += kWarp)
        to[c] = narrow<T>((read(c) - mean) * scale * gamma[c] + beta[c]);
}

/* The row `from` normalised into `to`, by one warp; kVectors 0: any width. `affine` is share_affine's. */
template <typename T, int kVectors>
__device__ void normalise_row(T *to, const T *from, const float *affine, const float *gamma,
                              const float *beta, int width, int lane, float epsilon)
{
    if constexpr (kVectors == 0) {
        normalise_any_row(
            to, [=](int c) { return widen(from[c]); }, gamma, beta, width, lane, epsilon);
    } else {
        row_in_registers<T, kVectors> x;
        x.load(from, width, lane);
        x.normalise(width, lane, epsilon);
        x.store(to, affine, affine + width, width, lane);
    }
}

/* Blocks that share `rows` evenly, at most two to a multiprocessor. */
inline int blocks_for_rows(int rows, const br_queue *queue)
{
    const int turns = ceil_div(rows, static_cast<int64_t>(2) * kWarpsPerBlock * queue->multiprocessors);
    return ceil_div(rows, static_cast<int64_t>(turns) * kWarpsPerBlock);
}

/* How many vectors per lane hold a row, rounded up to an instantiated count; 0: normalise_any_row takes
 * it. */
inline int vectors_per_lane(int width, br_dtype type)
{
    const int pack = 16 / static_cast<int>(br_dtype_bytes(type));
    if (width % pack != 0) return 0;
    const int needed = ceil_div(width, kWarp * pack);
    if (needed <= 4) return needed;
    if (needed <= 6) return 6;
    return needed <= 8 ? 8 : 0;
}

/* All instantiations: body(constant<count>()). */
template <typename Body> br_status with_vectors(int vectors, Body body)
{
    switch (vectors) {
    case 1:
        return body(constant<1>());
    case 2:
        return body(constant<2>());
    case 3:
        return body(constant<3>());
    case 4:
        return body(constant<4>());
    case 6:
        return body(constant<6>());
    case 8:
        return body(constant<8>());
    default:
        return body(constant<0>());
    }
}

} // namespace

#endif
