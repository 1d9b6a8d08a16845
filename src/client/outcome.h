/*
 * outcome.h - what the end of a flight means, for the balancer and for its call.
 *
 * Uses: state, answer, reply, request.  Used by: call, pinger.
 */
#ifndef BESTROUTE_CLIENT_OUTCOME_H
#define BESTROUTE_CLIENT_OUTCOME_H

#include "protocol/request.h"
#include "state.h"

/* A call's own end of a flight. */
typedef struct br_ending {
    br_outcome outcome;
    br_status status;  /* BR_OK: *answer is the caller's */
    uint64_t retry_ms; /* of BR_OUTCOME_OVERLOADED */
} br_ending;

/* Of a flight that is done. `arena` is scratch. *answer is NULL unless the status is BR_OK. */
br_ending br_outcome_of_call(const br_flight *flight, const br_request *request, br_arena *arena,
                             br_answer **answer, br_error *error);

/* Of a ping. `is_done` false: its time is over. */
br_outcome br_outcome_of_ping(const br_flight *ping, bool is_done);

#endif
