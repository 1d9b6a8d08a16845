/*
 * linear.cu - our own products: y = epilogue(x W^T + b), where cuBLASLt has no epilogue for it
 *
 *   x [rows, inputs], W [outputs, inputs], b [outputs] float, y [rows, outputs]
 *   16-bit x and W   gelu(x W^T + b), the FFN's first half. cuBLASLt has only the tanh form, so the exact
 *                    one would cost a kernel that reads and writes the widest activation once more
 *                    (12 KB a token, more than the product itself moves).
 *   e4m3 x and W     (x W^T) * x_scale[row] * w_scale[column] + b: stored, through GELU, or added to y.
 *                    cuBLASLt scales whole tensors; here each token and each output has its own scale.
 *
 * Work      a block of 8 warps owns a tile of y; each warp a part of it in mma accumulators.
 * Shared    kStages slices of x and W, 128 bytes a row, filled by cp.async ahead of use. Chunk c of row r
 *           lies at c ^ (r % 8): ldmatrix meets no conflict. The finished tile leaves through the same
 *           memory, to be stored 16 bytes a lane.
 * Traffic   rows * inputs + outputs * inputs + rows * outputs elements when tiles share through L2.
 * Numerics  products summed in float; scales, bias and epilogue in float; rounded once, at the store.
 * Limits    128 bytes divide a row of x, outputs % 64 == 0; e4m3 needs sm_89.
 * Checked   tests/test_op_linear.c against loops in double.
 */
#include "gelu.cuh"
#include "mma.cuh"

namespace
{

constexpr int kSliceBytes = 128; /* of a row, in one stage */
constexpr int kChunks = kSliceBytes / 16;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kStages = 3;

/* How a block's tile is cut among its warps: one of the two shapes below. */
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
using large_tile = tile_shape<128, 128, 2>; /* full batches: 64 x 32 a warp */
using small_tile = tile_shape<32, 64, 2>; /* few rows: 16 x 16 a warp, so that W is streamed by many blocks */

/* Rows are bytes here: a product of 16-bit elements takes 16 of them at a time, of e4m3 32, and both are
 * the same 32 bytes of each row in the same registers. */
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

/* Enqueues the copy of `kCount` rows of one slice; rows past the end repeat the last one. Offsets fit 32 bits. */
template <int kCount>
__device__ void copy_slice(uint32_t to, const unsigned char *from, int first_row, int rows, int row_bytes,
                           int slice)
{
    constexpr int kRowsAtOnce = kThreads / kChunks; /* a multiple of 8: the turn of a chunk stays the same */
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

/* In: elements of x and W. Out: of y. */
template <typename In, typename Out, typename Tile, br_epilogue kEpilogue> struct product {
    static constexpr bool kScaled = sizeof(In) == 1;
    float c[Tile::kTilesM][Tile::kTilesN][4] = {};

    /* Adds one slice of x and W in shared memory. */
    __device__ void add_slice(uint32_t x, uint32_t w, int warp_row, int warp_column, int lane)
    {
        const int a_row = warp_row + lane % 16;
        const int a_half = lane / 16;
        const int b_row = warp_column + lane % 8 + lane / 16 * 8;
        const int b_half = lane / 8 % 2;
#pragma unroll
        for (int k = 0; k < kChunks / 2; k++) {
            fragment_a a[Tile::kTilesM];
#pragma unroll
            for (int m = 0; m < Tile::kTilesM; m++)
                load_matrices(a[m].r, chunk_address(x, a_row + m * 16, k * 2 + a_half));
#pragma unroll
            for (int n = 0; n < Tile::kTilesN; n += 2) {
                fragment_b2 b;
                load_matrices(b.r, chunk_address(w, b_row + n * 8, k * 2 + b_half));
#pragma unroll
                for (int m = 0; m < Tile::kTilesM; m++) {
                    mma<In>(c[m][n], a[m], b.r[0], b.r[1]);
                    mma<In>(c[m][n + 1], a[m], b.r[2], b.r[3]);
                }
            }
        }
    }

    /* Scales, bias and epilogue, into a tile of Out in shared memory whose chunks are turned like a slice's; for
     * ACCUMULATE the tile holds what is added to. `rows` of it exist. */
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

/* Blocks that share a multiprocessor. Only sm_89 multiplies e4m3 by mma.sync itself; elsewhere the compiler widens
 * the factors to half first, which takes the registers of a second block. */
template <typename In> constexpr int kBlocksAtOnce = sizeof(In) == 1 ? 1 : 2;

template <typename In, typename Out, typename Tile, br_epilogue kEpilogue>
__global__ void __launch_bounds__(kThreads, kBlocksAtOnce<In>) linear_kernel(const linear_params a)
{
    extern __shared__ __align__(128) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const int lane = threadIdx.x % kWarp;
    const int warp = threadIdx.x / kWarp;
    const int warp_row = warp / Tile::kWarpsAcross * (Tile::kTilesM * 16);
    const int warp_column = warp % Tile::kWarpsAcross * (Tile::kTilesN * 8);
    const int first_row = blockIdx.y * Tile::kRows;
    const int first_column = blockIdx.x * Tile::kColumns;
    const int slices = a.row_bytes / kSliceBytes;

    const auto x_stage = [&](int s) { return base + static_cast<uint32_t>(s % kStages * Tile::kStageBytes); };
    const auto w_stage = [&](int s) { return x_stage(s) + Tile::kRows * kSliceBytes; };
    const auto copy_weight = [&](int s) {
        copy_slice<Tile::kColumns>(w_stage(s), a.weight, first_column, a.outputs, a.row_bytes, s);
    };
    const auto copy_x = [&](int s) {
        copy_slice<Tile::kRows>(x_stage(s), a.x, first_row, a.rows, a.row_bytes, s);
    };

    /* Weights depend on no kernel: their first slices travel while the predecessor finishes. */
    let_successor_start();
#pragma unroll
    for (int s = 0; s < kStages - 1; s++)
        if (s < slices) copy_weight(s);
    wait_for_predecessor();
#pragma unroll
    for (int s = 0; s < kStages - 1; s++) {
        if (s < slices) copy_x(s);
        copies_commit();
    }

    product<In, Out, Tile, kEpilogue> sum;
    for (int s = 0; s < slices; s++) {
        copies_wait<kStages - 2>();
        __syncthreads(); /* slice s is there, and nobody reads the stage that is filled next */
        if (s + kStages - 1 < slices) {
            copy_weight(s + kStages - 1);
            copy_x(s + kStages - 1);
        }
        copies_commit();
        sum.add_slice(x_stage(s), w_stage(s), warp_row, warp_column, lane);
    }
    copies_wait<0>();
    __syncthreads();

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

/* Few rows leave most of a large tile empty. */
bool wants_small_tile(int rows, int outputs)
{
    return rows <= 64 || outputs % large_tile::kColumns != 0;
}

template <typename In, typename Out, br_epilogue kEpilogue>
br_status launch_epilogue(const linear_params &params, const br_queue *queue)
{
    if (wants_small_tile(params.rows, params.outputs)) {
        using Tile = small_tile;
        const dim3 grid(params.outputs / Tile::kColumns, ceil_div(params.rows, Tile::kRows));
        return launch(linear_kernel<In, Out, Tile, kEpilogue>, grid, kThreads, Tile::kSharedBytes, queue,
                      params);
    }
    using Tile = large_tile;
    const dim3 grid(params.outputs / Tile::kColumns, ceil_div(params.rows, Tile::kRows));
    return launch(linear_kernel<In, Out, Tile, kEpilogue>, grid, kThreads, Tile::kSharedBytes, queue, params);
}

template <typename In, typename Out, br_epilogue kEpilogue> cudaError_t prepare_epilogue()
{
    return cudaFuncSetAttribute(linear_kernel<In, Out, large_tile, kEpilogue>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                static_cast<int>(large_tile::kSharedBytes));
}

} // namespace

bool br_linear_fits(int32_t outputs, int32_t inputs, br_epilogue epilogue, bool e4m3, br_dtype type,
                    const br_queue *queue)
{
    if (type == BR_F32 || outputs % small_tile::kColumns != 0 ||
        large_tile::kSharedBytes > queue->shared_bytes_max)
        return false;
    if (e4m3) return queue->multiplies_e4m3 && type == BR_F16 && inputs % kSliceBytes == 0;
    return epilogue == BR_EPILOGUE_GELU && inputs * 2 % kSliceBytes == 0;
}

br_status br_linear_prepare(const br_queue *queue)
{
    if (large_tile::kSharedBytes > queue->shared_bytes_max) return BR_OK;
    cudaError_t code = prepare_epilogue<half, half, BR_EPILOGUE_GELU>();
    if (code == cudaSuccess) code = prepare_epilogue<bf16, bf16, BR_EPILOGUE_GELU>();
    if (code == cudaSuccess) code = prepare_epilogue<e4m3, half, BR_EPILOGUE_STORE>();
    if (code == cudaSuccess) code = prepare_epilogue<e4m3, half, BR_EPILOGUE_GELU>();
    if (code == cudaSuccess) code = prepare_epilogue<e4m3, half, BR_EPILOGUE_ACCUMULATE>();
    return code == cudaSuccess ? BR_OK : BR_EDEVICE;
}

br_status br_launch_linear(const br_own_linear_args *a, br_dtype type, const br_queue *queue)
{
    if (a->rows == 0) return BR_OK;
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
    if (a->x_scale == nullptr) {
        if (a->epilogue != BR_EPILOGUE_GELU) return BR_ENOTSUP;
        if (type == BR_F16) return launch_epilogue<half, half, BR_EPILOGUE_GELU>(params, queue);
        if (type == BR_BF16) return launch_epilogue<bf16, bf16, BR_EPILOGUE_GELU>(params, queue);
        return BR_ENOTSUP;
    }
    if (type != BR_F16) return BR_ENOTSUP;
    switch (a->epilogue) {
    case BR_EPILOGUE_STORE:
        return launch_epilogue<e4m3, half, BR_EPILOGUE_STORE>(params, queue);
    case BR_EPILOGUE_GELU:
        return launch_epilogue<e4m3, half, BR_EPILOGUE_GELU>(params, queue);
    case BR_EPILOGUE_ACCUMULATE:
        return launch_epilogue<e4m3, half, BR_EPILOGUE_ACCUMULATE>(params, queue);
    }
    return BR_ENOTSUP;
}
