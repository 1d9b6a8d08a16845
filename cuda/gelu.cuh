/*
 * gelu.cuh - the exact GELU, in its erf form.
 */
#ifndef BESTROUTE_CUDA_GELU_CUH
#define BESTROUTE_CUDA_GELU_CUH

namespace
{

__device__ inline float gelu(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
}

} // namespace

#endif
