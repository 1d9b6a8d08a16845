/*
 * pinger.c - an alarm (core/alarm.h) that pings what is due. A service answers a ping at once, however busy
 * it is.
 *
 * Nothing is due while no endpoint is ejected and connected, and none has requests outstanding.
 */
#include "pinger.h"

#include "core/clock.h"
#include "core/thread.h"
#include "endpoint.h"
#include "flight.h"
#include "outcome.h"
#include "request.h"

/* When to look at the endpoint again: to start a ping, or to end one. */
static uint64_t due_at(br_client *client, const br_endpoint *endpoint)
{
    br_lock(&client->mutex);
    uint64_t at_ns;
    if (endpoint->ping == NULL) {
        at_ns = br_balancer_ping_at(&client->balancer, endpoint->index);
    } else {
        at_ns = endpoint->ping->done ? 0 : endpoint->ping_end_ns;
    }
    br_unlock(&client->mutex);
    return at_ns;
}

static void start_ping(br_client *client, br_endpoint *endpoint)
{
    const br_request request = {.op = BR_OP_PING};
    nng_msg *message;
    br_status status = br_client_pack(&message, &request, NULL);
    if (status == BR_OK) status = br_flight_start(&endpoint->ping, endpoint, message, NULL, NULL);
    endpoint->ping_end_ns = br_clock_now_ns() + (uint64_t)client->probe_ms * BR_NS_PER_MS;
    if (status == BR_OK) return;
    br_lock(&client->mutex); /* out of memory: later */
    (void)br_balancer_pinged(&client->balancer, endpoint->index, BR_OUTCOME_ABANDONED, br_clock_now_ns());
    br_unlock(&client->mutex);
}

static void end_ping(br_client *client, br_endpoint *endpoint)
{
    br_lock(&client->mutex);
    const bool is_done = endpoint->ping->done;
    br_unlock(&client->mutex);
    const br_outcome outcome = br_outcome_of_ping(endpoint->ping, is_done);
    br_flight_end(endpoint->ping);
    endpoint->ping = NULL;

    br_lock(&client->mutex);
    const bool drop = br_balancer_pinged(&client->balancer, endpoint->index, outcome, br_clock_now_ns());
    br_cond_broadcast(&client->changed);
    br_unlock(&client->mutex);
    if (drop) br_endpoint_disconnect(endpoint);
}

/* The alarm's: what is due of each endpoint, and when the next is. */
static uint64_t ring(void *context)
{
    br_client *client = context;
    uint64_t next_ns = BR_BALANCER_NEVER;
    for (size_t i = 0; i < client->endpoint_count; i++) {
        br_endpoint *endpoint = &client->endpoints[i];
        uint64_t at_ns = due_at(client, endpoint);
        if (at_ns <= br_clock_now_ns()) {
            if (endpoint->ping == NULL) {
                start_ping(client, endpoint);
            } else {
                end_ping(client, endpoint);
            }
            at_ns = due_at(client, endpoint);
        }
        if (at_ns < next_ns) next_ns = at_ns;
    }
    return next_ns;
}

br_status br_pinger_start(br_client *client, br_error *error)
{
    if (client->endpoint_count == 1) return BR_OK;
    br_alarm *alarm;
    const br_status status = br_alarm_create(&alarm, ring, client, BR_BALANCER_NEVER);
    if (status == BR_ENOMEM) return br_no_memory(error, "a client");
    if (status != BR_OK) return br_fail(error, BR_ENOMEM, "the system gives no more threads");
    br_lock(&client->mutex); /* endpoints may have connected meanwhile, and read it */
    client->pinger = alarm;
    br_unlock(&client->mutex);
    br_alarm_set(alarm, 0);
    return BR_OK;
}

void br_pinger_stop(br_client *client)
{
    br_alarm_stop(client->pinger);
    for (size_t i = 0; i < client->endpoint_count; i++) br_flight_end(client->endpoints[i].ping);
}

void br_pinger_destroy(br_client *client)
{
    br_alarm_destroy(client->pinger);
}
