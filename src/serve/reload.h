/*
 * reload.h - a bundle is loaded beside the current one, tried, switched to; the old one is retired. On the
 * keeper's thread.
 */
#ifndef BESTROUTE_SERVE_RELOAD_H
#define BESTROUTE_SERVE_RELOAD_H

#include "service.h"

/* Makes the folder's bundle the current one; the first bundle also makes the workers. On failure the current
 * one stays. Statuses of br_loaded_create, encoders_open, ranks_meet and ranks_confirm. */
BR_NODISCARD br_status reload_bundle(br_server *server, const char *folder, br_error *error);

#endif
