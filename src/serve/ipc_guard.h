/*
 * ipc_guard.h - sees to it that ipc listeners go on accepting.
 *
 * nng 1.5 stops accepting on an ipc listener for good when a peer leaves during
 * the handshake: it takes the peer's closing for its own. Nobody is told. So the
 * guard's thread connects to each ipc listener a few times a second, as a client
 * would, and expects nng to report the new connection; when it does not, the
 * listener is closed and opened again. Clients connected to it are cut off then,
 * and ask again, as REQ does by itself. nng loses some kilobytes each time.
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

/* Accepts NULL. Stops watching: nothing is opened again. Before the sockets are closed. */
void ipc_guard_stop(ipc_guard *ipc_guard);

/* Accepts NULL. After the sockets were closed: nng reports connections until then. */
void ipc_guard_destroy(ipc_guard *ipc_guard);

/* Opens an ipc listener on the socket and watches it. `mode`: permissions of the file, 0 for the system's.
 * `option` names the url's option in errors. BR_EIO: cannot listen. BR_ETOOBIG: too many. BR_ENOMEM. */
BR_NODISCARD br_status ipc_guard_listen(ipc_guard *ipc_guard, nng_socket socket, const char *url, int mode,
                                        const char *option, br_error *error);

#endif
