/*
 * linear_gelu.cu - y = gelu(x W^T + b), the FFN's first half, with the exact GELU in its epilogue
 *
 *   x [rows, inputs], W [outputs, inputs], b [outputs] float, y [rows, outputs]
 *
 * cuBLASLt has only the tanh form, so the exact one would cost a kernel of its own that reads and writes
 * the widest activation of the layer once more (12 KB a token, as much as the product itself moves).
 *
 * Work      a block of 8 warps owns a tile of y; each warp a part of it in mma m16n8k16 accumulators.
 * Shared    kStages slices of x and W, 64 columns each, filled by cp.async ahead of use. A row of a
 *           slice is 128 bytes, chunk c of row r lies at c ^ (r % 8): ldmatrix meets no conflict.
 *           The finished tile leaves through the same memory, to be stored 16 bytes a lane.
 * Traffic   rows * inputs + outputs * inputs + rows * outputs elements when tiles share through L2.
 * Numerics  products summed in float; bias and GELU in float; rounded once, at the store.
 * Limits    inputs % 64 == 0, outputs % kColumns == 0; 16-bit types.
 * Checked   tests/test_op_linear.c against loops in double.
 */
#include "gelu.cuh"
#include "mma.cuh"

namespace
{

constexpr int kSlice = 64; /* columns of a slice: 128 bytes */
constexpr int kChunks = kSlice / 8;
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
    static constexpr size_t kStageBytes = static_cast<size_t>(kRows + kColumns) * kSlice * 2;
    static constexpr size_t kSharedBytes = kStages * kStageBytes;
    static_assert(kTilesN % 2 == 0, "B fragments come two n-tiles at a time");
    static_assert(kSharedBytes >= static_cast<size_t>(kRows) * kColumns * 2, "the finished tile fits");
};
using large_tile = tile_shape<128, 128, 2>; /* full batches: 64 x 32 a warp */
using small_tile = tile_shape<32, 64, 2>; /* few rows: 16 x 16 a warp, so that W is streamed by many blocks */

__device__ inline uint32_t chunk_address(uint32_t base, int row, int chunk)
{
    return base + static_cast<uint32_t>(row * (kSlice * 2) + ((chunk ^ (row & 7)) * 16));
}

/* Enqueues the copy of `kCount` rows of one slice; rows past the end repeat the last one. */
template <typename T, int kCount>
__device__ void copy_slice(uint32_t to, const T *from, int first_row, int rows, int inputs, int column)
{
#pragma unroll
    for (int i = 0; i < kCount * kChunks / kThreads; i++) {
        const int index = i * kThreads + threadIdx.x;
        const int row = index / kChunks;
        const int chunk = index % kChunks;
        const int source = min(first_row + row, rows - 1);
        copy_async(chunk_address(to, row, chunk),
                   from + static_cast<size_t>(source) * inputs + column + chunk * 8);
    }
}

template <typename T, typename Tile> struct product {
    float c[Tile::kTilesM][Tile::kTilesN][4] = {};

    /* Adds one slice of x and W in shared memory. */
    __device__ void add_slice(uint32_t x, uint32_t w, int warp_row, int warp_column, int lane)
    {
        const int a_row = warp_row + lane % 16;
        const int a_half = lane / 16;
        const int b_row = warp_column + lane % 8 + lane / 16 * 8;
        const int b_half = lane / 8 % 2;
#pragma unroll
        for (int k = 0; k < kSlice / 16; k++) {
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
                    mma<T>(c[m][n], a[m], b.r[0], b.r[1]);
                    mma<T>(c[m][n + 1], a[m], b.r[2], b.r[3]);
                }
            }
        }
    }

    /* Bias and GELU, into a tile of T in shared memory whose chunks are turned like a slice's. */
    __device__ void finish(T *tile, const float *bias, int warp_row, int warp_column, int lane) const
    {
#pragma unroll
        for (int n = 0; n < Tile::kTilesN; n++) {
            const int column = warp_column + n * 8 + lane % 4 * 2;
            const float2 b = *reinterpret_cast<const float2 *>(bias + column);
#pragma unroll
            for (int m = 0; m < Tile::kTilesM; m++) {
#pragma unroll
                for (int half_of_tile = 0; half_of_tile < 2; half_of_tile++) {
                    const int row = warp_row + m * 16 + half_of_tile * 8 + lane / 4;
                    const int chunk = column / 8 ^ (row & 7);
                    const float *v = c[m][n] + half_of_tile * 2;
                    *reinterpret_cast<uint32_t *>(tile + row * Tile::kColumns + chunk * 8 + column % 8) =
                        pack_two<T>(gelu(v[0] + b.x), gelu(v[1] + b.y));
                }
            }
        }
    }
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(kThreads)
    linear_gelu_kernel(T *__restrict__ y, const T *__restrict__ x, const T *__restrict__ weight,
                       const float *__restrict__ bias, int rows, int outputs, int inputs)
{
    extern __shared__ __align__(128) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const int lane = threadIdx.x % kWarp;
    const int warp = threadIdx.x / kWarp;
    const int warp_row = warp / Tile::kWarpsAcross * (Tile::kTilesM * 16);
    const int warp_column = warp % Tile::kWarpsAcross * (Tile::kTilesN * 8);
    const int first_row = blockIdx.y * Tile::kRows;
    const int first_column = blockIdx.x * Tile::kColumns;
    const int slices = inputs / kSlice;

    const auto x_stage = [&](int s) { return base + static_cast<uint32_t>(s % kStages * Tile::kStageBytes); };
    const auto w_stage = [&](int s) { return x_stage(s) + Tile::kRows * kSlice * 2; };
    const auto copy_weight = [&](int s) {
        copy_slice<T, Tile::kColumns>(w_stage(s), weight, first_column, outputs, inputs, s * kSlice);
    };
    const auto copy_x = [&](int s) {
        copy_slice<T, Tile::kRows>(x_stage(s), x, first_row, rows, inputs, s * kSlice);
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

    product<T, Tile> sum;
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

    T *tile = reinterpret_cast<T *>(shared);
    sum.finish(tile, bias + first_column, warp_row, warp_column, lane);
    __syncthreads();
    constexpr int kRowChunks = Tile::kColumns / 8;
    for (int index = threadIdx.x; index < Tile::kRows * kRowChunks; index += kThreads) {
        const int row = index / kRowChunks;
        const int chunk = index % kRowChunks;
        if (first_row + row >= rows) continue;
        store_vec(y + static_cast<size_t>(first_row + row) * outputs + first_column + chunk * 8,
                  load_vec(tile + row * Tile::kColumns + (chunk ^ (row & 7)) * 8));
    }
}

/* Few rows leave most of a large tile empty. */
bool wants_small_tile(int rows, int outputs)
{
    return rows <= 64 || outputs % large_tile::kColumns != 0;
}

template <typename T, typename Tile>
br_status launch_tile(const br_linear_gelu_args *a, const br_queue *queue)
{
    const dim3 grid(a->outputs / Tile::kColumns, ceil_div(a->rows, Tile::kRows));
    return launch(linear_gelu_kernel<T, Tile>, grid, kThreads, Tile::kSharedBytes, queue,
                  static_cast<T *>(a->y), static_cast<const T *>(a->x), static_cast<const T *>(a->weight),
                  a->bias, a->rows, a->outputs, a->inputs);
}

template <typename T> br_status launch_type(const br_linear_gelu_args *a, const br_queue *queue)
{
    return wants_small_tile(a->rows, a->outputs) ? launch_tile<T, small_tile>(a, queue)
                                                 : launch_tile<T, large_tile>(a, queue);
}

template <typename T> br_status prepare_type()
{
    const cudaError_t code =
        cudaFuncSetAttribute(linear_gelu_kernel<T, large_tile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(large_tile::kSharedBytes));
    return code == cudaSuccess ? BR_OK : BR_EDEVICE;
}

} // namespace

bool br_linear_gelu_fits(int32_t outputs, int32_t inputs, br_dtype type, const br_queue *queue)
{
    return type != BR_F32 && inputs % kSlice == 0 && outputs % small_tile::kColumns == 0 &&
           large_tile::kSharedBytes <= queue->shared_bytes_max;
}

br_status br_linear_gelu_prepare(const br_queue *queue)
{
    if (large_tile::kSharedBytes > queue->shared_bytes_max) return BR_OK;
    const br_status status = prepare_type<half>();
    return status == BR_OK ? prepare_type<bf16>() : status;
}

br_status br_launch_linear_gelu(const br_linear_gelu_args *a, br_dtype type, const br_queue *queue)
{
    if (a->rows == 0) return BR_OK;
    switch (type) {
    case BR_F16:
        return launch_type<half>(a, queue);
    case BR_BF16:
        return launch_type<bf16>(a, queue);
    case BR_F32:
        break;
    }
    return BR_ENOTSUP;
}
