/*
 * ipc_guard.h - reopens ipc listeners that nng 1.5 leaves deaf.
 *
 * When a peer leaves during the handshake, nng 1.5 takes the peer's closing for that of its own listener: it
 * stops accepting on it for good, and reports nothing. So the guard connects to each ipc listener a few times
 * a second, as a client would, and expects nng to report the new connection. When nng does not, the guard
 * closes the listener and opens it again. That cuts off the clients connected to it; a REQ socket sends its
 * request again by itself. nng loses some kilobytes each time.
 *
 * One mutex guards the list and what was seen; it is held across no call into nng.
 */
#ifndef BESTROUTE_SERVE_IPC_GUARD_H
#define BESTROUTE_SERVE_IPC_GUARD_H

#include <nng/nng.h>

#include "bestroute/error.h"
#include "core/log.h"

typedef struct ipc_guard ipc_guard;

/* Borrows the log. BR_ENOMEM; BR_EINTERNAL: no thread. On failure *out is NULL. */
BR_NODISCARD br_status ipc_guard_create(ipc_guard **out, const br_log *log, br_error *error);

/* Accepts NULL. Stops watching: no listener is opened again. Called before the sockets are closed. */
void ipc_guard_stop(ipc_guard *ipc_guard);

/* Accepts NULL. Called after the sockets were closed: nng reports connections until then. */
void ipc_guard_destroy(ipc_guard *ipc_guard);

/* Opens an ipc listener on the socket and watches it. `mode`: permissions of the file; 0: the system's
 * default. `option` names the url's option in errors. BR_EIO: cannot listen. BR_ETOOBIG: too many.
 * BR_ENOMEM. */
BR_NODISCARD br_status ipc_guard_listen(ipc_guard *ipc_guard, nng_socket socket, const char *url, int mode,
                                        const char *option, br_error *error);

#endif
