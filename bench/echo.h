/* echo.h - the transport alone, to compare a service with: every message is its own answer. */
#ifndef BESTROUTE_BENCH_ECHO_H
#define BESTROUTE_BENCH_ECHO_H

#include <stdbool.h>

#include "bestroute/error.h"

/* Answers on `url` until killed. With a hand-over each message goes to one other thread and back before it is
 * answered: the least that a service must do whose work is not done on the transport's threads. Returns only
 * on failure.
 * BR_EIO, BR_ENOMEM. */
BR_NODISCARD br_status echo_run(const char *url, bool with_hand_over, br_error *error);

#endif
