/*
 * batcher.h - groups waiting queries into packed batches.
 *
 * Passive: it runs nothing, never blocks and never reads a clock; time comes in as an argument, so a test can
 * replay any timing. Not thread-safe: the workers hold the lock. An idle worker takes whatever is queued;
 * while all workers are busy, the queue grows into larger batches.
 *
 * Order, of one client's queries: earliest deadline first, then arrival; a query without a deadline comes
 * after all that have one. Between clients: each has a turn of an eighth of the largest batch, in tokens; of
 * those whose turn is not used up, the one whose next query comes first in that order is served, and when all
 * turns are used up each begins another. A client that had nothing waiting is fresh for its first turn: fresh
 * ones go before the others, which are left at least a ninth of the tokens. So deadlines decide between
 * clients that use the service alike, and a client that floods it, with whatever deadlines, delays a query of
 * another client only by the passes under way. (Deficit round robin, Shreedhar and Varghese 1995; fresh ones
 * first, as in FQ-CoDel, RFC 8290. More than 64 clients at a time are compared 64 at a time.)
 *
 * How much: as much as fits, where a pass takes about as long for one query as for many. On a core the time
 * of a pass grows with its tokens, and every query in it waits for all of them: there a taker takes only its
 * share of the queue. So the other cores have work too, and passes are long only when the queue is. A client
 * floods when more than a turn of its tokens is waiting. For a while after a client with less was served
 * beside one that floods, only the queries of clients that do not flood are shared, one query at least, so
 * that passes under way are short.
 *
 * A query that does not fit the batch is skipped, not waited for, so one long prompt delays nobody behind it;
 * it keeps its place and leads one of the next batches. A batch holds queries of one group only (a loaded
 * bundle): that of the query that leads it. The leader goes even if it is longer than the taker's budget.
 *
 *   push, put_back  O(1)
 *   take            O((taken + BR_BATCH_SKIPS_MAX) * (log waiting + clients, 64 at most)), and O(log waiting)
 *                   once in a query's life when it is found expired
 *   expire          O(clients + log waiting)
 *
 * Uses: limits, status.  Used by: job, workers.
 */
#ifndef BESTROUTE_WORKERS_BATCHER_H
#define BESTROUTE_WORKERS_BATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/status.h"
#include "core/limits.h"

/* A batch is closed when this many queries were skipped for it. It bounds the time that take holds
 * the worker's lock; larger fills batches better while two bundles' queries are mixed by a reload. */
enum { BR_BATCH_SKIPS_MAX = 64 };

typedef struct br_batcher br_batcher;

/* Embedded in the caller's query; borrowed from push until take or expire hands it back. Not to be
 * changed in between. */
typedef struct br_batch_item {
    uint64_t deadline_ns; /* UINT64_MAX: none */
    uint64_t arrival;     /* written by push: order of arrival */
    const void *group;    /* only items of equal groups share a batch */
    uint64_t client;      /* the client that it belongs to: any number */
    int32_t tokens;       /* 1..tokens_max */

    struct br_batch_item *child; /* the batcher's own */
    struct br_batch_item *sibling;
} br_batch_item;

typedef struct br_batcher_options {
    int32_t tokens_max; /* per batch, 1..BR_BATCH_TOKENS_MAX */
    int32_t seqs_max;   /* per batch, 1..BR_BATCH_SEQS_MAX */
    int32_t queue_max;  /* waiting queries, 1..BR_QUEUE_QUERIES_MAX */
} br_batcher_options;

/* Allocates all the memory the batcher will ever use. On failure *out is NULL.
 * BR_EINVAL: an option is out of its range. BR_ENOMEM. */
BR_NODISCARD br_status br_batcher_create(br_batcher **out, const br_batcher_options *options);

/* Accepts NULL. The batcher must be empty: its queries would never be answered. */
void br_batcher_destroy(br_batcher *batcher);

/* Borrows the item. BR_EBUSY: the queue is full; nothing is kept. */
BR_NODISCARD br_status br_batcher_push(br_batcher *batcher, br_batch_item *item);

/* Borrows again what take handed out: it finds its old place. BR_EBUSY as above. */
BR_NODISCARD br_status br_batcher_put_back(br_batcher *batcher, br_batch_item *item);

/* Moves the next batch of at most `tokens_max` tokens, 1 or more, into items[seqs_max], in order, and returns
 * its size; one longer than that goes alone. `sharers`: how many takers there are, this one included, whose
 * passes take as long as they have tokens; 0: this taker is none of them. Items whose deadline is <= now_ns
 * are never in it: they wait for br_batcher_expire, and still count. 0 when nothing else waits. */
int32_t br_batcher_take(br_batcher *batcher, br_batch_item **items, int32_t tokens_max, int32_t sharers,
                        uint64_t now_ns);

/* Hands back one item whose deadline is <= now_ns, or that take found expired, in any order; NULL
 * when there is none. */
br_batch_item *br_batcher_expire(br_batcher *batcher, uint64_t now_ns);

/* The earliest deadline of all waiting queries; 0 when something is known to have expired, UINT64_MAX when
 * there is none. O(clients). */
uint64_t br_batcher_deadline_ns(const br_batcher *batcher);

/* Everything that waits, expired or not. */
int32_t br_batcher_queries(const br_batcher *batcher);
int64_t br_batcher_tokens(const br_batcher *batcher);

#endif
