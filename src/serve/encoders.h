/*
 * encoders.h - the encoders of a bundle, opened and closed on the threads of the workers they belong to; and
 * the end of a bundle.
 *
 * A worker whose pass does not end (it is stuck) runs no errand, so its encoders stay open. All of this runs
 * on the keeper's thread.
 */
#ifndef BESTROUTE_SERVE_ENCODERS_H
#define BESTROUTE_SERVE_ENCODERS_H

#include "service.h"

/* Opens the encoders of the device's workers, one after another, so that the other workers keep scoring
 * meanwhile. On failure some may be open. BR_EDEVICE: a worker is stuck; statuses of br_loaded_open. */
BR_NODISCARD br_status encoders_open(br_server *server, br_loaded *loaded, int32_t device, br_error *error);

/* Closes them. False when some stay open, because their worker is stuck. */
BR_NODISCARD bool encoders_close(br_server *server, br_loaded *loaded, int32_t device);

/* Closes the bundle's encoders on every device, and destroys it. False when a worker that is stuck has one of
 * them: then the bundle goes to server->kept, to be freed later. Accepts NULL. */
bool encoders_free_bundle(br_server *server, br_loaded *loaded);

/* Whether any worker is stuck. From any thread. */
bool encoders_stuck(const br_server *server);

#endif
