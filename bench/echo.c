/* echo.c - see echo.h: contexts that send back what they received. */
#include "echo.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/protocol/reqrep0/rep.h>

enum { ECHO_CONTEXTS = 1088 };

typedef struct echo {
    nng_ctx ctx;
    nng_aio *aio;
    bool receiving;
} echo;

static void echo_step(void *argument)
{
    echo *e = argument;
    if (nng_aio_result(e->aio) != 0) return;
    e->receiving = !e->receiving;
    if (e->receiving)
        nng_ctx_recv(e->ctx, e->aio);
    else
        nng_ctx_send(e->ctx, e->aio); /* what was received stays in the aio */
}

br_status echo_run(const char *url, br_error *error)
{
    nng_socket socket;
    echo *all = calloc(ECHO_CONTEXTS, sizeof *all);
    if (all == NULL) return br_fail(error, BR_ENOMEM, "out of memory");
    int failed = nng_rep0_open(&socket);
    for (int i = 0; failed == 0 && i < ECHO_CONTEXTS; i++) {
        failed = nng_ctx_open(&all[i].ctx, socket);
        if (failed == 0) failed = nng_aio_alloc(&all[i].aio, echo_step, &all[i]);
        all[i].receiving = true;
        if (failed == 0) nng_ctx_recv(all[i].ctx, all[i].aio);
    }
    if (failed == 0) failed = nng_listen(socket, url, NULL, 0);
    if (failed != 0) return br_fail(error, BR_EIO, "%s: %s", url, nng_strerror(failed));
    for (;;) (void)pause();
}
