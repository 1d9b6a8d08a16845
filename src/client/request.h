/*
 * request.h - what a caller asks: checked, made a request of the protocol, and that a message.
 *
 * Uses: protocol, memory, nng.  Used by: client, call, pinger.
 */
#ifndef BESTROUTE_CLIENT_REQUEST_H
#define BESTROUTE_CLIENT_REQUEST_H

#include <nng/nng.h>

#include "bestroute/client.h"
#include "core/memory.h"
#include "protocol/request.h"

/* Fills *out for br_request_encode. Strings and tokens stay the call's, arrays live in the arena. `call` may
 * be NULL for operations without queries.
 * BR_EINVAL: the call is wrong; the error names the query and the field. BR_ENOMEM. */
BR_NODISCARD br_status br_client_make_request(br_request *out, br_op op, const br_client_call *call,
                                              br_arena *arena, br_error *error);

/* A request as a message. BR_ETOOBIG: more than any service takes. BR_ENOMEM. */
BR_NODISCARD br_status br_client_pack(nng_msg **out, const br_request *request, br_error *error);

#endif
