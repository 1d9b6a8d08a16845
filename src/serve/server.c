/* server.c - see server.h. */
#include "server.h"

#include <stdlib.h>

#include "config_devices.h"
#include "core/memory.h"
#include "encoders.h"
#include "in_flight.h"
#include "keeper.h"
#include "reload.h"
#include "score_cache.h"
#include "scoring.h"
#include "sockets.h"

static int32_t accelerators(const br_devices *devices)
{
    int32_t count = 0;
    for (int32_t i = 0; i < devices->count; i++)
        count += br_device_is_accelerator(&devices->items[i]) ? 1 : 0;
    return count;
}

/* On a CPU the encoder takes hundreds of times as long as the tokeniser; an accelerator takes the tokens of a
 * few cores. */
static int32_t tokenizer_threads_for(const br_server *server)
{
    if (server->config->tokenizer_threads != 0) return (int32_t)server->config->tokenizer_threads;
    const int32_t wanted = 2 * accelerators(&server->devices);
    if (wanted == 0) return 1;
    const int32_t cores = br_engine_streams(BR_ENGINE_CPU);
    const int32_t most = cores > 2 ? cores : 2;
    return wanted < most ? wanted : most;
}

static void log_devices(const br_server *server)
{
    for (int32_t i = 0; i < server->devices.count; i++) {
        const br_device *device = &server->devices.items[i];
        if (device->backend == NULL)
            BR_LOG(server->log, BR_LOG_WARN, "noop_engine",
                   BR_STR("note", "no encoder: every quality is the same; for measuring the service only"));
        else
            BR_LOG(server->log, BR_LOG_INFO, "engine", BR_STR("name", device->backend->table->engine),
                   BR_STR("precision", br_precision_name(device->backend->precision)), BR_I64("index", i),
                   BR_STR("device", device->backend->device), BR_I64("workers", device->workers));
    }
}

static br_status open_devices(br_server *server, br_error *error)
{
    const br_devices_options options = br_config_devices(server->config);
    const br_status status = br_devices_open(&server->devices, &options, error);
    if (status == BR_OK) log_devices(server);
    return status;
}

/* What lets prompts go without an encoder pass: those in flight already, and those scored before. */
static br_status make_reuse(br_server *server, br_error *error)
{
    const size_t bytes = (size_t)server->config->score_cache_mb << 20;
    br_status status = in_flight_create(&server->in_flight, server->config->queue_max);
    if (status == BR_OK && bytes > 0) status = score_cache_create(&server->cache, bytes);
    if (status == BR_OK) return BR_OK;
    return br_no_memory(error, "a score cache of %d MB", (int)server->config->score_cache_mb);
}

br_status br_server_create(br_server **out, const br_config *config, const br_log *log, br_error *error)
{
    *out = NULL;
    br_server *server = calloc(1, sizeof *server);
    if (server == NULL) return br_no_memory(error, "the service");
    server->config = config;
    server->log = log;
    br_metrics_init(&server->metrics);
    state_init(&server->state, log, config->drain_timeout_ms);

    br_status status = open_devices(server, error);
    if (status != BR_OK) goto fail;
    status = make_reuse(server, error);
    if (status != BR_OK) goto fail;
    const int32_t threads = tokenizer_threads_for(server);
    status = tokenizer_queue_create(&server->tokenizer_queue, threads, &scoring_work);
    if (status != BR_OK) {
        status = br_fail(error, status, "cannot start %d tokenizer threads", (int)threads);
        goto fail;
    }
    *out = server;
    return BR_OK;

fail:
    br_server_destroy(server);
    return status;
}

bool br_server_stuck(const br_server *server)
{
    return encoders_stuck(server);
}

br_status br_server_listen(br_server *server, br_error *error)
{
    return sockets_open(server, error);
}

br_status br_server_check(const br_server *server, br_error *error)
{
    return sockets_check(server->config, error);
}

br_status br_server_load(br_server *server, br_error *error)
{
    return reload_bundle(server, server->config->bundle, error);
}

br_status br_server_run(br_server *server)
{
    return keeper_run(server);
}

void br_server_stop(br_server *server)
{
    state_stop(&server->state);
}

void br_server_reload(br_server *server)
{
    keeper_ask(server);
}

void br_server_drain(br_server *server)
{
    state_drain(&server->state);
}

br_status br_server_url(const br_server *server, int32_t index, char *out, size_t size)
{
    return sockets_url(server, index, out, size);
}

void br_server_destroy(br_server *server)
{
    if (server == NULL) return;
    /* No new request comes in; queries in flight are handed back, not computed; after that no call holds a
     * bundle. */
    state_close(&server->state);
    sockets_close(server);
    if (server->workers != NULL) br_workers_abandon(server->workers);
    state_wait_for_calls(&server->state);
    keeper_end(server);
    sockets_free_calls(server);
    /* A thread of the tokenizer queue may still be leaving br_workers_push; workers feed themselves from it
     * to the end. */
    if (server->tokenizer_queue != NULL) tokenizer_queue_stop(server->tokenizer_queue);
    br_workers_destroy(server->workers);
    tokenizer_queue_destroy(server->tokenizer_queue);
    br_devices_close(&server->devices);
    score_cache_destroy(server->cache);
    in_flight_destroy(server->in_flight);
    state_deinit(&server->state);
    free(server);
}
