/* monitor.h - what monitors read, over http.h: /metrics for Prometheus, /healthz, /readyz. */
#ifndef BESTROUTE_SERVE_MONITOR_H
#define BESTROUTE_SERVE_MONITOR_H

#include "service.h"

/* Statuses of http_open. */
BR_NODISCARD br_status monitor_open(br_server *server, const char *url, br_error *error);
void monitor_close(br_server *server); /* accepts that nothing is open */

#endif
