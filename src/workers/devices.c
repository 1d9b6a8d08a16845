/* devices.c - see devices.h. */
#include "devices.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { NOOP_BATCH_TOKENS = 2816, HOST = -1 };

/* What the options ask for, before anything is opened. */
typedef struct choice {
    br_engine engine;                /* resolved, never AUTO */
    int32_t numbers[BR_DEVICES_MAX]; /* of the engine's devices, or HOST */
    int32_t count;
    int32_t hosts;
} choice;

br_status br_devices_add(br_devices *devices, br_backend *backend, int32_t workers)
{
    assert(workers >= 1);
    if (devices->count == BR_DEVICES_MAX || devices->worker_count + workers > BR_WORKERS_MAX)
        return BR_ETOOBIG;
    devices->items[devices->count] = (br_device){
        .backend = backend,
        .first_worker = devices->worker_count,
        .workers = workers,
    };
    for (int32_t i = 0; i < workers; i++) devices->device_of[devices->worker_count++] = devices->count;
    devices->count++;
    return BR_OK;
}

void br_devices_close(br_devices *devices)
{
    for (int32_t i = 0; i < devices->count; i++) br_backend_close(devices->items[i].backend);
    *devices = (br_devices){0};
}

void br_devices_fit(br_devices *devices, int32_t wanted, int32_t needed)
{
    for (int32_t i = 0; i < devices->count; i++) {
        br_device *device = &devices->items[i];
        const int32_t own = device->backend != NULL ? device->backend->batch_tokens : NOOP_BATCH_TOKENS;
        device->tokens_wanted = wanted != 0 ? wanted : own;
        device->tokens_max = device->tokens_wanted > needed ? device->tokens_wanted : needed;
    }
}

int32_t br_devices_tokens_max(const br_devices *devices)
{
    int32_t most = 0;
    for (int32_t i = 0; i < devices->count; i++)
        if (devices->items[i].tokens_max > most) most = devices->items[i].tokens_max;
    return most;
}

int32_t br_devices_tokens_min(const br_devices *devices)
{
    int32_t least = BR_BATCH_TOKENS_MAX;
    for (int32_t i = 0; i < devices->count; i++)
        if (devices->items[i].tokens_max < least) least = devices->items[i].tokens_max;
    return least;
}

static br_status refuse(const br_devices_options *options, br_error *error, const char *part, const char *why)
{
    return br_fail(error, BR_EINVAL, "devices (from %s): found \"%.100s\": %s", options->source, part, why);
}

static br_status add_number(choice *c, const br_devices_options *options, const char *part, br_error *error)
{
    char *end;
    const unsigned long number = strtoul(part, &end, 10);
    if (*part < '0' || *part > '9' || *end != '\0')
        return refuse(options, error, part,
                      "expected auto, or numbers of devices and cpu, separated by commas");
    if (c->engine != BR_ENGINE_CUDA)
        return refuse(options, error, part, "only the devices of engine cuda have numbers");
    const int32_t present = br_engine_devices(BR_ENGINE_CUDA);
    if (number >= (unsigned long)present)
        return br_fail(error, BR_EINVAL, "devices (from %s): there is no device %.20s; there are %d",
                       options->source, part, (int)present);
    for (int32_t i = 0; i < c->count; i++)
        if (c->numbers[i] == (int32_t)number)
            return refuse(options, error, part, "the device is named twice");
    c->numbers[c->count++] = (int32_t)number;
    return BR_OK;
}

static br_status add_part(choice *c, const br_devices_options *options, const char *part, br_error *error)
{
    if (c->count == BR_DEVICES_MAX)
        return br_fail(error, BR_EINVAL, "devices (from %s): more than %d are named", options->source,
                       BR_DEVICES_MAX);
    if (strcmp(part, "cpu") != 0) return add_number(c, options, part, error);
    c->numbers[c->count++] = HOST;
    c->hosts++;
    return BR_OK;
}

/* All devices of the engine. */
static void choose_all(choice *c)
{
    if (c->engine != BR_ENGINE_CUDA) {
        c->numbers[c->count++] = HOST;
        c->hosts++;
        return;
    }
    const int32_t present = br_engine_devices(BR_ENGINE_CUDA);
    for (int32_t i = 0; i < present && i < BR_DEVICES_MAX; i++) c->numbers[c->count++] = i;
    if (c->count == 0) c->numbers[c->count++] = 0; /* opening it fails, and says that there is none */
}

static br_status choose(choice *c, const br_devices_options *options, br_error *error)
{
    if (strcmp(options->list, "auto") == 0) {
        choose_all(c);
        return BR_OK;
    }
    char list[256];
    if (strlen(options->list) >= sizeof list)
        return refuse(options, error, options->list, "the list is too long");
    memcpy(list, options->list, strlen(options->list) + 1);
    br_status status = BR_OK;
    char *rest = list;
    for (char *part = strsep(&rest, ","); part != NULL && status == BR_OK; part = strsep(&rest, ","))
        status = add_part(c, options, part, error);
    return status;
}

/* Cores are shared by the host's devices; one is left to each accelerator,
 * for its launches and the tokeniser. */
static int32_t workers_for(const choice *c, const br_devices_options *options, int32_t number)
{
    if (options->workers != 0) return options->workers;
    if (number != HOST) return br_engine_streams(c->engine);
    const int32_t cores = br_engine_streams(BR_ENGINE_CPU);
    const int32_t share = (cores - (c->count - c->hosts)) / c->hosts;
    const int32_t most = BR_WORKERS_MAX / 2 / c->hosts;
    return share < 1 ? 1 : share < most ? share : most;
}

static br_status tune(br_backend *backend, const br_devices_options *options, br_error *error)
{
    if (options->gemm_cache[0] == '\0' || backend->table->tune == NULL) return BR_OK;
    return backend->table->tune(backend, options->gemm_cache, error);
}

static br_status open_one(br_devices *out, const choice *c, const br_devices_options *options, int32_t number,
                          br_error *error)
{
    const bool host = number == HOST;
    const br_engine engine = host && c->engine == BR_ENGINE_CUDA ? BR_ENGINE_CPU : c->engine;
    br_backend *backend;
    br_status status = br_backend_open(&backend, engine, options->precision, host ? 0 : number, error);
    if (status != BR_OK) return status;
    status = tune(backend, options, error);
    if (status == BR_OK) {
        status = br_devices_add(out, backend, workers_for(c, options, number));
        if (status != BR_OK)
            status = br_fail(error, BR_EINVAL, "workers: more than %d over all devices", BR_WORKERS_MAX);
    }
    if (status != BR_OK) br_backend_close(backend);
    return status;
}

static br_status check_gemm_cache(const choice *c, const br_devices_options *options, br_error *error)
{
    if (options->gemm_cache[0] == '\0' || c->engine == BR_ENGINE_CUDA) return BR_OK;
    return br_fail(error, BR_EINVAL,
                   "gemm_cache is '%s', but engine %s measures no matrix products; only cuda does",
                   options->gemm_cache, br_engine_name(c->engine));
}

br_status br_devices_open(br_devices *out, const br_devices_options *options, br_error *error)
{
    *out = (br_devices){0};
    if (options->noop) {
        if (strcmp(options->list, "auto") != 0)
            return refuse(options, error, options->list, "engine noop has no devices");
        return br_devices_add(out, NULL, options->workers != 0 ? options->workers : 1);
    }
    choice c = {.engine = br_engine_resolve(options->engine)};
    br_status status = choose(&c, options, error);
    if (status == BR_OK) status = check_gemm_cache(&c, options, error);
    for (int32_t i = 0; status == BR_OK && i < c.count; i++)
        status = open_one(out, &c, options, c.numbers[i], error);
    if (status != BR_OK) br_devices_close(out);
    return status;
}
