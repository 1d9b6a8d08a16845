/* runtime.h - calls of the CUDA runtime: whose device they are for, and what their codes mean. */
#ifndef BESTROUTE_CUDA_RUNTIME_H
#define BESTROUTE_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#include "engine/backend.h"

/* The runtime's code as one of ours. */
br_status cuda_status(cudaError_t code);

/* Fills *error with what failed and the runtime's words for it. */
br_status cuda_fail(br_error *error, cudaError_t code, const char *what);

/* The calling thread's device from now on. */
cudaError_t cuda_use_device(const br_backend *backend);

#endif
