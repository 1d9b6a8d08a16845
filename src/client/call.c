/*
 * call.c - the way of one call.
 *
 *   begin: choose an endpoint, send <------------------------------------+
 *     |                                                                  |
 *   race: wait for the answer; after hedge_ms also ask a second one      |
 *     |                                                                  |
 *     +-- an answer, or a refusal that would be the same anywhere: done  |
 *     +-- overloaded, not_ready, lost, unsent: again, where it helps ----+
 *
 * A score depends on nothing but the request and the bundle, so asking twice does no harm; only its cost
 * needs a bound. After a lost connection a request is sent again at most SENDS_MAX - 1 times: a request that
 * crashes the service that reads it must not bring down the whole fleet. A reload is never sent again, and
 * never hedged.
 */
#include "call.h"

#include <inttypes.h>

#include "core/clock.h"
#include "core/thread.h"
#include "flight.h"
#include "outcome.h"
#include "request.h"

enum {
    SENDS_MAX = 3,       /* of one request, each but the last ended by a lost connection */
    LOSS_PAUSE_MS = 100, /* before the last of them: several endpoints may be stopping together */
};

typedef struct call {
    br_client *client;
    br_slot *slot;
    br_request *request;
    br_answer **out;
    br_error *error;
    uint64_t deadline_ms; /* as the caller gave it */
    uint64_t start_ns;
    uint64_t send_end_ns; /* nothing is sent after */
    uint64_t end_ns;      /* no answer is awaited after */
    uint64_t hedge_at_ns;
    bool has_hedged;
    br_flight *flights[2]; /* the second only beside a first */
    br_flight *hedge;      /* which of them is the hedge */
    uint32_t losses;
    uint32_t retries;
} call;

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void count(br_client *client, uint64_t *counter)
{
    br_lock(&client->mutex);
    (*counter)++;
    br_unlock(&client->mutex);
}

/* The service counts a deadline from the arrival of the request. An endpoint that is asked later gets what is
 * left. */
static void shorten_deadline(call *c)
{
    if (!c->request->has_deadline) return;
    const uint64_t spent_ms = (br_clock_now_ns() - c->start_ns) / BR_NS_PER_MS;
    c->request->deadline_ms = c->deadline_ms > spent_ms ? c->deadline_ms - spent_ms : 0;
}

static void note_end(call *c, size_t index, br_outcome outcome, uint32_t connection, uint64_t retry_ms)
{
    br_client *client = c->client;
    br_lock(&client->mutex);
    br_balancer_ended(&client->balancer, index, outcome, connection, retry_ms, br_clock_now_ns());
    br_client_expect_ping(client, index);
    br_unlock(&client->mutex);
}

/* Sends the request to an endpoint that the balancer has already counted as sent to. */
static br_status launch(call *c, br_flight **out, size_t index, br_error *error)
{
    shorten_deadline(c);
    nng_msg *message;
    br_status status = br_client_pack(&message, c->request, error);
    if (status == BR_OK)
        status = br_flight_start(out, &c->client->endpoints[index], message, &c->slot->changed, error);
    if (status != BR_OK) note_end(c, index, BR_OUTCOME_UNSENT, 0, 0);
    return status;
}

/* Under the mutex. The error where no endpoint could be asked for `waited_ns`. */
static br_status none_usable(call *c, uint64_t waited_ns)
{
    const br_client *client = c->client;
    const bool is_late = c->request->has_deadline && br_clock_now_ns() >= c->send_end_ns;
    const uint64_t waited_ms = is_late ? c->deadline_ms : (waited_ns + BR_NS_PER_MS - 1) / BR_NS_PER_MS;
    const char *prefix = is_late ? "deadline: " : "";
    const br_status status = is_late ? BR_ETIMEDOUT : BR_EIO;
    if (client->endpoint_count == 1)
        return br_fail(c->error, status, "%sno connection to %s within %" PRIu64 " ms", prefix,
                       client->endpoints[0].url, waited_ms);
    size_t connected = 0;
    for (size_t i = 0; i < client->endpoint_count; i++) connected += client->balancer.members[i].connected;
    if (connected == 0)
        return br_fail(c->error, status, "%sno connection to any of %zu endpoints within %" PRIu64 " ms",
                       prefix, client->endpoint_count, waited_ms);
    return br_fail(c->error, is_late ? status : BR_ENOTREADY,
                   "%snone of %zu endpoints was ready within %" PRIu64 " ms; %zu are connected",
                   is_late ? prefix : "not_ready: ", client->endpoint_count, waited_ms, connected);
}

/* Under the mutex. Chooses an endpoint, and waits while none can be asked. With `rested` it leaves an
 * endpoint that answered `overloaded` alone for the time it named; BR_EBUSY where that would be too late. */
static br_status await_endpoint(call *c, size_t *index, bool rested)
{
    br_client *client = c->client;
    const uint64_t start_ns = br_clock_now_ns();
    const uint64_t give_up_ns =
        earlier(start_ns + (uint64_t)client->connect_ms * BR_NS_PER_MS, c->send_end_ns);
    for (;;) {
        if (client->closing) return br_fail(c->error, BR_ECLOSED, "the client was closed");
        const uint64_t now_ns = br_clock_now_ns();
        *index = br_balancer_choose(&client->balancer, now_ns, BR_BALANCER_NONE, rested);
        if (*index != BR_BALANCER_NONE) return BR_OK;

        uint64_t until_ns = rested ? br_balancer_rested_at(&client->balancer) : BR_BALANCER_NEVER;
        if (until_ns == BR_BALANCER_NEVER) {
            if (now_ns >= give_up_ns) return none_usable(c, give_up_ns - start_ns);
            until_ns = give_up_ns;
        } else if (until_ns >= c->send_end_ns) {
            return BR_EBUSY; /* *error still says what the last refusal said */
        }
        br_cond_wait_until(&client->changed, &client->mutex, until_ns);
    }
}

static br_status begin(call *c, bool rested)
{
    br_client *client = c->client;
    size_t index = 0;
    br_lock(&client->mutex);
    br_status status = await_endpoint(c, &index, rested);
    if (status == BR_OK) {
        br_balancer_sent(&client->balancer, index, br_clock_now_ns());
        br_client_expect_ping(client, index);
    }
    br_unlock(&client->mutex);
    c->hedge = NULL; /* it has ended, and its flight may be used again for this attempt */
    if (status == BR_OK) status = launch(c, &c->flights[0], index, c->error);

    const bool may_hedge = client->hedge_ms > 0 && !c->has_hedged && c->request->op != BR_OP_RELOAD;
    c->hedge_at_ns =
        may_hedge ? br_clock_now_ns() + (uint64_t)client->hedge_ms * BR_NS_PER_MS : BR_BALANCER_NEVER;
    return status;
}

/* Sends the same request to a second endpoint, if one is usable and rested and the share of hedges allows
 * it. */
static void hedge(call *c)
{
    br_client *client = c->client;
    c->hedge_at_ns = BR_BALANCER_NEVER;
    const uint64_t now_ns = br_clock_now_ns();
    if (now_ns >= c->send_end_ns) return;
    br_lock(&client->mutex);
    const size_t index = br_balancer_choose(&client->balancer, now_ns, c->flights[0]->endpoint->index, true);
    const bool goes = index != BR_BALANCER_NONE && br_balancer_spend_hedge(&client->balancer);
    if (goes) {
        br_balancer_sent(&client->balancer, index, now_ns);
        br_client_expect_ping(client, index);
        client->totals.hedges++;
    }
    br_unlock(&client->mutex);
    if (!goes) return;
    c->has_hedged = true;
    if (launch(c, &c->flights[1], index, NULL) == BR_OK) c->hedge = c->flights[1];
}

/* Waits for a flight to be done and takes it out of the race. NULL: `until_ns` has come, or the client
 * closes. */
static br_flight *wait_for_one(call *c, uint64_t until_ns)
{
    br_client *client = c->client;
    br_flight *found = NULL;
    br_lock(&client->mutex);
    for (;;) {
        for (size_t i = 0; i < 2 && found == NULL; i++) {
            if (c->flights[i] == NULL || !c->flights[i]->done) continue;
            found = c->flights[i];
            c->flights[i] = NULL;
        }
        if (found != NULL || client->closing || br_clock_now_ns() >= until_ns) break;
        br_cond_wait_until(&c->slot->changed, &client->mutex, until_ns);
    }
    br_unlock(&client->mutex);
    if (c->flights[0] == NULL) {
        c->flights[0] = c->flights[1];
        c->flights[1] = NULL;
    }
    return found;
}

static void end_flight(call *c, br_flight *flight, br_outcome outcome, uint64_t retry_ms)
{
    const size_t index = flight->endpoint->index;
    const uint32_t connection = flight->connection;
    br_flight_end(flight);
    note_end(c, index, outcome, connection, retry_ms);
}

static void end_flights(call *c, br_outcome outcome)
{
    for (size_t i = 0; i < 2; i++) {
        if (c->flights[i] != NULL) end_flight(c, c->flights[i], outcome, 0);
        c->flights[i] = NULL;
    }
}

/* The end of a flight that is done: told to the balancer, and returned. */
static br_ending judge(call *c, br_flight *flight)
{
    const br_ending ending = br_outcome_of_call(flight, c->request, &c->slot->arena, c->out, c->error);
    const bool wins = flight == c->hedge && ending.outcome == BR_OUTCOME_ANSWERED;
    end_flight(c, flight, ending.outcome, ending.retry_ms);
    if (ending.outcome == BR_OUTCOME_LOST) c->losses++;
    if (wins) count(c->client, &c->client->totals.hedges_won);
    return ending;
}

static bool is_conclusive(br_outcome outcome)
{
    return outcome == BR_OUTCOME_ANSWERED || outcome == BR_OUTCOME_FAILED || outcome == BR_OUTCOME_ABANDONED;
}

static bool is_closing(br_client *client)
{
    br_lock(&client->mutex);
    const bool closing = client->closing;
    br_unlock(&client->mutex);
    return closing;
}

static br_status no_answer(call *c)
{
    const char *url = c->flights[0]->endpoint->url;
    end_flights(c, BR_OUTCOME_FAILED);
    if (c->end_ns - c->start_ns < (uint64_t)c->client->timeout_ms * BR_NS_PER_MS)
        return br_fail(c->error, BR_ETIMEDOUT, "deadline: no answer from %s within %" PRIu64 " ms", url,
                       c->deadline_ms);
    return br_fail(c->error, BR_ETIMEDOUT, "no answer from %s within %" PRIu32 " ms", url,
                   c->client->timeout_ms);
}

/* Runs until a flight has a conclusive outcome, or none is left. The first answer wins; the other flight is
 * cancelled. */
static br_outcome race(call *c, br_status *status)
{
    for (;;) {
        br_flight *flight = wait_for_one(c, earlier(c->hedge_at_ns, c->end_ns));
        if (flight == NULL && is_closing(c->client)) {
            end_flights(c, BR_OUTCOME_ABANDONED);
            *status = br_fail(c->error, BR_ECLOSED, "the client was closed");
            return BR_OUTCOME_ABANDONED;
        }
        if (flight == NULL && br_clock_now_ns() >= c->end_ns) {
            *status = no_answer(c);
            return BR_OUTCOME_FAILED;
        }
        if (flight == NULL) {
            hedge(c);
            continue;
        }
        const br_ending ending = judge(c, flight);
        *status = ending.status;
        if (is_conclusive(ending.outcome)) end_flights(c, BR_OUTCOME_ABANDONED);
        if (c->flights[0] == NULL) return ending.outcome;
    }
}

static bool is_usable_elsewhere(br_client *client)
{
    if (client->endpoint_count == 1) return false;
    br_lock(&client->mutex);
    const bool found = br_balancer_rested_at(&client->balancer) != BR_BALANCER_NEVER;
    br_unlock(&client->mutex);
    return found;
}

static bool may_repeat(call *c, br_outcome outcome)
{
    if (br_clock_now_ns() >= c->send_end_ns) return false;
    switch (outcome) {
    case BR_OUTCOME_UNSENT:
        return true;
    case BR_OUTCOME_LOST:
        return c->request->op != BR_OP_RELOAD && c->losses < SENDS_MAX;
    case BR_OUTCOME_NOT_READY: /* it is ejected now: the next attempt goes elsewhere */
        return is_usable_elsewhere(c->client);
    case BR_OUTCOME_OVERLOADED:
        return c->retries++ < c->client->retries;
    case BR_OUTCOME_ANSWERED:
    case BR_OUTCOME_FAILED:
    case BR_OUTCOME_ABANDONED:
        break;
    }
    return false;
}

/* Where several endpoints stop together, gives the balancer time to see all of them go. */
static void pause_after_loss(const call *c)
{
    br_client *client = c->client;
    const uint64_t until_ns =
        earlier(br_clock_now_ns() + (uint64_t)LOSS_PAUSE_MS * BR_NS_PER_MS, c->send_end_ns);
    br_lock(&client->mutex);
    while (!client->closing && br_clock_now_ns() < until_ns)
        br_cond_wait_until(&client->changed, &client->mutex, until_ns);
    br_unlock(&client->mutex);
}

static void count_call(br_client *client)
{
    br_lock(&client->mutex);
    client->totals.calls++;
    br_balancer_earn_hedge(&client->balancer);
    br_unlock(&client->mutex);
}

br_status br_client_call_run(br_client *client, br_slot *slot, br_answer **out, br_request *request,
                             br_error *error)
{
    const uint64_t now_ns = br_clock_now_ns();
    call c = {
        .client = client,
        .slot = slot,
        .request = request,
        .out = out,
        .error = error,
        .deadline_ms = request->deadline_ms,
        .start_ns = now_ns,
        .end_ns = now_ns + (uint64_t)client->timeout_ms * BR_NS_PER_MS,
    };
    c.send_end_ns = c.end_ns;
    if (request->has_deadline) {
        const uint64_t deadline_ns = now_ns + request->deadline_ms * BR_NS_PER_MS;
        c.send_end_ns = earlier(c.end_ns, deadline_ns);
        c.end_ns = earlier(c.end_ns, deadline_ns + (uint64_t)BR_CLIENT_GRACE_MS * BR_NS_PER_MS);
    }
    count_call(client);

    br_status status = begin(&c, false);
    while (status == BR_OK) {
        const br_outcome outcome = race(&c, &status);
        if (!may_repeat(&c, outcome)) return status;
        if (outcome == BR_OUTCOME_LOST && c.losses == SENDS_MAX - 1) pause_after_loss(&c);
        count(client, &client->totals.retries);
        status = begin(&c, outcome == BR_OUTCOME_OVERLOADED);
    }
    return status;
}
