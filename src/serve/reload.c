/* reload.c - see reload.h. */
#include "reload.h"

#include "core/clock.h"
#include "encoders.h"
#include "ranks.h"
#include "recovery.h"
#include "score_cache.h"
#include "scoring.h"

static br_status open_everywhere(br_server *server, br_loaded *loaded, uint32_t without, br_error *error)
{
    br_status status = BR_OK;
    for (int32_t i = 0; status == BR_OK && i < server->devices.count; i++)
        if ((without >> i & 1) == 0) status = encoders_open(server, loaded, i, error);
    return status;
}

static br_status make_workers(br_server *server, const br_loaded *loaded, br_error *error)
{
    br_devices_fit(&server->devices, (int32_t)server->config->batch_tokens,
                   br_loaded_bundle(loaded)->router.max_tokens);
    const br_workers_options options = {
        .devices = &server->devices,
        .seqs_max = (int32_t)server->config->batch_seqs,
        .queue_max = (int32_t)server->config->queue_max,
        .pass_timeout_ms = server->config->pass_timeout_ms,
        .feed = scoring_feed,
        .feed_context = server->tokenizer_queue,
        .lost = recovery_lose_device,
        .lost_context = server,
        .metrics = &server->metrics,
        .log = server->log,
    };
    const br_status status = br_workers_create(&server->workers, &options);
    if (status == BR_OK) return BR_OK;
    return br_fail(error, status, "cannot start %d workers", (int)server->devices.worker_count);
}

/* The admin's defaults stay in force across a reload; a bundle that does not fit them is refused. */
static br_status check_defaults(br_server *server, const br_loaded *loaded, br_error *error)
{
    policy_defaults *defaults = state_defaults(&server->state);
    if (defaults == NULL) return BR_OK;
    const br_policy_spec merged = policy_defaults_apply(defaults, loaded);
    br_policy resolved;
    br_error why = {0};
    br_status status = br_policy_resolve(&resolved, &br_loaded_bundle(loaded)->router, &merged, &why);
    policy_defaults_release(defaults);
    if (status == BR_OK) return BR_OK;
    return br_fail(error, status, "the bundle does not fit the policy of set_defaults: %.400s", why.text);
}

/* The policy of router.json decides by itself; one of kind budget may leave max_cost to each query. Where
 * there is no policy at all, each request brings its own. */
static br_status check_policy(const br_loaded *loaded, br_error *error)
{
    const br_router *router = &br_loaded_bundle(loaded)->router;
    br_policy_spec policy = router->policy;
    if (policy.has == 0) return BR_OK;
    if (policy.kind == BR_POLICY_BUDGET && (policy.has & BR_HAS_MAX_COST) == 0) {
        policy.has |= BR_HAS_MAX_COST;
        policy.max_cost = 0;
    }
    br_policy resolved;
    br_error why = {0};
    const br_status status = br_policy_resolve(&resolved, router, &policy, &why);
    if (status == BR_OK) return BR_OK;
    return br_fail(error, status, "%s/router.json: policy: it cannot decide: %.400s",
                   br_loaded_folder(loaded), why.text);
}

/* Makes a bundle ready, up to the switch. */
static br_status make_ready(br_server *server, br_loaded **out, const br_loaded_options *options,
                            br_error *error)
{
    br_status status = br_loaded_create(out, options, error);
    if (status != BR_OK) return status;
    server->loaded_count++;
    if (server->workers == NULL) status = make_workers(server, *out, error);
    if (status == BR_OK) status = check_policy(*out, error);
    if (status == BR_OK) status = check_defaults(server, *out, error);
    if (status == BR_OK) status = open_everywhere(server, *out, options->without, error);
    return status;
}

static br_status prepare(br_server *server, br_loaded **out, const char *folder, bool with_ranks,
                         br_error *error)
{
    *out = NULL;
    br_loaded_options options = {
        .folder = folder,
        .devices = &server->devices,
        .without = server->workers != NULL ? br_workers_out(server->workers) : 0,
        .seqs_max = (int32_t)server->config->batch_seqs,
        .stop = &server->state.stop_loading,
    };
    br_status status =
        with_ranks ? ranks_meet(server, &options.ranks, folder, options.without, error) : BR_OK;
    if (status == BR_OK) status = make_ready(server, out, &options, error);
    if (options.ranks != NULL && *out != NULL) status = ranks_confirm(options.ranks, status, error);
    br_comm_close(options.ranks);
    if (with_ranks) ranks_leave(server);
    if (status == BR_OK) return BR_OK;
    (void)encoders_free_bundle(server, *out);
    *out = NULL;
    return status;
}

/* A rank that starts while the others serve cannot meet them. It may load its first bundle alone. */
static br_status prepare_alone_if_need_be(br_server *server, br_loaded **out, const char *folder,
                                          br_error *error)
{
    const bool has_fleet = server->config->ranks > 1;
    br_status status = prepare(server, out, folder, has_fleet, error);
    if (status == BR_OK || status == BR_ECLOSED || !has_fleet || server->state.current != NULL) return status;
    BR_LOG(server->log, BR_LOG_WARN, "loading_alone", BR_I64("rank", server->config->rank),
           BR_STR("reason", error->text));
    *error = (br_error){0};
    return prepare(server, out, folder, false, error);
}

br_status reload_bundle(br_server *server, const char *folder, br_error *error)
{
    const uint64_t start_ns = br_clock_now_ns();
    br_error why = {0};
    br_loaded *loaded;
    const br_status status = prepare_alone_if_need_be(server, &loaded, folder, &why);
    if (status == BR_ECLOSED) {
        BR_LOG(server->log, BR_LOG_INFO, "loading_stopped", BR_STR("folder", folder));
        return br_fail(error, status, "%s", why.text);
    }
    if (status != BR_OK) {
        BR_LOG(server->log, BR_LOG_ERROR, "bundle_refused", BR_STR("folder", folder),
               BR_STR("reason", why.text));
        return br_fail(error, status, "%s", why.text);
    }
    state_switch(&server->state, loaded);
    /* Scores of the old bundle would only take room. */
    if (server->cache != NULL) score_cache_clear(server->cache);
    const br_bundle *bundle = br_loaded_bundle(loaded); /* stays: only this thread switches */
    BR_LOG(
        server->log, BR_LOG_INFO, "bundle_loaded", BR_STR("name", bundle->router.name),
        BR_STR("hash", bundle->hash), BR_STR("folder", folder),
        BR_I64("ms", (br_clock_now_ns() - start_ns) / BR_NS_PER_MS),
        BR_I64("candidates", bundle->router.candidate_count), BR_I64("max_tokens", bundle->router.max_tokens),
        BR_I64("batch_tokens", br_devices_tokens_max(&server->devices)),
        BR_I64("weights_bytes", br_loaded_weights_bytes(loaded)),
        BR_I64("encoders_bytes", br_loaded_encoders_bytes(loaded)), BR_I64("devices", server->devices.count),
        BR_I64("handed_out", br_loaded_handed_out(loaded)), BR_I64("workers", server->devices.worker_count));
    return BR_OK;
}
