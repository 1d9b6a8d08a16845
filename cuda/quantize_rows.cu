/*
 * quantize_rows.cu - quantized[r, :] = e4m3(x[r, :] / scale[r]), scale[r] = max |x[r, :]| / 448
 *
 * Work      one warp owns one row; four warps make a block; no block-wide sync.
 * Traffic   2 * K + K bytes per row; the second reading of x hits L1. Bound by memory.
 * Numerics  the largest element of a row becomes 448, e4m3's own largest; the others round to nearest even,
 *           saturating. A row of zeros has scale 1. A row that is not finite gets the scale NaN.
 * Limits    K a multiple of 8; x is float16.
 * Checked   tests/engine/test_op_linear.c against loops in double.
 */
#include "device.cuh"

namespace
{

constexpr int kWarpsPerBlock = 4;
constexpr float kLargest = 448.0f; /* of e4m3 */

__global__ void __launch_bounds__(kWarpsPerBlock *kWarp)
    quantize_rows_kernel(uint2 *__restrict__ quantized, float *__restrict__ scale, const half *__restrict__ x,
                         int rows, int width)
{
    constexpr int kPack = vec<half>::kCount;
    const int row = blockIdx.x * kWarpsPerBlock + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    let_successor_start();
    wait_for_predecessor();
    if (row >= rows) return; /* a whole warp leaves together: warp_max stays legal */
    const half *from = x + static_cast<size_t>(row) * width;
    float largest = 0;
    bool finite = true;
    for (int column = lane * kPack; column < width; column += kWarp * kPack) {
        const vec<half> values = load_vec(from + column);
#pragma unroll
        for (int i = 0; i < kPack; i++) {
            const float magnitude = fabsf(widen(values.at[i]));
            finite &= magnitude < INFINITY; /* false for NaN */
            largest = fmaxf(largest, magnitude);
        }
    }
    largest = warp_max(largest);
    const bool all_finite = __all_sync(kAllLanes, finite);
    const float step = largest > 0 ? largest / kLargest : 1;
    const float inverse = 1.0f / step;
    if (lane == 0) scale[row] = all_finite ? step : NAN;
    uint2 *to = quantized + static_cast<size_t>(row) * width / kPack;
    for (int column = lane * kPack; column < width; column += kWarp * kPack) {
        const vec<half> values = load_vec(from + column);
        uint32_t packed[2] = {};
#pragma unroll
        for (int i = 0; i < kPack; i += 2) {
            const float2 pair = {widen(values.at[i]) * inverse, widen(values.at[i + 1]) * inverse};
            const uint32_t bits = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
            packed[i / 4] |= bits << (i % 4 * 8);
        }
        to[column / kPack] = make_uint2(packed[0], packed[1]);
    }
}

} // namespace

br_status br_launch_quantize_rows(void *quantized, float *scale, const void *x, int32_t rows, int32_t width,
                                  const br_queue *queue)
{
    if (rows == 0) return BR_OK;
    if (width % vec<half>::kCount != 0) return BR_ENOTSUP;
    return launch(quantize_rows_kernel, ceil_div(rows, kWarpsPerBlock), kWarpsPerBlock * kWarp, 0, queue,
                  static_cast<uint2 *>(quantized), scale, static_cast<const half *>(x), rows, width);
}
