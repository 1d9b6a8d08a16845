/*
 * engines.c - see engines.h. The one file that knows which engines the build has.
 */
#include "engines.h"

#include <sched.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "host/reference.h"

#ifdef BR_CUDA
#include "cuda/engine_cuda.h"
#else
static int32_t br_cuda_devices(void)
{
    return 0;
}

static br_status br_backend_open_cuda(br_backend **out, br_precision precision, int32_t device,
                                      br_error *error)
{
    (void)precision;
    (void)device;
    *out = NULL;
    return br_fail(error, BR_ENOTSUP, "engine cuda: this program was built without CUDA");
}
#endif

const char *br_engine_name(br_engine engine)
{
    switch (engine) {
    case BR_ENGINE_AUTO:
        return "auto";
    case BR_ENGINE_REFERENCE:
        return "reference";
    case BR_ENGINE_CPU:
        return "cpu";
    case BR_ENGINE_CUDA:
        return "cuda";
    }
    return "?";
}

int32_t br_engine_devices(br_engine engine)
{
    return engine == BR_ENGINE_CUDA ? br_cuda_devices() : 1;
}

br_engine br_engine_resolve(br_engine engine)
{
    if (engine != BR_ENGINE_AUTO) return engine;
    return br_engine_devices(BR_ENGINE_CUDA) > 0 ? BR_ENGINE_CUDA : BR_ENGINE_CPU;
}

/* Cores this process may run on: containers are often given fewer than the machine has. */
static int32_t cores(void)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        const int count = CPU_COUNT(&allowed);
        if (count > 0) return count;
    }
    /* The machine has more cores than a cpu_set_t can name. */
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

int32_t br_engine_streams(br_engine engine)
{
    switch (br_engine_resolve(engine)) {
    case BR_ENGINE_AUTO:
    case BR_ENGINE_CPU:
        return cores();
    case BR_ENGINE_REFERENCE:
        return cores();
    case BR_ENGINE_CUDA:
        return 2; /* while one pass computes, the next is packed and uploaded */
    }
    return 1;
}

br_status br_backend_open(br_backend **out, br_engine engine, br_precision precision, int32_t device,
                          br_error *error)
{
    *out = NULL;
    if (br_engine_resolve(engine) != BR_ENGINE_CUDA && device != 0)
        return br_fail(error, BR_EINVAL, "engine %s has one device, 0; device %d was asked for",
                       br_engine_name(engine), (int)device);

    switch (br_engine_resolve(engine)) {
    case BR_ENGINE_REFERENCE:
        return br_backend_open_reference(out, precision, error);
    case BR_ENGINE_AUTO:
    case BR_ENGINE_CPU:
        return br_backend_open_cpu(out, precision, error);
    case BR_ENGINE_CUDA:
        return br_backend_open_cuda(out, precision, device, error);
    }
    return br_fail(error, BR_EINVAL, "engine %d does not exist", (int)engine);
}
