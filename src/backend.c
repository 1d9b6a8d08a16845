/*
 * backend.c - see backend.h. The one file that knows which engines the build has.
 */
#include "bestroute/backend.h"

#include <assert.h>
#include <sched.h>
#include <unistd.h>

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

br_status br_backend_open(br_backend **out, br_engine engine, br_precision precision, int32_t device,
                          br_error *error)
{
    *out = NULL;
    if (engine != BR_ENGINE_CUDA && engine != BR_ENGINE_AUTO && device != 0)
        return br_fail(error, BR_EINVAL, "engine %s has one device, 0; device %d was asked for",
                       br_engine_name(engine), (int)device);

    switch (engine) {
    case BR_ENGINE_REFERENCE:
        return br_backend_open_reference(out, precision, error);
    case BR_ENGINE_AUTO:
    case BR_ENGINE_CPU:
        return br_backend_open_cpu(out, precision, error);
    case BR_ENGINE_CUDA:
        return br_fail(error, BR_ENOTSUP, "engine cuda: this program was built without CUDA");
    }
    return br_fail(error, BR_EINVAL, "engine %d does not exist", (int)engine);
}

void br_backend_close(br_backend *backend)
{
    if (backend == NULL) return;
    backend->table->close(backend);
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
    /* More cores than a cpu_set_t can name. */
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int32_t)online : 1;
}

int32_t br_engine_streams(br_engine engine)
{
    switch (engine) {
    case BR_ENGINE_AUTO:
    case BR_ENGINE_CPU:
        return cores();
    case BR_ENGINE_REFERENCE:
        return cores();
    case BR_ENGINE_CUDA:
        return 1;
    }
    return 1;
}
