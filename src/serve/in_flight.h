/*
 * in_flight.h - identical prompts in flight are computed once: the first query leads; queries that come while
 * it is queued or computed follow it and get its qualities.
 *
 * A query follows only a query of the same client whose deadline is not later, so that sharing never makes it
 * wait longer than its own place in the queue would have. When a leader expires or fails, its followers are
 * queued themselves.
 *
 *   buckets -> leader -> leader ...        by_hash
 *                |
 *                +-> follower -> follower  followers
 *
 * Any thread may call anything; one mutex guards the links of all queries in it.
 */
#ifndef BESTROUTE_SERVE_IN_FLIGHT_H
#define BESTROUTE_SERVE_IN_FLIGHT_H

#include "call.h"

typedef struct in_flight in_flight;

/* BR_ENOMEM. */
BR_NODISCARD br_status in_flight_create(in_flight **out, int64_t queue_max);
void in_flight_destroy(in_flight *f); /* accepts NULL */

/* False: the tokenised query leads, and is to be queued. True: it follows, and its leader finishes it. */
BR_NODISCARD bool in_flight_follow(in_flight *f, query_state *q);

/* The queries that followed this one, linked by next_follower; NULL when there are none. From now on they
 * follow no query, and the next query with this prompt leads. Accepts a query that never led. */
BR_NODISCARD query_state *in_flight_end(in_flight *f, query_state *leader);

#endif
