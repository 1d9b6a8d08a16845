/*
 * gelu.cu - y = gelu(y) elementwise, in place, after a GEMM that has no exact epilogue
 *
 *   gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))
 *
 * cuBLASLt's own GELU epilogue is the tanh form, up to 4.7e-4 away; this is the erf form.
 *
 * Work      a thread owns 16 bytes.
 * Traffic   2 * sizeof(T) bytes per element. Bound by memory.
 * Numerics  in float, rounded once; its input was rounded once by the GEMM.
 * Limits    any count; the start is aligned to 16 bytes.
 * Checked   tests/engine/test_op_linear.c against loops in double.
 */
#include "gelu.cuh"

#include "device.cuh"

namespace
{

constexpr int kThreads = 256;

template <typename T> __global__ void __launch_bounds__(kThreads) gelu_kernel(T *__restrict__ y, size_t count)
{
    constexpr int kPack = vec<T>::kCount;
    const size_t first = (static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x) * kPack;
    let_successor_start();
    wait_for_predecessor();
    if (first + kPack <= count) {
        vec<T> values = load_vec(y + first);
#pragma unroll
        for (int i = 0; i < kPack; i++) values.at[i] = narrow<T>(gelu(widen(values.at[i])));
        store_vec(y + first, values);
    } else {
        for (size_t i = first; i < count; i++) y[i] = narrow<T>(gelu(widen(y[i])));
    }
}

} // namespace

br_status br_launch_gelu(void *y, size_t count, br_dtype type, const br_queue *queue)
{
    if (count == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return launch(gelu_kernel<T>, ceil_div(static_cast<int64_t>(count), kThreads * vec<T>::kCount),
                      kThreads, 0, queue, static_cast<T *>(y), count);
    });
}
