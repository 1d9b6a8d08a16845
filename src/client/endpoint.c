/*
 * endpoint.c - a socket to one url, and requests in flight on it.
 *
 * nng never resends by itself (its resend time is infinite), so a long computation is asked for once. With that
 * setting a lost connection ends a receive with NNG_ECONNRESET at once, and what follows is decided in
 * call.c.
 */
#include "inside.h"

#include <assert.h>
#include <stdlib.h>

#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>

#include "core/clock.h"
#include "core/limits.h"
#include "core/memory.h"
#include "core/thread.h"

enum {
    RECONNECT_MS_MIN = 20,
    RECONNECT_MS_MAX = 500,
    /* A send waits only while there is no connection, or one that takes no more bytes. */
    SEND_MS_MAX = 500,
};

static br_status status_of_nng(int failed)
{
    switch (failed) {
    case NNG_ENOMEM:
        return BR_ENOMEM;
    case NNG_ENOTSUP:
        return BR_ENOTSUP;
    default:
        return BR_EINVAL;
    }
}

/* TLS. */

bool br_url_is_tls(const char *url)
{
    return strncmp(url, "tls+", 4) == 0;
}

/* The certificate must be for this name; left to itself nng checks none when it is given a configuration. */
static int set_server_name(nng_tls_config *tls, const char *text, const char *name)
{
    if (name != NULL) return nng_tls_config_server_name(tls, name);

    nng_url *url;
    int failed = nng_url_parse(&url, text);
    if (failed != 0) return failed;
    failed = nng_tls_config_server_name(tls, url->u_hostname);
    nng_url_free(url);
    return failed;
}

static br_status configure_tls(nng_dialer dialer, const char *url, const br_client_options *options,
                               br_error *error)
{
    if (options->tls_ca == NULL)
        return br_fail(error, BR_EINVAL, "%s: tls needs a file of authorities (tls_ca)", url);

    nng_tls_config *tls;
    int failed = nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT);
    if (failed != 0) return br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));

    br_status status = BR_OK;
    failed = nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED);
    if (failed == 0) failed = set_server_name(tls, url, options->tls_name);
    if (failed != 0) {
        status = br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));
        goto done;
    }
    failed = nng_tls_config_ca_file(tls, options->tls_ca);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file of authorities: %s", options->tls_ca,
                         nng_strerror(failed));
        goto done;
    }
    failed = options->tls_cert == NULL ? 0 : nng_tls_config_cert_key_file(tls, options->tls_cert, NULL);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file with a certificate and its key: %s",
                         options->tls_cert, nng_strerror(failed));
        goto done;
    }
    failed = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls); /* takes a hold of its own */
    if (failed != 0) status = br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));

done:
    nng_tls_config_free(tls);
    return status;
}

/* The connection. */

static void on_connection(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    br_endpoint *endpoint = context;
    br_client *client = endpoint->client;
    const uint64_t now_ns = br_clock_now_ns();
    br_lock(&client->mutex);
    if (event == NNG_PIPE_EV_ADD_POST) {
        endpoint->pipe = pipe;
        br_balancer_connected(&client->balancer, endpoint->index, now_ns);
        br_cond_broadcast(&client->changed);
    } else if (nng_pipe_id(pipe) == nng_pipe_id(endpoint->pipe)) {
        br_balancer_disconnected(&client->balancer, endpoint->index, now_ns);
    }
    br_pinger_expect(client, endpoint->index);
    br_unlock(&client->mutex);
}

static br_status dial(br_endpoint *endpoint, const br_client_options *options, br_error *error)
{
    nng_dialer dialer;
    int failed = nng_dialer_create(&dialer, endpoint->socket, endpoint->url);
    if (failed != 0)
        return br_fail(error, status_of_nng(failed),
                       "cannot use the url '%s', expected tcp://, ipc:// or tls+tcp://: %s", endpoint->url,
                       nng_strerror(failed));
    if (br_url_is_tls(endpoint->url)) {
        const br_status status = configure_tls(dialer, endpoint->url, options, error);
        if (status != BR_OK) return status;
    }
    failed = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    if (failed == 0) return BR_OK;
    return br_fail(error, status_of_nng(failed), "cannot dial '%s': %s", endpoint->url, nng_strerror(failed));
}

br_status br_endpoint_open(br_endpoint *endpoint, const br_client_options *options, br_error *error)
{
    int failed = nng_req0_open(&endpoint->socket);
    if (failed == 0) {
        endpoint->is_open = true;
        failed = nng_socket_set_ms(endpoint->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    }
    if (failed == 0) failed = nng_socket_set_size(endpoint->socket, NNG_OPT_RECVMAXSZ, BR_MESSAGE_BYTES_MAX);
    if (failed == 0) failed = nng_socket_set_ms(endpoint->socket, NNG_OPT_RECONNMINT, RECONNECT_MS_MIN);
    if (failed == 0) failed = nng_socket_set_ms(endpoint->socket, NNG_OPT_RECONNMAXT, RECONNECT_MS_MAX);
    if (failed == 0)
        failed = nng_pipe_notify(endpoint->socket, NNG_PIPE_EV_ADD_POST, on_connection, endpoint);
    if (failed == 0)
        failed = nng_pipe_notify(endpoint->socket, NNG_PIPE_EV_REM_POST, on_connection, endpoint);
    if (failed != 0)
        return br_fail(error, status_of_nng(failed), "cannot open a socket: %s", nng_strerror(failed));
    return dial(endpoint, options, error);
}

void br_endpoint_disconnect(br_endpoint *endpoint)
{
    br_lock(&endpoint->client->mutex);
    const nng_pipe pipe = endpoint->pipe;
    br_unlock(&endpoint->client->mutex);
    if (nng_pipe_id(pipe) > 0) nng_pipe_close(pipe);
}

/* Flights. */

static void destroy(br_flight *flight)
{
    if (flight == NULL) return;
    if (flight->aio != NULL) nng_aio_stop(flight->aio); /* waits for on_step */
    if (nng_ctx_id(flight->context) > 0) nng_ctx_close(flight->context);
    nng_msg_free(flight->reply);
    nng_aio_free(flight->aio);
    free(flight);
}

void br_endpoint_close(br_endpoint *endpoint)
{
    while (endpoint->idle != NULL) {
        br_flight *flight = endpoint->idle;
        endpoint->idle = flight->next;
        destroy(flight);
    }
    if (endpoint->is_open) nng_close(endpoint->socket);
    free(endpoint->url);
}

/* On a thread of nng's. */
static void on_step(void *context)
{
    br_flight *flight = context;
    const int failed = nng_aio_result(flight->aio);
    if (failed == 0 && !flight->was_sent) {
        flight->was_sent = true;
        nng_aio_set_timeout(flight->aio, NNG_DURATION_INFINITE); /* who waits for the flight keeps the time */
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
    br_cond_signal(flight->wake);
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

/* Only a flight that was answered may serve again: the context of another may still wait for a reply. */
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
