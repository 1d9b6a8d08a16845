/*
 * endpoint.c - a socket to one url.
 *
 * nng never sends a request again by itself: its resend time is infinite, so a long computation is asked for
 * only once. With that setting a lost connection ends a receive at once with NNG_ECONNRESET; call.c decides
 * what follows.
 */
#include "endpoint.h"

#include <nng/protocol/reqrep0/req.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/limits.h"
#include "core/thread.h"
#include "flight.h"
#include "tls.h"

enum {
    RECONNECT_MS_MIN = 20,
    RECONNECT_MS_MAX = 500,
};

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
    br_client_expect_ping(client, endpoint->index);
    br_unlock(&client->mutex);
}

static br_status dial(br_endpoint *endpoint, const br_client_options *options, br_error *error)
{
    nng_dialer dialer;
    int failed = nng_dialer_create(&dialer, endpoint->socket, endpoint->url);
    if (failed != 0)
        return br_fail(error, br_client_nng_status(failed),
                       "cannot use the url '%s', expected tcp://, ipc:// or tls+tcp://: %s", endpoint->url,
                       nng_strerror(failed));
    if (br_url_is_tls(endpoint->url)) {
        const br_status status = br_tls_configure(dialer, endpoint->url, options, error);
        if (status != BR_OK) return status;
    }
    failed = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    if (failed == 0) return BR_OK;
    return br_fail(error, br_client_nng_status(failed), "cannot dial '%s': %s", endpoint->url,
                   nng_strerror(failed));
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
        return br_fail(error, br_client_nng_status(failed), "cannot open a socket: %s", nng_strerror(failed));
    return dial(endpoint, options, error);
}

void br_endpoint_disconnect(br_endpoint *endpoint)
{
    br_lock(&endpoint->client->mutex);
    const nng_pipe pipe = endpoint->pipe;
    br_unlock(&endpoint->client->mutex);
    if (nng_pipe_id(pipe) > 0) nng_pipe_close(pipe);
}

void br_endpoint_close(br_endpoint *endpoint)
{
    br_flight_free_idle(endpoint);
    if (endpoint->is_open) nng_close(endpoint->socket);
    free(endpoint->url);
}
