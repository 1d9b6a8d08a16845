/* histogram.c - see histogram.h. */
#include "histogram.h"

#include <assert.h>

#include "core/limits.h"

#define DECADE(power) (power), 2 * (power), 5 * (power)

static const uint64_t time_bounds[] = {
    DECADE(UINT64_C(10000)),    DECADE(UINT64_C(100000)),    DECADE(UINT64_C(1000000)),
    DECADE(UINT64_C(10000000)), DECADE(UINT64_C(100000000)), DECADE(UINT64_C(1000000000)),
    UINT64_C(10000000000),
};
static const uint64_t query_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
static const uint64_t token_bounds[] = {16,   32,   64,   128,   256,   512,  1024,
                                        2048, 4096, 8192, 16384, 32768, 65536};

enum {
    TIMES = sizeof time_bounds / sizeof *time_bounds,
    QUERIES = sizeof query_bounds / sizeof *query_bounds,
    TOKENS = sizeof token_bounds / sizeof *token_bounds,
};

static_assert(TIMES <= (int)BR_HISTOGRAM_BOUNDS_MAX, "every bound has a bucket");
static_assert(1 << (QUERIES - 1) == (int)BR_BATCH_SEQS_MAX, "the largest batch has a bucket");
static_assert(16 << (TOKENS - 1) == (int)BR_BATCH_TOKENS_MAX, "the longest batch has a bucket");

const uint64_t *br_scale_bounds(br_scale scale, int32_t *count)
{
    static const struct {
        const uint64_t *bounds;
        int32_t count;
    } scales[] = {
        [BR_SCALE_TIME] = {time_bounds, TIMES},
        [BR_SCALE_QUERIES] = {query_bounds, QUERIES},
        [BR_SCALE_TOKENS] = {token_bounds, TOKENS},
    };
    *count = scales[scale].count;
    return scales[scale].bounds;
}

void br_histogram_init(br_histogram *histogram, br_scale scale)
{
    histogram->scale = scale;
    for (int32_t i = 0; i <= BR_HISTOGRAM_BOUNDS_MAX; i++) atomic_init(&histogram->counts[i], 0);
    atomic_init(&histogram->sum, 0);
}

void br_histogram_add(br_histogram *histogram, uint64_t value)
{
    int32_t count;
    const uint64_t *bounds = br_scale_bounds(histogram->scale, &count);
    int32_t bucket = 0;
    while (bucket < count && value > bounds[bucket]) bucket++;
    atomic_fetch_add_explicit(&histogram->counts[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, value, memory_order_relaxed);
}

uint64_t br_histogram_count(const br_histogram *histogram, int32_t bucket)
{
    assert(bucket >= 0);
    assert(bucket <= BR_HISTOGRAM_BOUNDS_MAX);
    return atomic_load_explicit(&histogram->counts[bucket], memory_order_relaxed);
}

uint64_t br_histogram_sum(const br_histogram *histogram)
{
    return atomic_load_explicit(&histogram->sum, memory_order_relaxed);
}
