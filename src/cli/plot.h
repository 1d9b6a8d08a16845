/*
 * plot.h - pictures of a JSON report, drawn by the program bestroute-plot.
 *
 * bestroute-plot is a Python program (python/ in the source tree), so that the command links no library for
 * fonts or pictures.
 *
 * Uses: error, jansson.  Used by: report, eval, calibrate, bench.
 */
#ifndef BESTROUTE_CLI_PLOT_H
#define BESTROUTE_CLI_PLOT_H

#include <jansson.h>

#include "bestroute/error.h"

/* To be called before the work. BR_EINVAL: bestroute-plot is not on the PATH; the error says how to install
 * it. */
BR_NODISCARD br_status br_plot_check(br_error *error);

/* Runs `bestroute-plot - STEM`, which reads the report from its standard input, and waits for it. What it
 * prints goes to standard error. BR_EINVAL as above; BR_EIO: it failed,
 * and the error has its exit status or signal. */
BR_NODISCARD br_status br_plot_draw(const json_t *report, const char *stem, br_error *error);

#endif
