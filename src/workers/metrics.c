/* metrics.c - counters, histograms and the moving average behind retry_ms. */
#include "metrics.h"

#include <assert.h>

#include "core/clock.h"

static const struct {
    const char *name;
    const char *help;
} counters[BR_COUNTER_COUNT] = {
#define COUNTER(name, help) [BR_COUNTER_##name] = {#name, help},
    BR_COUNTER_LIST(COUNTER)
#undef COUNTER
};

void br_metrics_init(br_metrics *metrics)
{
    for (int i = 0; i < BR_COUNTER_COUNT; i++) atomic_init(&metrics->counters[i], 0);
#define INIT(name, scale, help) br_histogram_init(&metrics->requests[BR_HISTOGRAM_##name], BR_SCALE_##scale);
    BR_REQUEST_HISTOGRAM_LIST(INIT)
#undef INIT
    for (int32_t d = 0; d < BR_DEVICES_MAX; d++) {
#define INIT(name, scale, help) br_histogram_init(&metrics->passes[d][BR_HISTOGRAM_##name], BR_SCALE_##scale);
        BR_PASS_HISTOGRAM_LIST(INIT)
#undef INIT
    }
    atomic_init(&metrics->query_ns, 0);
}

void br_metrics_add(br_metrics *metrics, br_counter counter, uint64_t amount)
{
    atomic_fetch_add_explicit(&metrics->counters[counter], amount, memory_order_relaxed);
}

uint64_t br_metrics_get(const br_metrics *metrics, br_counter counter)
{
    return atomic_load_explicit(&metrics->counters[counter], memory_order_relaxed);
}

const char *br_counter_name(br_counter counter)
{
    assert(counter < BR_COUNTER_COUNT);
    return counters[counter].name;
}

const char *br_counter_help(br_counter counter)
{
    assert(counter < BR_COUNTER_COUNT);
    return counters[counter].help;
}

void br_metrics_refused(br_metrics *metrics, br_code code)
{
    static const struct {
        br_code code;
        br_counter counter;
    } rows[] = {
        {BR_CODE_BAD_REQUEST, BR_COUNTER_bad_request}, {BR_CODE_TOO_LARGE, BR_COUNTER_too_large},
        {BR_CODE_OVERLOADED, BR_COUNTER_overloaded},   {BR_CODE_DEADLINE, BR_COUNTER_deadline},
        {BR_CODE_NOT_READY, BR_COUNTER_not_ready},     {BR_CODE_UNSUPPORTED, BR_COUNTER_unsupported},
        {BR_CODE_INTERNAL, BR_COUNTER_internal},
    };
    br_metrics_add(metrics, BR_COUNTER_requests_failed, 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].code == code) br_metrics_add(metrics, rows[i].counter, 1);
}

void br_metrics_pass(br_metrics *metrics, int32_t device, uint64_t queries, uint64_t tokens, uint64_t ns)
{
    assert(device >= 0);
    assert(device < BR_DEVICES_MAX);
    assert(queries >= 1);
    br_histogram *of = metrics->passes[device];
    br_histogram_add(&of[BR_HISTOGRAM_pass], ns);
    br_histogram_add(&of[BR_HISTOGRAM_pass_queries], queries);
    br_histogram_add(&of[BR_HISTOGRAM_pass_tokens], tokens);
    br_metrics_add(metrics, BR_COUNTER_batches, 1);
    br_metrics_add(metrics, BR_COUNTER_tokens, tokens);
    br_metrics_add(metrics, BR_COUNTER_compute_ns, ns);
    br_metrics_add(metrics, BR_COUNTER_queries_scored, queries);

    /* Two workers may race here: then one sample of the moving average is lost, which does no harm. */
    const uint64_t sample = ns / queries;
    const uint64_t old = atomic_load_explicit(&metrics->query_ns, memory_order_relaxed);
    uint64_t next = old == 0 ? sample : old - old / 8 + sample / 8;
    if (next == 0) next = 1;
    atomic_store_explicit(&metrics->query_ns, next, memory_order_relaxed);
}

void br_metrics_request(br_metrics *metrics, const uint64_t ns[BR_REQUEST_HISTOGRAM_COUNT])
{
    for (int i = 0; i < BR_REQUEST_HISTOGRAM_COUNT; i++) br_histogram_add(&metrics->requests[i], ns[i]);
}

uint64_t br_metrics_retry_ms(const br_metrics *metrics, uint64_t queries, int32_t workers)
{
    assert(workers >= 1);
    const uint64_t query_ns = atomic_load_explicit(&metrics->query_ns, memory_order_relaxed);
    if (query_ns == 0) return BR_RETRY_MS_UNKNOWN;
    const double ms = (double)queries * (double)query_ns / (double)workers / BR_NS_PER_MS;
    if (ms >= BR_RETRY_MS_MAX) return BR_RETRY_MS_MAX;
    return ms <= BR_RETRY_MS_MIN ? BR_RETRY_MS_MIN : (uint64_t)ms;
}
