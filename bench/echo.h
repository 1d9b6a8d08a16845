/* echo.h - the bare transport, to set a service beside: every message is its own answer. */
#ifndef BESTROUTE_BENCH_ECHO_H
#define BESTROUTE_BENCH_ECHO_H

#include "bestroute/error.h"

/* Answers on `url` until killed. Returns only on failure. BR_EIO, BR_ENOMEM. */
BR_NODISCARD br_status echo_run(const char *url, br_error *error);

#endif
