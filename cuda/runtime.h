/* runtime.h - for calls of the CUDA runtime: chooses their device, and translates their codes. */
#ifndef BESTROUTE_CUDA_RUNTIME_H
#define BESTROUTE_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#include "engine/backend.h"

/* The status that a code of the runtime means. */
br_status cuda_status(cudaError_t code);

/* Fills *error with `what` and the runtime's text for the code; returns cuda_status(code). */
br_status cuda_fail(br_error *error, cudaError_t code, const char *what);

/* From now on the calling thread's calls are for this backend's device. */
cudaError_t cuda_use_device(const br_backend *backend);

#endif
