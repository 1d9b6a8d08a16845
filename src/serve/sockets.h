/* sockets.h - the data and the admin socket: listeners, TLS, permissions, and the calls of both. */
#ifndef BESTROUTE_SERVE_SOCKETS_H
#define BESTROUTE_SERVE_SOCKETS_H

#include "service.h"

enum { SPARE_CONTEXTS = 64 }; /* beyond queue_max, so that a refusal always finds a context */

/* Opens what the configuration names, the monitor included. The error names the option. On failure some may
 * be open. BR_EIO, BR_EINVAL, BR_ENOTSUP, BR_ENOMEM, BR_EINTERNAL. */
BR_NODISCARD br_status sockets_open(br_server *server, br_error *error);

/* Reads the urls of listeners and their TLS files, and opens nothing. Statuses of sockets_open. */
BR_NODISCARD br_status sockets_check(const br_config *config, br_error *error);

/* Afterwards no request comes in and no reply is sent. Calls still exist. Accepts that nothing is open. */
void sockets_close(br_server *server);

/* When the sockets are closed and no call is open. */
void sockets_free_calls(br_server *server);

/* See br_server_url. */
BR_NODISCARD br_status sockets_url(const br_server *server, int32_t index, char *out, size_t size);

#endif
