/*
 * engines.h - the engines of this build: their names, their devices on this machine, and opening one.
 *
 * Thread-safe: no state is kept between calls.
 */
#ifndef BESTROUTE_ENGINE_ENGINES_H
#define BESTROUTE_ENGINE_ENGINES_H

#include "backend.h"

typedef enum br_engine {
    BR_ENGINE_AUTO, /* cuda where the build and a device allow, else cpu */
    BR_ENGINE_REFERENCE,
    BR_ENGINE_CPU,
    BR_ENGINE_CUDA,
} br_engine;

/* The names in the enum's order, as a table of options lists them. */
#define BR_ENGINE_WORDS "auto|reference|cpu|cuda"

const char *br_engine_name(br_engine engine);

/* For AUTO the engine that it means on this machine; any other engine is returned as it is. */
br_engine br_engine_resolve(br_engine engine);

/* How many devices this build and machine have for the engine: 1 for those on the host. */
int32_t br_engine_devices(br_engine engine);

/* How many streams serve this engine best: one per core the process may run on for CPUs. */
int32_t br_engine_streams(br_engine engine);

/* `device`: index among the engine's devices; 0 for the engines on the host.
 * BR_ENOTSUP: the build lacks the engine, or the device the precision. BR_EDEVICE. BR_ENOMEM.
 * Close with br_backend_close. */
BR_NODISCARD br_status br_backend_open(br_backend **out, br_engine engine, br_precision precision,
                                       int32_t device, br_error *error);

#endif
