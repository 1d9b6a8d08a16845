/*
 * device.cuh - what the kernels share: element types, 16-byte vectors, warp sums, launches.
 */
#ifndef BESTROUTE_CUDA_DEVICE_CUH
#define BESTROUTE_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <stdint.h>

#include "kernels.h"

namespace
{

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

using bf16 = __nv_bfloat16;
using e4m3 = __nv_fp8_e4m3;

__device__ inline float widen(float x)
{
    return x;
}
__device__ inline float widen(bf16 x)
{
    return __bfloat162float(x);
}
__device__ inline float widen(half x)
{
    return __half2float(x);
}

/* Rounds to nearest, ties to even. */
template <typename T> __device__ inline T narrow(float x);
template <> __device__ inline float narrow<float>(float x)
{
    return x;
}
template <> __device__ inline bf16 narrow<bf16>(float x)
{
    return __float2bfloat16_rn(x);
}
template <> __device__ inline half narrow<half>(float x)
{
    return __float2half_rn(x);
}

/* Two values as one register of a 16-bit type: `low` first in memory. */
template <typename T> __device__ inline uint32_t pack_two(float low, float high);
template <> __device__ inline uint32_t pack_two<bf16>(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}
template <> __device__ inline uint32_t pack_two<half>(float low, float high)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

/* 16 bytes of elements: what one lane moves at once. */
template <typename T> struct alignas(16) vec {
    static constexpr int kCount = 16 / sizeof(T);
    T at[kCount];
};

template <typename T> __device__ inline vec<T> load_vec(const T *from)
{
    return *reinterpret_cast<const vec<T> *>(from);
}

template <typename T> __device__ inline void store_vec(T *to, const vec<T> &value)
{
    *reinterpret_cast<vec<T> *>(to) = value;
}

/* Sums over the `kLanes` neighbours of a lane; every one of them gets the sum. */
template <int kLanes> __device__ inline float lane_sum(float x)
{
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
    return x;
}

__device__ inline float warp_sum(float x)
{
    return lane_sum<kWarp>(x);
}

__device__ inline float warp_max(float x)
{
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
    return x;
}

/* After this, all writes of the stream's previous kernel are visible. Code before it may only read memory
 * that no kernel writes: weights, ids, offsets. */
__device__ inline void wait_for_predecessor()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel of the stream may begin. */
__device__ inline void let_successor_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

inline int ceil_div(int64_t a, int64_t b)
{
    return static_cast<int>((a + b - 1) / b);
}

template <typename... Params, typename... Args>
br_status launch(void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared_bytes,
                 const br_queue *queue, Args... args)
{
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = queue->stream;
    config.attrs = &attribute;
    config.numAttrs = queue->overlaps ? 1 : 0;
    const cudaError_t code = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
    return code == cudaSuccess ? BR_OK : BR_EDEVICE;
}

/* Lets a kernel use so many bytes of dynamic shared memory: more than 48 KiB need permission. */
template <typename... Params> br_status allow_shared_bytes(void (*kernel)(Params...), size_t bytes)
{
    const cudaError_t code =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
    return code == cudaSuccess ? BR_OK : BR_EDEVICE;
}

/* A value as a type, to pass a template argument to a generic lambda. */
template <auto kValue> struct constant {
    static constexpr auto value = kValue;
};

/* body(T()) with the element type that `type` names. */
template <typename Body> br_status with_type(br_dtype type, Body body)
{
    switch (type) {
    case BR_F32:
        return body(float());
    case BR_F16:
        return body(half());
    case BR_BF16:
        return body(bf16());
    }
    return BR_ENOTSUP;
}

} // namespace

#endif
