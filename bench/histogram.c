/* histogram.c - see histogram.h. */
#include "histogram.h"

#include <math.h>
#include <stdlib.h>

enum { BITS = 10, BUCKETS = (64 - BITS + 1) << BITS };

static unsigned doubling_of(uint64_t value)
{
    return value < (UINT64_C(2) << BITS) ? 0 : 63U - (unsigned)__builtin_clzll(value) - BITS;
}

static size_t bucket_of(uint64_t value)
{
    const unsigned doubling = doubling_of(value);
    return ((size_t)doubling << BITS) + (size_t)(value >> doubling);
}

/* The largest value of a bucket. */
static uint64_t top_of(size_t bucket)
{
    if (bucket < (2U << BITS)) return bucket;
    const unsigned doubling = (unsigned)(bucket >> BITS) - 1;
    const uint64_t step = bucket - ((size_t)doubling << BITS);
    return ((step + 1) << doubling) - 1;
}

bool histogram_init(histogram *h)
{
    *h = (histogram){.counts = calloc(BUCKETS, sizeof *h->counts)};
    return h->counts != NULL;
}

void histogram_deinit(histogram *h)
{
    free(h->counts);
    h->counts = NULL;
}

void histogram_add(histogram *h, uint64_t value)
{
    atomic_fetch_add_explicit(&h->counts[bucket_of(value)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->total, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, value, memory_order_relaxed);
    uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
    while (value > max && !atomic_compare_exchange_weak_explicit(&h->max, &max, value, memory_order_relaxed,
                                                                 memory_order_relaxed)) {
    }
}

uint64_t histogram_percentile(const histogram *h, double part)
{
    const uint64_t total = atomic_load(&h->total);
    if (total == 0) return 0;
    uint64_t wanted = (uint64_t)ceil(part * (double)total);
    if (wanted < 1) wanted = 1;
    uint64_t seen = 0;
    const uint64_t max = atomic_load(&h->max);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += atomic_load_explicit(&h->counts[bucket], memory_order_relaxed);
        if (seen >= wanted) return top_of(bucket) < max ? top_of(bucket) : max;
    }
    return max;
}

double histogram_mean(const histogram *h)
{
    const uint64_t total = atomic_load(&h->total);
    return total == 0 ? 0 : (double)atomic_load(&h->sum) / (double)total;
}
