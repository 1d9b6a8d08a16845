/*
 * cuda_measure.h - what the parts of bench_cuda share: the device, operands, and the time of one launch.
 *
 * A failure ends the program.
 */
#ifndef BESTROUTE_BENCH_CUDA_MEASURE_H
#define BESTROUTE_BENCH_CUDA_MEASURE_H

#include "cuda/backend_cuda.h"

/* The shape of the 44M model, and of a full batch. */
enum {
    WIDTH = 768,
    FFN = 3072,
    HEADS = 12,
    HEAD_SIZE = 64,
    CANDIDATES = 15,
    FULL_TOKENS = 2816,
    LONGEST = 512,
    ROUNDS = 15, /* measurements that a median is of */
    LARGE = 8192,
};

typedef struct bench {
    br_backend *backend;
    const br_backend_table *ops;
    br_stream *stream;
    br_model model;
    br_stream_shape shape;
    size_t cache_bytes; /* L2 */
    uint64_t end_ns;
    bool quick;
} bench;

_Noreturn void die(const char *what, br_status status);

/* Device memory. */
void *take(bench *b, size_t bytes);

/* Repeatable values, uniform in -scale .. scale. */
void make_values(float *out, size_t count, uint32_t seed, float scale);

/* Device memory holding `count` random activations. */
void *take_random(bench *b, size_t count);

/* Something to launch again and again; turn i may use operands of its own. */
typedef br_status (*launch_fn)(bench *b, br_stream *stream, const void *args, int32_t turn);

/* Seconds of one launch. At least `turns_min` are in a recording, so that each operand has its turn. */
double measure(bench *b, launch_fn launch, const void *args, int32_t turns_min);

/* How many turns the shorter of two recordings has, when one turn takes `once` seconds: enough for two
 * milliseconds. */
int32_t turns_for(const bench *b, double once, int32_t turns_min);

/* Seconds of one turn, from `rounds` times of a recording of `count` turns and of one twice as long. */
double one_turn(double times[2][ROUNDS], int32_t rounds, int32_t count);

/* True when the run's time is over; then it prints a line that says so. */
bool is_over(const bench *b, const char *what);

/* Prints one line. `length` is that of each sequence, 0 where it does not matter. */
void report(const bench *b, const char *kind, const char *name, int32_t tokens, int32_t length,
            double seconds, double bytes, double flops);

/* In cuda_products.c: a copy and a large product; the products of a layer. */
void bench_ceilings(bench *b);
void bench_products(bench *b);

/* In cuda_kernels.c: every other op. */
void bench_kernels(bench *b);

#endif
