/*
 * linear_warpgroup.cu - the products of linear.cu for full batches on sm_90, whose tensor cores need wgmma
 *
 *   x [rows, inputs], W [outputs, inputs], b [outputs] float, y [rows, outputs]
 *
 * Work      a block of two warpgroups owns a 128 x 128 tile of y; each warpgroup 64 rows, in wgmma m64n128
 *           accumulators. Factors are read from shared memory by descriptors, never through registers.
 * Shared    as in linear.cuh. A stage is filled again two slices after it was used: one warpgroup may still
 *           read the last slice while the other goes on. Two blocks share a multiprocessor, so that one's
 *           epilogue runs beside the other's products.
 * Traffic   rows * inputs + outputs * inputs + rows * outputs elements when tiles share through L2.
 * Numerics  as in linear.cu.
 * Limits    sm_90 only (compiled for sm_90a); 128 bytes divide a row of x, outputs % 128 == 0.
 * Checked   tests/engine/test_op_linear.c, tests/engine/test_op_linear_fp8.c against loops in double.
 */
#include "linear.cuh"

namespace
{

using block_tile = tile_shape<128, 128, 8>; /* 16 x 128 a warp, four warps to a warpgroup */
constexpr int kAhead = kStages - 2;         /* slices under way while one is multiplied */

/* Makes the arrived cp.async copies of this thread visible to wgmma. */
__device__ inline void show_copies_to_tensor_cores()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void products_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ inline void products_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int kPending> __device__ inline void products_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/* Rows of 128 bytes, swizzled over 128, eight rows apart 1024: a matrix whose rows are its k. */
__device__ inline uint64_t descriptor(uint32_t address)
{
    return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | static_cast<uint64_t>(1024 >> 4) << 32 |
           1ull << 62;
}

/* c (+)= 32 bytes of each row of x times those of W. */
template <typename In> __device__ void multiply(float (&c)[16][4], uint64_t x, uint64_t w, int accumulate);

/* One specialisation: the instruction takes all 64 accumulators by name. `order` ends its operands: 16-bit
 * types have two more, which say that both factors lie along k. */
#define MULTIPLY(In, shape_and_types, order)                                                                 \
    template <>                                                                                              \
    __device__ inline void multiply<In>(float(&c)[16][4], uint64_t x, uint64_t w, int accumulate)            \
    {                                                                                                        \
        asm volatile("{\n"                                                                                   \
                     ".reg .pred accumulate;\n"                                                              \
                     "setp.ne.b32 accumulate, %66, 0;\n"                                                     \
                     "wgmma.mma_async.sync.aligned." shape_and_types " {" ALL_ACCUMULATORS "}, "             \
                     "%64, %65, accumulate, 1, 1" order ";\n"                                                \
                     "}\n"                                                                                   \
                     : FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(4), FOUR(5), FOUR(6), FOUR(7), FOUR(8),      \
                       FOUR(9), FOUR(10), FOUR(11), FOUR(12), FOUR(13), FOUR(14), FOUR(15)                   \
                     : "l"(x), "l"(w), "r"(accumulate));                                                     \
    }
#define FOUR(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define ALL_ACCUMULATORS                                                                                     \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                 \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "                       \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "                       \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

MULTIPLY(half, "m64n128k16.f32.f16.f16", ", 0, 0")
MULTIPLY(bf16, "m64n128k16.f32.bf16.bf16", ", 0, 0")
MULTIPLY(e4m3, "m64n128k32.f32.e4m3.e4m3", "")

#undef MULTIPLY
#undef FOUR
#undef ALL_ACCUMULATORS

template <typename In, typename Out, br_epilogue kEpilogue>
__global__ void __launch_bounds__(kThreads, 2) linear_warpgroup_kernel(const linear_params a)
{
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using Tile = block_tile;
    extern __shared__ __align__(1024) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const int lane = threadIdx.x % kWarp;
    const int warp = threadIdx.x / kWarp;
    const int first_row = blockIdx.y * Tile::kRows;
    const int first_column = blockIdx.x * Tile::kColumns;
    const uint32_t group_rows = static_cast<uint32_t>(warp / 4 * 64 * kSliceBytes);

    const slice_copier<Tile> copier = {a, base, first_row, first_column, a.row_bytes / kSliceBytes};
    copier.template start<kAhead>();

    product<In, Out, Tile, kEpilogue> sum;
    for (int s = 0; s < copier.count; s++) {
        copies_wait<kAhead - 1>();
        show_copies_to_tensor_cores();
        __syncthreads(); /* slice s is there, and nobody multiplies slice s - 2 any more */
        copier.copy(s + kAhead);
        products_begin();
#pragma unroll
        for (int k = 0; k < kSliceBytes / 32; k++)
            multiply<In>(sum.c[0], descriptor(x_stage<Tile>(base, s) + group_rows + k * 32),
                         descriptor(w_stage<Tile>(base, s) + k * 32), s > 0 || k > 0);
        products_commit();
        products_wait<1>();
    }
    products_wait<0>();
    copies_wait<0>();
    __syncthreads();
    store_tile(sum, shared, a, first_row, first_column, warp * 16, 0, lane);
#else
    (void)a;
    __trap();
#endif
}

} // namespace

br_status br_linear_warpgroup_prepare(void)
{
    return for_each_product([](auto in, auto out, auto epilogue) {
        return allow_shared_bytes(
            linear_warpgroup_kernel<decltype(in), decltype(out), decltype(epilogue)::value>,
            block_tile::kSharedBytes);
    });
}

br_status br_launch_linear_warpgroup(const br_own_linear_args *a, br_dtype type, const br_queue *queue)
{
    const linear_params params = params_of(a);
    return with_product(a, type, [&](auto in, auto out, auto epilogue) {
        const auto kernel = linear_warpgroup_kernel<decltype(in), decltype(out), decltype(epilogue)::value>;
        return launch(kernel, grid_of<block_tile>(params), kThreads, block_tile::kSharedBytes, queue, params);
    });
}
