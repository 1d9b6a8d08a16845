/*
 * cpu.h - the CPU engine: the host's cores, one stream per core.
 *
 * Precisions f32, and bf16 where the processor has instructions for it.
 */
#ifndef BESTROUTE_ENGINE_CPU_CPU_H
#define BESTROUTE_ENGINE_CPU_CPU_H

#include "engine/backend.h"

/* BR_ENOTSUP: this processor lacks the precision. BR_ENOMEM, BR_EDEVICE (from oneDNN). */
BR_NODISCARD br_status br_backend_open_cpu(br_backend **out, br_precision precision, br_error *error);

#endif
