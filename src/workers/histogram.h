/*
 * histogram.h - how many values were how large, in fixed buckets about twice as wide from one to the next.
 *
 *   bounds    b0        b1        b2  ...  bn
 *   counts       c0        c1         ...     cn    c(n+1)      value <= b0, <= b1, ..., <= bn, above
 *
 * Lock-free, and adding costs two atomic additions; any thread may call anything. Counts and sum are read one
 * by one: they need not fit together exactly.
 *
 * Uses: nothing.  Used by: metrics.
 */
#ifndef BESTROUTE_WORKERS_HISTOGRAM_H
#define BESTROUTE_WORKERS_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

typedef enum br_scale {
    BR_SCALE_TIME,    /* nanoseconds: 1, 2, 5 times each power of ten, 10 us to 10 s */
    BR_SCALE_QUERIES, /* powers of two to BR_BATCH_SEQS_MAX */
    BR_SCALE_TOKENS,  /* powers of two, 16 to BR_BATCH_TOKENS_MAX */
} br_scale;

enum { BR_HISTOGRAM_BOUNDS_MAX = 19 };

typedef struct br_histogram {
    br_scale scale;
    _Atomic uint64_t counts[BR_HISTOGRAM_BOUNDS_MAX + 1];
    _Atomic uint64_t sum;
} br_histogram;

/* The bounds, ascending; *count of them, at most BR_HISTOGRAM_BOUNDS_MAX. */
const uint64_t *br_scale_bounds(br_scale scale, int32_t *count);

void br_histogram_init(br_histogram *histogram, br_scale scale);
void br_histogram_add(br_histogram *histogram, uint64_t value);

/* bucket: 0..the number of the scale's bounds. The last bucket is for values above all of them. */
uint64_t br_histogram_count(const br_histogram *histogram, int32_t bucket);
uint64_t br_histogram_sum(const br_histogram *histogram);

#endif
