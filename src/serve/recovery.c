/* recovery.c - see recovery.h. */
#include "recovery.h"

#include "core/clock.h"
#include "core/thread.h"
#include "encoders.h"
#include "workers/workers.h"

enum { WAIT_FIRST_MS = 1000, WAIT_MOST_MS = 60000, WAIT_BUNDLES_MS = 50 };

/* Lock held. */
static void schedule(br_server *server, int32_t device, uint64_t wait_ms)
{
    server->recoveries[device].due_ns = br_clock_now_ns() + wait_ms * (uint64_t)BR_NS_PER_MS;
}

static void try_later(br_server *server, int32_t device)
{
    br_lock(&server->state.lock);
    server->recoveries[device].wait_ms = WAIT_FIRST_MS;
    schedule(server, device, WAIT_FIRST_MS);
    br_cond_signal(&server->state.changed);
    br_unlock(&server->state.lock);
}

void recovery_lose_device(void *context, int32_t device, bool last)
{
    br_server *server = context;
    BR_LOG(server->log, BR_LOG_ERROR, "device_lost", BR_I64("index", device),
           BR_STR("device", server->devices.items[device].backend->device), BR_I64("last", last ? 1 : 0));
    br_metrics_add(&server->metrics, BR_COUNTER_devices_lost, 1);
    if (last)
        state_stop_without_device(&server->state);
    else
        try_later(server, device);
}

uint64_t recovery_next_ns(const br_server *server)
{
    uint64_t next_ns = UINT64_MAX;
    for (int32_t i = 0; i < server->devices.count; i++) {
        const uint64_t due_ns = server->recoveries[i].due_ns;
        if (due_ns != 0 && due_ns < next_ns) next_ns = due_ns;
    }
    return next_ns;
}

int32_t recovery_due(br_server *server)
{
    const uint64_t now_ns = br_clock_now_ns();
    for (int32_t i = 0; i < server->devices.count; i++) {
        const uint64_t due_ns = server->recoveries[i].due_ns;
        if (due_ns == 0 || due_ns > now_ns) continue;
        if (server->loaded_count == 1) return i;
        schedule(server, i, WAIT_BUNDLES_MS);
    }
    return -1;
}

/* Everything that the current bundle had on the device is made again, and tried. */
static br_status rebuild(br_server *server, int32_t device, br_error *error)
{
    br_loaded *loaded = server->state.current;
    br_backend *backend = server->devices.items[device].backend;
    if (!encoders_close(server, loaded, device))
        return br_fail(error, BR_EDEVICE, "a pass on it has not come back");
    br_loaded_drop(loaded, device);
    br_status status = BR_OK;
    if (backend->table->recover != NULL) status = backend->table->recover(backend, error);
    if (status == BR_OK) status = br_loaded_restore(loaded, device, error);
    if (status == BR_OK) status = encoders_open(server, loaded, device, error);
    if (status == BR_OK) return BR_OK;
    if (encoders_close(server, loaded, device)) br_loaded_drop(loaded, device);
    return status;
}

void recovery_try(br_server *server, int32_t device)
{
    br_error error = {0};
    const char *name = server->devices.items[device].backend->device;
    const br_status status = rebuild(server, device, &error);
    if (status == BR_OK) {
        BR_LOG(server->log, BR_LOG_INFO, "device_readmitted", BR_I64("index", device),
               BR_STR("device", name));
        br_metrics_add(&server->metrics, BR_COUNTER_devices_readmitted, 1);
    } else {
        BR_LOG(server->log, BR_LOG_ERROR, "device_still_lost", BR_I64("index", device),
               BR_STR("device", name), BR_STR("reason", error.text));
    }
    br_lock(&server->state.lock);
    uint64_t *wait_ms = &server->recoveries[device].wait_ms;
    *wait_ms = 2 * *wait_ms < WAIT_MOST_MS ? 2 * *wait_ms : WAIT_MOST_MS;
    server->recoveries[device].due_ns = 0;
    if (status != BR_OK) schedule(server, device, *wait_ms);
    br_unlock(&server->state.lock);
    if (status == BR_OK) br_workers_readmit(server->workers, device);
}
