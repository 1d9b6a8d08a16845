/*
 * endpoint.h - a connection to one url: a socket that dials again by itself.
 *
 * Uses: state, flight, tls, nng.  Used by: client, pinger.
 */
#ifndef BESTROUTE_CLIENT_ENDPOINT_H
#define BESTROUTE_CLIENT_ENDPOINT_H

#include "state.h"

/* Opens the socket and begins to dial, in the background. `options` has the tls fields.
 * BR_EINVAL, BR_ENOTSUP, BR_EIO (a TLS file), BR_ENOMEM. */
BR_NODISCARD br_status br_endpoint_open(br_endpoint *endpoint, const br_client_options *options,
                                        br_error *error);

/* When no flight is in use any more. Waits for nng's callbacks. */
void br_endpoint_close(br_endpoint *endpoint);

/* Drops the present connection, if there is one; nng dials again. */
void br_endpoint_disconnect(br_endpoint *endpoint);

#endif
