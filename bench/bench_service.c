/*
 * bench_service.c - round trips per second through a socket, and how long one takes.
 *
 *   bench_service --echo URL                  answers every message with itself until killed: the bare transport
 *   bench_service --url URL [options]         a closed loop: N contexts, each sends, waits, sends again
 *
 *   --contexts N    requests in flight (default 1)
 *   --queries N     prompts per request (default 1)
 *   --words N       words per prompt (default 20)
 *   --seconds S     how long to measure (default 3), after one tenth of it as warm-up
 *   --raw           do not look into the replies (for --echo)
 *
 * Prints one JSON object: requests/s, queries/s, latency percentiles, and for a
 * service the median of what the reply says it spent (`compute`, `total`), so that
 * what the transport and the service add can be told apart. Any reply that is not
 * ok, or of another length than asked, is an error.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

#include "bestroute/clock.h"
#include "bestroute/reply.h"

enum { CONTEXTS_MAX = 4096, ECHO_CONTEXTS = 1088, PROMPT_BYTES_MAX = 1 << 16 };

typedef struct options {
    const char *url;
    const char *echo;
    int contexts;
    int queries;
    int words;
    double seconds;
    bool raw;
} options;

/* Values in order of arrival; grows. One per context, so nothing is shared. */
typedef struct samples {
    uint32_t *values; /* microseconds / 10 */
    size_t count;
    size_t capacity;
} samples;

typedef struct loop {
    const options *options;
    nng_ctx ctx;
    nng_aio *aio;
    bool receiving;
    uint64_t sent_ns;
    samples latency;
    samples compute;
    samples total;
    br_arena arena;
} loop;

static atomic_bool stopping;
static atomic_bool measuring;
static atomic_int active;
static br_str request_bytes;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_service: %s: %s\n", what, why);
    exit(1);
}

static void check(int rv, const char *what)
{
    if (rv != 0) die(what, nng_strerror(rv));
}

static void *grown(void *memory, size_t bytes)
{
    void *larger = realloc(memory, bytes);
    if (larger == NULL) die("memory", "out of it");
    return larger;
}

static void samples_add(samples *s, uint64_t tenths_of_us)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity == 0 ? 4096 : 2 * s->capacity;
        s->values = grown(s->values, s->capacity * sizeof *s->values);
    }
    s->values[s->count++] = tenths_of_us > UINT32_MAX ? UINT32_MAX : (uint32_t)tenths_of_us;
}

/* The echo: N contexts, each sends back what it received. */

typedef struct echo {
    nng_ctx ctx;
    nng_aio *aio;
    bool receiving;
} echo;

static void echo_step(void *argument)
{
    echo *e = argument;
    if (nng_aio_result(e->aio) != 0) return;
    if (e->receiving) {
        e->receiving = false; /* the message stays in the aio: what was received is what is sent */
        nng_ctx_send(e->ctx, e->aio);
    } else {
        e->receiving = true;
        nng_ctx_recv(e->ctx, e->aio);
    }
}

static _Noreturn void run_echo(const char *url)
{
    nng_socket socket;
    check(nng_rep0_open(&socket), "rep0");
    echo *all = calloc(ECHO_CONTEXTS, sizeof *all);
    if (all == NULL) die("memory", "out of it");
    for (int i = 0; i < ECHO_CONTEXTS; i++) {
        check(nng_ctx_open(&all[i].ctx, socket), "context");
        check(nng_aio_alloc(&all[i].aio, echo_step, &all[i]), "aio");
        all[i].receiving = true;
        nng_ctx_recv(all[i].ctx, all[i].aio);
    }
    check(nng_listen(socket, url, NULL, 0), url);
    for (;;) (void)pause();
}

/* The closed loop. */

static int append(void *sink, const char *bytes, size_t size)
{
    br_str *text = sink;
    char *data = grown((char *)(uintptr_t)text->data, text->size + size);
    memcpy(data + text->size, bytes, size);
    *text = (br_str){data, text->size + size};
    return 0;
}

static void make_request(const options *o)
{
    static const char *const words[] = {"route", "this", "prompt", "please", "number", "seven", "what",
                                        "is",    "the",  "sum",    "of",     "two",    "and",   "three"};
    br_query *queries = calloc((size_t)o->queries, sizeof *queries);
    if (queries == NULL) die("memory", "out of it");
    for (int q = 0; q < o->queries; q++) {
        char *text = grown(NULL, PROMPT_BYTES_MAX);
        size_t size = 0;
        for (int w = 0; w < o->words && size + 16 < PROMPT_BYTES_MAX; w++)
            size += (size_t)sprintf(text + size, "%s ",
                                    words[(size_t)(q * 5 + w) % (sizeof words / sizeof *words)]);
        queries[q] = (br_query){.has_text = true, .text = {text, size}, .max_cost = 1e300};
    }
    const br_request request = {.op = BR_OP_ROUTE, .queries = queries, .query_count = (size_t)o->queries};
    (void)br_request_encode(&request, &request_bytes, append);
    for (int q = 0; q < o->queries; q++) free((void *)(uintptr_t)queries[q].text.data);
    free(queries);
}

static void send_request(loop *l)
{
    nng_msg *message;
    check(nng_msg_alloc(&message, 0), "message");
    check(nng_msg_append(message, request_bytes.data, request_bytes.size), "message");
    l->receiving = false;
    l->sent_ns = br_clock_now_ns();
    nng_aio_set_msg(l->aio, message);
    nng_ctx_send(l->ctx, l->aio);
}

static void look_into(loop *l, nng_msg *message)
{
    br_reply reply;
    br_error error = {0};
    if (br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), &l->arena, &error) != BR_OK)
        die("reply", error.text);
    if (!reply.ok) die("refused", br_code_name(reply.code));
    if (reply.result_count != (size_t)l->options->queries)
        die("reply", "another number of results than queries");
    if (reply.results[0].code != BR_CODE_NONE)
        die("a result is an error", br_code_name(reply.results[0].code));
    samples_add(&l->compute, reply.timing.compute_us * 10);
    samples_add(&l->total, reply.timing.total_us * 10);
    br_arena_reset(&l->arena, 1 << 20);
}

static void step(void *argument)
{
    loop *l = argument;
    const int result = nng_aio_result(l->aio);
    if (result != 0) {
        if (result != NNG_ECLOSED && result != NNG_ECANCELED) die("round trip", nng_strerror(result));
        atomic_fetch_sub(&active, 1);
        return;
    }
    if (!l->receiving) {
        l->receiving = true;
        nng_ctx_recv(l->ctx, l->aio);
        return;
    }
    const uint64_t took_ns = br_clock_now_ns() - l->sent_ns;
    nng_msg *message = nng_aio_get_msg(l->aio);
    if (atomic_load(&measuring)) {
        samples_add(&l->latency, took_ns / 100);
        if (!l->options->raw) look_into(l, message);
    }
    nng_msg_free(message);
    if (atomic_load(&stopping)) {
        atomic_fetch_sub(&active, 1);
        return;
    }
    send_request(l);
}

static int ascending(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a;
    const uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static samples joined(const loop *loops, int count, size_t offset)
{
    samples all = {0};
    for (int i = 0; i < count; i++) {
        const samples *one = (const samples *)((const char *)&loops[i] + offset);
        for (size_t k = 0; k < one->count; k++) samples_add(&all, one->values[k]);
    }
    if (all.count > 0) qsort(all.values, all.count, sizeof *all.values, ascending);
    return all;
}

static double percentile(const samples *sorted, double part)
{
    if (sorted->count == 0) return 0;
    size_t index = (size_t)(part * (double)sorted->count);
    if (index >= sorted->count) index = sorted->count - 1;
    return sorted->values[index] / 10.0;
}

static void print_result(const options *o, const loop *loops, double seconds)
{
    samples latency = joined(loops, o->contexts, offsetof(loop, latency));
    samples compute = joined(loops, o->contexts, offsetof(loop, compute));
    samples total = joined(loops, o->contexts, offsetof(loop, total));
    const double rate = (double)latency.count / seconds;
    printf(
        "{\"url\": \"%s\", \"contexts\": %d, \"queries\": %d, \"requests_per_s\": %.1f, \"queries_per_s\": %.1f, "
        "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"compute_p50_us\": %.1f, "
        "\"total_p50_us\": %.1f}\n",
        o->url, o->contexts, o->queries, rate, rate * o->queries, percentile(&latency, 0.5),
        percentile(&latency, 0.9), percentile(&latency, 0.99), percentile(&latency, 1),
        percentile(&compute, 0.5), percentile(&total, 0.5));
    free(latency.values);
    free(compute.values);
    free(total.values);
}

static void run_loops(const options *o)
{
    nng_socket socket;
    make_request(o);
    check(nng_req0_open(&socket), "req0");
    check(nng_socket_set_ms(socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), "resend time");
    check(nng_dial(socket, o->url, NULL, 0), o->url);
    loop *loops = calloc((size_t)o->contexts, sizeof *loops);
    if (loops == NULL) die("memory", "out of it");
    atomic_store(&active, o->contexts);
    for (int i = 0; i < o->contexts; i++) {
        loops[i].options = o;
        br_arena_init(&loops[i].arena);
        check(nng_ctx_open(&loops[i].ctx, socket), "context");
        check(nng_aio_alloc(&loops[i].aio, step, &loops[i]), "aio");
    }
    for (int i = 0; i < o->contexts; i++) send_request(&loops[i]);

    nng_msleep((nng_duration)(o->seconds * 100));
    const uint64_t from_ns = br_clock_now_ns();
    atomic_store(&measuring, true);
    nng_msleep((nng_duration)(o->seconds * 1000));
    atomic_store(&measuring, false);
    const double seconds = (double)(br_clock_now_ns() - from_ns) / 1e9;
    atomic_store(&stopping, true);
    while (atomic_load(&active) > 0) nng_msleep(1);

    print_result(o, loops, seconds);
    for (int i = 0; i < o->contexts; i++) {
        nng_aio_free(loops[i].aio);
        br_arena_deinit(&loops[i].arena);
        free(loops[i].latency.values);
        free(loops[i].compute.values);
        free(loops[i].total.values);
    }
    free(loops);
    free((void *)(uintptr_t)request_bytes.data);
    (void)nng_close(socket);
}

int main(int argc, char **argv)
{
    options o = {.contexts = 1, .queries = 1, .words = 20, .seconds = 3};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--raw") == 0) {
            o.raw = true;
            continue;
        }
        const char *value = i + 1 < argc ? argv[++i] : NULL;
        if (value == NULL) die(name, "its value is missing, or the option is unknown");
        if (strcmp(name, "--url") == 0)
            o.url = value;
        else if (strcmp(name, "--echo") == 0)
            o.echo = value;
        else if (strcmp(name, "--contexts") == 0)
            o.contexts = atoi(value);
        else if (strcmp(name, "--queries") == 0)
            o.queries = atoi(value);
        else if (strcmp(name, "--words") == 0)
            o.words = atoi(value);
        else if (strcmp(name, "--seconds") == 0)
            o.seconds = atof(value);
        else
            die(name, "unknown option");
    }
    if (o.echo != NULL) run_echo(o.echo);
    if (o.url == NULL) die("--url", "missing");
    if (o.contexts < 1 || o.contexts > CONTEXTS_MAX) die("--contexts", "out of range");
    if (o.queries < 1 || o.queries > BR_QUERIES_MAX) die("--queries", "out of range");
    run_loops(&o);
    return 0;
}
