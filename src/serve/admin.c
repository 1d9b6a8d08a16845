/* admin.c - the operations of the admin socket: reload, drain, shutdown, set_defaults, stats. */
#include <stdlib.h>

#include "core/thread.h"
#include "service.h"

static void answer_ok(br_call *call)
{
    const br_reply reply = {.id = call->request.id, .ok = true, .op = call->request.op};
    br_call_reply(call, &reply);
}

void br_defaults_release(br_defaults *defaults)
{
    if (defaults == NULL) return;
    if (atomic_fetch_sub_explicit(&defaults->references, 1, memory_order_acq_rel) != 1) return;
    br_arena_deinit(&defaults->arena);
    free(defaults);
}

/* names[count] with their bytes in the arena; NULL when memory is out. */
static const br_str *copy_names(br_arena *arena, const br_str *names, size_t count)
{
    br_str *copy = br_arena_array(arena, count, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++) {
        char *bytes = br_arena_array(arena, names[i].size + 1, 1);
        if (bytes == NULL) return NULL;
        if (names[i].size > 0) memcpy(bytes, names[i].data, names[i].size);
        copy[i] = (br_str){bytes, names[i].size};
    }
    return copy;
}

static br_defaults *make_defaults(const br_policy_spec *policy)
{
    br_defaults *defaults = calloc(1, sizeof *defaults);
    if (defaults == NULL) return NULL;
    atomic_init(&defaults->references, 1);
    br_arena_init(&defaults->arena);
    defaults->policy = *policy;
    const bool has_models = (policy->has & BR_HAS_MODELS) != 0;
    const bool has_exclude = (policy->has & BR_HAS_EXCLUDE) != 0;
    if (has_models)
        defaults->policy.models = copy_names(&defaults->arena, policy->models, policy->model_count);
    if (has_exclude)
        defaults->policy.exclude = copy_names(&defaults->arena, policy->exclude, policy->exclude_count);
    if ((!has_models || defaults->policy.models != NULL) &&
        (!has_exclude || defaults->policy.exclude != NULL))
        return defaults;
    br_defaults_release(defaults);
    return NULL;
}

/* Replaces the overrides whole; an empty policy goes back to the bundle's own. */
static void set_defaults(br_call *call)
{
    br_server *server = call->server;
    br_loaded *loaded;
    br_defaults *old;
    const char *why = "";
    if (!br_server_pin(server, &loaded, &old, false, &why)) {
        br_call_refuse(call, BR_CODE_NOT_READY, why);
        return;
    }
    br_defaults_release(old);
    old = NULL;
    br_defaults *defaults = make_defaults(&call->request.policy);
    br_error error = {0};
    br_policy resolved;
    br_policy_spec merged = br_scoring_base_policy(loaded, defaults);
    if (defaults == NULL) {
        br_call_refuse(call, BR_CODE_INTERNAL, "out of memory");
    } else if (br_policy_resolve(&resolved, &br_loaded_bundle(loaded)->router, &merged, &error) != BR_OK) {
        br_call_refuse(call, BR_CODE_BAD_REQUEST, error.text);
    } else {
        br_lock(&server->state_lock);
        const bool same_bundle = server->current == loaded;
        if (same_bundle) {
            old = server->defaults;
            server->defaults = defaults;
            defaults = NULL;
        }
        br_unlock(&server->state_lock);
        if (!same_bundle) {
            br_call_refuse(call, BR_CODE_NOT_READY, "a reload came in between, try again");
            goto done;
        }
        BR_LOG(server->log, BR_LOG_INFO, "defaults_set", BR_STR("kind", br_policy_kind_name(merged.kind)));
        answer_ok(call);
    }
done:
    br_defaults_release(defaults);
    br_server_unpin(server, loaded, old, false);
}

static br_phase phase_of(br_server *server)
{
    br_lock(&server->state_lock);
    const br_phase phase = server->phase;
    br_unlock(&server->state_lock);
    return phase;
}

static br_stat stat_of(const char *name, uint64_t count)
{
    return (br_stat){.name = br_str_from(name), .count = count};
}

/* How things stand, then every counter. */
static void answer_stats(br_call *call)
{
    enum { GAUGES = 4 };
    br_server *server = call->server;
    const br_phase phase = phase_of(server);
    br_stat stats[GAUGES + BR_COUNTER_COUNT] = {
        stat_of("ready", phase == PHASE_READY),
        stat_of("draining", phase == PHASE_DRAINING),
        stat_of("admitted", (uint64_t)atomic_load(&server->admitted)),
        stat_of("query_ns", atomic_load(&server->metrics.query_ns)),
    };
    for (br_counter i = 0; i < BR_COUNTER_COUNT; i++)
        stats[GAUGES + i] = stat_of(br_counter_name(i), br_metrics_get(&server->metrics, i));
    const br_reply reply = {
        .id = call->request.id,
        .ok = true,
        .op = BR_OP_STATS,
        .stats = stats,
        .stat_count = GAUGES + BR_COUNTER_COUNT,
    };
    br_call_reply(call, &reply);
}

void br_admin_handle(br_call *call)
{
    br_server *server = call->server;
    switch (call->request.op) {
    case BR_OP_RELOAD:
        br_server_ask_reload(server, call);
        return;
    case BR_OP_SET_DEFAULTS:
        set_defaults(call);
        return;
    case BR_OP_STATS:
        answer_stats(call);
        return;
    case BR_OP_DRAIN:
        br_server_drain(server);
        answer_ok(call);
        return;
    case BR_OP_SHUTDOWN:
        answer_ok(call);
        br_server_stop(server);
        return;
    default:
        br_call_refuse(call, BR_CODE_UNSUPPORTED, "op: not known here");
        return;
    }
}
