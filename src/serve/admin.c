/* admin.c - see admin.h. */
#include "admin.h"

#include "keeper.h"

static void answer_ok(br_call *call)
{
    const br_reply reply = {.id = call->request.id, .ok = true, .op = call->request.op};
    br_call_reply(call, &reply);
}

/* Makes the defaults the service's, if the call's bundle can be served with them. Moves the reference in. */
static br_code adopt(br_call *call, policy_defaults *defaults, br_error *error)
{
    const br_router *router = &br_loaded_bundle(call->pin.loaded)->router;
    const br_policy_spec merged = policy_defaults_apply(defaults, call->pin.loaded);
    br_policy resolved;
    if (br_policy_resolve(&resolved, router, &merged, error) != BR_OK) {
        policy_defaults_release(defaults);
        return BR_CODE_BAD_REQUEST;
    }
    if (!state_set_defaults(&call->server->state, call->pin.loaded, defaults)) {
        const br_status status = br_fail(error, BR_EBUSY, "another bundle was loaded meanwhile, try again");
        (void)status;
        return BR_CODE_NOT_READY;
    }
    BR_LOG(call->server->log, BR_LOG_INFO, "defaults_set", BR_STR("kind", br_policy_kind_name(merged.kind)));
    return BR_CODE_NONE;
}

/* Replaces the overrides whole; an empty policy goes back to the bundle's own. */
static void set_defaults(br_call *call)
{
    if (!br_call_pin(call, false)) return;
    policy_defaults *defaults = policy_defaults_create(&call->request.policy);
    if (defaults == NULL) {
        br_call_refuse(call, BR_CODE_INTERNAL, "out of memory");
        return;
    }
    br_error error = {0};
    const br_code code = adopt(call, defaults, &error);
    if (code == BR_CODE_NONE)
        answer_ok(call);
    else
        br_call_refuse(call, code, error.text);
}

static br_stat stat_of(const char *name, uint64_t count)
{
    return (br_stat){.name = br_str_from(name), .count = count};
}

/* The present state, then every counter. */
static void answer_stats(br_call *call)
{
    enum { GAUGES = 4 };
    br_server *server = call->server;
    const service_phase phase = state_phase(&server->state, NULL);
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

void admin_answer(br_call *call)
{
    br_server *server = call->server;
    switch (call->request.op) {
    case BR_OP_RELOAD:
        keeper_ask_for(server, call);
        return;
    case BR_OP_SET_DEFAULTS:
        set_defaults(call);
        return;
    case BR_OP_STATS:
        answer_stats(call);
        return;
    case BR_OP_DRAIN:
        state_drain(&server->state);
        answer_ok(call);
        return;
    case BR_OP_SHUTDOWN:
        answer_ok(call);
        state_stop(&server->state);
        return;
    default:
        br_call_refuse(call, BR_CODE_UNSUPPORTED, "op: not known here");
        return;
    }
}
