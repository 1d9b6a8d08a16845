/* server.c - life and death of the service, and its keeper. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "config_devices.h"
#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"
#include "service.h"

/* nng says that a reply was sent when it was handed to the connection; the system gets this long to take it. */
enum { LINGER_MS = 20 };

bool br_server_pin(br_server *server, br_loaded **loaded, br_defaults **defaults, bool count,
                   const char **why)
{
    br_lock(&server->state_lock);
    const br_phase phase = server->phase;
    if (phase == PHASE_READY) {
        *loaded = server->current;
        *defaults = server->defaults;
        br_loaded_retain(*loaded);
        if (*defaults != NULL) atomic_fetch_add_explicit(&(*defaults)->references, 1, memory_order_relaxed);
        if (count) server->calls_open++;
    }
    br_unlock(&server->state_lock);
    *why = phase == PHASE_LOADING ? "no bundle is loaded yet" : "the service is draining";
    return phase == PHASE_READY;
}

void br_server_unpin(br_server *server, br_loaded *loaded, br_defaults *defaults, bool counted)
{
    const bool last = br_loaded_release(loaded);
    br_defaults_release(defaults);
    if (!last && !counted) return;
    br_lock(&server->state_lock);
    if (last) {
        *br_loaded_link(loaded) = server->retired;
        server->retired = loaded;
    }
    if (counted) server->calls_open--;
    /* The keeper counts requests only while it waits for the last of them: do not wake it for each. */
    if (last || (server->calls_open == 0 && server->stop_wanted)) br_cond_signal(&server->state_changed);
    br_unlock(&server->state_lock);
}

/* At once, not when the keeper comes to it: that may be loading a bundle. State lock held. */
static void drain(br_server *server)
{
    if (server->phase == PHASE_DRAINING) return;
    server->phase = PHASE_DRAINING;
    server->drain_until_ns =
        br_clock_now_ns() + (uint64_t)server->config->drain_timeout_ms * (uint64_t)BR_NS_PER_MS;
    BR_LOG(server->log, BR_LOG_INFO, "draining", BR_I64("in_flight", server->calls_open),
           BR_I64("timeout_ms", server->config->drain_timeout_ms));
}

void br_server_reload(br_server *server)
{
    br_lock(&server->state_lock);
    server->reload_wanted = true;
    br_cond_signal(&server->state_changed);
    br_unlock(&server->state_lock);
}

void br_server_drain(br_server *server)
{
    br_lock(&server->state_lock);
    drain(server);
    br_unlock(&server->state_lock);
}

void br_server_stop(br_server *server)
{
    br_lock(&server->state_lock);
    if (server->stop_wanted) server->hurry = true;
    server->stop_wanted = true;
    drain(server);
    br_cond_signal(&server->state_changed);
    br_unlock(&server->state_lock);
}

/* The last device does not come back within the process: what is in flight is answered, with errors where it has
 * to be, and whoever watches over the process starts it again. */
static void end_without_device(br_server *server)
{
    br_lock(&server->state_lock);
    server->device_lost = true;
    server->stop_wanted = true;
    drain(server);
    br_cond_signal(&server->state_changed);
    br_unlock(&server->state_lock);
}

void br_server_lose_device(void *context, int32_t device, bool last)
{
    br_server *server = context;
    BR_LOG(server->log, BR_LOG_ERROR, "device_lost", BR_I64("index", device),
           BR_STR("device", server->devices.items[device].backend->device), BR_I64("last", last ? 1 : 0));
    br_metrics_add(&server->metrics, BR_COUNTER_devices_lost, 1);
    if (last)
        end_without_device(server);
    else
        br_recovery_later(server, device);
}

static void refuse_reload(br_call *call)
{
    br_call_refuse(call, BR_CODE_NOT_READY, "the service is shutting down");
}

void br_server_ask_reload(br_server *server, br_call *call)
{
    call->next = NULL;
    br_lock(&server->state_lock);
    const bool stopping = server->stop_wanted;
    if (!stopping) {
        br_call **last = &server->reloads;
        while (*last != NULL) last = &(*last)->next;
        *last = call;
        br_cond_signal(&server->state_changed);
    }
    br_unlock(&server->state_lock);
    if (stopping) refuse_reload(call);
}

/* One reload, of the present folder where none is asked for; `call` is the admin's that asked, or NULL. */
static void reload(br_server *server, br_call *call, br_str asked)
{
    char folder[BR_COMM_FOLDER_BYTES];
    const char *current =
        server->current != NULL ? br_loaded_folder(server->current) : server->config->bundle;
    const br_str chosen = asked.size > 0 ? asked : br_str_from(current);
    br_error error = {0};
    br_status status;
    if (chosen.size >= sizeof folder || memchr(chosen.data, '\0', chosen.size) != NULL) {
        status = br_fail(&error, BR_EINVAL, "bundle: not the name of a folder");
    } else {
        memcpy(folder, chosen.data, chosen.size);
        folder[chosen.size] = '\0';
        status = br_reload(server, folder, &error);
    }
    br_metrics_add(&server->metrics, status == BR_OK ? BR_COUNTER_reloads : BR_COUNTER_reloads_failed, 1);
    if (call == NULL) return;
    if (status != BR_OK) {
        const bool theirs = status != BR_ENOMEM && status != BR_EDEVICE && status != BR_EINTERNAL;
        br_call_refuse(call, theirs ? BR_CODE_BAD_REQUEST : BR_CODE_INTERNAL, error.text);
        return;
    }
    /* Only this thread switches bundles, so the current one stays while we look at it. */
    const br_bundle *bundle = br_loaded_bundle(server->current);
    const br_reply reply = {
        .id = call->request.id,
        .ok = true,
        .op = BR_OP_RELOAD,
        .has_bundle = true,
        .bundle_name = br_str_from(bundle->router.name),
        .bundle_hash = br_str_from(bundle->hash),
    };
    br_call_reply(call, &reply);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Waits for news, until a device is due to be tried again or rank 0 may have called, or while stopping until the
 * drain's end. State lock held. */
static void wait_for_news(br_server *server)
{
    const uint64_t until_ns = server->stop_wanted
                                  ? server->drain_until_ns
                                  : earlier(br_recovery_next_ns(server), br_ranks_next_ns(server));
    br_cond_wait_until(&server->state_changed, &server->state_lock, until_ns);
}

/* Takes out what nobody uses any more, and when no worker is stuck what one had; NULL: nothing. State lock held. */
static br_loaded *next_to_free(br_server *server)
{
    br_loaded **list = server->retired != NULL || br_server_stuck(server) ? &server->retired : &server->kept;
    br_loaded *first = *list;
    if (first != NULL) *list = *br_loaded_link(first);
    return first;
}

static void free_loaded(br_server *server, br_loaded *loaded)
{
    char hash[sizeof br_loaded_bundle(loaded)->hash];
    memcpy(hash, br_loaded_bundle(loaded)->hash, sizeof hash);
    if (br_reload_collect(server, loaded))
        BR_LOG(server->log, BR_LOG_INFO, "bundle_freed", BR_STR("hash", hash));
}

/* Does one thing that is due, without the lock meanwhile. False when nothing is. State lock held. */
static bool do_one(br_server *server)
{
    br_loaded *unused = next_to_free(server);
    br_call *call = server->reloads;
    const int32_t device = server->stop_wanted ? -1 : br_recovery_due(server);
    if (unused != NULL) {
        br_unlock(&server->state_lock);
        free_loaded(server, unused);
    } else if (call != NULL || (server->reload_wanted && !server->stop_wanted)) {
        if (call != NULL)
            server->reloads = call->next;
        else
            server->reload_wanted = false;
        const bool stopping = server->stop_wanted;
        br_unlock(&server->state_lock);
        if (stopping)
            refuse_reload(call);
        else
            reload(server, call, call != NULL ? call->request.bundle : (br_str){NULL, 0});
    } else if (device >= 0) {
        br_unlock(&server->state_lock);
        br_recovery_try(server, device);
    } else if (!server->stop_wanted && br_ranks_next_ns(server) <= br_clock_now_ns()) {
        br_unlock(&server->state_lock);
        br_comm_call called;
        if (br_ranks_called(server, &called)) reload(server, NULL, br_str_from(called.folder));
    } else {
        return false;
    }
    br_lock(&server->state_lock);
    return true;
}

br_status br_server_run(br_server *server)
{
    br_lock(&server->state_lock);
    for (;;) {
        if (server->hurry) break;
        if (do_one(server)) continue;
        if (server->stop_wanted && (server->calls_open == 0 || br_clock_now_ns() >= server->drain_until_ns))
            break;
        wait_for_news(server);
    }
    const int64_t left = server->calls_open;
    const bool lost = server->device_lost;
    br_unlock(&server->state_lock);
    nng_msleep(LINGER_MS);
    BR_LOG(server->log, left == 0 ? BR_LOG_INFO : BR_LOG_WARN, "stopped", BR_I64("unanswered", left));
    return lost ? BR_EDEVICE : BR_OK;
}

static int32_t accelerators(const br_devices *devices)
{
    int32_t count = 0;
    for (int32_t i = 0; i < devices->count; i++) count += devices->items[i].accelerator ? 1 : 0;
    return count;
}

/* On a CPU the encoder takes hundreds of times as long as the tokeniser; an accelerator wants a few cores' worth of
 * tokens. */
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

/* What spares the encoder work. */
static br_status make_reuse(br_server *server, br_error *error)
{
    const size_t bytes = (size_t)server->config->score_cache_mb << 20;
    br_status status = br_in_flight_create(&server->in_flight, server->config->queue_max);
    if (status == BR_OK && bytes > 0) status = br_score_cache_create(&server->cache, bytes);
    if (status == BR_OK) return BR_OK;
    return br_fail(error, status, "no memory for a score cache of %d MB",
                   (int)server->config->score_cache_mb);
}

br_status br_server_create(br_server **out, const br_config *config, const br_log *log, br_error *error)
{
    *out = NULL;
    br_server *server = calloc(1, sizeof *server);
    if (server == NULL) return br_no_memory(error, "the service");
    server->config = config;
    server->log = log;
    br_metrics_init(&server->metrics);
    br_mutex_init(&server->state_lock);
    br_cond_init(&server->state_changed);

    br_status status = open_devices(server, error);
    if (status != BR_OK) goto fail;
    status = make_reuse(server, error);
    if (status != BR_OK) goto fail;
    const int32_t threads = tokenizer_threads_for(server);
    status = tokenizer_queue_create(&server->tokenizer_queue, threads, &br_scoring_work);
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
    return server->workers != NULL && br_workers_stuck(server->workers) != 0;
}

br_status br_server_listen(br_server *server, br_error *error)
{
    return br_sockets_open(server, error);
}

br_status br_server_load(br_server *server, br_error *error)
{
    return br_reload(server, server->config->bundle, error);
}

/* Reloads that the keeper never came to: their calls would never be answered. */
static void refuse_reloads(br_server *server)
{
    while (server->reloads != NULL) {
        br_call *call = server->reloads;
        server->reloads = call->next;
        refuse_reload(call);
    }
}

static void collect_all(br_server *server)
{
    while (br_server_stuck(server)) nng_msleep(LINGER_MS);
    if (server->current != NULL && br_loaded_release(server->current))
        (void)br_reload_collect(server, server->current);
    br_loaded *loaded;
    while ((loaded = next_to_free(server)) != NULL) (void)br_reload_collect(server, loaded);
}

void br_server_destroy(br_server *server)
{
    if (server == NULL) return;
    /* Nothing new comes in; what is in flight goes its way uncomputed; then nobody holds a loaded bundle or a lock. */
    br_lock(&server->state_lock);
    server->stop_wanted = true;
    server->phase = PHASE_DRAINING;
    br_unlock(&server->state_lock);
    br_sockets_close(server);
    if (server->workers != NULL) br_workers_abandon(server->workers);
    br_lock(&server->state_lock);
    while (server->calls_open > 0) br_cond_wait(&server->state_changed, &server->state_lock);
    br_unlock(&server->state_lock);
    br_pass_watch_destroy(server->watch); /* not before: a pass that does not end may hold the last of them */
    refuse_reloads(server);
    for (int32_t i = 0; i < server->call_count; i++) br_call_destroy(server->calls[i]);
    free(server->calls);
    collect_all(server);
    /* A thread of the tokenizer queue may still be leaving br_workers_push; workers feed themselves from the tokenizer queue to the end. */
    if (server->tokenizer_queue != NULL) tokenizer_queue_stop(server->tokenizer_queue);
    br_workers_destroy(server->workers);
    tokenizer_queue_destroy(server->tokenizer_queue);
    br_devices_close(&server->devices);
    br_score_cache_destroy(server->cache);
    br_in_flight_destroy(server->in_flight);
    br_defaults_release(server->defaults);
    br_cond_destroy(&server->state_changed);
    br_mutex_destroy(&server->state_lock);
    free(server);
}
