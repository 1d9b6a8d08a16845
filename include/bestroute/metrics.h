/*
 * metrics.h - what the service counts, and the rate from which waiting times are estimated.
 *
 * Counters only grow and are read one by one: a snapshot is not one instant.
 * Lock-free; any thread may call anything.
 *
 * Uses: limits, wire (the error codes).  Used by: worker, server, admin.
 */
#ifndef BESTROUTE_METRICS_H
#define BESTROUTE_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "bestroute/wire.h"

#define BR_COUNTER_LIST(X)                                                                                   \
    X(requests)        /* messages received on the data socket */                                            \
    X(requests_failed) /* answered with an error of the whole request */                                     \
    X(queries)         /* admitted */                                                                        \
    X(queries_scored)                                                                                        \
    X(queries_failed)  /* answered with an error of their own */                                             \
    X(queries_expired) /* not computed: their deadline had passed */                                         \
    X(queries_shared)  /* not computed: the same prompt was in flight */                                     \
    X(cache_hits)      /* not computed: the same prompt was scored before */                                 \
    X(cache_misses)                                                                                          \
    X(queries_retried) /* on another device, after theirs failed */                                          \
    X(passes_given_up) /* a device did not come back from them */                                            \
    X(devices_lost)                                                                                          \
    X(devices_readmitted)                                                                                    \
    X(batches)         /* encoder passes */                                                                  \
    X(tokens)          /* of all passes */                                                                   \
    X(queue_ns)        /* of all scored queries: from tokenised to the beginning of their pass */            \
    X(compute_ns)      /* of all passes */                                                                   \
    X(bad_request)     /* whole requests, by code */                                                         \
    X(too_large)                                                                                             \
    X(overloaded)                                                                                            \
    X(deadline)                                                                                              \
    X(not_ready)                                                                                             \
    X(unsupported)                                                                                           \
    X(internal)                                                                                              \
    X(reloads)                                                                                               \
    X(reloads_failed)

typedef enum br_counter {
#define BR_COUNTER_ENUM(name) BR_COUNTER_##name,
    BR_COUNTER_LIST(BR_COUNTER_ENUM)
#undef BR_COUNTER_ENUM
        BR_COUNTER_COUNT,
} br_counter;

typedef struct br_metrics {
    _Atomic uint64_t counters[BR_COUNTER_COUNT];
    _Atomic uint64_t query_ns; /* moving average: time of one worker per query; 0 before the first pass */
} br_metrics;

/* Zeroes everything. */
void br_metrics_init(br_metrics *metrics);

void br_metrics_add(br_metrics *metrics, br_counter counter, uint64_t amount);
uint64_t br_metrics_get(const br_metrics *metrics, br_counter counter);

/* "requests", ... */
const char *br_counter_name(br_counter counter);

/* Counts one refused request by its code; codes of single queries alone are not counted here. */
void br_metrics_refused(br_metrics *metrics, br_code code);

/* One encoder pass: counts it and moves the average by an eighth. queries >= 1. */
void br_metrics_pass(br_metrics *metrics, uint64_t queries, uint64_t tokens, uint64_t ns);

/* How long `workers` need for `queries` at the measured rate, in BR_RETRY_MS_MIN..BR_RETRY_MS_MAX. */
enum { BR_RETRY_MS_MIN = 1, BR_RETRY_MS_MAX = 10000, BR_RETRY_MS_UNKNOWN = 50 };
uint64_t br_metrics_retry_ms(const br_metrics *metrics, uint64_t queries, int32_t workers);

#endif
