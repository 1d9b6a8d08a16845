/*
 * scoring.h - route and score, from a decoded request to finished queries.
 *
 *   admit -> tokenizer queue: prepare, then run -> workers -> the last query finished: br_call_answer
 *
 * A query is finished by the thread that tokenises it if it is wrong or late or its scores are known; by its
 * leader if the same prompt is in flight; otherwise by the worker that scores it.
 *
 * The circle that exists at run time only: an idle worker calls scoring_feed before it sleeps, and so
 * tokenises the jobs that it then scores.
 */
#ifndef BESTROUTE_SERVE_SCORING_H
#define BESTROUTE_SERVE_SCORING_H

#include "call.h"

/* Admits the call, or refuses it: not ready, overloaded. */
void scoring_admit(br_call *call);

/* What the tokenizer queue does with a call. */
extern const tokenizer_queue_work scoring_work;

/* The workers' `feed`: one step of the tokenizer queue, which is the context. False when nothing is
 * queued. */
bool scoring_feed(void *queue);

#endif
