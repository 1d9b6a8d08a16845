/* keeper.c - see keeper.h. */
#include "keeper.h"

#include <string.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "core/clock.h"
#include "core/thread.h"
#include "encoders.h"
#include "ranks.h"
#include "recovery.h"
#include "reload.h"

enum {
    LINGER_MS =
        20, /* nng calls a reply sent once the connection has it; the system gets this long to take it */
    STUCK_MS = 20, /* between looks at a device that hangs */
};

/* One thing to do. */
typedef struct task {
    enum { NOTHING, FREE_BUNDLE, RELOAD, REFUSE_RELOAD, RECOVER, LOOK_FOR_RANK_0 } kind;
    br_loaded *unused; /* FREE_BUNDLE */
    br_call *call;     /* RELOAD, REFUSE_RELOAD: the admin call that asked; NULL: none */
    int32_t device;    /* RECOVER */
} task;

void keeper_ask(br_server *server)
{
    br_lock(&server->state.lock);
    server->reload_wanted = true;
    br_cond_signal(&server->state.changed);
    br_unlock(&server->state.lock);
}

static void refuse_reload(br_call *call)
{
    br_call_refuse(call, BR_CODE_NOT_READY, "the service is shutting down");
}

void keeper_ask_for(br_server *server, br_call *call)
{
    call->next = NULL;
    br_lock(&server->state.lock);
    const bool stopping = server->state.stop_wanted;
    if (!stopping) {
        br_call **last = &server->reloads;
        while (*last != NULL) last = &(*last)->next;
        *last = call;
        br_cond_signal(&server->state.changed);
    }
    br_unlock(&server->state.lock);
    if (stopping) refuse_reload(call);
}

/* The folder that is asked for; if none is, that of the current bundle. */
static br_status choose_folder(const br_server *server, char out[BR_COMM_FOLDER_BYTES], br_str asked,
                               br_error *error)
{
    const br_loaded *current = server->state.current;
    const char *present = current != NULL ? br_loaded_folder(current) : server->config->bundle;
    const br_str chosen = asked.size > 0 ? asked : br_str_from(present);
    if (chosen.size >= BR_COMM_FOLDER_BYTES || memchr(chosen.data, '\0', chosen.size) != NULL)
        return br_fail(error, BR_EINVAL, "bundle: not the name of a folder");
    memcpy(out, chosen.data, chosen.size);
    out[chosen.size] = '\0';
    return BR_OK;
}

static void reply_loaded(br_call *call, const br_bundle *bundle)
{
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

static void reply_failed(br_call *call, br_status status, const char *why)
{
    const bool ours = status == BR_ENOMEM || status == BR_EDEVICE || status == BR_EINTERNAL;
    br_call_refuse(call, ours ? BR_CODE_INTERNAL : BR_CODE_BAD_REQUEST, why);
}

/* `call`: the admin call that asked, or NULL. */
static void reload(br_server *server, br_call *call, br_str asked)
{
    char folder[BR_COMM_FOLDER_BYTES];
    br_error error = {0};
    br_status status = choose_folder(server, folder, asked, &error);
    if (status == BR_OK) status = reload_bundle(server, folder, &error);
    br_metrics_add(&server->metrics, status == BR_OK ? BR_COUNTER_reloads : BR_COUNTER_reloads_failed, 1);
    if (call == NULL) return;
    if (status == BR_ECLOSED)
        refuse_reload(call);
    else if (status == BR_OK)
        reply_loaded(call, br_loaded_bundle(server->state.current));
    else
        reply_failed(call, status, error.text);
}

static void look_for_rank_0(br_server *server)
{
    br_comm_call called;
    if (ranks_called(server, &called)) reload(server, NULL, br_str_from(called.folder));
}

static void free_bundle(br_server *server, br_loaded *loaded)
{
    char hash[sizeof br_loaded_bundle(loaded)->hash];
    memcpy(hash, br_loaded_bundle(loaded)->hash, sizeof hash);
    if (encoders_free_bundle(server, loaded))
        BR_LOG(server->log, BR_LOG_INFO, "bundle_freed", BR_STR("hash", hash));
}

/* Takes a bundle off the list of those without a pin; or, when no worker is stuck any more, off the list of
 * those that were kept because one was. NULL: there is none. State's lock held. */
static br_loaded *next_to_free(br_server *server)
{
    br_loaded **retired = &server->state.retired;
    br_loaded **list = *retired != NULL || encoders_stuck(server) ? retired : &server->kept;
    br_loaded *first = *list;
    if (first != NULL) *list = *br_loaded_link(first);
    return first;
}

/* Chooses what to do next, and takes it off its list. State's lock held. */
static task next_task(br_server *server)
{
    br_loaded *unused = next_to_free(server);
    if (unused != NULL) return (task){.kind = FREE_BUNDLE, .unused = unused};

    const bool stopping = server->state.stop_wanted;
    br_call *call = server->reloads;
    if (call != NULL) {
        server->reloads = call->next;
        return (task){.kind = stopping ? REFUSE_RELOAD : RELOAD, .call = call};
    }
    if (stopping) return (task){.kind = NOTHING};

    if (server->reload_wanted) {
        server->reload_wanted = false;
        return (task){.kind = RELOAD};
    }
    const int32_t device = recovery_due(server);
    if (device >= 0) return (task){.kind = RECOVER, .device = device};
    if (ranks_next_ns(server) <= br_clock_now_ns()) return (task){.kind = LOOK_FOR_RANK_0};
    return (task){.kind = NOTHING};
}

/* Without the lock. */
static void perform(br_server *server, const task *t)
{
    switch (t->kind) {
    case FREE_BUNDLE:
        free_bundle(server, t->unused);
        return;
    case RELOAD:
        reload(server, t->call, t->call != NULL ? t->call->request.bundle : (br_str){NULL, 0});
        return;
    case REFUSE_RELOAD:
        refuse_reload(t->call);
        return;
    case RECOVER:
        recovery_try(server, t->device);
        return;
    case LOOK_FOR_RANK_0:
        look_for_rank_0(server);
        return;
    case NOTHING:
        return;
    }
}

/* Waits until something changes, a device is to be tried again, it is time to look for a call of rank 0, or,
 * while stopping, the drain ends. State's lock held. */
static void wait_for_change(br_server *server)
{
    service_state *state = &server->state;
    const uint64_t device_ns = recovery_next_ns(server);
    const uint64_t ranks_ns = ranks_next_ns(server);
    const uint64_t due_ns = device_ns < ranks_ns ? device_ns : ranks_ns;
    br_cond_wait_until(&state->changed, &state->lock, state->stop_wanted ? state->drain_until_ns : due_ns);
}

/* State's lock held. */
static bool may_leave(const service_state *state)
{
    return state->stop_wanted && (state->calls_open == 0 || br_clock_now_ns() >= state->drain_until_ns);
}

br_status keeper_run(br_server *server)
{
    service_state *state = &server->state;
    br_lock(&state->lock);
    while (!state->stop_hurried) {
        const task next = next_task(server);
        if (next.kind != NOTHING) {
            br_unlock(&state->lock);
            perform(server, &next);
            br_lock(&state->lock);
        } else if (may_leave(state)) {
            break;
        } else {
            wait_for_change(server);
        }
    }
    const int64_t left = state->calls_open;
    const bool lost = state->device_lost;
    br_unlock(&state->lock);
    nng_msleep(LINGER_MS);
    BR_LOG(server->log, left == 0 ? BR_LOG_INFO : BR_LOG_WARN, "stopped", BR_I64("unanswered", left));
    return lost ? BR_EDEVICE : BR_OK;
}

void keeper_end(br_server *server)
{
    while (server->reloads != NULL) {
        br_call *call = server->reloads;
        server->reloads = call->next;
        refuse_reload(call);
    }
    while (encoders_stuck(server)) nng_msleep(STUCK_MS);
    br_loaded *current = server->state.current;
    if (current != NULL && br_loaded_release(current)) (void)encoders_free_bundle(server, current);
    br_loaded *unused;
    while ((unused = next_to_free(server)) != NULL) (void)encoders_free_bundle(server, unused);
}
