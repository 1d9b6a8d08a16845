/*
 * answer.h - a decoded reply as one allocation that the caller frees.
 *
 * Uses: protocol.  Used by: outcome.
 */
#ifndef BESTROUTE_CLIENT_ANSWER_H
#define BESTROUTE_CLIENT_ANSWER_H

#include "bestroute/client.h"
#include "protocol/reply.h"

/* Copies a decoded reply whose `ok` is true into one allocation.
 * BR_EFORMAT: a number that no service sends. BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_client_make_answer(br_answer **out, const br_reply *reply, br_error *error);

#endif
