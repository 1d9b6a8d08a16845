/* curve.h - a sweep as a picture. */
#ifndef BESTROUTE_BENCH_CURVE_H
#define BESTROUTE_BENCH_CURVE_H

#include <jansson.h>

#include "bestroute/error.h"

/* Latency (its logarithm) against throughput, STEM.svg and STEM.png: of an open loop against the queries/s that were
 * offered, since beyond the capacity more than one latency goes with what is answered. BR_EIO, BR_ENOMEM. */
BR_NODISCARD br_status curve_plot(const json_t *report, const char *stem, br_error *error);

#endif
