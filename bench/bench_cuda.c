/*
 * bench_cuda.c - the CUDA engine's ops alone: achieved bandwidth and FLOP/s beside the device's own ceilings.
 *
 *   bench_cuda [OPTION]...     --help lists them
 *
 * Prints one JSON object a line:
 *   {"kind":"ceiling",...}   what the device reaches: a copy of a large buffer, a large product
 *   {"kind":"product",...}   the four products of a layer of the 44M model over a sweep of token counts
 *   {"kind":"kernel",...}    every other op at a full batch
 * Bytes and FLOPs are what the op needs, not what it does. Launches are recorded, n of them and 2n, and a
 * time is the difference by n: what a launch costs the host is in neither, so that kernels of few
 * microseconds are told from it. Operands are random, since products of zeros take less power and run faster.
 * Weights take turns, twice what L2 holds, as in a pass; activations stay. The ops' results are checked by
 * the test suite (ctest -L gpu), which bench/gpu.sh runs first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/options.h"
#include "cuda/backend_cuda.h"
#include "engine/engines.h"

enum {
    WIDTH = 768,
    FFN = 3072,
    HEADS = 12,
    HEAD_SIZE = 64,
    CANDIDATES = 15,
    FULL_TOKENS = 2816,
    LONGEST = 512,
    ROUNDS = 15,
    TURNS_MAX = 256, /* of the shorter recording */
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

/* Repeatable values, uniform in -scale .. scale. */
static void make_values(float *out, size_t count, uint32_t seed, float scale)
{
    uint32_t state = seed;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        out[i] = ((float)(state >> 8) / 8388608.0F - 1) * scale;
    }
}

/* `count` random activations. */
static void *take_random(bench *b, size_t count)
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

/* Something to launch over and over; turn i may choose among operands by i. */
typedef br_status (*launch_fn)(bench *b, br_stream *stream, const void *args, int32_t turn);

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

/* How many turns the shorter recording has, when one takes `once` seconds: enough for two milliseconds. */
static int32_t turns_for(const bench *b, double once, int32_t turns_min)
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

/* Seconds of one launch. At least `turns_min` are in a recording, so that each operand has its turn. */
static double measure(bench *b, launch_fn launch, const void *args, int32_t turns_min)
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
    const double longer = median_of(times[1], rounds);
    const double shorter = median_of(times[0], rounds);
    return longer > shorter ? (longer - shorter) / count : longer / (2 * count);
}

/* True, having said so, when the run's time is over. */
static bool is_over(const bench *b, const char *what)
{
    if (br_clock_now_ns() < b->end_ns) return false;
    printf("{\"kind\":\"cut\",\"at\":\"%s\"}\n", what);
    return true;
}

static void report(const bench *b, const char *kind, const char *name, int32_t tokens, int32_t length,
                   double seconds, double bytes, double flops)
{
    printf("{\"kind\":\"%s\",\"precision\":\"%s\",\"name\":\"%s\",\"tokens\":%d,\"length\":%d,\"us\":%.3f,"
           "\"bytes\":%.0f,\"flops\":%.0f}\n",
           kind, br_precision_name(b->backend->precision), name, (int)tokens, (int)length, seconds * 1e6,
           bytes, flops);
    (void)fflush(stdout);
}

/* A product whose weights take turns. */
typedef struct product {
    const char *name;
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
    br_matrix **copies;
    int32_t copy_count;
    void *x;
    void *y;
    int32_t rows;
} product;

static br_status launch_linear(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    const product *p = args;
    return b->ops->linear(
        stream,
        &(br_linear_args){.matrix = p->copies[turn % p->copy_count], .x = p->x, .y = p->y, .rows = p->rows});
}

/* Every other copy is negated, so that what accumulates stays where it was. */
static void make_copies(bench *b, product *p, size_t bytes_aimed_at)
{
    const size_t count = (size_t)p->outputs * (size_t)p->inputs;
    float *weight = malloc(count * sizeof *weight);
    float *bias = calloc((size_t)p->outputs, sizeof *bias);
    br_error error = {0};
    p->copy_count = (int32_t)(bytes_aimed_at / (count * 2) + 2) / 2 * 2;
    p->copies = calloc((size_t)p->copy_count, sizeof(br_matrix *));
    if (weight == NULL || bias == NULL || p->copies == NULL) die("memory", BR_ENOMEM);
    make_values(weight, count, 2, 0.05F);
    const br_matrix_source source = {weight, bias, p->outputs, p->inputs, p->epilogue};
    for (int32_t i = 0; i < p->copy_count; i++) {
        const br_status status = b->ops->matrix_create(b->backend, &p->copies[i], &source, &error);
        if (status != BR_OK) die(error.text, status);
        for (size_t w = 0; w < count; w++) weight[w] = -weight[w];
    }
    free(weight);
    free(bias);
}

static void drop_copies(bench *b, product *p)
{
    for (int32_t i = 0; i < p->copy_count; i++) b->ops->matrix_destroy(b->backend, p->copies[i]);
    free(p->copies);
}

static void report_product(const bench *b, const char *kind, const product *p, const char *name,
                           double seconds)
{
    const double elements = (double)p->rows * p->inputs + (double)p->outputs * p->inputs +
                            (double)p->rows * p->outputs * (p->epilogue == BR_EPILOGUE_ACCUMULATE ? 2 : 1);
    report(b, kind, name, p->rows, 0, seconds, 2 * elements, 2.0 * p->rows * p->outputs * p->inputs);
}

/* The way around the fused epilogue: cuBLASLt's product with its bias, then the exact GELU as a kernel. */
static double measure_separate_gelu(bench *b, product *p)
{
    const int32_t rounds = b->quick ? 1 : ROUNDS;
    br_queue queue = cuda(b->backend)->queue;
    br_gemm *gemm = NULL;
    br_error error = {0};
    double times[2][ROUNDS];
    cudaGraphExec_t graphs[2] = {NULL, NULL};
    br_status status = br_gemm_create(&gemm, b->backend->activation, NULL, &error);
    if (status != BR_OK) die(error.text, status);
    bool sound = cudaStreamCreateWithFlags(&queue.stream, cudaStreamNonBlocking) == cudaSuccess;
    br_gemm_args args = {.shape = {p->rows, p->outputs, p->inputs, false}, .x = p->x, .y = p->y};
    if (br_gemm_prepare(gemm, &args.shape) != BR_OK) die("no algorithm", BR_ENOTSUP);
    const int32_t count = turns_for(b, 1e-5 + 2.0 * p->rows * p->outputs * p->inputs / 5e14, p->copy_count);
    for (int32_t which = 0; which < 2 && sound; which++) {
        cudaGraph_t graph = NULL;
        sound = cudaStreamBeginCapture(queue.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
        for (int32_t i = 0; i < count * (which + 1) && sound; i++) {
            args.weight = p->copies[i % p->copy_count]->weight;
            args.bias = p->copies[i % p->copy_count]->bias;
            sound = br_gemm_run(gemm, &args, queue.stream) == BR_OK &&
                    br_launch_gelu(p->y, (size_t)p->rows * (size_t)p->outputs, b->backend->activation,
                                   &queue) == BR_OK;
        }
        sound = cudaStreamEndCapture(queue.stream, &graph) == cudaSuccess && sound;
        sound = sound && cudaGraphInstantiate(&graphs[which], graph, 0) == cudaSuccess;
        if (graph != NULL) (void)cudaGraphDestroy(graph);
    }
    for (int32_t i = -1; i < rounds && sound; i++) { /* the first round warms up */
        for (int32_t which = 0; which < 2; which++) {
            const uint64_t begin = br_clock_now_ns();
            sound = sound && cudaGraphLaunch(graphs[which], queue.stream) == cudaSuccess &&
                    cudaStreamSynchronize(queue.stream) == cudaSuccess;
            times[which][i < 0 ? 0 : i] = (double)(br_clock_now_ns() - begin) * 1e-9;
        }
    }
    if (!sound) die("a product and its GELU", BR_EDEVICE);
    for (int32_t which = 0; which < 2; which++) (void)cudaGraphExecDestroy(graphs[which]);
    (void)cudaStreamDestroy(queue.stream);
    br_gemm_destroy(gemm);
    const double longer = median_of(times[1], rounds);
    const double shorter = median_of(times[0], rounds);
    return longer > shorter ? (longer - shorter) / count : longer / (2 * count);
}

static void bench_products(bench *b)
{
    product products[] = {
        {.name = "qkv", .outputs = 3 * WIDTH, .inputs = WIDTH, .epilogue = BR_EPILOGUE_STORE},
        {.name = "attention_output", .outputs = WIDTH, .inputs = WIDTH, .epilogue = BR_EPILOGUE_ACCUMULATE},
        {.name = "ffn_up_gelu", .outputs = FFN, .inputs = WIDTH, .epilogue = BR_EPILOGUE_GELU},
        {.name = "ffn_down", .outputs = WIDTH, .inputs = FFN, .epilogue = BR_EPILOGUE_ACCUMULATE},
        {.name = "ffn_up_separate_gelu", .outputs = FFN, .inputs = WIDTH, .epilogue = BR_EPILOGUE_STORE},
    };
    static const int32_t tokens[] = {16,   32,   64,   128,  256,  512,  768,  1024, 1408, 1792, 2048,
                                     2112, 2304, 2560, 2816, 3072, 3584, 4096, 4224, 4608, 5632, 8192};
    const int32_t most = b->quick ? 128 : tokens[sizeof tokens / sizeof tokens[0] - 1];
    void *x = take_random(b, (size_t)most * FFN);
    void *y = take_random(b, (size_t)most * FFN);
    for (size_t p = 0; p < sizeof products / sizeof products[0]; p++) {
        const bool separate = strcmp(products[p].name, "ffn_up_separate_gelu") == 0;
        if (separate && b->backend->precision == BR_PRECISION_FP8) continue; /* has no 16-bit weights */
        if (is_over(b, products[p].name)) break;
        products[p].x = x;
        products[p].y = y;
        make_copies(b, &products[p], b->quick ? 0 : 2 * b->cache_bytes);
        for (size_t t = 0; t < sizeof tokens / sizeof tokens[0] && tokens[t] <= most; t++) {
            if (is_over(b, products[p].name)) break;
            products[p].rows = tokens[t];
            report_product(b, "product", &products[p], products[p].name,
                           separate ? measure_separate_gelu(b, &products[p])
                                    : measure(b, launch_linear, &products[p], products[p].copy_count));
        }
        drop_copies(b, &products[p]);
    }
    b->ops->free(b->backend, x);
    b->ops->free(b->backend, y);
}

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
    report(b, "ceiling", "copy", 0, 0, best, 2.0 * (double)bytes, 0);
    b->ops->free(b->backend, from);
    b->ops->free(b->backend, to);

    const int32_t size = b->quick ? 256 : LARGE;
    product large = {.name = "large product", .outputs = size, .inputs = size, .epilogue = BR_EPILOGUE_STORE};
    large.rows = size;
    large.x = take_random(b, (size_t)size * (size_t)size);
    large.y = take_random(b, (size_t)size * (size_t)size);
    make_copies(b, &large, 0);
    report_product(b, "ceiling", &large, large.name, measure(b, launch_linear, &large, 1));
    drop_copies(b, &large);
    b->ops->free(b->backend, large.x);
    b->ops->free(b->backend, large.y);
}

static br_status launch_embed(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->embed_layernorm(stream, args);
}
static br_status launch_layernorm(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->layernorm(stream, args);
}
static br_status launch_attention(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->attention(stream, args);
}
static br_status launch_pooled(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->pooled_attention(stream, args);
}
static br_status launch_gather(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->gather_rows(stream, args);
}
static br_status launch_heads(bench *b, br_stream *stream, const void *args, int32_t turn)
{
    (void)turn;
    return b->ops->heads(stream, args);
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
    float *rows = malloc(count * sizeof *rows);
    br_positions *positions = NULL;
    br_error error = {0};
    if (rows == NULL) die("memory", BR_ENOMEM);
    make_values(rows, count, 3, 0.25F);
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
    report(b, "kernel", "attention", tokens, length, measure(b, launch_attention, &args, 1),
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
    report(b, "kernel", "pooled_attention", tokens, length, measure(b, launch_pooled, &pooled, 1),
           2.0 * tokens * WIDTH * 2, 8.0 * tokens * WIDTH);
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
    float *values = malloc((size_t)4096 * WIDTH * sizeof *values);
    br_embedding *embedding = NULL;
    br_error error = {0};
    int32_t host[FULL_TOKENS];
    if (values == NULL) die("memory", BR_ENOMEM);
    make_values(values, (size_t)4096 * WIDTH, 4, 1);
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

    const br_embed_args embed = {
        .embedding = embedding,
        .ids = ids,
        .gamma = gamma,
        .beta = beta,
        .epsilon = 1e-7F,
        .residual = rows,
        .input = rows,
        .tokens = tokens,
    };
    report(b, "kernel", "embed_layernorm", tokens, 0, measure(b, launch_embed, &embed, 1),
           4.0 * tokens * WIDTH, 0);
    const br_layernorm_args norm = {rows, rows, gamma, beta, 1e-7F, tokens, WIDTH};
    report(b, "kernel", "layernorm", tokens, 0, measure(b, launch_layernorm, &norm, 1), 4.0 * tokens * WIDTH,
           0);
    const br_gather_args gather = {rows, rows, offsets, pooled, pooled, 1, seqs, WIDTH};
    report(b, "kernel", "gather_rows", tokens, 64, measure(b, launch_gather, &gather, 1), 4.0 * seqs * WIDTH,
           0);
    const br_heads_args heads = {
        .residual = pooled,
        .input = pooled,
        .gamma = gamma,
        .beta = beta,
        .epsilon = 1e-7F,
        .weight = weight,
        .bias = bias,
        .quality = quality,
        .seqs = seqs,
        .width = WIDTH,
        .heads_count = CANDIDATES,
    };
    report(b, "kernel", "heads", tokens, 64, measure(b, launch_heads, &heads, 1),
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
    void *qkv = take_random(b, (size_t)FULL_TOKENS * 3 * WIDTH);
    void *context = take_random(b, (size_t)FULL_TOKENS * WIDTH);
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

typedef struct options {
    bool help;
    br_precision precision;
    double seconds;
    bool products;
    bool quick;
} options;

#define AT(field) BR_OPTION_AT(options, field)

static const br_option_row rows[] = {
    {.heading = "Options"},
    {"precision", NULL, "f16, bf16 or fp8: what the products compute in", AT(precision),
     .words = BR_PRECISION_WORDS, .initial = "f16"},
    {"seconds", "S", "bounds the whole run, which then ends early and says so", AT(seconds),
     BR_RANGE(1e-3, 1e6), .initial = "240"},
    {"products", NULL, "the products alone", AT(products)},
    {"quick", NULL, "fewer rounds: shows that it runs, measures nothing", AT(quick)},
    {"help", NULL, "this text", AT(help), .letter = 'h'},
};

static const br_option_table table = {.rows = rows, .row_count = sizeof rows / sizeof *rows};

static void open_bench(bench *b, const options *o)
{
    br_error error = {0};
    struct cudaDeviceProp properties;
    br_status status = br_backend_open(&b->backend, BR_ENGINE_CUDA, o->precision, 0, &error);
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
           b->backend->device, br_precision_name(o->precision), (int)b->backend->batch_tokens,
           properties.multiProcessorCount);
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
    br_status status = br_options_read(&read, argc, argv, NULL, &error);
    if (status == BR_OK && (o.precision == BR_PRECISION_AUTO || o.precision == BR_PRECISION_F32))
        status = br_fail(&error, BR_EINVAL, "--precision: expected f16, bf16 or fp8");
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
