/*
 * reference.h - the reference engine: plain loops on the host, which the other engines are compared with.
 *
 * Precisions f32, bf16 and f16.
 */
#ifndef BESTROUTE_ENGINE_HOST_REFERENCE_H
#define BESTROUTE_ENGINE_HOST_REFERENCE_H

#include "engine/backend.h"

/* BR_ENOTSUP: precision fp8. BR_ENOMEM. */
BR_NODISCARD br_status br_backend_open_reference(br_backend **out, br_precision precision, br_error *error);

#endif
