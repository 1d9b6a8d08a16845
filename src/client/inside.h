/*
 * inside.h - what the parts of the client library share.
 *
 *   client.c            options, life, the public functions
 *   request.c    what the caller asks, as a message
 *   answer.c     a reply, as what the caller gets
 *   call.c       the way of one call: attempts, hedges, retries
 *   pinger.c     pings in the background
 *   endpoint.c   a socket to one url, and requests in flight on it
 *   balancer.c       who is asked next
 *
 * One mutex guards the balancer, the idle lists and whatever says so below. It is never held during a call of nng:
 * nng's callbacks take it.
 *
 * Used by: client*.c alone.
 */
#ifndef BESTROUTE_CLIENT_INSIDE_H
#define BESTROUTE_CLIENT_INSIDE_H

#include <pthread.h>

#include <nng/nng.h>

#include "balancer.h"
#include "bestroute/client.h"
#include "core/memory.h"
#include "protocol/request.h"

typedef struct br_endpoint br_endpoint;

/* One request on its way to one endpoint and back.
 *
 *   start -> [ send -> receive ] -> done        between start and done it is nng's
 */
typedef struct br_flight {
    struct br_flight *next; /* of the idle ones */
    br_endpoint *endpoint;
    nng_ctx context;
    nng_aio *aio;
    pthread_cond_t *wake; /* signalled when it is done */
    uint32_t connection;  /* the endpoint's when it started */
    bool was_sent;        /* read it only once it is done */
    bool done;            /* under the mutex */
    int failed;           /* once done: nng's error */
    nng_msg *reply;       /* once done without one */
} br_flight;

struct br_endpoint {
    br_client *client;
    size_t index; /* in the balancer */
    char *url;
    nng_socket socket;
    bool is_open;
    nng_pipe pipe;   /* the connection; under the mutex */
    br_flight *idle; /* under the mutex */
    br_flight *ping; /* the pinger's; so is the next */
    uint64_t ping_end_ns;
};

/* What a call works with, kept between calls: in one list or the other. */
typedef struct br_slot {
    struct br_slot *next;
    struct br_slot *previous; /* of the busy ones */
    pthread_cond_t changed;   /* a flight of the call is done */
    br_arena arena;
} br_slot;

struct br_client {
    br_endpoint *endpoints;
    size_t endpoint_count;
    uint32_t timeout_ms;
    uint32_t connect_ms;
    uint32_t retries;
    uint32_t hedge_ms; /* 0: never */
    uint32_t probe_ms;
    pthread_t pinger;
    bool has_pinger;

    pthread_mutex_t mutex;  /* guards what follows */
    pthread_cond_t changed; /* an endpoint may be usable, a call ended, or the client closes */
    pthread_cond_t
        pinger_news; /* the pinger is due earlier than pinger_due_ns, or one of its pings is done */
    uint64_t pinger_due_ns;
    br_balancer balancer;
    br_slot *idle;
    br_slot *busy;  /* one for each call that is running, but one without memory for it */
    size_t running; /* calls */
    bool closing;
    br_client_totals totals;
};

/* Opens the socket and begins to dial, in the background. `options` has the tls fields.
 * BR_EINVAL, BR_ENOTSUP, BR_EIO (a TLS file), BR_ENOMEM. */
BR_NODISCARD br_status br_endpoint_open(br_endpoint *endpoint, const br_client_options *options,
                                        br_error *error);

/* When no flight is in use any more. Waits for nng's callbacks. */
void br_endpoint_close(br_endpoint *endpoint);

/* Drops the present connection, if there is one; nng dials again. */
void br_endpoint_disconnect(br_endpoint *endpoint);

bool br_url_is_tls(const char *url);

/* Moves `message`, also on failure. The flight ends by itself, or with br_flight_end; `wake` is signalled under the
 * mutex. A send that has to wait for a connection gives up after a while: done, not was_sent, NNG_ETIMEDOUT.
 * BR_ENOMEM. */
BR_NODISCARD br_status br_flight_start(br_flight **out, br_endpoint *endpoint, nng_msg *message,
                                       pthread_cond_t *wake, br_error *error);

/* Accepts NULL. Cancels what is under way, frees the reply; the flight is gone. */
void br_flight_end(br_flight *flight);

/* Whether a request goes unanswered is known from then on: wakes the pinger if it sleeps longer. Under the mutex. */
void br_pinger_expect(br_client *client, size_t index);

/* BR_ENOMEM: no thread. */
BR_NODISCARD br_status br_pinger_start(br_client *client, br_error *error);

/* The client is closing. Accepts one that never started. */
void br_pinger_stop(br_client *client);

/* Sends the request until it is answered, refused for good, or time is over. */
BR_NODISCARD br_status br_client_call_run(br_client *client, br_slot *slot, br_answer **out,
                                          br_request *request, br_error *error);

#endif
