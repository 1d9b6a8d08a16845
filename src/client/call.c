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
 * Scoring is a pure function of the request and the bundle, so asking twice is harmless; what is bounded is its
 * cost. A request is sent again after a lost connection at most SENDS_MAX - 1 times: one that kills whoever reads
 * it must not take the whole fleet. A reload is never sent again, nor hedged.
 */
#include "inside.h"

#include <assert.h>
#include <inttypes.h>

#include "core/clock.h"
#include "core/thread.h"
#include "message.h"

enum {
    SENDS_MAX = 3,         /* of one request, where a lost connection ended the others */
    LOSS_PAUSE_MS = 100,   /* before the last of them: several endpoints may be going down together */
    RETRY_MS_DEFAULT = 10, /* after an `overloaded` that does not say */
};

typedef struct way {
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
} way;

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

/* Beginning. */

/* The service counts a deadline from a request's arrival; whoever is asked later gets what is left of it. */
static void shorten_deadline(way *w)
{
    if (!w->request->has_deadline) return;
    const uint64_t spent_ms = (br_clock_now_ns() - w->start_ns) / BR_NS_PER_MS;
    w->request->deadline_ms = w->deadline_ms > spent_ms ? w->deadline_ms - spent_ms : 0;
}

static void note_end(way *w, size_t index, br_outcome outcome, uint32_t connection, uint64_t retry_ms)
{
    br_client *client = w->client;
    br_lock(&client->mutex);
    br_balancer_ended(&client->balancer, index, outcome, connection, retry_ms, br_clock_now_ns());
    br_pinger_expect(client, index);
    br_unlock(&client->mutex);
}

/* To an endpoint that the balancer counts as sent to. */
static br_status launch(way *w, br_flight **out, size_t index, br_error *error)
{
    shorten_deadline(w);
    nng_msg *message;
    br_status status = br_client_pack(&message, w->request, error);
    if (status == BR_OK)
        status = br_flight_start(out, &w->client->endpoints[index], message, &w->slot->changed, error);
    if (status != BR_OK) note_end(w, index, BR_OUTCOME_UNSENT, 0, 0);
    return status;
}

/* Under the mutex. Why nobody could be asked for `waited_ns`. */
static br_status none_usable(way *w, uint64_t waited_ns)
{
    const br_client *client = w->client;
    const bool is_late = w->request->has_deadline && br_clock_now_ns() >= w->send_end_ns;
    const uint64_t waited_ms = is_late ? w->deadline_ms : (waited_ns + BR_NS_PER_MS - 1) / BR_NS_PER_MS;
    const char *prefix = is_late ? "deadline: " : "";
    const br_status status = is_late ? BR_ETIMEDOUT : BR_EIO;
    if (client->endpoint_count == 1)
        return br_fail(w->error, status, "%sno connection to %s within %" PRIu64 " ms", prefix,
                       client->endpoints[0].url, waited_ms);
    size_t connected = 0;
    for (size_t i = 0; i < client->endpoint_count; i++) connected += client->balancer.members[i].connected;
    if (connected == 0)
        return br_fail(w->error, status, "%sno connection to any of %zu endpoints within %" PRIu64 " ms",
                       prefix, client->endpoint_count, waited_ms);
    return br_fail(w->error, is_late ? status : BR_ENOTREADY,
                   "%snone of %zu endpoints was ready within %" PRIu64 " ms; %zu are connected",
                   is_late ? prefix : "not_ready: ", client->endpoint_count, waited_ms, connected);
}

/* Under the mutex. Chooses, and waits where nobody can be asked yet. With `rested` the endpoints that said
 * `overloaded` are left alone for as long as they said; BR_EBUSY where that would be too late. */
static br_status await_endpoint(way *w, size_t *index, bool rested)
{
    br_client *client = w->client;
    const uint64_t start_ns = br_clock_now_ns();
    const uint64_t give_up_ns =
        earlier(start_ns + (uint64_t)client->connect_ms * BR_NS_PER_MS, w->send_end_ns);
    for (;;) {
        if (client->closing) return br_fail(w->error, BR_ECLOSED, "the client was closed");
        const uint64_t now_ns = br_clock_now_ns();
        *index = br_balancer_choose(&client->balancer, now_ns, BR_BALANCER_NONE, rested);
        if (*index != BR_BALANCER_NONE) return BR_OK;

        uint64_t until_ns = rested ? br_balancer_rested_at(&client->balancer) : BR_BALANCER_NEVER;
        if (until_ns == BR_BALANCER_NEVER) {
            if (now_ns >= give_up_ns) return none_usable(w, give_up_ns - start_ns);
            until_ns = give_up_ns;
        } else if (until_ns >= w->send_end_ns) {
            return BR_EBUSY; /* the error is the refusal's */
        }
        br_cond_wait_until(&client->changed, &client->mutex, until_ns);
    }
}

static br_status begin(way *w, bool rested)
{
    br_client *client = w->client;
    size_t index = 0;
    br_lock(&client->mutex);
    br_status status = await_endpoint(w, &index, rested);
    if (status == BR_OK) {
        br_balancer_sent(&client->balancer, index, br_clock_now_ns());
        br_pinger_expect(client, index);
    }
    br_unlock(&client->mutex);
    w->hedge = NULL; /* over, and the flight may serve again: as this attempt's own */
    if (status == BR_OK) status = launch(w, &w->flights[0], index, w->error);

    const bool may_hedge = client->hedge_ms > 0 && !w->has_hedged && w->request->op != BR_OP_RELOAD;
    w->hedge_at_ns =
        may_hedge ? br_clock_now_ns() + (uint64_t)client->hedge_ms * BR_NS_PER_MS : BR_BALANCER_NEVER;
    return status;
}

/* Racing. */

/* The same request to a second endpoint, if there is one at leisure and hedges have not had their share. */
static void hedge(way *w)
{
    br_client *client = w->client;
    w->hedge_at_ns = BR_BALANCER_NEVER;
    const uint64_t now_ns = br_clock_now_ns();
    if (now_ns >= w->send_end_ns) return;
    br_lock(&client->mutex);
    const size_t index = br_balancer_choose(&client->balancer, now_ns, w->flights[0]->endpoint->index, true);
    const bool goes = index != BR_BALANCER_NONE && br_balancer_spend_hedge(&client->balancer);
    if (goes) {
        br_balancer_sent(&client->balancer, index, now_ns);
        br_pinger_expect(client, index);
        client->totals.hedges++;
    }
    br_unlock(&client->mutex);
    if (!goes) return;
    w->has_hedged = true;
    if (launch(w, &w->flights[1], index, NULL) == BR_OK) w->hedge = w->flights[1];
}

/* Takes a flight that is done out of the race; NULL: it is `until_ns`, or the client closes. */
static br_flight *wait_for_one(way *w, uint64_t until_ns)
{
    br_client *client = w->client;
    br_flight *found = NULL;
    br_lock(&client->mutex);
    for (;;) {
        for (size_t i = 0; i < 2 && found == NULL; i++) {
            if (w->flights[i] == NULL || !w->flights[i]->done) continue;
            found = w->flights[i];
            w->flights[i] = NULL;
        }
        if (found != NULL || client->closing || br_clock_now_ns() >= until_ns) break;
        br_cond_wait_until(&w->slot->changed, &client->mutex, until_ns);
    }
    br_unlock(&client->mutex);
    if (w->flights[0] == NULL) {
        w->flights[0] = w->flights[1];
        w->flights[1] = NULL;
    }
    return found;
}

static void end_flights(way *w, br_outcome outcome)
{
    for (size_t i = 0; i < 2; i++) {
        br_flight *flight = w->flights[i];
        if (flight == NULL) continue;
        w->flights[i] = NULL;
        const size_t index = flight->endpoint->index;
        const uint32_t connection = flight->connection;
        br_flight_end(flight);
        note_end(w, index, outcome, connection, 0);
    }
}

static br_status status_of_code(br_code code)
{
    switch (code) {
    case BR_CODE_TOO_LARGE:
        return BR_ETOOBIG;
    case BR_CODE_OVERLOADED:
        return BR_EBUSY;
    case BR_CODE_DEADLINE:
        return BR_ETIMEDOUT;
    case BR_CODE_NOT_READY:
        return BR_ENOTREADY;
    case BR_CODE_UNSUPPORTED:
        return BR_ENOTSUP;
    case BR_CODE_INFEASIBLE:
        return BR_EINFEASIBLE;
    case BR_CODE_BAD_REQUEST:
        return BR_EINVAL;
    case BR_CODE_INTERNAL:
    case BR_CODE_NONE:
        break;
    }
    return BR_EINTERNAL;
}

/* *retry_ms is set with BR_EBUSY. */
static br_status take_reply(way *w, nng_msg *message, uint64_t *retry_ms)
{
    br_arena *arena = &w->slot->arena;
    br_error *error = w->error;
    br_reply reply;
    const br_status status =
        br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), arena, error);
    if (status != BR_OK) return status;
    if (!reply.ok) {
        *retry_ms = reply.has_retry ? reply.retry_ms : RETRY_MS_DEFAULT;
        return br_fail(
            error, status_of_code(reply.code), "%s: %.*s", br_code_name(reply.code),
            (int)(reply.message.size < BR_ERROR_TEXT_BYTES ? reply.message.size : BR_ERROR_TEXT_BYTES),
            reply.message.data == NULL ? "" : reply.message.data);
    }
    if (reply.result_count != w->request->query_count)
        return br_fail(error, BR_EFORMAT, "%zu results for %zu queries", reply.result_count,
                       w->request->query_count);
    if (w->request->op == BR_OP_INFO && reply.info == NULL)
        return br_fail(error, BR_EFORMAT, "the reply to info has no candidates");
    return br_client_make_answer(w->out, &reply, error);
}

static br_outcome judge_reply(way *w, nng_msg *message, uint64_t *retry_ms, br_status *status)
{
    *status = take_reply(w, message, retry_ms);
    switch (*status) {
    case BR_EBUSY:
        return BR_OUTCOME_OVERLOADED;
    case BR_ENOTREADY:
        return BR_OUTCOME_NOT_READY;
    case BR_EFORMAT:
        return BR_OUTCOME_FAILED;
    default:
        return BR_OUTCOME_ANSWERED;
    }
}

static br_outcome judge_failure(way *w, const br_flight *flight, br_status *status)
{
    const char *url = flight->endpoint->url;
    switch (flight->failed) {
    case NNG_ETIMEDOUT: /* only a send waits by nng's clock */
        *status = br_fail(w->error, BR_ETIMEDOUT, "%s took no message", url);
        return BR_OUTCOME_UNSENT;
    case NNG_ENOMEM:
        *status = br_fail(w->error, BR_ENOMEM, "%s: %s", url, nng_strerror(flight->failed));
        return BR_OUTCOME_ABANDONED;
    default:
        *status =
            br_fail(w->error, BR_EIO, "the connection to %s broke: %s", url, nng_strerror(flight->failed));
        return BR_OUTCOME_LOST;
    }
}

/* How a flight that is done ended, for the balancer and for the call. */
static br_outcome judge(way *w, br_flight *flight, br_status *status)
{
    uint64_t retry_ms = 0;
    const br_outcome outcome = flight->failed == 0 ? judge_reply(w, flight->reply, &retry_ms, status)
                                                   : judge_failure(w, flight, status);
    const size_t index = flight->endpoint->index;
    const uint32_t connection = flight->connection;
    const bool wins = flight == w->hedge && outcome == BR_OUTCOME_ANSWERED;
    br_flight_end(flight);
    note_end(w, index, outcome, connection, retry_ms);
    if (outcome == BR_OUTCOME_LOST) w->losses++;
    if (wins) count(w->client, &w->client->totals.hedges_won);
    return outcome;
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

static br_status no_answer(way *w)
{
    const char *url = w->flights[0]->endpoint->url;
    end_flights(w, BR_OUTCOME_FAILED);
    if (w->end_ns - w->start_ns < (uint64_t)w->client->timeout_ms * BR_NS_PER_MS)
        return br_fail(w->error, BR_ETIMEDOUT, "deadline: no answer from %s within %" PRIu64 " ms", url,
                       w->deadline_ms);
    return br_fail(w->error, BR_ETIMEDOUT, "no answer from %s within %" PRIu32 " ms", url,
                   w->client->timeout_ms);
}

/* Until one flight brings a conclusive outcome, or none is left. The first answer wins: nobody looks at another. */
static br_outcome race(way *w, br_status *status)
{
    for (;;) {
        br_flight *flight = wait_for_one(w, earlier(w->hedge_at_ns, w->end_ns));
        if (flight == NULL && is_closing(w->client)) {
            end_flights(w, BR_OUTCOME_ABANDONED);
            *status = br_fail(w->error, BR_ECLOSED, "the client was closed");
            return BR_OUTCOME_ABANDONED;
        }
        if (flight == NULL && br_clock_now_ns() >= w->end_ns) {
            *status = no_answer(w);
            return BR_OUTCOME_FAILED;
        }
        if (flight == NULL) {
            hedge(w);
            continue;
        }
        const br_outcome outcome = judge(w, flight, status);
        if (is_conclusive(outcome)) end_flights(w, BR_OUTCOME_ABANDONED);
        if (w->flights[0] == NULL) return outcome;
    }
}

/* Again. */

static bool is_usable_elsewhere(br_client *client)
{
    if (client->endpoint_count == 1) return false;
    br_lock(&client->mutex);
    const bool found = br_balancer_rested_at(&client->balancer) != BR_BALANCER_NEVER;
    br_unlock(&client->mutex);
    return found;
}

static bool may_repeat(way *w, br_outcome outcome)
{
    if (br_clock_now_ns() >= w->send_end_ns) return false;
    switch (outcome) {
    case BR_OUTCOME_UNSENT:
        return true;
    case BR_OUTCOME_LOST:
        return w->request->op != BR_OP_RELOAD && w->losses < SENDS_MAX;
    case BR_OUTCOME_NOT_READY: /* it is ejected now, so this ends */
        return is_usable_elsewhere(w->client);
    case BR_OUTCOME_OVERLOADED:
        return w->retries++ < w->client->retries;
    case BR_OUTCOME_ANSWERED:
    case BR_OUTCOME_FAILED:
    case BR_OUTCOME_ABANDONED:
        break;
    }
    return false;
}

/* Lets what is going down together go down. */
static void pause_after_loss(const way *w)
{
    br_client *client = w->client;
    const uint64_t until_ns =
        earlier(br_clock_now_ns() + (uint64_t)LOSS_PAUSE_MS * BR_NS_PER_MS, w->send_end_ns);
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
    way w = {
        .client = client,
        .slot = slot,
        .request = request,
        .out = out,
        .error = error,
        .deadline_ms = request->deadline_ms,
        .start_ns = now_ns,
        .end_ns = now_ns + (uint64_t)client->timeout_ms * BR_NS_PER_MS,
    };
    w.send_end_ns = w.end_ns;
    if (request->has_deadline) {
        const uint64_t deadline_ns = now_ns + request->deadline_ms * BR_NS_PER_MS;
        w.send_end_ns = earlier(w.end_ns, deadline_ns);
        w.end_ns = earlier(w.end_ns, deadline_ns + (uint64_t)BR_CLIENT_GRACE_MS * BR_NS_PER_MS);
    }
    count_call(client);

    br_status status = begin(&w, false);
    while (status == BR_OK) {
        const br_outcome outcome = race(&w, &status);
        if (!may_repeat(&w, outcome)) return status;
        if (outcome == BR_OUTCOME_LOST && w.losses == SENDS_MAX - 1) pause_after_loss(&w);
        count(client, &client->totals.retries);
        status = begin(&w, outcome == BR_OUTCOME_OVERLOADED);
    }
    return status;
}
