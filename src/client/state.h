/*
 * state.h - what the parts of the client library share, and the one mutex over it.
 *
 *   client     options, connecting and closing, the public functions
 *   call       one call: attempts, hedges, retries
 *   outcome    what the end of a request means
 *   pinger     pings in the background
 *   endpoint   a connection to one url               tls   its certificates
 *   flight     one request on an endpoint, and its reply
 *   state      this
 *   balancer   which endpoint is asked next
 *   request    what the caller asks, as a message    answer   a reply, as what the caller gets
 *
 * The mutex guards the balancer, the idle lists and what says so below. It is never held during a call of
 * nng, because nng's callbacks take it. Where both are held, the alarm's own mutex is taken second.
 *
 * Every symbol here begins with br_: the library is linked into programs of other people.
 *
 * Uses: balancer, alarm, memory, nng.
 */
#ifndef BESTROUTE_CLIENT_STATE_H
#define BESTROUTE_CLIENT_STATE_H

#include <nng/nng.h>
#include <pthread.h>

#include "balancer.h"
#include "bestroute/client.h"
#include "core/alarm.h"
#include "core/memory.h"

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
    pthread_cond_t *wake; /* signalled when it is done; NULL: it is a ping, and the pinger is woken */
    uint32_t connection;  /* the endpoint's when it started */
    bool was_sent;        /* read it only once it is done */
    bool done;            /* under the mutex */
    int failed;           /* once done: nng's error, or 0 */
    nng_msg *reply;       /* once done without an error */
} br_flight;

struct br_endpoint {
    br_client *client;
    size_t index; /* in the balancer */
    char *url;
    nng_socket socket;
    bool is_open;
    nng_pipe pipe;   /* the connection; under the mutex */
    br_flight *idle; /* under the mutex */
    br_flight *ping; /* NULL: none is under way. Only the pinger touches this and the next */
    uint64_t ping_end_ns;
};

/* What one call works with. It is kept between calls: in the idle list, or in the busy one. */
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

    pthread_mutex_t mutex;  /* guards what follows */
    pthread_cond_t changed; /* an endpoint may be usable, a call ended, or the client closes */
    br_alarm *pinger;       /* NULL with one endpoint, and before it has started */
    br_balancer balancer;
    br_slot *idle;
    br_slot *busy;  /* one for each running call, except for a call that found no memory for its own */
    size_t running; /* calls */
    bool closing;
    br_client_totals totals;
};

/* The mutex and the lists of slots of a zeroed client. */
void br_client_state_init(br_client *client);

/* When no call runs any more. */
void br_client_state_deinit(br_client *client);

/* A call begins. Unless this is BR_ECLOSED it must end with br_client_leave; *slot stays NULL with
 * BR_ENOMEM. */
BR_NODISCARD br_status br_client_enter(br_client *client, br_slot **slot, br_error *error);

/* Accepts no slot. The client may be gone when this returns. */
void br_client_leave(br_client *client, br_slot *slot);

/* Makes every running call return BR_ECLOSED, and waits until all have left. */
void br_client_end_calls(br_client *client);

/* The status for nng's error about an option or a url. */
br_status br_client_nng_status(int failed);

/* Under the mutex, after each change that may make a ping of this endpoint due: the pinger looks in time. */
void br_client_expect_ping(br_client *client, size_t index);

#endif
