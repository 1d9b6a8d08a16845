/* pass.h - one batch's pass through a device, and what happens to its jobs when the pass fails or does not
 * end. Without the lock. */
#ifndef BESTROUTE_WORKERS_PASS_H
#define BESTROUTE_WORKERS_PASS_H

#include "worker.h"

/* Runs the batch w->items[count] on the worker's thread, and finishes its jobs or queues them again. */
void pass_run(br_worker *w, int32_t count);

/* The pass of a stuck worker has come back at last. With the lock held. */
void pass_unstick(br_worker *w);

/* Gives up every pass that more than PASS_LOOKS looks in a row found under way. Looks are counted rather than
 * time, so that a process which was stopped for a while takes no device for hung. One caller at a time. */
enum { PASS_LOOKS = 4 };
void pass_look(br_workers *all);

#endif
