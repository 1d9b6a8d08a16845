/* state.c - see state.h. */
#include "state.h"

#include "core/clock.h"
#include "core/thread.h"

void state_init(service_state *state, const br_log *log, int64_t drain_timeout_ms)
{
    *state = (service_state){
        .log = log,
        .drain_timeout_ns = (uint64_t)drain_timeout_ms * (uint64_t)BR_NS_PER_MS,
    };
    br_mutex_init(&state->lock);
    br_cond_init(&state->changed);
}

void state_deinit(service_state *state)
{
    policy_defaults_release(state->defaults);
    br_cond_destroy(&state->changed);
    br_mutex_destroy(&state->lock);
}

bool state_pin(service_state *state, bundle_pin *out, bool counted, const char **why)
{
    br_lock(&state->lock);
    const service_phase phase = state->phase;
    if (phase == PHASE_READY) {
        *out = (bundle_pin){.loaded = state->current, .defaults = state->defaults, .counted = counted};
        br_loaded_retain(out->loaded);
        policy_defaults_retain(out->defaults);
        if (counted) state->calls_open++;
    }
    br_unlock(&state->lock);
    *why = phase == PHASE_LOADING ? "no bundle is loaded yet" : "the service is draining";
    return phase == PHASE_READY;
}

void state_unpin(service_state *state, const bundle_pin *pin)
{
    if (pin->loaded == NULL) return;
    const bool last = br_loaded_release(pin->loaded);
    policy_defaults_release(pin->defaults);
    if (!last && !pin->counted) return;
    br_lock(&state->lock);
    if (last) {
        *br_loaded_link(pin->loaded) = state->retired;
        state->retired = pin->loaded;
    }
    if (pin->counted) state->calls_open--;
    /* The keeper counts calls only while it waits for the last one: it is not woken for each. */
    if (last || (state->calls_open == 0 && state->stop_wanted)) br_cond_signal(&state->changed);
    br_unlock(&state->lock);
}

service_phase state_phase(service_state *state, int64_t *calls_open)
{
    br_lock(&state->lock);
    const service_phase phase = state->phase;
    if (calls_open != NULL) *calls_open = state->calls_open;
    br_unlock(&state->lock);
    return phase;
}

/* Lock held. */
static void drain(service_state *state)
{
    if (state->phase == PHASE_DRAINING) return;
    state->phase = PHASE_DRAINING;
    state->drain_until_ns = br_clock_now_ns() + state->drain_timeout_ns;
    BR_LOG(state->log, BR_LOG_INFO, "draining", BR_I64("in_flight", state->calls_open),
           BR_I64("timeout_ms", state->drain_timeout_ns / BR_NS_PER_MS));
}

void state_drain(service_state *state)
{
    br_lock(&state->lock);
    drain(state);
    br_unlock(&state->lock);
}

/* Lock held. */
static void stop(service_state *state)
{
    state->stop_wanted = true;
    drain(state);
    br_cond_signal(&state->changed);
}

void state_stop(service_state *state)
{
    br_lock(&state->lock);
    if (state->stop_wanted) state->stop_hurried = true;
    if (state->stop_hurried || state->current == NULL) atomic_store(&state->stop_loading, true);
    stop(state);
    br_unlock(&state->lock);
}

void state_stop_without_device(service_state *state)
{
    br_lock(&state->lock);
    state->device_lost = true;
    stop(state);
    br_unlock(&state->lock);
}

void state_close(service_state *state)
{
    br_lock(&state->lock);
    state->stop_wanted = true;
    state->phase = PHASE_DRAINING;
    br_unlock(&state->lock);
}

void state_wait_for_calls(service_state *state)
{
    br_lock(&state->lock);
    while (state->calls_open > 0) br_cond_wait(&state->changed, &state->lock);
    br_unlock(&state->lock);
}

void state_switch(service_state *state, br_loaded *loaded)
{
    br_lock(&state->lock);
    const bundle_pin old = {.loaded = state->current}; /* the service's own reference; calls may hold more */
    state->current = loaded;
    if (state->phase == PHASE_LOADING) state->phase = PHASE_READY;
    br_unlock(&state->lock);
    state_unpin(state, &old);
}

policy_defaults *state_defaults(service_state *state)
{
    br_lock(&state->lock);
    policy_defaults *defaults = state->defaults;
    policy_defaults_retain(defaults);
    br_unlock(&state->lock);
    return defaults;
}

bool state_set_defaults(service_state *state, const br_loaded *loaded, policy_defaults *defaults)
{
    br_lock(&state->lock);
    const bool same_bundle = state->current == loaded;
    policy_defaults *unused = same_bundle ? state->defaults : defaults;
    if (same_bundle) state->defaults = defaults;
    br_unlock(&state->lock);
    policy_defaults_release(unused);
    return same_bundle;
}
