/*
 * trace.h - arrivals as they were: recorded while a load runs, written to a file, read back to be replayed.
 *
 * A file is lines of four numbers, one for each query, ascending by time;
 * lines that begin with # say what they are:
 *
 *   # us client tokens deadline_ms
 *   81334071201 0 34 0
 *
 *   us           when its request was sent, on CLOCK_MONOTONIC: traces recorded at the same time on one
 *                machine are merged by sort -n
 *   client       its connection
 *   tokens       as the service counted them
 *   deadline_ms  of its request; 0: none
 */
#ifndef BESTROUTE_BENCH_TRACE_H
#define BESTROUTE_BENCH_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"

/* Recording, from any thread. Requests are known by their number, 0..requests - 1. The tokens of a query are
 * taken from any answer to it. */
typedef struct recorder recorder;

BR_NODISCARD br_status recorder_create(recorder **out, int requests, int queries, uint64_t deadline_ms,
                                       br_error *error);
void recorder_destroy(recorder *r); /* accepts NULL */
void recorder_sent(recorder *r, uint64_t ns, int client, int request);
void recorder_answered(recorder *r, int request, int query, uint64_t tokens);

/* *missing: queries left out, because no answer said how many tokens they have, or because there was no more
 * room. BR_EIO. Not while anything records. */
BR_NODISCARD br_status recorder_write(const recorder *r, const char *path, size_t *missing, br_error *error);

typedef struct trace_arrival {
    uint64_t us; /* since the first */
    uint64_t client;
    int32_t tokens;
    uint64_t deadline_ms; /* 0: none */
} trace_arrival;

typedef struct trace {
    trace_arrival *arrivals; /* ascending by time */
    size_t count;
} trace;

/* BR_EIO; BR_EFORMAT: names the line; BR_ENOMEM. Release with trace_deinit, which accepts a zeroed one. */
BR_NODISCARD br_status trace_read(trace *out, const char *path, br_error *error);
void trace_deinit(trace *t);

#endif
