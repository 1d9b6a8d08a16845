/*
 * stream_cuda.c - see backend_cuda.h: a CUDA stream's copies, its recorded passes, and the ops.
 *
 *   upload   copies the bytes to pinned memory, the staging, and enqueues the copy from there to the device;
 *            the caller may reuse the bytes at once
 *   run      plays one CUDA graph, recorded for a number of tokens; the boundaries of sequences are in device
 *            memory, so that one graph serves every mix of lengths
 *   wait     is the only synchronisation; it then copies downloads from the staging to the caller
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "backend_cuda.h"
#include "core/limits.h"
#include "core/memory.h"
#include "runtime.h"

enum {
    SHORT_SEQ_TOKENS =
        64, /* passes without longer sequences have a recording of their own, with a cheaper attention */
    STAGING_SPARE_BYTES = 4096,
    LANDINGS_MAX = 4,
};

typedef struct recording {
    uint64_t key;
    cudaGraphExec_t graph;
} recording;

/* A download: where in the staging it is, and where the caller wants it. */
typedef struct landing {
    void *host;
    const void *staged;
    size_t bytes;
} landing;

struct br_stream {
    cuda_backend *backend;
    br_queue queue;
    br_gemm *gemm;
    br_stream_shape shape;
    char *staging; /* pinned */
    size_t staging_bytes;
    size_t staged_bytes;    /* so many are in use until the next wait */
    void *quantized;        /* [tokens_max, widest input] e4m3, of precision fp8; NULL otherwise */
    float *quantized_scale; /* [tokens_max] */
    size_t quantized_bytes;
    landing landings[LANDINGS_MAX];
    int32_t landing_count;
    recording recordings[BR_PASS_SHAPES_MAX];
    int32_t recording_count;
    bool planning; /* ops prepare what they need and enqueue nothing */
};

void cuda_stream_destroy(br_stream *stream)
{
    if (stream == NULL) return;
    (void)cuda_use_device(&stream->backend->base);
    if (stream->queue.stream != NULL) (void)cudaStreamSynchronize(stream->queue.stream);
    for (int32_t i = 0; i < stream->recording_count; i++)
        (void)cudaGraphExecDestroy(stream->recordings[i].graph);
    br_gemm_destroy(stream->gemm);
    if (stream->staging != NULL) (void)cudaFreeHost(stream->staging);
    stream->backend->base.table->free(&stream->backend->base, stream->quantized);
    stream->backend->base.table->free(&stream->backend->base, stream->quantized_scale);
    if (stream->queue.stream != NULL) (void)cudaStreamDestroy(stream->queue.stream);
    free(stream);
}

size_t cuda_stream_bytes(const br_stream *stream)
{
    const size_t scales = stream->quantized_bytes > 0 ? (size_t)stream->shape.tokens_max * sizeof(float) : 0;
    return BR_GEMM_WORKSPACE_BYTES + stream->quantized_bytes + scales;
}

/* Room for a GEMM's input in e4m3, for precision fp8. */
static br_status make_quantized(br_stream *stream, const br_model *model, br_error *error)
{
    br_backend *backend = &stream->backend->base;
    if (backend->precision != BR_PRECISION_FP8) return BR_OK;
    const size_t widest = (size_t)(model->width > model->ffn_width ? model->width : model->ffn_width);
    stream->quantized_bytes = (size_t)stream->shape.tokens_max * widest;
    stream->quantized = backend->table->alloc(backend, stream->quantized_bytes);
    stream->quantized_scale =
        backend->table->alloc(backend, (size_t)stream->shape.tokens_max * sizeof(float));
    if (stream->quantized != NULL && stream->quantized_scale != NULL) return BR_OK;
    return br_no_memory(error, "%zu bytes of fp8 factors (engine cuda)", stream->quantized_bytes);
}

br_status cuda_stream_create(br_backend *backend, br_stream **out, const br_model *model,
                             const br_stream_shape *shape, br_error *error)
{
    *out = NULL;
    br_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return br_no_memory(error, "a stream");
    stream->backend = cuda(backend);
    stream->queue = cuda(backend)->queue;
    stream->shape = *shape;
    stream->staging_bytes =
        (size_t)shape->tokens_max * sizeof(int32_t) + ((size_t)shape->seqs_max + 1) * sizeof(int32_t) +
        (size_t)shape->seqs_max * (size_t)shape->heads_count * sizeof(float) + STAGING_SPARE_BYTES;
    br_status status = BR_OK;
    cudaError_t code = cuda_use_device(backend);
    if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&stream->queue.stream, cudaStreamNonBlocking);
    if (code == cudaSuccess)
        code = cudaHostAlloc((void **)&stream->staging, stream->staging_bytes, cudaHostAllocDefault);
    status = code == cudaSuccess
                 ? br_gemm_create(&stream->gemm, backend->activation, cuda(backend)->choices, error)
                 : cuda_fail(error, code, "making a stream");
    if (status == BR_OK) status = make_quantized(stream, model, error);
    if (status != BR_OK) {
        cuda_stream_destroy(stream);
        return status;
    }
    *out = stream;
    return BR_OK;
}

/* A part of the staging. NULL: until the next wait there is not enough left. */
static char *stage(br_stream *stream, size_t bytes)
{
    if (bytes > stream->staging_bytes - stream->staged_bytes) return NULL;
    char *at = stream->staging + stream->staged_bytes;
    const size_t end = stream->staged_bytes + (bytes + BR_ALIGNMENT - 1) / BR_ALIGNMENT * BR_ALIGNMENT;
    stream->staged_bytes = end < stream->staging_bytes ? end : stream->staging_bytes;
    return at;
}

br_status cuda_wait(br_stream *stream)
{
    const cudaError_t code = cudaStreamSynchronize(stream->queue.stream);
    for (int32_t i = 0; i < stream->landing_count && code == cudaSuccess; i++)
        memcpy(stream->landings[i].host, stream->landings[i].staged, stream->landings[i].bytes);
    stream->landing_count = 0;
    stream->staged_bytes = 0;
    return cuda_status(code);
}

br_status cuda_upload(br_stream *stream, void *device, const void *host, size_t bytes)
{
    if (bytes == 0) return BR_OK;
    char *staged = stage(stream, bytes);
    if (staged == NULL) /* more than a batch needs: the runtime has a staging of its own */
        return cuda_status(
            cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream->queue.stream));
    memcpy(staged, host, bytes);
    return cuda_status(cudaMemcpyAsync(device, staged, bytes, cudaMemcpyHostToDevice, stream->queue.stream));
}

br_status cuda_download(br_stream *stream, void *host, const void *device, size_t bytes)
{
    if (bytes == 0) return BR_OK;
    char *staged = stream->landing_count < LANDINGS_MAX ? stage(stream, bytes) : NULL;
    if (staged == NULL)
        return cuda_status(
            cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream->queue.stream));
    stream->landings[stream->landing_count++] = (landing){host, staged, bytes};
    return cuda_status(cudaMemcpyAsync(staged, device, bytes, cudaMemcpyDeviceToHost, stream->queue.stream));
}

/* Tokens of the recorded passes: steps of a third to a half, and the multiples of 1408 = 11 * 128 that make
 * whole waves of 128 x 128 tiles on 132 multiprocessors. */
static const int32_t pass_tokens[] = {16,   32,   48,   64,   96,   128,  192,  256,   384,   512,  768,
                                      1024, 1408, 2112, 2816, 4224, 5632, 8448, 11264, 22528, 45056};

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

int32_t cuda_pass_shapes(const br_stream *stream, br_pass_shape out[BR_PASS_SHAPES_MAX])
{
    enum { COUNT = sizeof pass_tokens / sizeof pass_tokens[0] };
    static_assert(2 * (COUNT + 1) <= BR_PASS_SHAPES_MAX, "two recordings of each");
    const br_stream_shape *most = &stream->shape;
    int32_t count = 0;
    int32_t tokens = 0;
    for (int32_t i = 0; tokens < most->tokens_max; i++) {
        tokens = i < COUNT ? smaller(pass_tokens[i], most->tokens_max) : most->tokens_max;
        const int32_t seqs = smaller((tokens / BR_SEQ_TOKENS_MIN + 7) / 8 * 8, most->seqs_max);
        const int32_t within = smaller(SHORT_SEQ_TOKENS, most->seq_tokens_max);
        out[count++] = (br_pass_shape){tokens, seqs, within};
        if (tokens > within && most->seq_tokens_max > within)
            out[count++] = (br_pass_shape){tokens, seqs, most->seq_tokens_max};
    }
    return count;
}

static br_status capture(br_stream *stream, cudaGraph_t *graph, br_enqueue_fn enqueue, void *context)
{
    br_status status =
        cuda_status(cudaStreamBeginCapture(stream->queue.stream, cudaStreamCaptureModeThreadLocal));
    if (status != BR_OK) return status;
    status = enqueue(stream, context);
    const br_status ended = cuda_status(cudaStreamEndCapture(stream->queue.stream, graph));
    return status != BR_OK ? status : ended;
}

br_status cuda_record(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context)
{
    assert(stream->recording_count < BR_PASS_SHAPES_MAX);
    stream->planning = true;
    br_status status = enqueue(stream, context);
    stream->planning = false;
    if (status != BR_OK) return status;

    cudaGraph_t graph = NULL;
    recording *added = &stream->recordings[stream->recording_count];
    status = capture(stream, &graph, enqueue, context);
    if (status == BR_OK) status = cuda_status(cudaGraphInstantiate(&added->graph, graph, 0));
    if (status == BR_OK) {
        added->key = key;
        stream->recording_count++;
        status = cuda_status(cudaGraphUpload(added->graph, stream->queue.stream));
    }
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    return status;
}

br_status cuda_run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context)
{
    for (int32_t i = 0; i < stream->recording_count; i++)
        if (stream->recordings[i].key == key)
            return cuda_status(cudaGraphLaunch(stream->recordings[i].graph, stream->queue.stream));
    return enqueue(stream, context);
}

static br_dtype type_of(const br_stream *stream)
{
    return stream->backend->base.activation;
}

br_status cuda_embed_layernorm(br_stream *stream, const br_embed_args *a)
{
    if (stream->planning) return BR_OK;
    return br_launch_embed_layernorm(a, a->embedding->table, a->embedding->width, type_of(stream),
                                     &stream->queue);
}

/* Our own product. If the weights are e4m3, x is first converted to e4m3, with a scale per row. */
static br_status own_linear(br_stream *stream, const br_linear_args *a)
{
    const br_matrix *m = a->matrix;
    br_own_linear_args product = {
        .x = a->x,
        .weight = m->weight,
        .weight_scale = m->weight_scale,
        .bias = m->bias,
        .y = a->y,
        .rows = a->rows,
        .outputs = m->outputs,
        .inputs = m->inputs,
        .epilogue = m->epilogue,
    };
    if (m->weight_scale != NULL) {
        if ((size_t)a->rows * (size_t)m->inputs > stream->quantized_bytes) return BR_EINVAL;
        product.x = stream->quantized;
        product.x_scale = stream->quantized_scale;
        const br_status status = br_launch_quantize_rows(stream->quantized, stream->quantized_scale, a->x,
                                                         a->rows, m->inputs, &stream->queue);
        if (status != BR_OK) return status;
    }
    return br_launch_linear(&product, type_of(stream), &stream->queue);
}

br_status cuda_linear(br_stream *stream, const br_linear_args *a)
{
    const br_matrix *m = a->matrix;
    if (m->own) return stream->planning ? BR_OK : own_linear(stream, a);
    const br_gemm_args product = {
        .shape = {a->rows, m->outputs, m->inputs, m->epilogue == BR_EPILOGUE_ACCUMULATE},
        .x = a->x,
        .weight = m->weight,
        .bias = m->bias,
        .y = a->y,
    };
    if (stream->planning) return br_gemm_prepare(stream->gemm, &product.shape);
    const br_status status = br_gemm_run(stream->gemm, &product, stream->queue.stream);
    if (status != BR_OK || m->epilogue != BR_EPILOGUE_GELU) return status;
    return br_launch_gelu(a->y, (size_t)a->rows * (size_t)m->outputs, type_of(stream), &stream->queue);
}

br_status cuda_attention(br_stream *stream, const br_attention_args *a)
{
    if (stream->planning) return BR_OK;
    const br_position_tables *tables = a->positions != NULL ? &a->positions->tables : NULL;
    return br_attention_band_fits(a, type_of(stream), &stream->queue)
               ? br_launch_attention_band(a, tables, type_of(stream), &stream->queue)
               : br_launch_attention_rows(a, tables, type_of(stream), &stream->queue);
}

br_status cuda_pooled_attention(br_stream *stream, const br_pooled_attention_args *a)
{
    if (stream->planning) return BR_OK;
    return br_launch_pooled_attention(a, a->positions != NULL ? &a->positions->tables : NULL, type_of(stream),
                                      &stream->queue);
}

br_status cuda_layernorm(br_stream *stream, const br_layernorm_args *a)
{
    assert(a->input == a->residual);
    return stream->planning ? BR_OK : br_launch_layernorm(a, type_of(stream), &stream->queue);
}

br_status cuda_gather_rows(br_stream *stream, const br_gather_args *a)
{
    assert(a->pooled_input == a->pooled_residual);
    return stream->planning ? BR_OK : br_launch_gather_rows(a, type_of(stream), &stream->queue);
}

br_status cuda_heads(br_stream *stream, const br_heads_args *a)
{
    return stream->planning ? BR_OK : br_launch_heads(a, type_of(stream), &stream->queue);
}
