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
 * Work      a block of 8 warps owns a tile of y; each warp a part of it in mma accumulators. On sm_90 full
 *           batches go to linear_warpgroup.cu, which does the same with wgmma.
 * Shared    kStages slices of x and W, 128 bytes a row, filled by cp.async ahead of use. Chunk c of row r
 *           lies at c ^ (r % 8): ldmatrix meets no conflict. The finished tile goes through the same memory,
 *           so that a lane stores 16 bytes.
 * Traffic   rows * inputs + outputs * inputs + rows * outputs elements when tiles share through L2.
 * Numerics  products summed in float; scales, bias and epilogue in float; rounded once, at the store.
 * Limits    128 bytes divide a row of x, outputs % 64 == 0; e4m3 needs sm_89.
 * Checked   tests/engine/test_op_linear.c against loops in double.
 */
#include "linear.cuh"

namespace
{

using large_tile = tile_shape<128, 128, 2>; /* full batches: 64 x 32 a warp */
using small_tile = tile_shape<32, 64, 2>;   /* few rows: 16 x 16 a warp, so that many blocks read W */

/* Adds one slice of x and W in shared memory. */
template <typename In, typename Out, typename Tile, br_epilogue kEpilogue>
__device__ void add_slice(product<In, Out, Tile, kEpilogue> &sum, uint32_t x, uint32_t w, int warp_row,
                          int warp_column, int lane)
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
                mma<In>(sum.c[m][n], a[m], b.r[0], b.r[1]);
                mma<In>(sum.c[m][n + 1], a[m], b.r[2], b.r[3]);
            }
        }
    }
}

/* Blocks that share a multiprocessor. Only sm_89 has an mma.sync for e4m3; for other devices the compiler
 * widens the factors to half first, which needs the registers of a second block. */
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
    const slice_copier<Tile> copier = {a, base, first_row, first_column, a.row_bytes / kSliceBytes};
    copier.template start<kStages - 1>();

    product<In, Out, Tile, kEpilogue> sum;
    for (int s = 0; s < copier.count; s++) {
        copies_wait<kStages - 2>();
        __syncthreads(); /* slice s is there, and nobody reads the stage that is filled next */
        copier.copy(s + kStages - 1);
        add_slice(sum, x_stage<Tile>(base, s), w_stage<Tile>(base, s), warp_row, warp_column, lane);
    }
    copies_wait<0>();
    __syncthreads();

    store_tile(sum, shared, a, first_row, first_column, warp_row, warp_column, lane);
}

/* Few rows leave most of a large tile empty. */
bool wants_small_tile(int rows, int outputs)
{
    return rows <= 64 || outputs % large_tile::kColumns != 0;
}

template <typename In, typename Out, typename Tile, br_epilogue kEpilogue>
br_status launch_tile(const linear_params &params, const br_queue *queue)
{
    return launch(linear_kernel<In, Out, Tile, kEpilogue>, grid_of<Tile>(params), kThreads,
                  Tile::kSharedBytes, queue, params);
}

template <typename In, typename Out, br_epilogue kEpilogue>
br_status launch_epilogue(const linear_params &params, const br_queue *queue)
{
    return wants_small_tile(params.rows, params.outputs)
               ? launch_tile<In, Out, small_tile, kEpilogue>(params, queue)
               : launch_tile<In, Out, large_tile, kEpilogue>(params, queue);
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
    const br_status status = for_each_product([](auto in, auto out, auto epilogue) {
        return allow_shared_bytes(
            linear_kernel<decltype(in), decltype(out), large_tile, decltype(epilogue)::value>,
            large_tile::kSharedBytes);
    });
    if (status != BR_OK) return status;
    return queue->has_warpgroups ? br_linear_warpgroup_prepare() : BR_OK;
}

br_status br_launch_linear(const br_own_linear_args *a, br_dtype type, const br_queue *queue)
{
    if (a->rows == 0) return BR_OK;
    if (queue->has_warpgroups && !wants_small_tile(a->rows, a->outputs))
        return br_launch_linear_warpgroup(a, type, queue);
    const linear_params params = params_of(a);
    return with_product(a, type, [&](auto in, auto out, auto epilogue) {
        return launch_epilogue<decltype(in), decltype(out), decltype(epilogue)::value>(params, queue);
    });
}
