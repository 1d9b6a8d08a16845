/* runtime.c - see runtime.h. */
#include "runtime.h"

#include "backend_cuda.h"

br_status cuda_status(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return BR_OK;
    case cudaErrorMemoryAllocation:
        return BR_ENOMEM;
    default:
        return BR_EDEVICE;
    }
}

br_status cuda_fail(br_error *error, cudaError_t code, const char *what)
{
    return br_fail(error, cuda_status(code), "engine cuda: %s: %s", what, cudaGetErrorString(code));
}

cudaError_t cuda_use_device(const br_backend *backend)
{
    return cudaSetDevice(((const cuda_backend *)backend)->device);
}
