/*
 * flight.h - one request on an endpoint, from its send to its reply.
 *
 * Uses: state, nng.  Used by: call, pinger, endpoint.
 */
#ifndef BESTROUTE_CLIENT_FLIGHT_H
#define BESTROUTE_CLIENT_FLIGHT_H

#include "state.h"

/* Takes over `message`, also on failure. The flight ends by itself, or with br_flight_end; `wake` (state.h)
 * is signalled under the mutex. A send that has to wait for a connection gives up after a while: done, not
 * was_sent, NNG_ETIMEDOUT. BR_ENOMEM. */
BR_NODISCARD br_status br_flight_start(br_flight **out, br_endpoint *endpoint, nng_msg *message,
                                       pthread_cond_t *wake, br_error *error);

/* Accepts NULL. Cancels what is under way, frees the reply; the flight is gone. */
void br_flight_end(br_flight *flight);

/* Frees the endpoint's idle flights, when none is in use any more. Waits for nng's callbacks. */
void br_flight_free_idle(br_endpoint *endpoint);

#endif
