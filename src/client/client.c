/*
 * client.c - the client library's options, connecting and closing, and its public functions. state.h lists
 * the other parts.
 */
#include "bestroute/client.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"
#include "endpoint.h"
#include "pinger.h"
#include "request.h"
#include "state.h"
#include "tls.h"

enum {
    TIMEOUT_MS_DEFAULT = 30000,
    PROBE_MS_DEFAULT = 1000,
    RETRIES_DEFAULT = 2, /* with several urls */
    HEDGE_PERCENT_DEFAULT = 10,
};

typedef struct url_list {
    const char *const *urls;
    size_t count;
} url_list;

static url_list urls_of(const br_client_options *options)
{
    if (options->url != NULL) return (url_list){&options->url, 1};
    return (url_list){options->urls, options->url_count};
}

static br_status check_options(const br_client_options *options, br_error *error)
{
    const struct {
        const char *name;
        uint32_t value;
        uint32_t most;
    } bounds[] = {
        {"timeout_ms", options->timeout_ms, INT32_MAX}, {"connect_ms", options->connect_ms, INT32_MAX},
        {"probe_ms", options->probe_ms, INT32_MAX},     {"hedge_ms", options->hedge_ms, INT32_MAX},
        {"hedge_percent", options->hedge_percent, 100},
    };
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        if (bounds[i].value > bounds[i].most)
            return br_fail(error, BR_EINVAL, "%s is over %u", bounds[i].name, (unsigned)bounds[i].most);
    }
    if (options->url != NULL && options->url_count > 0)
        return br_fail(error, BR_EINVAL, "both url and urls are given");
    const url_list list = urls_of(options);
    if (list.count == 0) return br_fail(error, BR_EINVAL, "there is no url");
    if (list.count > BR_CLIENT_URLS_MAX)
        return br_fail(error, BR_EINVAL, "%zu urls, at most %d are allowed", list.count, BR_CLIENT_URLS_MAX);
    const bool has_tls = options->tls_ca != NULL || options->tls_cert != NULL || options->tls_name != NULL;
    for (size_t i = 0; i < list.count; i++) {
        const char *url = list.urls[i];
        if (url == NULL) return br_fail(error, BR_EINVAL, "urls[%zu] is NULL", i);
        if (has_tls && !br_url_is_tls(url))
            return br_fail(error, BR_EINVAL, "%s: tls options are for tls+tcp:// alone", url);
    }
    return BR_OK;
}

static uint32_t or_default(uint32_t given, uint32_t otherwise)
{
    return given == 0 ? otherwise : given;
}

static void take_options(br_client *client, const br_client_options *options, size_t url_count)
{
    client->timeout_ms = or_default(options->timeout_ms, TIMEOUT_MS_DEFAULT);
    client->connect_ms = or_default(options->connect_ms, client->timeout_ms);
    client->retries = or_default(options->retries, url_count > 1 ? RETRIES_DEFAULT : 0);
    client->hedge_ms = url_count > 1 ? options->hedge_ms : 0;
    client->probe_ms = or_default(options->probe_ms, PROBE_MS_DEFAULT);
    br_balancer_init(&client->balancer, url_count, (uint64_t)client->probe_ms * BR_NS_PER_MS,
                     or_default(options->hedge_percent, HEDGE_PERCENT_DEFAULT));
}

static br_status add_endpoint(br_client *client, const char *url, const br_client_options *options,
                              br_error *error)
{
    br_endpoint *endpoint = &client->endpoints[client->endpoint_count];
    endpoint->client = client;
    endpoint->index = client->endpoint_count;
    const size_t url_bytes = strlen(url) + 1;
    endpoint->url = malloc(url_bytes);
    if (endpoint->url == NULL) return br_no_memory(error, "a client");
    memcpy(endpoint->url, url, url_bytes);
    client->endpoint_count++;
    return br_endpoint_open(endpoint, options, error);
}

br_status br_client_connect(br_client **out, const br_client_options *options, br_error *error)
{
    *out = NULL;
    br_status status = check_options(options, error);
    if (status != BR_OK) return status;

    br_client *client = calloc(1, sizeof *client);
    if (client == NULL) return br_no_memory(error, "a client");
    br_client_state_init(client);
    const url_list list = urls_of(options);
    take_options(client, options, list.count);

    client->endpoints = calloc(list.count, sizeof *client->endpoints);
    if (client->endpoints == NULL) {
        status = br_no_memory(error, "a client");
        goto fail;
    }
    for (size_t i = 0; i < list.count; i++) {
        status = add_endpoint(client, list.urls[i], options, error);
        if (status != BR_OK) goto fail;
    }
    status = br_pinger_start(client, error);
    if (status != BR_OK) goto fail;
    *out = client;
    return BR_OK;

fail:
    br_client_close(client);
    return status;
}

/* The calls end first: nng must not close a socket while one of its contexts is in use. */
void br_client_close(br_client *client)
{
    if (client == NULL) return;
    br_client_end_calls(client);
    br_pinger_stop(client);
    for (size_t i = 0; i < client->endpoint_count; i++) br_endpoint_close(&client->endpoints[i]);
    br_pinger_destroy(client);
    br_client_state_deinit(client);
    free(client->endpoints);
    free(client);
}

size_t br_client_stats(br_client *client, br_client_totals *totals, br_client_endpoint *endpoints,
                       size_t endpoints_max)
{
    br_lock(&client->mutex);
    if (totals != NULL) *totals = client->totals;
    for (size_t i = 0; i < client->endpoint_count && i < endpoints_max; i++) {
        const br_balancer_member *member = &client->balancer.members[i];
        endpoints[i] = (br_client_endpoint){
            .url = client->endpoints[i].url,
            .connected = member->connected,
            .ejected = member->ejected,
            .outstanding = member->outstanding,
            .sent = member->sent,
            .answered = member->answered,
            .refused = member->refused,
            .failed = member->failed,
            .abandoned = member->abandoned,
            .ejections = member->ejections,
        };
    }
    br_unlock(&client->mutex);
    return client->endpoint_count;
}

static br_status call_service(br_client *client, br_answer **out, br_op op, const br_client_call *call,
                              const char *folder, br_error *error)
{
    *out = NULL;
    br_slot *slot;
    br_status status = br_client_enter(client, &slot, error);
    if (status == BR_ECLOSED) return status;

    br_request request;
    if (status == BR_OK) status = br_client_make_request(&request, op, call, &slot->arena, error);
    if (status == BR_OK && folder != NULL) request.bundle = br_str_from(folder);
    if (status == BR_OK) status = br_client_call_run(client, slot, out, &request, error);
    if (status == BR_OK && error != NULL)
        *error = (br_error){0}; /* an attempt failed, and a later one succeeded */
    br_client_leave(client, slot);
    return status;
}

br_status br_client_route(br_client *client, br_answer **out, const br_client_call *call, br_error *error)
{
    assert(call != NULL);
    return call_service(client, out, BR_OP_ROUTE, call, NULL, error);
}

br_status br_client_score(br_client *client, br_answer **out, const br_client_call *call, br_error *error)
{
    assert(call != NULL);
    return call_service(client, out, BR_OP_SCORE, call, NULL, error);
}

br_status br_client_info(br_client *client, br_answer **out, br_error *error)
{
    return call_service(client, out, BR_OP_INFO, NULL, NULL, error);
}

br_status br_client_ping(br_client *client, br_error *error)
{
    br_answer *answer;
    const br_status status = call_service(client, &answer, BR_OP_PING, NULL, NULL, error);
    br_answer_free(answer);
    return status;
}

br_status br_client_reload(br_client *client, br_answer **out, const char *folder, br_error *error)
{
    if (client->endpoint_count > 1) {
        if (out != NULL) *out = NULL;
        return br_fail(error, BR_EINVAL, "a reload goes to one service, not to several urls");
    }
    br_answer *answer;
    const br_status status = call_service(client, &answer, BR_OP_RELOAD, NULL, folder, error);
    if (out != NULL) {
        *out = answer;
    } else {
        br_answer_free(answer);
    }
    return status;
}
