/*
 * devices.h - the devices a service computes on, and how its scoring threads are spread over them.
 *
 *   devices   0          1          2
 *             cuda:0     cuda:1     cpu           a backend each; NULL: no encoder (noop)
 *   workers   0  1       2  3       4 .. 7        device_of: 0 0 1 1 2 2 2 2
 *
 * Filled before any thread exists, constant afterwards but for br_devices_fit.
 *
 * Uses: backend.  Used by: loaded, workers, and the service.
 */
#ifndef BESTROUTE_WORKERS_DEVICES_H
#define BESTROUTE_WORKERS_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/engines.h"

typedef struct br_device {
    br_backend *backend;  /* owned; NULL: no encoder */
    int32_t first_worker; /* of its workers, which follow one another */
    int32_t workers;
    int32_t tokens_wanted; /* of a pass: a single query may be longer; 0 until br_devices_fit */
    int32_t tokens_max;    /* of any pass; 0 until br_devices_fit */
} br_device;

typedef struct br_devices {
    br_device items[BR_DEVICES_MAX];
    int32_t count;
    int32_t device_of[BR_WORKERS_MAX]; /* by worker */
    int32_t worker_count;
} br_devices;

/* What the options `engine`, `precision`, `devices`, `workers` and `gemm_cache` of the service ask for. */
typedef struct br_devices_options {
    bool noop;        /* one device without an encoder; `engine` and `precision` are not read */
    br_engine engine; /* AUTO: cuda where there is a device, else cpu */
    br_precision precision;
    const char *list;       /* "auto": all that the engine has; or such as "0,2" or "0,1,cpu" */
    const char *source;     /* where the list was written, for errors: "--devices", "default" */
    int32_t workers;        /* of each device; 0: as many as serve the engine best */
    const char *gemm_cache; /* a file for what the engine measures; "": it measures nothing */
} br_devices_options;

/* Opens what the options ask for. The error names the option of the service.
 * BR_EINVAL, statuses of br_backend_open. On failure nothing is left open; close is safe. */
BR_NODISCARD br_status br_devices_open(br_devices *out, const br_devices_options *options, br_error *error);

/* Moves one more backend in, with so many workers. BR_ETOOBIG: more than BR_DEVICES_MAX or BR_WORKERS_MAX;
 * the backend stays the caller's. `out` was zeroed before the first. */
BR_NODISCARD br_status br_devices_add(br_devices *devices, br_backend *backend, int32_t workers);

/* Decides every device's budget: `wanted`, or with 0 what suits the device; tokens_max is that budget, or
 * `needed`, the longest prompt, if that is more. */
void br_devices_fit(br_devices *devices, int32_t wanted, int32_t needed);

/* The largest and the smallest tokens_max. */
int32_t br_devices_tokens_max(const br_devices *devices);
int32_t br_devices_tokens_min(const br_devices *devices);

/* False for the host's own cores, and for a device without an encoder. */
static inline bool br_device_is_accelerator(const br_device *device)
{
    return device->backend != NULL && device->backend->accelerator;
}

/* Closes the backends. Accepts what was only zeroed. */
void br_devices_close(br_devices *devices);

#endif
