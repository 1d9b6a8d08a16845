/*
 * recovery.h - devices that failed: when they are tried again, and how they come back.
 *
 *   in --pass failed twice--> out --due, and only the current bundle is left--> tried --probe passed--> in
 *                              ^                                                  |
 *                              +----------- failed: twice as long a wait ---------+
 *
 * Resetting a device takes it from every bundle that is on it, so it waits until the bundles before the
 * current one are gone. While its last pass has not come back, trying it fails. While it is out, reloads
 * leave it out.
 */
#ifndef BESTROUTE_SERVE_RECOVERY_H
#define BESTROUTE_SERVE_RECOVERY_H

#include "service.h"

/* The workers' `lost`, with the server as its context: the device is to be tried again later. When the last
 * device is lost, the service stops. */
void recovery_lose_device(void *server, int32_t device, bool last);

/* due: a device to try now, or -1. next: when to ask again. Both on the keeper's thread, with the state's
 * lock held. */
int32_t recovery_due(br_server *server);
uint64_t recovery_next_ns(const br_server *server);

/* On the keeper's thread. */
void recovery_try(br_server *server, int32_t device);

#endif
