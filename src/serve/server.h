/*
 * server.h - the service: sockets, bundle, workers, and the way of a request between them.
 *
 *   create -> listen -> load -> run -> destroy
 *
 * Listening before loading answers `not_ready` meanwhile; loading alone, without listening, is what --check
 * does. br_server_run is the keeper: on the caller's thread it reloads, frees bundles that are no longer
 * used, and drains. stop, reload and drain may be called from any thread, also before run.
 *
 * Uses: everything in this folder but main.  Used by: main, bench, tests.
 */
#ifndef BESTROUTE_SERVE_SERVER_H
#define BESTROUTE_SERVE_SERVER_H

#include <stdbool.h>

#include "bestroute/error.h"
#include "config.h"
#include "core/log.h"

typedef struct br_server br_server;

/* Borrows config and log for its life. Opens the engine and starts the tokeniser threads.
 * BR_ENOTSUP: the build lacks the engine. BR_ENOMEM, BR_EDEVICE, BR_EINTERNAL. On failure *out is NULL. */
BR_NODISCARD br_status br_server_create(br_server **out, const br_config *config, const br_log *log,
                                        br_error *error);

/* Accepts NULL. br_server_run must not be running. Queries in flight are not computed. Waits for a device
 * that hangs: see br_server_stuck. */
void br_server_destroy(br_server *server);

/* Opens every listener and the admin socket and begins to answer. The error names the URL or TLS file.
 * BR_EIO, BR_EINVAL, BR_ENOMEM. */
BR_NODISCARD br_status br_server_listen(br_server *server, br_error *error);

/* Reads the TLS files and the urls that br_server_listen would use, and opens nothing. Its statuses. */
BR_NODISCARD br_status br_server_check(const br_server *server, br_error *error);

/* Loads the configured bundle, tries it on a probe, and begins to score. Statuses of br_loaded_create and
 * _open. */
BR_NODISCARD br_status br_server_load(br_server *server, br_error *error);

/* Serves until br_server_stop, then drains for at most drain_timeout_ms.
 * BR_EDEVICE: it stopped by itself, because the engine's device was lost. */
BR_NODISCARD br_status br_server_run(br_server *server);

/* A device hangs, perhaps for ever. Then br_server_destroy would wait for it; the process can still exit. */
bool br_server_stuck(const br_server *server);

/* Drain and leave br_server_run; the second time: leave at once. */
void br_server_stop(br_server *server);

/* Loads the folder of the current bundle again; a bad one leaves the old one serving. */
void br_server_reload(br_server *server);

/* Answers `not_ready` to new requests from now on; those in flight are answered. */
void br_server_drain(br_server *server);

/* The address that listener `index` really has, with the port the system chose. Written to out[size].
 * BR_EINVAL: there is no such listener. */
BR_NODISCARD br_status br_server_url(const br_server *server, int32_t index, char *out, size_t size);

/* "0.1.0". */
const char *br_server_version(void);

#endif
