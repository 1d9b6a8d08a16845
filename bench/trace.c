/* trace.c - see trace.h. */
#include "trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/limits.h"
#include "core/memory.h"

enum { SENT_MAX = 1 << 20, LINE_BYTES = 256 };

/* A request as it was sent. */
typedef struct sent {
    uint64_t ns;
    int client;
    int request;
} sent;

struct recorder {
    int queries; /* of each request */
    uint64_t deadline_ms;
    _Atomic uint32_t *tokens; /* [requests, queries]; 0: not known */
    sent *all;                /* [SENT_MAX] */
    atomic_size_t count;      /* may exceed SENT_MAX: those were not kept */
};

br_status recorder_create(recorder **out, int requests, int queries, uint64_t deadline_ms, br_error *error)
{
    recorder *r = calloc(1, sizeof *r);
    *out = r;
    if (r != NULL) {
        *r = (recorder){.queries = queries, .deadline_ms = deadline_ms};
        r->tokens = calloc((size_t)requests * (size_t)queries, sizeof *r->tokens);
        r->all = calloc(SENT_MAX, sizeof *r->all);
        if (r->tokens != NULL && r->all != NULL) return BR_OK;
    }
    recorder_destroy(r);
    *out = NULL;
    return br_no_memory(error, "the trace");
}

void recorder_destroy(recorder *r)
{
    if (r == NULL) return;
    free(r->tokens);
    free(r->all);
    free(r);
}

void recorder_sent(recorder *r, uint64_t ns, int client, int request)
{
    const size_t at = atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);
    if (at < SENT_MAX) r->all[at] = (sent){.ns = ns, .client = client, .request = request};
}

static _Atomic uint32_t *tokens_of(const recorder *r, int request, int query)
{
    return &r->tokens[(size_t)request * (size_t)r->queries + (size_t)query];
}

void recorder_answered(recorder *r, int request, int query, uint64_t tokens)
{
    atomic_store_explicit(tokens_of(r, request, query), (uint32_t)tokens, memory_order_relaxed);
}

static int by_time(const void *a, const void *b)
{
    const uint64_t x = ((const sent *)a)->ns;
    const uint64_t y = ((const sent *)b)->ns;
    return (x > y) - (x < y);
}

br_status recorder_write(const recorder *r, const char *path, size_t *missing, br_error *error)
{
    const size_t sent_count = atomic_load(&r->count);
    const size_t kept = sent_count < SENT_MAX ? sent_count : SENT_MAX;
    *missing = (sent_count - kept) * (size_t)r->queries;
    FILE *file = fopen(path, "w");
    if (file == NULL)
        return br_fail(error, BR_EIO, "--record: cannot write \"%.300s\": %s", path, strerror(errno));
    qsort(r->all, kept, sizeof *r->all, by_time);
    (void)fputs("# us client tokens deadline_ms\n", file);
    for (size_t i = 0; i < kept; i++) {
        for (int q = 0; q < r->queries; q++) {
            const uint32_t tokens = atomic_load(tokens_of(r, r->all[i].request, q));
            if (tokens == 0)
                ++*missing;
            else
                (void)fprintf(file, "%" PRIu64 " %d %" PRIu32 " %" PRIu64 "\n", r->all[i].ns / BR_NS_PER_US,
                              r->all[i].client, tokens, r->deadline_ms);
        }
    }
    const bool failed = ferror(file) != 0;
    if (fclose(file) == 0 && !failed) return BR_OK;
    return br_fail(error, BR_EIO, "--record: cannot write \"%.300s\"", path);
}

/* False: the line is no arrival. */
static bool read_line(trace_arrival *out, const char *line)
{
    int end = 0;
    return sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNd32 " %" SCNu64 " %n", &out->us, &out->client,
                  &out->tokens, &out->deadline_ms, &end) == 4 &&
           line[end] == '\0' && out->tokens >= 1 && out->tokens <= BR_SEQ_TOKENS_MAX;
}

static br_status append(trace *t, size_t *room, trace_arrival arrival, br_error *error)
{
    if (t->count == *room) {
        *room = *room == 0 ? 1024 : 2 * *room;
        trace_arrival *grown = realloc(t->arrivals, *room * sizeof *grown);
        if (grown == NULL) return br_no_memory(error, "the trace");
        t->arrivals = grown;
    }
    t->arrivals[t->count++] = arrival;
    return BR_OK;
}

br_status trace_read(trace *out, const char *path, br_error *error)
{
    *out = (trace){0};
    FILE *file = fopen(path, "r");
    if (file == NULL) return br_fail(error, BR_EIO, "%.300s: %s", path, strerror(errno));
    br_status status = BR_OK;
    char line[LINE_BYTES];
    size_t room = 0;
    uint64_t first_us = 0;
    uint64_t last_us = 0;
    for (int number = 1; status == BR_OK && fgets(line, sizeof line, file) != NULL; number++) {
        trace_arrival arrival;
        if (*line == '#') continue;
        if (!read_line(&arrival, line) || arrival.us < last_us) {
            status = br_fail(error, BR_EFORMAT,
                             "%.300s: line %d: expected us, not falling, client, tokens and deadline_ms",
                             path, number);
            break;
        }
        last_us = arrival.us;
        if (out->count == 0) first_us = arrival.us;
        arrival.us -= first_us;
        status = append(out, &room, arrival, error);
    }
    (void)fclose(file);
    if (status != BR_OK) trace_deinit(out);
    return status;
}

void trace_deinit(trace *t)
{
    free(t->arrivals);
    *t = (trace){0};
}
