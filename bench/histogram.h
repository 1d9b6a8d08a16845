/*
 * histogram.h - counts of values over many orders of magnitude, each known to a thousandth, as in
 * HdrHistogram.
 *
 * Values below 2048 have a bucket each; above, every doubling is divided into 1024. Any thread may add; the
 * other functions are for afterwards. (workers/histogram.h is another: a few fixed buckets, as Prometheus
 * wants them.)
 */
#ifndef BESTROUTE_BENCH_HISTOGRAM_H
#define BESTROUTE_BENCH_HISTOGRAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct histogram {
    _Atomic uint64_t *counts;
    _Atomic uint64_t total;
    _Atomic uint64_t sum;
    _Atomic uint64_t max;
} histogram;

/* False: no memory. Release with histogram_deinit, which also accepts a zeroed struct. */
bool histogram_init(histogram *h);
void histogram_deinit(histogram *h);
void histogram_add(histogram *h, uint64_t value);

/* The value that `part` of all, 0..1, do not exceed; the largest for 1, 0 when there are none. At most a
 * thousandth above the true one. */
uint64_t histogram_percentile(const histogram *h, double part);
double histogram_mean(const histogram *h);

#endif
