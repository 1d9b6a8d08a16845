/* dispatch.h - which worker takes a batch, and which one is woken for it. With the lock held, but for
 * dispatch_wake. */
#ifndef BESTROUTE_WORKERS_DISPATCH_H
#define BESTROUTE_WORKERS_DISPATCH_H

#include "worker.h"

/* Whether the worker should take a batch of the jobs that wait now. */
bool dispatch_may_take(const br_worker *w);

/* br_batcher_take's `sharers` for this worker: how many workers on the host's cores there are, if it is
 * one. */
int32_t dispatch_sharers(const br_worker *w);

/* Counts a batch that the worker has taken, w->items[count], among the work of its device; returns its
 * tokens. */
int64_t dispatch_add_load(br_worker *w, int32_t count);
/* The batch is done. `ns`: how long it took; 0: that says nothing about the device's speed. */
void dispatch_remove_load(br_worker *w, int64_t tokens, uint64_t ns);

/* Reserves the sleeping worker that suits best, to be woken after unlocking: one that may take a batch; with
 * `to_feed`, any. NULL when there is none. */
br_worker *dispatch_reserve(br_workers *all, bool to_feed);

/* Accepts NULL. After unlocking: the woken thread would only wait for the lock. */
void dispatch_wake(br_worker *w);

void dispatch_wake_all(br_workers *all);

#endif
