/*
 * answer.h - the reply to route and score: policies over the qualities of a call, results, timing.
 *
 * Everything is put together in the call's arena, in nng's callback.
 */
#ifndef BESTROUTE_SERVE_ANSWER_H
#define BESTROUTE_SERVE_ANSWER_H

#include "call.h"

/* Every query of the call is finished: replies. */
void answer_finish(br_call *call);

#endif
