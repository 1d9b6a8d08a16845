/*
 * tokenizer_queue.h - threads that work through queued entries, several of them on a large one.
 *
 * An entry is prepared by one thread, which learns how many parts it has; its parts are then handed out in
 * runs of TOKENIZER_RUN to threads that are free, in the order in which entries came. An entry leaves the
 * queue with its last run, so the thread that finishes it may free it.
 *
 * Other threads may help: a scoring thread that is idle tokenises a query and then scores it, which saves
 * waking another thread.
 *
 * One mutex guards the queue; it is never held while an entry is worked on.
 */
#ifndef BESTROUTE_SERVE_TOKENIZER_QUEUE_H
#define BESTROUTE_SERVE_TOKENIZER_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/status.h"

enum { TOKENIZER_RUN = 16 };

/* Embedded in the caller's object; borrowed from push until its last run was worked on. */
typedef struct tokenizer_queue_entry tokenizer_queue_entry;
struct tokenizer_queue_entry {
    tokenizer_queue_entry *next;
    int32_t parts;   /* 0 until prepared */
    int32_t claimed; /* parts handed out */
};

typedef struct tokenizer_queue_work {
    /* Returns the number of parts; 0: the entry is gone already. */
    int32_t (*prepare)(tokenizer_queue_entry *entry);
    void (*run)(tokenizer_queue_entry *entry, int32_t first, int32_t count);
} tokenizer_queue_work;

typedef struct tokenizer_queue tokenizer_queue;

/* BR_ENOMEM; BR_EINTERNAL: no thread. On failure *out is NULL. */
BR_NODISCARD br_status tokenizer_queue_create(tokenizer_queue **out, int32_t threads,
                                              const tokenizer_queue_work *work);

/* Works through what is queued, then stops the threads. Others may still help. */
void tokenizer_queue_stop(tokenizer_queue *tokenizer_queue);

/* Accepts NULL. Stops as above. */
void tokenizer_queue_destroy(tokenizer_queue *tokenizer_queue);

/* Adds the entry, and wakes no thread. Another thread may finish the entry before this returns. */
void tokenizer_queue_add(tokenizer_queue *tokenizer_queue, tokenizer_queue_entry *entry);

/* Wakes a sleeping thread if anything is queued. */
void tokenizer_queue_wake(tokenizer_queue *tokenizer_queue);

/* One step, prepare or run, on the caller's thread. False when nothing is queued. */
bool tokenizer_queue_help(tokenizer_queue *tokenizer_queue);

#endif
