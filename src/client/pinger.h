/*
 * pinger.h - pings in the background, where there are several endpoints.
 *
 * Ejected endpoints are pinged to readmit them, silent ones to tell a long computation from a dead peer.
 *
 * Uses: state, endpoint, flight, request, outcome, alarm.  Used by: client.
 */
#ifndef BESTROUTE_CLIENT_PINGER_H
#define BESTROUTE_CLIENT_PINGER_H

#include "state.h"

/* When all endpoints are there. With one endpoint it does nothing. BR_ENOMEM: also where there is no
 * thread. */
BR_NODISCARD br_status br_pinger_start(br_client *client, br_error *error);

/* Returns when no ping runs and none will begin. Accepts one that never started. */
void br_pinger_stop(br_client *client);

/* When nothing calls br_client_expect_ping any more: calls have ended and endpoints are closed. */
void br_pinger_destroy(br_client *client);

#endif
