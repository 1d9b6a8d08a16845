/*
 * metrics.h - what the service counts, and the rate from which waiting times are estimated.
 *
 * Counters only grow. They are read one by one, so those of a snapshot need not fit together exactly.
 * Lock-free; any thread may call anything.
 *
 * Uses: histogram, limits, msgpack (the error codes).  Used by: workers, and the service.
 */
#ifndef BESTROUTE_WORKERS_METRICS_H
#define BESTROUTE_WORKERS_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/limits.h"
#include "histogram.h"
#include "protocol/msgpack.h"

/* X(name, what it counts). A name that ends in _ns counts nanoseconds; /metrics shows it in seconds. */
#define BR_COUNTER_LIST(X)                                                                                   \
    X(requests, "messages received on the data socket")                                                      \
    X(requests_failed, "requests answered with an error of the whole request")                               \
    X(queries, "queries admitted")                                                                           \
    X(queries_scored, "queries computed")                                                                    \
    X(queries_failed, "queries answered with an error of their own")                                         \
    X(queries_expired, "queries not computed because their deadline had passed")                             \
    X(queries_shared, "queries not computed because the same prompt was in flight")                          \
    X(cache_hits, "queries not computed because their scores were in the cache")                             \
    X(cache_misses, "queries whose scores were not in the cache")                                            \
    X(queries_retried, "queries queued again after their device failed")                                     \
    X(passes_given_up, "encoder passes given up because their device hung")                                  \
    X(devices_lost, "devices taken out after a pass failed twice or hung")                                   \
    X(devices_readmitted, "devices taken in again after a successful probe")                                 \
    X(batches, "encoder passes")                                                                             \
    X(tokens, "tokens of all encoder passes")                                                                \
    X(queue_ns, "seconds that scored queries waited for their pass, summed")                                 \
    X(compute_ns, "seconds of all encoder passes, summed")                                                   \
    X(bad_request, "requests refused as a whole with the code bad_request")                                  \
    X(too_large, "requests refused as a whole with the code too_large")                                      \
    X(overloaded, "requests refused as a whole with the code overloaded")                                    \
    X(deadline, "requests refused as a whole with the code deadline")                                        \
    X(not_ready, "requests refused as a whole with the code not_ready")                                      \
    X(unsupported, "requests refused as a whole with the code unsupported")                                  \
    X(internal, "requests refused as a whole with the code internal")                                        \
    X(reloads, "bundles switched to")                                                                        \
    X(reloads_failed, "bundles refused while the old one went on serving")

typedef enum br_counter {
#define BR_COUNTER_ENUM(name, help) BR_COUNTER_##name,
    BR_COUNTER_LIST(BR_COUNTER_ENUM)
#undef BR_COUNTER_ENUM
        BR_COUNTER_COUNT,
} br_counter;

/* Of requests answered with results, in nanoseconds, as the timing of their reply has it. */
#define BR_REQUEST_HISTOGRAM_LIST(X)                                                                         \
    X(request, TIME, "seconds from the arrival of a request to its reply")                                   \
    X(request_tokenize, TIME, "seconds of tokenising all queries of a request")                              \
    X(request_queue, TIME, "seconds that a request's slowest query waited for its pass")                     \
    X(request_compute, TIME, "seconds of the pass of a request's slowest query")

/* Of encoder passes, by device. */
#define BR_PASS_HISTOGRAM_LIST(X)                                                                            \
    X(pass, TIME, "seconds of an encoder pass")                                                              \
    X(pass_queries, QUERIES, "queries in an encoder pass")                                                   \
    X(pass_tokens, TOKENS, "tokens in an encoder pass")

#define BR_HISTOGRAM_ENUM(name, scale, help) BR_HISTOGRAM_##name,
typedef enum br_request_histogram {
    BR_REQUEST_HISTOGRAM_LIST(BR_HISTOGRAM_ENUM) BR_REQUEST_HISTOGRAM_COUNT,
} br_request_histogram;

typedef enum br_pass_histogram {
    BR_PASS_HISTOGRAM_LIST(BR_HISTOGRAM_ENUM) BR_PASS_HISTOGRAM_COUNT,
} br_pass_histogram;
#undef BR_HISTOGRAM_ENUM

typedef struct br_metrics {
    _Atomic uint64_t counters[BR_COUNTER_COUNT];
    br_histogram requests[BR_REQUEST_HISTOGRAM_COUNT];
    br_histogram passes[BR_DEVICES_MAX][BR_PASS_HISTOGRAM_COUNT];
    _Atomic uint64_t query_ns; /* moving average: time of one worker per query; 0 before the first pass */
} br_metrics;

/* Zeroes everything. */
void br_metrics_init(br_metrics *metrics);

void br_metrics_add(br_metrics *metrics, br_counter counter, uint64_t amount);
uint64_t br_metrics_get(const br_metrics *metrics, br_counter counter);

/* "requests", ... */
const char *br_counter_name(br_counter counter);
const char *br_counter_help(br_counter counter);

/* Counts one refused request by its code; codes of single queries alone are not counted here. */
void br_metrics_refused(br_metrics *metrics, br_code code);

/* One encoder pass of device 0..BR_DEVICES_MAX - 1: counts it and moves the average by an eighth.
 * queries >= 1. */
void br_metrics_pass(br_metrics *metrics, int32_t device, uint64_t queries, uint64_t tokens, uint64_t ns);

/* One request answered with results. */
void br_metrics_request(br_metrics *metrics, const uint64_t ns[BR_REQUEST_HISTOGRAM_COUNT]);

/* How long `workers` need for `queries` at the measured rate, in BR_RETRY_MS_MIN..BR_RETRY_MS_MAX. */
enum { BR_RETRY_MS_MIN = 1, BR_RETRY_MS_MAX = 10000, BR_RETRY_MS_UNKNOWN = 50 };
uint64_t br_metrics_retry_ms(const br_metrics *metrics, uint64_t queries, int32_t workers);

#endif
