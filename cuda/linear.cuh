/*
 * linear.cuh - what our two product kernels share: tiles, slices in shared memory, epilogues.
 *
 * A block owns a tile of y and goes over the rows of x and W in slices of 128 bytes. Chunk c of row r of a
 * slice lies at c ^ (r % 8), where neither ldmatrix nor wgmma (its 128-byte swizzle) meets a bank conflict.
 * An accumulator c[m][n] has the layout of mma.cuh in both kernels.
 */
#ifndef BESTROUTE_CUDA_LINEAR_CUH
#define BESTROUTE_CUDA_LINEAR_CUH

#include "gelu.cuh"
#include "mma.cuh"

namespace
{

constexpr int kSliceBytes = 128; /* of a row, in one stage */
constexpr int kChunks = kSliceBytes / 16;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kStages = 3;

/* A block's tile, and how its warps share it. */
template <int kRowsOfTile, int kColumnsOfTile, int kWarpRows> struct tile_shape {
    static constexpr int kRows = kRowsOfTile;
    static constexpr int kColumns = kColumnsOfTile;
    static constexpr int kWarpsDown = kWarpRows;
    static constexpr int kWarpsAcross = kWarps / kWarpsDown;
    static constexpr int kTilesM = kRows / kWarpsDown / 16;
    static constexpr int kTilesN = kColumns / kWarpsAcross / 8;
    static constexpr size_t kStageBytes = static_cast<size_t>(kRows + kColumns) * kSliceBytes;
    static constexpr size_t kSharedBytes = kStages * kStageBytes;
    static_assert(kTilesN % 2 == 0, "B fragments come two n-tiles at a time");
    static_assert(kSharedBytes >= static_cast<size_t>(kRows) * kColumns * 2, "the finished tile fits");
};

/* Rows are counted in bytes: an mma takes 16 elements of 16 bits or 32 e4m3, and both are 32 bytes of each
 * row, in the same registers. */
struct linear_params {
    const unsigned char *x;
    const unsigned char *weight;
    const float *x_scale;
    const float *weight_scale;
    const float *bias;
    void *y;
    int rows;
    int outputs;
    int row_bytes; /* of x and W */
};

__device__ inline uint32_t chunk_address(uint32_t base, int row, int chunk)
{
    return base + static_cast<uint32_t>(row * kSliceBytes + ((chunk ^ (row & 7)) * 16));
}

/* Enqueues the copy of `kCount` rows of one slice; rows past the end repeat the last one.
 * Offsets fit 32 bits. */
template <int kCount>
__device__ void copy_slice(uint32_t to, const unsigned char *from, int first_row, int rows, int row_bytes,
                           int slice)
{
    constexpr int kRowsAtOnce =
        kThreads / kChunks; /* a multiple of 8, so that a thread's chunks are all swizzled alike */
    const int row = threadIdx.x / kChunks;
    const int chunk = threadIdx.x % kChunks;
    const uint32_t own = chunk_address(to, row, chunk);
    const unsigned char *column = from + slice * kSliceBytes + chunk * 16;
#pragma unroll
    for (int i = 0; i < kCount / kRowsAtOnce; i++) {
        const int source = min(first_row + row + i * kRowsAtOnce, rows - 1);
        copy_async(own + i * kRowsAtOnce * kSliceBytes,
                   column + static_cast<uint32_t>(source) * static_cast<uint32_t>(row_bytes));
    }
}

/* Where slice s of x and of W lies. */
template <typename Tile> __device__ inline uint32_t x_stage(uint32_t base, int s)
{
    return base + static_cast<uint32_t>(s % kStages * Tile::kStageBytes);
}
template <typename Tile> __device__ inline uint32_t w_stage(uint32_t base, int s)
{
    return x_stage<Tile>(base, s) + Tile::kRows * kSliceBytes;
}

/* Copies the slices of a block's rows of x and W into the stages. */
template <typename Tile> struct slice_copier {
    const linear_params &a;
    uint32_t base; /* of the stages */
    int first_row;
    int first_column;
    int count;

    __device__ void copy_weight(int s) const
    {
        if (s < count)
            copy_slice<Tile::kColumns>(w_stage<Tile>(base, s), a.weight, first_column, a.outputs, a.row_bytes,
                                       s);
    }

    __device__ void copy_x(int s) const
    {
        if (s < count)
            copy_slice<Tile::kRows>(x_stage<Tile>(base, s), a.x, first_row, a.rows, a.row_bytes, s);
    }

    /* Enqueues the first kAhead slices, a group each. No kernel writes weights: their slices are copied while
     * the previous kernel ends. */
    template <int kAhead> __device__ void start() const
    {
        let_successor_start();
#pragma unroll
        for (int s = 0; s < kAhead; s++) copy_weight(s);
        wait_for_predecessor();
#pragma unroll
        for (int s = 0; s < kAhead; s++) {
            copy_x(s);
            copies_commit();
        }
    }

    /* Enqueues slice s, if it exists, and ends the group. */
    __device__ void copy(int s) const
    {
        if (s < count) {
            copy_weight(s);
            copy_x(s);
        }
        copies_commit();
    }
};

/* In: elements of x and W. Out: of y. */
template <typename In, typename Out, typename Tile, br_epilogue kEpilogue> struct product {
    static constexpr bool kScaled = sizeof(In) == 1;
    float c[Tile::kTilesM][Tile::kTilesN][4] = {};

    /* Applies scales, bias and epilogue, and writes a tile of Out in shared memory, whose chunks are swizzled
     * like a slice's. For ACCUMULATE the tile holds y's old values. */
    __device__ void finish(Out *tile, const linear_params &a, int first_row, int first_column, int warp_row,
                           int warp_column, int lane) const
    {
        const int last = a.rows - first_row - 1;
        float row_scale[Tile::kTilesM][2];
        if constexpr (kScaled)
#pragma unroll
            for (int m = 0; m < Tile::kTilesM; m++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    row_scale[m][h] = a.x_scale[first_row + min(warp_row + m * 16 + h * 8 + lane / 4, last)];
#pragma unroll
        for (int n = 0; n < Tile::kTilesN; n++) {
            const int column = warp_column + n * 8 + lane % 4 * 2;
            const float2 b = *reinterpret_cast<const float2 *>(a.bias + first_column + column);
            float2 column_scale = {1, 1};
            if constexpr (kScaled)
                column_scale = *reinterpret_cast<const float2 *>(a.weight_scale + first_column + column);
#pragma unroll
            for (int m = 0; m < Tile::kTilesM; m++) {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int row = warp_row + m * 16 + h * 8 + lane / 4;
                    const int chunk = column / 8 ^ (row & 7);
                    uint32_t *at =
                        reinterpret_cast<uint32_t *>(tile + row * Tile::kColumns + chunk * 8 + column % 8);
                    float low = c[m][n][h * 2];
                    float high = c[m][n][h * 2 + 1];
                    if constexpr (kScaled) {
                        low *= row_scale[m][h] * column_scale.x;
                        high *= row_scale[m][h] * column_scale.y;
                    }
                    low += b.x;
                    high += b.y;
                    if constexpr (kEpilogue == BR_EPILOGUE_GELU) {
                        low = gelu(low);
                        high = gelu(high);
                    }
                    if constexpr (kEpilogue == BR_EPILOGUE_ACCUMULATE) {
                        const Out *before = reinterpret_cast<const Out *>(at);
                        low += widen(before[0]);
                        high += widen(before[1]);
                    }
                    *at = pack_two<Out>(low, high);
                }
            }
        }
    }
};

/* Calls body(element in the shared tile, element of y) for each 16 bytes of a block's tile that exist. */
template <typename Tile, typename Out, typename Body>
__device__ void for_each_chunk(const linear_params &a, int first_row, int first_column, Body body)
{
    constexpr int kRowChunks = Tile::kColumns / 8;
    Out *const y = static_cast<Out *>(a.y);
    for (int index = threadIdx.x; index < Tile::kRows * kRowChunks; index += kThreads) {
        const int row = index / kRowChunks;
        const int chunk = index % kRowChunks;
        if (first_row + row >= a.rows) continue;
        body(row * Tile::kColumns + (chunk ^ (row & 7)) * 8,
             y + static_cast<size_t>(first_row + row) * a.outputs + first_column + chunk * 8);
    }
}

/* From accumulators to y, once nobody reads the stages any more. */
template <typename In, typename Out, typename Tile, br_epilogue kEpilogue>
__device__ void store_tile(const product<In, Out, Tile, kEpilogue> &sum, unsigned char *shared,
                           const linear_params &a, int first_row, int first_column, int warp_row,
                           int warp_column, int lane)
{
    Out *const tile = reinterpret_cast<Out *>(shared);
    if constexpr (kEpilogue == BR_EPILOGUE_ACCUMULATE) {
        for_each_chunk<Tile, Out>(a, first_row, first_column,
                                  [&](int at, const Out *y) { store_vec(tile + at, load_vec(y)); });
        __syncthreads();
    }
    sum.finish(tile, a, first_row, first_column, warp_row, warp_column, lane);
    __syncthreads();
    for_each_chunk<Tile, Out>(a, first_row, first_column,
                              [&](int at, Out *y) { store_vec(y, load_vec(tile + at)); });
}

inline linear_params params_of(const br_own_linear_args *a)
{
    linear_params params = {};
    params.x = static_cast<const unsigned char *>(a->x);
    params.weight = static_cast<const unsigned char *>(a->weight);
    params.x_scale = a->x_scale;
    params.weight_scale = a->weight_scale;
    params.bias = a->bias;
    params.y = a->y;
    params.rows = a->rows;
    params.outputs = a->outputs;
    params.row_bytes = a->inputs * (a->x_scale != nullptr ? 1 : 2);
    return params;
}

/* All instantiations: calls body(In(), Out(), constant<epilogue>()) for each, up to the first error. */
template <typename Body> br_status for_each_product(Body body)
{
    br_status status = body(half(), half(), constant<BR_EPILOGUE_GELU>());
    if (status == BR_OK) status = body(bf16(), bf16(), constant<BR_EPILOGUE_GELU>());
    if (status == BR_OK) status = body(e4m3(), half(), constant<BR_EPILOGUE_STORE>());
    if (status == BR_OK) status = body(e4m3(), half(), constant<BR_EPILOGUE_GELU>());
    if (status == BR_OK) status = body(e4m3(), half(), constant<BR_EPILOGUE_ACCUMULATE>());
    return status;
}

inline br_dtype dtype_of(half)
{
    return BR_F16;
}
inline br_dtype dtype_of(bf16)
{
    return BR_BF16;
}

/* body(In(), Out(), constant<epilogue>()) for the instantiation that computes `a`; `type` is y's. */
template <typename Body> br_status with_product(const br_own_linear_args *a, br_dtype type, Body body)
{
    const bool scaled = a->x_scale != nullptr;
    br_status result = BR_ENOTSUP;
    (void)for_each_product([&](auto in, auto out, auto epilogue) {
        if (scaled == (sizeof(in) == 1) && type == dtype_of(out) && a->epilogue == decltype(epilogue)::value)
            result = body(in, out, epilogue);
        return BR_OK;
    });
    return result;
}

/* The blocks of a launch: tiles across, tiles down. */
template <typename Tile> dim3 grid_of(const linear_params &a)
{
    return dim3(a.outputs / Tile::kColumns, ceil_div(a.rows, Tile::kRows));
}

} // namespace

#endif
