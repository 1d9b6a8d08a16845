/*
 * pinger.c - the thread that pings endpoints: ejected ones to readmit them, silent ones to tell a long
 * computation from a dead peer. A service answers a ping at once, however busy it is.
 *
 * It sleeps while nothing is due: no endpoint is ejected and connected, and none has requests outstanding. A client
 * with one endpoint has no such thread.
 */
#include "inside.h"

#include <string.h>

#include "core/clock.h"
#include "core/thread.h"
#include "message.h"
#include "protocol/reply.h"

/* Under the mutex. */
static uint64_t due_at(const br_client *client, size_t index)
{
    const br_endpoint *endpoint = &client->endpoints[index];
    if (endpoint->ping == NULL) return br_balancer_ping_at(&client->balancer, index);
    return endpoint->ping->done ? 0 : endpoint->ping_end_ns;
}

void br_pinger_expect(br_client *client, size_t index)
{
    if (br_balancer_ping_at(&client->balancer, index) < client->pinger_due_ns)
        br_cond_signal(&client->pinger_news);
}

static br_outcome outcome_of_reply(nng_msg *message)
{
    br_arena arena;
    br_arena_init(&arena);
    br_reply reply;
    br_outcome outcome = BR_OUTCOME_FAILED;
    if (br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), &arena, NULL) == BR_OK)
        outcome = !reply.ok && reply.code == BR_CODE_NOT_READY ? BR_OUTCOME_NOT_READY : BR_OUTCOME_ANSWERED;
    br_arena_deinit(&arena);
    return outcome;
}

static br_outcome outcome_of_ping(const br_flight *ping, bool is_done)
{
    if (!is_done) return BR_OUTCOME_FAILED;
    if (ping->failed == 0) return outcome_of_reply(ping->reply);
    if (ping->failed == NNG_ECONNRESET) return BR_OUTCOME_LOST;
    return ping->failed == NNG_ETIMEDOUT ? BR_OUTCOME_UNSENT : BR_OUTCOME_ABANDONED;
}

static void start_ping(br_client *client, br_endpoint *endpoint)
{
    const br_request request = {.op = BR_OP_PING};
    nng_msg *message;
    br_status status = br_client_pack(&message, &request, NULL);
    if (status == BR_OK)
        status = br_flight_start(&endpoint->ping, endpoint, message, &client->pinger_news, NULL);
    endpoint->ping_end_ns = br_clock_now_ns() + (uint64_t)client->probe_ms * BR_NS_PER_MS;
    if (status == BR_OK) return;
    br_lock(&client->mutex); /* out of memory: later */
    (void)br_balancer_pinged(&client->balancer, endpoint->index, BR_OUTCOME_ABANDONED, br_clock_now_ns());
    br_unlock(&client->mutex);
}

static void end_ping(br_client *client, br_endpoint *endpoint, bool is_done)
{
    const br_outcome outcome = outcome_of_ping(endpoint->ping, is_done);
    br_flight_end(endpoint->ping);
    endpoint->ping = NULL;

    br_lock(&client->mutex);
    const bool drop = br_balancer_pinged(&client->balancer, endpoint->index, outcome, br_clock_now_ns());
    br_cond_broadcast(&client->changed);
    br_unlock(&client->mutex);
    if (drop) br_endpoint_disconnect(endpoint);
}

static void tend(br_client *client, br_endpoint *endpoint)
{
    if (endpoint->ping == NULL) {
        start_ping(client, endpoint);
        return;
    }
    br_lock(&client->mutex);
    const bool is_done = endpoint->ping->done;
    br_unlock(&client->mutex);
    end_ping(client, endpoint, is_done);
}

/* Under the mutex. The endpoint whose due time is the earliest. */
static size_t first_due(const br_client *client, uint64_t *due_ns)
{
    size_t first = 0;
    *due_ns = BR_BALANCER_NEVER;
    for (size_t i = 0; i < client->endpoint_count; i++) {
        const uint64_t at_ns = due_at(client, i);
        if (at_ns >= *due_ns) continue;
        *due_ns = at_ns;
        first = i;
    }
    return first;
}

static void *keep(void *context)
{
    br_client *client = context;
    br_lock(&client->mutex);
    while (!client->closing) {
        const size_t index = first_due(client, &client->pinger_due_ns);
        if (client->pinger_due_ns > br_clock_now_ns()) {
            br_cond_wait_until(&client->pinger_news, &client->mutex, client->pinger_due_ns);
            continue;
        }
        br_unlock(&client->mutex);
        tend(client, &client->endpoints[index]);
        br_lock(&client->mutex);
    }
    br_unlock(&client->mutex);
    return NULL;
}

br_status br_pinger_start(br_client *client, br_error *error)
{
    if (client->endpoint_count == 1) return BR_OK;
    client->has_pinger = br_thread_start(&client->pinger, keep, client);
    return client->has_pinger ? BR_OK : br_fail(error, BR_ENOMEM, "the system gives no more threads");
}

void br_pinger_stop(br_client *client)
{
    if (!client->has_pinger) return;
    br_lock(&client->mutex);
    br_cond_signal(&client->pinger_news);
    br_unlock(&client->mutex);
    br_thread_join(client->pinger);
    for (size_t i = 0; i < client->endpoint_count; i++) br_flight_end(client->endpoints[i].ping);
}
