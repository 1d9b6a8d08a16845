/*
 * gather_rows.cu - pooled[b, :] = residual[offsets[b] + pool_index, :]
 *
 * Work      one warp copies one row; four warps make a block.
 * Traffic   2 * C * sizeof(T) bytes per sequence.
 * Numerics  bits are copied.
 * Limits    any C. A sequence without tokens (the end of a bucket of sequences) copies nothing.
 * Checked   tests/engine/test_op_gather_rows.c, bit for bit.
 */
#include "device.cuh"

namespace
{

constexpr int kWarpsPerBlock = 4;

template <typename Unit>
__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    gather_rows_kernel(Unit *__restrict__ pooled, const Unit *__restrict__ residual,
                       const int *__restrict__ offsets, int pool_index, int seqs, int units)
{
    const int seq = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp;
    let_successor_start();
    wait_for_predecessor();
    if (seq >= seqs) return;
    const int first = offsets[seq];
    if (offsets[seq + 1] == first) return;
    const Unit *from = residual + static_cast<size_t>(first + pool_index) * units;
    Unit *to = pooled + static_cast<size_t>(seq) * units;
    for (int u = threadIdx.x % kWarp; u < units; u += kWarp) to[u] = from[u];
}

template <typename Unit>
br_status launch_units(const br_gather_args *a, size_t row_bytes, const br_queue *queue)
{
    return launch(gather_rows_kernel<Unit>, ceil_div(a->seqs, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0,
                  queue, static_cast<Unit *>(a->pooled_residual), static_cast<const Unit *>(a->residual),
                  a->offsets, a->pool_index, a->seqs, static_cast<int>(row_bytes / sizeof(Unit)));
}

} // namespace

br_status br_launch_gather_rows(const br_gather_args *a, br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0) return BR_OK;
    const size_t row_bytes = static_cast<size_t>(a->width) * br_dtype_bytes(type);
    if (row_bytes % sizeof(uint4) == 0) return launch_units<uint4>(a, row_bytes, queue);
    return launch_units<uint16_t>(a, row_bytes, queue);
}
