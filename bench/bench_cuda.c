/*
 * bench_cuda.c - the CUDA engine's ops alone: achieved bandwidth and FLOP/s beside the device's own ceilings.
 *
 *   bench_cuda [--precision f16|bf16] [--seconds S] [--quick]
 *
 * Prints one JSON object a line:
 *   {"kind":"ceiling",...}   what the device reaches: a copy of a large buffer, a large product
 *   {"kind":"product",...}   the four products of a layer of the 44M model over a sweep of token counts
 *   {"kind":"kernel",...}    every other op at a full batch
 * Bytes and FLOPs are what the op needs, not what it does. A time is the median of several rounds of back-to-back
 * launches; `--seconds` bounds the whole run, which then ends early and says so. The ops' results are checked by
 * the test suite (ctest -L gpu), which bench/gpu.sh runs first.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bestroute/backend.h"
#include "bestroute/clock.h"

#include <cuda_runtime_api.h>

enum {
    WIDTH = 768,
    FFN = 3072,
    HEADS = 12,
    HEAD_SIZE = 64,
    CANDIDATES = 15,
    FULL_TOKENS = 2816,
    LONGEST = 512,
    ROUNDS = 7,
    LARGE = 8192,
};

typedef struct bench {
    br_backend *backend;
    const br_backend_table *ops;
    br_stream *stream;
    uint64_t end_ns;
    double round_s; /* aimed at for one round */
    bool quick;
} bench;

static void die(const char *what, br_status status)
{
    (void)fprintf(stderr, "bench_cuda: %s: %s\n", what, br_status_text(status));
    exit(1);
}

static void *take(bench *b, size_t bytes)
{
    void *memory = b->ops->alloc(b->backend, bytes);
    if (memory == NULL) die("memory", BR_ENOMEM);
    return memory;
}

typedef br_status (*launch_fn)(bench *b, const void *args);

static double seconds_of(bench *b, launch_fn launch, const void *args, int32_t count)
{
    const uint64_t begin = br_clock_now_ns();
    for (int32_t i = 0; i < count; i++) {
        const br_status status = launch(b, args);
        if (status != BR_OK) die("launch", status);
    }
    const br_status status = b->ops->wait(b->stream);
    if (status != BR_OK) die("wait", status);
    return (double)(br_clock_now_ns() - begin) * 1e-9;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Seconds of one launch: the median round, each long enough that the clock and the first launch do not matter. */
static double measure(bench *b, launch_fn launch, const void *args)
{
    const int32_t rounds = b->quick ? 1 : ROUNDS;
    double times[ROUNDS];
    (void)seconds_of(b, launch, args, 1); /* loads the kernel, chooses the algorithm */
    int32_t count = 1;
    if (!b->quick) {
        const double once = seconds_of(b, launch, args, 4) / 4;
        count = once * 1000 < b->round_s ? 1000 : (int32_t)(b->round_s / once) + 1;
    }
    for (int32_t i = 0; i < rounds; i++) times[i] = seconds_of(b, launch, args, count) / count;
    qsort(times, (size_t)rounds, sizeof *times, by_size);
    return times[rounds / 2];
}

/* True, having said so, when the run's time is over. */
static bool is_over(const bench *b, const char *what)
{
    if (br_clock_now_ns() < b->end_ns) return false;
    printf("{\"kind\":\"cut\",\"at\":\"%s\"}\n", what);
    return true;
}

static void report(const char *kind, const char *name, int32_t tokens, int32_t length, double seconds,
                   double bytes, double flops)
{
    printf("{\"kind\":\"%s\",\"name\":\"%s\",\"tokens\":%d,\"length\":%d,\"us\":%.3f,\"bytes\":%.0f,\"flops\":%.0f}\n",
           kind, name, (int)tokens, (int)length, seconds * 1e6, bytes, flops);
    (void)fflush(stdout);
}

/* Products. */

static br_status launch_linear(bench *b, const void *args)
{
    return b->ops->linear(b->stream, args);
}

static br_matrix *make_matrix(bench *b, int32_t outputs, int32_t inputs, br_epilogue epilogue)
{
    const size_t count = (size_t)outputs * (size_t)inputs;
    float *weight = malloc(count * sizeof *weight);
    float *bias = calloc((size_t)outputs, sizeof *bias);
    br_matrix *matrix = NULL;
    br_error error = {0};
    if (weight == NULL || bias == NULL) die("memory", BR_ENOMEM);
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        weight[i] = ((float)(state >> 8) / 8388608.0F - 1) * 0.05F;
    }
    const br_status status = b->ops->matrix_create(
        b->backend, &matrix, &(br_matrix_source){weight, bias, outputs, inputs, epilogue}, &error);
    free(weight);
    free(bias);
    if (status != BR_OK) die(error.text, status);
    return matrix;
}

static void run_product(bench *b, const char *kind, const char *name, br_matrix *matrix, int32_t rows,
                        int32_t outputs, int32_t inputs, br_epilogue epilogue, void *x, void *y)
{
    const br_linear_args args = {.matrix = matrix, .x = x, .y = y, .rows = rows};
    const double elements = (double)rows * inputs + (double)outputs * inputs +
                            (double)rows * outputs * (epilogue == BR_EPILOGUE_ACCUMULATE ? 2 : 1);
    report(kind, name, rows, 0, measure(b, launch_linear, &args), 2 * elements,
           2.0 * rows * outputs * inputs);
}

static void bench_products(bench *b)
{
    static const struct {
        const char *name;
        int32_t outputs, inputs;
        br_epilogue epilogue;
    } products[] = {
        {"qkv", 3 * WIDTH, WIDTH, BR_EPILOGUE_STORE},
        {"attention_output", WIDTH, WIDTH, BR_EPILOGUE_ACCUMULATE},
        {"ffn_up_gelu", FFN, WIDTH, BR_EPILOGUE_GELU},
        {"ffn_down", WIDTH, FFN, BR_EPILOGUE_ACCUMULATE},
    };
    static const int32_t tokens[] = {16,   32,   64,   128,  256,  512,  1024, 1408,
                                     2048, 2304, 2816, 3072, 4096, 4224, 5632, 8192};
    const int32_t most = tokens[sizeof tokens / sizeof tokens[0] - 1];
    void *x = take(b, (size_t)most * FFN * 2);
    void *y = take(b, (size_t)most * FFN * 2);
    for (size_t p = 0; p < sizeof products / sizeof products[0]; p++) {
        br_matrix *matrix = make_matrix(b, products[p].outputs, products[p].inputs, products[p].epilogue);
        for (size_t t = 0; t < sizeof tokens / sizeof tokens[0]; t++) {
            if (is_over(b, products[p].name) || (b->quick && tokens[t] > 128)) break;
            run_product(b, "product", products[p].name, matrix, tokens[t], products[p].outputs,
                        products[p].inputs, products[p].epilogue, x, y);
        }
        b->ops->matrix_destroy(b->backend, matrix);
    }
    b->ops->free(b->backend, x);
    b->ops->free(b->backend, y);
}

/* Ceilings. */

static void bench_ceilings(bench *b)
{
    const size_t bytes = b->quick ? (size_t)1 << 22 : (size_t)1 << 30;
    void *from = take(b, bytes);
    void *to = take(b, bytes);
    double best = 1e9;
    for (int32_t i = 0; i < (b->quick ? 1 : 20); i++) {
        const uint64_t begin = br_clock_now_ns();
        if (cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToDevice) != cudaSuccess ||
            cudaDeviceSynchronize() != cudaSuccess)
            die("copying", BR_EDEVICE);
        const double elapsed = (double)(br_clock_now_ns() - begin) * 1e-9;
        if (elapsed < best) best = elapsed;
    }
    report("ceiling", "copy", 0, 0, best, 2.0 * (double)bytes, 0);
    b->ops->free(b->backend, from);
    b->ops->free(b->backend, to);

    const int32_t size = b->quick ? 256 : LARGE;
    void *x = take(b, (size_t)size * (size_t)size * 2);
    void *y = take(b, (size_t)size * (size_t)size * 2);
    br_matrix *matrix = make_matrix(b, size, size, BR_EPILOGUE_STORE);
    run_product(b, "ceiling", "large product", matrix, size, size, size, BR_EPILOGUE_STORE, x, y);
    b->ops->matrix_destroy(b->backend, matrix);
    b->ops->free(b->backend, x);
    b->ops->free(b->backend, y);
}

/* The other ops. */

static br_status launch_embed(bench *b, const void *args)
{
    return b->ops->embed_layernorm(b->stream, args);
}
static br_status launch_layernorm(bench *b, const void *args)
{
    return b->ops->layernorm(b->stream, args);
}
static br_status launch_attention(bench *b, const void *args)
{
    return b->ops->attention(b->stream, args);
}
static br_status launch_pooled(bench *b, const void *args)
{
    return b->ops->pooled_attention(b->stream, args);
}
static br_status launch_gather(bench *b, const void *args)
{
    return b->ops->gather_rows(b->stream, args);
}
static br_status launch_heads(bench *b, const void *args)
{
    return b->ops->heads(b->stream, args);
}

static float *constant_vector(bench *b, float value, size_t count)
{
    float *host = malloc(count * sizeof *host);
    float *device = NULL;
    br_error error = {0};
    if (host == NULL) die("memory", BR_ENOMEM);
    for (size_t i = 0; i < count; i++) host[i] = value;
    const br_status status = b->ops->vector_create(b->backend, &device, host, count, &error);
    free(host);
    if (status != BR_OK) die(error.text, status);
    return device;
}

static br_positions *make_positions(bench *b)
{
    const size_t count = (2 * (size_t)LONGEST - 1) * WIDTH;
    float *rows = calloc(count, sizeof *rows);
    br_positions *positions = NULL;
    br_error error = {0};
    if (rows == NULL) die("memory", BR_ENOMEM);
    const br_positions_source source = {rows, rows, LONGEST, HEADS, HEAD_SIZE};
    const br_status status = b->ops->positions_create(b->backend, &positions, &source, &error);
    free(rows);
    if (status != BR_OK) die(error.text, status);
    return positions;
}

static void bench_attention(bench *b, const br_positions *positions, void *qkv, void *context,
                            int32_t *offsets, int32_t length)
{
    const int32_t seqs =
        (b->quick ? 256 : FULL_TOKENS) / length > 0 ? (b->quick ? 256 : FULL_TOKENS) / length : 1;
    const int32_t tokens = seqs * length;
    int32_t host[FULL_TOKENS + 1];
    for (int32_t i = 0; i <= seqs; i++) host[i] = i * length;
    if (b->ops->upload(b->stream, offsets, host, ((size_t)seqs + 1) * sizeof *host) != BR_OK)
        die("upload", BR_EDEVICE);
    char *row = qkv;
    const br_attention_args args = {.q = row,
                                    .k = row + 2 * WIDTH,
                                    .v = row + 4 * WIDTH,
                                    .positions = positions,
                                    .offsets = offsets,
                                    .context = context,
                                    .q_stride = 3 * WIDTH,
                                    .kv_stride = 3 * WIDTH,
                                    .tokens = tokens,
                                    .seqs = seqs,
                                    .seq_tokens_max = length,
                                    .heads = HEADS,
                                    .head_size = HEAD_SIZE};
    const double band = 4.0 * tokens * (length + 15) * WIDTH;
    report("kernel", "attention", tokens, length, measure(b, launch_attention, &args),
           4.0 * tokens * WIDTH * 2, 4.0 * tokens * length * WIDTH + band);
    const br_pooled_attention_args pooled = {.query = context,
                                             .kv = qkv,
                                             .positions = positions,
                                             .offsets = offsets,
                                             .context = context,
                                             .pool_index = 1,
                                             .seqs = seqs,
                                             .seq_tokens_max = length,
                                             .heads = HEADS,
                                             .head_size = HEAD_SIZE};
    report("kernel", "pooled_attention", tokens, length, measure(b, launch_pooled, &pooled),
           2.0 * tokens * WIDTH * 2, 0);
}

static void bench_rows(bench *b, void *rows, void *pooled, int32_t *offsets)
{
    const int32_t tokens = b->quick ? 64 : FULL_TOKENS;
    const int32_t seqs = tokens / 64;
    float *gamma = constant_vector(b, 1, WIDTH);
    float *beta = constant_vector(b, 0, WIDTH);
    float *weight = constant_vector(b, 0.01F, (size_t)CANDIDATES * WIDTH);
    float *bias = constant_vector(b, 0, CANDIDATES);
    float *quality = take(b, (size_t)FULL_TOKENS * CANDIDATES * sizeof *quality);
    int32_t *ids = take(b, (size_t)FULL_TOKENS * sizeof *ids);
    float *values = calloc((size_t)4096 * WIDTH, sizeof *values);
    br_embedding *embedding = NULL;
    br_error error = {0};
    int32_t host[FULL_TOKENS];
    if (values == NULL) die("memory", BR_ENOMEM);
    for (int32_t i = 0; i < FULL_TOKENS; i++) host[i] = (int32_t)(((uint32_t)i * 2654435761U) >> 20);
    if (b->ops->upload(b->stream, ids, host, sizeof host) != BR_OK) die("upload", BR_EDEVICE);
    for (int32_t i = 0; i <= seqs; i++) host[i] = i * 64;
    if (b->ops->upload(b->stream, offsets, host, ((size_t)seqs + 1) * sizeof *host) != BR_OK)
        die("upload", BR_EDEVICE);
    const br_tensor table = {.type = BR_F32,
                             .readable = true,
                             .rank = 2,
                             .shape = {4096, WIDTH},
                             .data = (const void *)values,
                             .bytes = (size_t)4096 * WIDTH * sizeof *values};
    if (b->ops->embedding_create(b->backend, &embedding, &table, &error) != BR_OK)
        die(error.text, BR_EDEVICE);
    free(values);

    const br_embed_args embed = {embedding, ids, gamma, beta, 1e-7F, rows, rows, tokens};
    report("kernel", "embed_layernorm", tokens, 0, measure(b, launch_embed, &embed), 4.0 * tokens * WIDTH, 0);
    const br_layernorm_args norm = {rows, rows, gamma, beta, 1e-7F, tokens, WIDTH};
    report("kernel", "layernorm", tokens, 0, measure(b, launch_layernorm, &norm), 4.0 * tokens * WIDTH, 0);
    const br_gather_args gather = {rows, rows, offsets, pooled, pooled, 1, seqs, WIDTH};
    report("kernel", "gather_rows", tokens, 64, measure(b, launch_gather, &gather), 4.0 * seqs * WIDTH, 0);
    const br_heads_args heads = {pooled, pooled,  gamma, beta,  1e-7F,     weight,
                                 bias,   quality, seqs,  WIDTH, CANDIDATES};
    report("kernel", "heads", tokens, 64, measure(b, launch_heads, &heads),
           2.0 * seqs * WIDTH + 4.0 * CANDIDATES * (WIDTH + seqs), 2.0 * seqs * WIDTH * CANDIDATES);

    b->ops->embedding_destroy(b->backend, embedding);
    b->ops->free(b->backend, ids);
    b->ops->free(b->backend, quality);
    b->ops->free(b->backend, gamma);
    b->ops->free(b->backend, beta);
    b->ops->free(b->backend, weight);
    b->ops->free(b->backend, bias);
}

static void bench_kernels(bench *b)
{
    static const int32_t lengths[] = {32, 64, 128, 512};
    void *qkv = take(b, (size_t)FULL_TOKENS * 3 * WIDTH * 2);
    void *context = take(b, (size_t)FULL_TOKENS * WIDTH * 2);
    int32_t *offsets = take(b, ((size_t)FULL_TOKENS + 1) * sizeof *offsets);
    br_positions *positions = make_positions(b);
    bench_rows(b, qkv, context, offsets);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        if (!is_over(b, "attention")) bench_attention(b, positions, qkv, context, offsets, lengths[i]);
    b->ops->positions_destroy(b->backend, positions);
    b->ops->free(b->backend, qkv);
    b->ops->free(b->backend, context);
    b->ops->free(b->backend, offsets);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"precision", required_argument, NULL, 'p'},
        {"seconds", required_argument, NULL, 's'},
        {"quick", no_argument, NULL, 'q'},
        {NULL, 0, NULL, 0},
    };
    br_precision precision = BR_PRECISION_F16;
    double seconds = 240;
    bench b = {.round_s = 0.02};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (option == 'p') precision = strcmp(optarg, "bf16") == 0 ? BR_PRECISION_BF16 : BR_PRECISION_F16;
        if (option == 's') seconds = atof(optarg);
        if (option == 'q') b.quick = true;
        if (option == '?') return 2;
    }
    br_error error = {0};
    br_status status = br_backend_open(&b.backend, BR_ENGINE_CUDA, precision, 0, &error);
    if (status != BR_OK) die(error.text, status);
    b.ops = b.backend->table;
    const br_model model = {
        .width = WIDTH, .layers = 1, .heads = HEADS, .head_size = HEAD_SIZE, .ffn_width = FFN, .vocab = 4096};
    const br_stream_shape shape = {LARGE, FULL_TOKENS < 1024 ? FULL_TOKENS : 1024, LONGEST, CANDIDATES};
    status = b.ops->stream_create(b.backend, &b.stream, &model, &shape, &error);
    if (status != BR_OK) die(error.text, status);
    b.end_ns = br_clock_now_ns() + (uint64_t)(seconds * 1e9);
    printf("{\"kind\":\"device\",\"name\":\"%s\",\"precision\":\"%s\",\"batch_tokens\":%d}\n",
           b.backend->device, br_precision_name(precision), (int)b.backend->batch_tokens);

    bench_ceilings(&b);
    bench_kernels(&b);
    bench_products(&b);
    b.ops->stream_destroy(b.stream);
    br_backend_close(b.backend);
    return 0;
}
