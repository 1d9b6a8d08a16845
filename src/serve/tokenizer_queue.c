/* tokenizer_queue.c - see tokenizer_queue.h. */
#include "tokenizer_queue.h"
#include "core/thread.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct tokenizer_queue {
    tokenizer_queue_work work;
    pthread_t *threads;
    int32_t started;

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t came;
    tokenizer_queue_entry *first;
    tokenizer_queue_entry *last;
    int32_t idle;
    bool stopping;
};

/* The next run of the entry at the head, which leaves the queue with its last one. Lock held. */
static int32_t claim(tokenizer_queue *s, tokenizer_queue_entry *entry, int32_t *first)
{
    *first = entry->claimed;
    int32_t count = entry->parts - entry->claimed;
    if (count > TOKENIZER_RUN) count = TOKENIZER_RUN;
    entry->claimed += count;
    if (entry->claimed == entry->parts) {
        s->first = entry->next;
        if (s->first == NULL) s->last = NULL;
    }
    return count;
}

/* Prepares an entry that was taken off the queue and puts it back at the head. Lock held, released
 * meanwhile. */
static void prepare(tokenizer_queue *s, tokenizer_queue_entry *entry)
{
    br_unlock(&s->lock);
    const int32_t parts = s->work.prepare(entry);
    br_lock(&s->lock);
    if (parts == 0) return;
    entry->parts = parts;
    entry->next = s->first;
    s->first = entry;
    if (s->last == NULL) s->last = entry;
}

/* One step on the head of the queue, which is not empty. Called and left with the lock held. */
static void step(tokenizer_queue *s)
{
    tokenizer_queue_entry *entry = s->first;
    if (entry->parts == 0) {
        s->first = entry->next;
        if (s->first == NULL) s->last = NULL;
        prepare(s, entry);
        return;
    }
    int32_t first;
    const int32_t count = claim(s, entry, &first);
    const bool wake = s->first == entry && s->idle > 0; /* more runs of it for another thread */
    br_unlock(&s->lock);
    if (wake) br_cond_signal(&s->came);
    s->work.run(entry, first, count);
    br_lock(&s->lock);
}

static void *serve(void *argument)
{
    tokenizer_queue *s = argument;
    br_lock(&s->lock);
    for (;;) {
        if (s->first != NULL) {
            step(s);
        } else {
            if (s->stopping) break;
            s->idle++;
            br_cond_wait(&s->came, &s->lock);
            s->idle--;
        }
    }
    br_unlock(&s->lock);
    return NULL;
}

bool tokenizer_queue_help(tokenizer_queue *s)
{
    br_lock(&s->lock);
    const bool some = s->first != NULL;
    if (some) step(s);
    br_unlock(&s->lock);
    return some;
}

br_status tokenizer_queue_create(tokenizer_queue **out, int32_t threads, const tokenizer_queue_work *work)
{
    assert(threads >= 1);
    *out = NULL;
    tokenizer_queue *s = calloc(1, sizeof *s);
    if (s == NULL) return BR_ENOMEM;
    s->work = *work;
    br_mutex_init(&s->lock);
    br_cond_init(&s->came);
    br_status status = BR_ENOMEM;
    s->threads = calloc((size_t)threads, sizeof *s->threads);
    if (s->threads == NULL) goto fail;
    for (; s->started < threads; s->started++) {
        status = BR_EINTERNAL;
        if (!br_thread_start(&s->threads[s->started], serve, s)) goto fail;
    }
    *out = s;
    return BR_OK;

fail:
    tokenizer_queue_destroy(s);
    return status;
}

void tokenizer_queue_stop(tokenizer_queue *s)
{
    br_lock(&s->lock);
    s->stopping = true;
    br_cond_broadcast(&s->came);
    br_unlock(&s->lock);
    for (int32_t i = 0; i < s->started; i++) br_thread_join(s->threads[i]);
    s->started = 0;
}

void tokenizer_queue_destroy(tokenizer_queue *s)
{
    if (s == NULL) return;
    tokenizer_queue_stop(s);
    br_cond_destroy(&s->came);
    br_mutex_destroy(&s->lock);
    free(s->threads);
    free(s);
}

void tokenizer_queue_add(tokenizer_queue *s, tokenizer_queue_entry *entry)
{
    entry->next = NULL;
    entry->parts = 0;
    entry->claimed = 0;
    br_lock(&s->lock);
    if (s->last != NULL)
        s->last->next = entry;
    else
        s->first = entry;
    s->last = entry;
    br_unlock(&s->lock);
}

void tokenizer_queue_wake(tokenizer_queue *s)
{
    br_lock(&s->lock);
    const bool wake = s->first != NULL && s->idle > 0;
    br_unlock(&s->lock);
    /* After unlocking: the woken thread would only wait for the lock. */
    if (wake) br_cond_signal(&s->came);
}
