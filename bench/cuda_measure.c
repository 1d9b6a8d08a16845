/* cuda_measure.c - see cuda_measure.h. */
#include "cuda_measure.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"

enum { TURNS_MAX = 256 }; /* of the shorter recording */

_Noreturn void die(const char *what, br_status status)
{
    (void)fprintf(stderr, "bench_cuda: %s: %s\n", what, br_status_text(status));
    exit(1);
}

void *take(bench *b, size_t bytes)
{
    void *memory = b->ops->alloc(b->backend, bytes);
    if (memory == NULL) die("memory", BR_ENOMEM);
    return memory;
}

void make_values(float *out, size_t count, uint32_t seed, float scale)
{
    uint32_t state = seed;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        out[i] = ((float)(state >> 8) / 8388608.0F - 1) * scale;
    }
}

void *take_random(bench *b, size_t count)
{
    const br_dtype type = b->backend->activation;
    const size_t bytes = count * br_dtype_bytes(type);
    void *device = take(b, bytes);
    float *values = malloc(count * sizeof *values);
    if (values == NULL) die("memory", BR_ENOMEM);
    make_values(values, count, 1, 1);
    for (size_t i = 0; i < count; i++) br_dtype_set(values, i, type, values[i]); /* narrower: never ahead */
    br_status status = b->ops->upload(b->stream, device, values, bytes);
    if (status == BR_OK) status = b->ops->wait(b->stream);
    if (status != BR_OK) die("upload", status);
    free(values);
    return device;
}

typedef struct turns {
    bench *b;
    launch_fn launch;
    const void *args;
    int32_t count;
} turns;

static br_status enqueue_turns(br_stream *stream, void *context)
{
    const turns *t = context;
    br_status status = BR_OK;
    for (int32_t i = 0; i < t->count && status == BR_OK; i++) status = t->launch(t->b, stream, t->args, i);
    return status;
}

/* Plays recording `key`, or enqueues the turns where there is none. */
static double seconds_of(bench *b, br_stream *stream, uint64_t key, turns *t)
{
    const uint64_t begin = br_clock_now_ns();
    br_status status = b->ops->run(stream, key, enqueue_turns, t);
    if (status == BR_OK) status = b->ops->wait(stream);
    if (status != BR_OK) die("launch", status);
    return (double)(br_clock_now_ns() - begin) * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int32_t turns_for(const bench *b, double once, int32_t turns_min)
{
    const double wanted = b->quick ? 0 : 2e-3 / once;
    const int32_t count = wanted < TURNS_MAX ? (int32_t)wanted : TURNS_MAX;
    return count > turns_min ? count : turns_min;
}

static double median_of(double *times, int32_t count)
{
    qsort(times, (size_t)count, sizeof *times, by_size);
    return times[count / 2];
}

double one_turn(double times[2][ROUNDS], int32_t rounds, int32_t count)
{
    const double longer = median_of(times[1], rounds);
    const double shorter = median_of(times[0], rounds);
    return longer > shorter ? (longer - shorter) / count : longer / (2 * count);
}

double measure(bench *b, launch_fn launch, const void *args, int32_t turns_min)
{
    const int32_t rounds = b->quick ? 1 : ROUNDS;
    double times[2][ROUNDS];
    br_stream *stream = NULL;
    br_error error = {0};
    turns t = {b, launch, args, 1};
    br_status status = b->ops->stream_create(b->backend, &stream, &b->model, &b->shape, &error);
    if (status != BR_OK) die(error.text, status);
    (void)seconds_of(b, stream, 0, &t); /* loads the kernel, chooses the algorithm */
    const int32_t count = turns_for(b, seconds_of(b, stream, 0, &t), turns_min);
    for (int32_t which = 0; which < 2; which++) {
        t.count = count * (which + 1);
        status = b->ops->record(stream, (uint64_t)which + 1, enqueue_turns, &t);
        if (status != BR_OK) die("recording", status);
        (void)seconds_of(b, stream, (uint64_t)which + 1, &t);
    }
    for (int32_t i = 0; i < rounds; i++)
        for (int32_t which = 0; which < 2; which++)
            times[which][i] = seconds_of(b, stream, (uint64_t)which + 1, &t);
    b->ops->stream_destroy(stream);
    return one_turn(times, rounds, count);
}

bool is_over(const bench *b, const char *what)
{
    if (br_clock_now_ns() < b->end_ns) return false;
    printf("{\"kind\":\"cut\",\"at\":\"%s\"}\n", what);
    return true;
}

void report(const bench *b, const char *kind, const char *name, int32_t tokens, int32_t length,
            double seconds, double bytes, double flops)
{
    printf("{\"kind\":\"%s\",\"precision\":\"%s\",\"name\":\"%s\",\"tokens\":%d,\"length\":%d,\"us\":%.3f,"
           "\"bytes\":%.0f,\"flops\":%.0f}\n",
           kind, br_precision_name(b->backend->precision), name, (int)tokens, (int)length, seconds * 1e6,
           bytes, flops);
    (void)fflush(stdout);
}
