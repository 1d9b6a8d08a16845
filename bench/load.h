/*
 * load.h - sends requests and measures the answers.
 *
 *   closed loop   `in_flight` requests at any time: each answer sends the next
 *   open loop     requests are due by a schedule, which does not wait for answers. While all of `in_flight`
 *                 are under way the next request is late, and its latency still counts from when it was due
 *
 * Requests that are due before warmup_s are sent and not counted. Then every request counts that is due
 * before the end.
 */
#ifndef BESTROUTE_BENCH_LOAD_H
#define BESTROUTE_BENCH_LOAD_H

#include "core/options.h"
#include "histogram.h"
#include "prompts.h"
#include "protocol/msgpack.h"
#include "trace.h"

enum {
    LOAD_URLS_MAX = 64,
    LOAD_IN_FLIGHT_MAX = 8192,
    LOAD_CODES = BR_CODE_INTERNAL + 1,
    LOAD_BATCH_MAX = 1024
};

typedef struct load_options {
    br_option_list urls; /* at most LOAD_URLS_MAX */
    int connections;     /* to each url */
    int in_flight;
    int queries; /* of each request in `prompts` */
    double rate; /* requests/s of the open loop; 0: closed loop */
    bool poisson;
    uint64_t seed;
    double warmup_s;
    double seconds;     /* measured */
    uint64_t requests;  /* measured at most; 0: any number */
    int timeout_ms;     /* of one request */
    bool raw;           /* do not look into replies: for an echo */
    int server_pid;     /* 0: unknown */
    recorder *recorder; /* NULL: none */
    bool live;          /* a line on stderr while it runs */
} load_options;

typedef struct load_result {
    double seconds;
    _Atomic uint64_t sent;     /* measured requests: each is answered, timed out or broken */
    _Atomic uint64_t answered; /* with any reply */
    _Atomic uint64_t ok;       /* not refused as a whole */
    _Atomic uint64_t timed_out;
    _Atomic uint64_t broken; /* the transport's errors, and replies that cannot be read */
    _Atomic uint64_t refused[LOAD_CODES];
    _Atomic uint64_t queries; /* answered without an error */
    _Atomic uint64_t query_errors[LOAD_CODES];
    _Atomic uint64_t tokens;
    histogram latency;                            /* ns, of ok */
    histogram refusal;                            /* ns, of refused */
    histogram late;                               /* ns from due to sent */
    histogram tokenize, queue, compute, total;    /* us, as the service says */
    _Atomic uint64_t batches[LOAD_BATCH_MAX + 1]; /* requests by the queries that shared their pass */
    double server_cpu;                            /* cores; negative: unknown */
    double client_cpu;                            /* cores */
} load_result;

/* Runs to the end. BR_EIO: a url. BR_ENOMEM. Release the result with load_deinit, also after a failure. */
BR_NODISCARD br_status load_run(load_result *out, const load_options *options, const prompts *source,
                                br_error *error);
void load_deinit(load_result *result);

#endif
