/*
 * echo.c - see echo.h: contexts that send back what they received.
 *
 *   RECEIVING -> (HANDED_OVER: the other thread's queue ->) SENDING -> RECEIVING
 */
#include "echo.h"
#include "core/memory.h"
#include "core/thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/protocol/reqrep0/rep.h>

enum { ECHO_CONTEXTS = 1088 };

/* The messages that wait for the other thread. */
typedef struct hand_over {
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t came;
    struct echo *first;
} hand_over;

typedef struct echo {
    nng_ctx ctx;
    nng_aio *aio; /* holds the message from when it is received until it is sent */
    enum { RECEIVING, HANDED_OVER, SENDING } state;
    hand_over *over; /* NULL: answered where it is received */
    struct echo *next;
} echo;

static void give(echo *e)
{
    e->state = HANDED_OVER;
    br_lock(&e->over->lock);
    e->next = e->over->first;
    e->over->first = e;
    br_unlock(&e->over->lock);
    br_cond_signal(&e->over->came);
}

/* The other thread: gives every waiting message back to nng's threads. */
static void *give_back(void *argument)
{
    hand_over *over = argument;
    br_lock(&over->lock);
    for (;;) {
        while (over->first == NULL) br_cond_wait(&over->came, &over->lock);
        echo *all = over->first;
        over->first = NULL;
        br_unlock(&over->lock);
        while (all != NULL) {
            echo *e = all;
            all = e->next;
            if (nng_aio_begin(e->aio)) nng_aio_finish(e->aio, 0);
        }
        br_lock(&over->lock);
    }
    return NULL;
}

static void echo_step(void *argument)
{
    echo *e = argument;
    if (nng_aio_result(e->aio) != 0) return;
    switch (e->state) {
    case RECEIVING:
        if (e->over != NULL) {
            give(e);
            return;
        }
        break;
    case HANDED_OVER:
        break;
    case SENDING:
        e->state = RECEIVING;
        nng_ctx_recv(e->ctx, e->aio);
        return;
    }
    e->state = SENDING;
    nng_ctx_send(e->ctx, e->aio);
}

br_status echo_run(const char *url, bool with_hand_over, br_error *error)
{
    hand_over over = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};
    pthread_t other;
    if (with_hand_over && !br_thread_start(&other, give_back, &over))
        return br_fail(error, BR_ENOMEM, "no thread");
    nng_socket socket;
    echo *all = calloc(ECHO_CONTEXTS, sizeof *all);
    if (all == NULL) return br_no_memory(error, "the echo");
    int failed = nng_rep0_open(&socket);
    for (int i = 0; failed == 0 && i < ECHO_CONTEXTS; i++) {
        all[i].over = with_hand_over ? &over : NULL;
        failed = nng_ctx_open(&all[i].ctx, socket);
        if (failed == 0) failed = nng_aio_alloc(&all[i].aio, echo_step, &all[i]);
        if (failed == 0) nng_ctx_recv(all[i].ctx, all[i].aio);
    }
    if (failed == 0) failed = nng_listen(socket, url, NULL, 0);
    if (failed != 0) return br_fail(error, BR_EIO, "%s: %s", url, nng_strerror(failed));
    for (;;) (void)pause();
}
