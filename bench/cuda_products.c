/* cuda_products.c - bench_cuda's products: a layer's four over a sweep of token counts, and the device's
 * ceilings. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "cuda_measure.h"

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

/* Every second copy is negated, so that the output, to which products are added, does not grow. */
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

/* A product by cuBLASLt with its bias, then the exact GELU as a kernel: the alternative to the fused
 * epilogue. */
typedef struct separate_gelu {
    const product *p;
    br_gemm *gemm;
    br_queue queue;
    br_dtype type;
    cudaGraphExec_t graphs[2];
} separate_gelu;

/* Records `count` turns; false where something failed. */
static bool record_separate(separate_gelu *s, cudaGraphExec_t *out, int32_t count)
{
    const product *p = s->p;
    br_gemm_args args = {.shape = {p->rows, p->outputs, p->inputs, false}, .x = p->x, .y = p->y};
    cudaGraph_t graph = NULL;
    bool sound = cudaStreamBeginCapture(s->queue.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    for (int32_t i = 0; i < count && sound; i++) {
        args.weight = p->copies[i % p->copy_count]->weight;
        args.bias = p->copies[i % p->copy_count]->bias;
        sound = br_gemm_run(s->gemm, &args, s->queue.stream) == BR_OK &&
                br_launch_gelu(p->y, (size_t)p->rows * (size_t)p->outputs, s->type, &s->queue) == BR_OK;
    }
    sound = cudaStreamEndCapture(s->queue.stream, &graph) == cudaSuccess && sound;
    sound = sound && cudaGraphInstantiate(out, graph, 0) == cudaSuccess;
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    return sound;
}

/* Plays each recording `rounds` times, once before to warm up. */
static bool time_separate(const separate_gelu *s, double times[2][ROUNDS], int32_t rounds)
{
    bool sound = true;
    for (int32_t i = -1; i < rounds && sound; i++) {
        for (int32_t which = 0; which < 2; which++) {
            const uint64_t begin = br_clock_now_ns();
            sound = sound && cudaGraphLaunch(s->graphs[which], s->queue.stream) == cudaSuccess &&
                    cudaStreamSynchronize(s->queue.stream) == cudaSuccess;
            times[which][i < 0 ? 0 : i] = (double)(br_clock_now_ns() - begin) * 1e-9;
        }
    }
    return sound;
}

static double measure_separate_gelu(bench *b, const product *p)
{
    const int32_t rounds = b->quick ? 1 : ROUNDS;
    const int32_t count = turns_for(b, 1e-5 + 2.0 * p->rows * p->outputs * p->inputs / 5e14, p->copy_count);
    const br_gemm_shape shape = {p->rows, p->outputs, p->inputs, false};
    separate_gelu s = {.p = p, .queue = cuda(b->backend)->queue, .type = b->backend->activation};
    double times[2][ROUNDS];
    br_error error = {0};
    const br_status status = br_gemm_create(&s.gemm, s.type, NULL, &error);
    if (status != BR_OK) die(error.text, status);
    if (br_gemm_prepare(s.gemm, &shape) != BR_OK) die("no algorithm", BR_ENOTSUP);
    bool sound = cudaStreamCreateWithFlags(&s.queue.stream, cudaStreamNonBlocking) == cudaSuccess;
    sound = sound && record_separate(&s, &s.graphs[0], count);
    sound = sound && record_separate(&s, &s.graphs[1], 2 * count);
    sound = sound && time_separate(&s, times, rounds);
    if (!sound) die("a product and its GELU", BR_EDEVICE);
    for (int32_t which = 0; which < 2; which++) (void)cudaGraphExecDestroy(s.graphs[which]);
    (void)cudaStreamDestroy(s.queue.stream);
    br_gemm_destroy(s.gemm);
    return one_turn(times, rounds, count);
}

void bench_products(bench *b)
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

void bench_ceilings(bench *b)
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
