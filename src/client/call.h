/*
 * call.h - the way of one call: which endpoints are asked, how often, and which answer counts.
 *
 * Uses: state, flight, outcome, request.  Used by: client.
 */
#ifndef BESTROUTE_CLIENT_CALL_H
#define BESTROUTE_CLIENT_CALL_H

#include "protocol/request.h"
#include "state.h"

/* Sends the request until it is answered, refused for good, or time is over. */
BR_NODISCARD br_status br_client_call_run(br_client *client, br_slot *slot, br_answer **out,
                                          br_request *request, br_error *error);

#endif
