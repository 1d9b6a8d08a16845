/* encoders.c - see encoders.h. */
#include "encoders.h"

#include "workers/workers.h"

typedef struct opening {
    br_loaded *loaded;
    br_status status;
    br_error *error;
} opening;

static void open_errand(void *context, int32_t worker)
{
    opening *o = context;
    o->status = br_loaded_open(o->loaded, worker, o->error);
}

static void close_errand(void *context, int32_t worker)
{
    br_loaded_close(context, worker);
}

br_status encoders_open(br_server *server, br_loaded *loaded, int32_t device, br_error *error)
{
    const br_device *d = &server->devices.items[device];
    opening o = {.loaded = loaded, .status = BR_OK, .error = error};
    for (int32_t i = 0; o.status == BR_OK && i < d->workers; i++)
        if (!br_workers_run_on(server->workers, d->first_worker + i, open_errand, &o))
            o.status = br_fail(error, BR_EDEVICE, "a pass on device %d has not come back", (int)device);
    return o.status;
}

bool encoders_close(br_server *server, br_loaded *loaded, int32_t device)
{
    const br_device *d = &server->devices.items[device];
    bool closed = true;
    for (int32_t i = 0; i < d->workers; i++)
        closed &= br_workers_run_on(server->workers, d->first_worker + i, close_errand, loaded);
    return closed;
}

bool encoders_free_bundle(br_server *server, br_loaded *loaded)
{
    if (loaded == NULL) return true;
    bool closed = true;
    for (int32_t i = 0; server->workers != NULL && i < server->devices.count; i++) {
        if (!br_loaded_is_on(loaded, i)) continue;
        const bool mine = encoders_close(server, loaded, i);
        if (mine) br_loaded_drop(loaded, i);
        closed &= mine;
    }
    if (!closed) {
        *br_loaded_link(loaded) = server->kept;
        server->kept = loaded;
        return false;
    }
    br_loaded_destroy(loaded);
    server->loaded_count--;
    return true;
}

bool encoders_stuck(const br_server *server)
{
    return server->workers != NULL && br_workers_stuck(server->workers) != 0;
}
