/*
 * bench_cuda.c - the CUDA engine's ops alone: achieved bandwidth and FLOP/s beside the device's own ceilings.
 *
 *   bench_cuda [OPTION]...     --help lists them
 *
 * Prints one JSON object a line:
 *   {"kind":"ceiling",...}   what the device reaches: a copy of a large buffer, a large product
 *   {"kind":"product",...}   the four products of a layer of the 44M model over a sweep of token counts
 *   {"kind":"kernel",...}    every other op at a full batch
 * Bytes and FLOPs are what the op needs, not what it does. A recording of n launches and one of 2n are timed;
 * the difference, divided by n, is the time of one launch. So it holds nothing of what a launch costs the
 * host, and kernels of a few microseconds can be measured. Operands are random, because products of zeros
 * take less power and run faster. Weights change from launch to launch, over twice the size of L2, as in a
 * pass; activations stay. The test suite checks the ops' results (ctest -L gpu); bench/gpu.sh runs it first.
 */
#include <stdio.h>

#include "core/clock.h"
#include "core/options.h"
#include "cuda_measure.h"
#include "engine/engines.h"

typedef struct options {
    bool help;
    const char *precision; /* its name */
    double seconds;
    bool products;
    bool quick;
} options;

#define AT(field) BR_OPTION_AT(options, field)

static const br_option_row rows[] = {
    {.heading = "Options"},
    {"precision", NULL, "what the products compute in", AT(precision), .words = "f16|bf16|fp8",
     .initial = "f16"},
    {"seconds", "S", "bounds the whole run, which then ends early and says so", AT(seconds),
     BR_RANGE(1e-3, 1e6), .initial = "240"},
    {"products", NULL, "the products alone", AT(products)},
    {"quick", NULL, "fewer rounds: shows that it runs, measures nothing", AT(quick)},
    {"help", NULL, "this text", AT(help), .letter = 'h'},
};

static const br_option_table table = {.rows = rows, .row_count = sizeof rows / sizeof *rows};

static br_precision precision_of(const char *name)
{
    br_precision precision = BR_PRECISION_FP8;
    while (precision > BR_PRECISION_AUTO && strcmp(name, br_precision_name(precision)) != 0) precision--;
    return precision;
}

static void open_bench(bench *b, const options *o)
{
    br_error error = {0};
    struct cudaDeviceProp properties;
    br_status status = br_backend_open(&b->backend, BR_ENGINE_CUDA, precision_of(o->precision), 0, &error);
    if (status != BR_OK) die(error.text, status);
    b->ops = b->backend->table;
    b->model = (br_model){
        .width = WIDTH, .layers = 1, .heads = HEADS, .head_size = HEAD_SIZE, .ffn_width = FFN, .vocab = 4096};
    b->shape = (br_stream_shape){LARGE, FULL_TOKENS < 1024 ? FULL_TOKENS : 1024, LONGEST, CANDIDATES};
    status = b->ops->stream_create(b->backend, &b->stream, &b->model, &b->shape, &error);
    if (status != BR_OK) die(error.text, status);
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) die("the device's properties", BR_EDEVICE);
    b->cache_bytes = (size_t)properties.l2CacheSize;
    b->end_ns = br_clock_now_ns() + (uint64_t)(o->seconds * 1e9);
    b->quick = o->quick;
    printf("{\"kind\":\"device\",\"name\":\"%s\",\"precision\":\"%s\",\"batch_tokens\":%d,"
           "\"multiprocessors\":%d}\n",
           b->backend->device, o->precision, (int)b->backend->batch_tokens, properties.multiProcessorCount);
    (void)fflush(stdout);
}

static void run(const options *o)
{
    bench b = {0};
    open_bench(&b, o);
    if (!o->products) bench_ceilings(&b);
    if (!o->products) bench_kernels(&b);
    bench_products(&b);
    b.ops->stream_destroy(b.stream);
    br_backend_close(b.backend);
}

int main(int argc, char **argv)
{
    options o = {0};
    br_options read;
    br_error error = {0};
    br_options_init(&read, &table, &o);
    const br_status status = br_options_read(&read, argc, argv, NULL, &error);
    if (status != BR_OK) {
        (void)fprintf(stderr, "bench_cuda: %s\n", error.text);
    } else if (o.help) {
        (void)puts("usage: bench_cuda [OPTION]...");
        br_options_print_help(&table, 0, stdout);
    } else {
        run(&o);
    }
    br_options_deinit(&read);
    return status == BR_OK ? 0 : 2;
}
