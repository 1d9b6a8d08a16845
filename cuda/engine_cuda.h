/*
 * engine_cuda.h - the CUDA engine: one device of this machine, from compute capability 8.0 on.
 *
 * Precisions f16, bf16, f32, and fp8 from compute capability 8.9 on.
 */
#ifndef BESTROUTE_CUDA_ENGINE_CUDA_H
#define BESTROUTE_CUDA_ENGINE_CUDA_H

#include "engine/backend.h"

/* How many devices the CUDA runtime finds; 0 where there is no driver. */
int32_t br_cuda_devices(void);

/* BR_EINVAL: no such device. BR_ENOTSUP: the device is too old, or lacks the precision. BR_EDEVICE,
 * BR_ENOMEM. */
BR_NODISCARD br_status br_backend_open_cuda(br_backend **out, br_precision precision, int32_t device,
                                            br_error *error);

#endif
