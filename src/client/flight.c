/* flight.c - see flight.h. */
#include "flight.h"

#include <stdlib.h>

#include "core/thread.h"

/* A send waits only while there is no connection, or the connection takes no more bytes. */
enum { SEND_MS_MAX = 500 };

static void destroy(br_flight *flight)
{
    if (flight == NULL) return;
    if (flight->aio != NULL) nng_aio_stop(flight->aio); /* waits for on_step */
    if (nng_ctx_id(flight->context) > 0) nng_ctx_close(flight->context);
    nng_msg_free(flight->reply);
    nng_aio_free(flight->aio);
    free(flight);
}

void br_flight_free_idle(br_endpoint *endpoint)
{
    while (endpoint->idle != NULL) {
        br_flight *flight = endpoint->idle;
        endpoint->idle = flight->next;
        destroy(flight);
    }
}

/* nng's callback, on one of its threads: the send or the receive has ended. */
static void on_step(void *context)
{
    br_flight *flight = context;
    const int failed = nng_aio_result(flight->aio);
    if (failed == 0 && !flight->was_sent) {
        flight->was_sent = true;
        nng_aio_set_timeout(flight->aio, NNG_DURATION_INFINITE); /* the call or the pinger ends it in time */
        nng_ctx_recv(flight->context, flight->aio);
        return;
    }
    nng_msg *message = nng_aio_get_msg(flight->aio);
    if (failed != 0 && !flight->was_sent) nng_msg_free(message);
    nng_aio_set_msg(flight->aio, NULL);

    br_client *client = flight->endpoint->client;
    br_lock(&client->mutex);
    flight->failed = failed;
    flight->reply = failed == 0 ? message : NULL;
    flight->done = true;
    if (flight->wake != NULL) {
        br_cond_signal(flight->wake);
    } else {
        br_alarm_set(client->pinger, 0);
    }
    br_unlock(&client->mutex);
}

static br_status create(br_flight **out, br_endpoint *endpoint, br_error *error)
{
    br_flight *flight = calloc(1, sizeof *flight);
    if (flight == NULL) return br_no_memory(error, "a request");
    flight->endpoint = endpoint;
    int failed = nng_aio_alloc(&flight->aio, on_step, flight);
    if (failed == 0) failed = nng_ctx_open(&flight->context, endpoint->socket);
    if (failed != 0) {
        destroy(flight);
        return br_fail(error, BR_ENOMEM, "a request's context: %s", nng_strerror(failed));
    }
    *out = flight;
    return BR_OK;
}

br_status br_flight_start(br_flight **out, br_endpoint *endpoint, nng_msg *message, pthread_cond_t *wake,
                          br_error *error)
{
    br_client *client = endpoint->client;
    br_lock(&client->mutex);
    br_flight *flight = endpoint->idle;
    if (flight != NULL) endpoint->idle = flight->next;
    br_unlock(&client->mutex);
    if (flight == NULL) {
        const br_status status = create(&flight, endpoint, error);
        if (status != BR_OK) {
            nng_msg_free(message);
            return status;
        }
    }
    *out = flight;
    flight->wake = wake;
    flight->was_sent = flight->done = false;
    br_lock(&client->mutex);
    flight->connection = client->balancer.members[endpoint->index].connection;
    br_unlock(&client->mutex);
    nng_aio_set_msg(flight->aio, message);
    nng_aio_set_timeout(flight->aio, SEND_MS_MAX);
    nng_ctx_send(flight->context, flight->aio);
    return BR_OK;
}

/* Only a flight that was answered is used again: the context of any other may still wait for a reply. */
void br_flight_end(br_flight *flight)
{
    if (flight == NULL) return;
    br_client *client = flight->endpoint->client;
    br_lock(&client->mutex);
    const bool reusable = flight->done && flight->failed == 0;
    br_unlock(&client->mutex);
    if (!reusable) {
        destroy(flight);
        return;
    }
    nng_msg_free(flight->reply);
    flight->reply = NULL;
    nng_aio_wait(flight->aio); /* on_step has signalled but may not have returned */
    br_lock(&client->mutex);
    flight->next = flight->endpoint->idle;
    flight->endpoint->idle = flight;
    br_unlock(&client->mutex);
}
