/*
 * plot.h - one chart as SVG and PNG, drawn by cairo.
 *
 * Knows lines, dots, bands and axes; nothing of what they mean. Values that are not finite are left out.
 *
 * Uses: error, cairo.  Used by: cli_eval, bench/sweep.
 */
#ifndef BESTROUTE_CLI_PLOT_H
#define BESTROUTE_CLI_PLOT_H

#include <stdbool.h>
#include <stddef.h>

#include "bestroute/error.h"

typedef enum plot_kind {
    PLOT_LINE,
    PLOT_MARKED, /* a line with a dot at each value */
    PLOT_DASHED,
    PLOT_DOTS,
    PLOT_BAND, /* between y and y2; drawn first */
} plot_kind;

typedef struct plot_series {
    const char *label; /* of the legend; NULL: none */
    plot_kind kind;
    unsigned color;           /* 0xRRGGBB */
    const double *x;          /* [count]; borrowed */
    const double *y;          /* [count] */
    const double *y2;         /* [count] for a band */
    const char *const *texts; /* [count], beside the values; NULL: none */
    size_t count;
} plot_series;

typedef struct plot_chart {
    const char *title;
    const char *x_label;
    const char *y_label;
    const plot_series *series;
    size_t series_count;
    const char *subtitle; /* below the title; NULL: none */
    bool unit_square;     /* both axes 0..1; else they fit the data */
    bool log_y;           /* y by its logarithm; values that are not above 0 are left out */
    bool legend_first;    /* top left, not bottom right */
} plot_chart;

/* Writes STEM.svg and STEM.png. BR_EIO: a file cannot be written, named in the error; BR_ENOMEM. */
BR_NODISCARD br_status plot_write(const plot_chart *chart, const char *stem, br_error *error);

#endif
