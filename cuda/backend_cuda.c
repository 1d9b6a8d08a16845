/*
 * backend_cuda.c - one CUDA device behind the door of backend.h.
 *
 * Residual and activation share one type, so LayerNorm works in place and a GEMM adds to what LayerNorm
 * left. Two encoders on a device overlap: while one's pass computes, the other's batch is packed, copied and
 * enqueued on a stream of its own.
 *
 *   upload   caller's bytes -> pinned staging -> device, all enqueued, the caller's bytes free at once
 *   run      one CUDA graph, recorded for a bucket of tokens; sequence boundaries are device memory,
 *            so that one graph serves every mix of lengths
 *   wait     the only synchronisation; then what was downloaded moves from staging to the caller
 */
#include "bestroute/backend.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "bestroute/limits.h"
#include "bestroute/memory.h"
#include "gemm.h"
#include "kernels.h"

enum {
    COMPUTE_CAPABILITY_MIN = 80, /* bf16, cp.async, ldmatrix with m16n8k16 */
    COMPUTE_CAPABILITY_PDL = 90, /* programmatic dependent launch */
    SHORT_SEQ_TOKENS =
        64, /* passes without longer sequences are recorded apart: their attention is lighter */
    STAGING_SPARE_BYTES = 4096,
    LANDINGS_MAX = 4,
    CHUNK = 1 << 20, /* elements converted at a time */
};

typedef struct cuda_backend {
    br_backend base;
    int device;
    br_queue queue; /* what streams copy theirs from */
    br_gemm_choices *choices;
} cuda_backend;

struct br_matrix {
    void *weight; /* [outputs, inputs], activation */
    void *bias;   /* [outputs], activation; float where `fused` */
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
    bool fused; /* GELU in the epilogue of our own product */
};

struct br_embedding {
    void *table; /* [V, C], activation */
    int32_t width;
};

struct br_positions {
    br_position_tables tables;
    void *memory; /* holds both */
};

typedef struct recording {
    uint64_t key;
    cudaGraphExec_t graph;
} recording;

/* Bytes on their way to a caller who waits. */
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
    size_t staged_bytes; /* in use until the next wait */
    landing landings[LANDINGS_MAX];
    int32_t landing_count;
    recording recordings[BR_PASS_SHAPES_MAX];
    int32_t recording_count;
    bool planning; /* ops prepare what they need and enqueue nothing */
};

static cuda_backend *cuda(br_backend *backend)
{
    return (cuda_backend *)backend;
}

static br_status status_of(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return BR_OK;
    case cudaErrorMemoryAllocation:
        return BR_ENOMEM;
    default:
        return BR_EDEVICE;
    }
}

static br_status fail(br_error *error, cudaError_t code, const char *what)
{
    return br_fail(error, status_of(code), "engine cuda: %s: %s", what, cudaGetErrorString(code));
}

static cudaError_t use_device(const br_backend *backend)
{
    return cudaSetDevice(((const cuda_backend *)backend)->device);
}

/* Memory. */

/* The runtime's own stream does not wait for ours, nor they for it: what it does is over when these return. */
static cudaError_t zero_now(void *memory, size_t bytes)
{
    const cudaError_t code = cudaMemset(memory, 0, bytes);
    return code == cudaSuccess ? cudaStreamSynchronize(NULL) : code;
}

static cudaError_t copy_now(void *device, const void *host, size_t bytes)
{
    const cudaError_t code = cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice);
    return code == cudaSuccess ? cudaStreamSynchronize(NULL) : code;
}

/* Starts as zeros: rows that pad a pass to its shape are computed, never used, and should be numbers. */
static void *device_alloc(br_backend *backend, size_t bytes)
{
    void *memory = NULL;
    if (use_device(backend) != cudaSuccess || cudaMalloc(&memory, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError(); /* memory that ran out is no error of what comes next */
        return NULL;
    }
    if (zero_now(memory, bytes) == cudaSuccess) return memory;
    (void)cudaFree(memory);
    return NULL;
}

static void device_free(br_backend *backend, void *memory)
{
    if (memory == NULL) return;
    (void)use_device(backend);
    (void)cudaFree(memory);
}

/* Device memory holding `count` floats rounded to `type`. */
static br_status put(br_backend *backend, void **out, const float *source, size_t count, br_dtype type,
                     br_error *error)
{
    const size_t bytes = count * br_dtype_bytes(type);
    *out = device_alloc(backend, bytes);
    char *narrow = type != BR_F32 ? br_alloc_array(count, br_dtype_bytes(type)) : NULL;
    if (*out == NULL || (type != BR_F32 && narrow == NULL)) {
        free(narrow);
        return br_fail(error, BR_ENOMEM, "engine cuda: no memory for %zu bytes of weights", bytes);
    }
    const void *from = source;
    if (type != BR_F32) {
        for (size_t i = 0; i < count; i++) br_dtype_set(narrow, i, type, source[i]);
        from = narrow;
    }
    const cudaError_t code = copy_now(*out, from, bytes);
    free(narrow);
    return code == cudaSuccess ? BR_OK : fail(error, code, "copying weights");
}

/* Made from weights. */

static void matrix_destroy(br_backend *backend, br_matrix *matrix)
{
    if (matrix == NULL) return;
    device_free(backend, matrix->weight);
    device_free(backend, matrix->bias);
    free(matrix);
}

static br_status check_range(const float *values, size_t count, br_dtype type, br_error *error)
{
    if (type != BR_F16) return BR_OK;
    for (size_t i = 0; i < count; i++)
        if (fabsf(values[i]) >= 65520.0f)
            return br_fail(error, BR_ENOTSUP,
                           "engine cuda: a weight is %g, beyond float16; precision bf16 holds it",
                           (double)values[i]);
    return BR_OK;
}

static br_status matrix_create(br_backend *backend, br_matrix **out, const br_matrix_source *source,
                               br_error *error)
{
    *out = NULL;
    const size_t weights = (size_t)source->outputs * (size_t)source->inputs;
    br_matrix *matrix = calloc(1, sizeof *matrix);
    if (matrix == NULL) return br_fail(error, BR_ENOMEM, "no memory for a matrix");
    matrix->outputs = source->outputs;
    matrix->inputs = source->inputs;
    matrix->epilogue = source->epilogue;
    matrix->fused =
        source->epilogue == BR_EPILOGUE_GELU &&
        br_linear_gelu_fits(source->outputs, source->inputs, backend->activation, &cuda(backend)->queue);

    const br_dtype bias_type = matrix->fused ? BR_F32 : backend->activation;
    br_status status = check_range(source->weight, weights, backend->activation, error);
    if (status == BR_OK)
        status = put(backend, &matrix->weight, source->weight, weights, backend->activation, error);
    if (status == BR_OK)
        status = put(backend, &matrix->bias, source->bias, (size_t)source->outputs, bias_type, error);
    if (status != BR_OK) {
        matrix_destroy(backend, matrix);
        return status;
    }
    *out = matrix;
    return BR_OK;
}

static void embedding_destroy(br_backend *backend, br_embedding *embedding)
{
    if (embedding == NULL) return;
    device_free(backend, embedding->table);
    free(embedding);
}

static br_status copy_table(br_backend *backend, const br_embedding *embedding, const br_tensor *table,
                            br_error *error)
{
    const br_dtype type = backend->activation;
    const size_t count = (size_t)table->shape[0] * (size_t)table->shape[1];
    float *wide = br_alloc_array(CHUNK, sizeof *wide);
    char *narrow = br_alloc_array(CHUNK, br_dtype_bytes(type));
    cudaError_t code = wide != NULL && narrow != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
    for (size_t first = 0; first < count && code == cudaSuccess; first += CHUNK) {
        const size_t some = count - first < CHUNK ? count - first : CHUNK;
        br_dtype_to_f32(wide, (const char *)table->data + first * br_dtype_bytes(table->type), table->type,
                        some);
        for (size_t i = 0; i < some; i++) br_dtype_set(narrow, i, type, wide[i]);
        code = copy_now((char *)embedding->table + first * br_dtype_bytes(type), narrow,
                        some * br_dtype_bytes(type));
    }
    free(wide);
    free(narrow);
    return code == cudaSuccess ? BR_OK : fail(error, code, "copying the embedding");
}

static br_status embedding_create(br_backend *backend, br_embedding **out, const br_tensor *table,
                                  br_error *error)
{
    *out = NULL;
    assert(table->readable);
    assert(table->rank == 2);
    const size_t count = (size_t)table->shape[0] * (size_t)table->shape[1];
    br_embedding *embedding = calloc(1, sizeof *embedding);
    if (embedding == NULL) return br_fail(error, BR_ENOMEM, "no memory for an embedding");
    embedding->width = (int32_t)table->shape[1];
    embedding->table = device_alloc(backend, count * br_dtype_bytes(backend->activation));
    const br_status status =
        embedding->table != NULL
            ? copy_table(backend, embedding, table, error)
            : br_fail(error, BR_ENOMEM, "engine cuda: no memory for an embedding of %zu elements", count);
    if (status != BR_OK) {
        embedding_destroy(backend, embedding);
        return status;
    }
    *out = embedding;
    return BR_OK;
}

static void positions_destroy(br_backend *backend, br_positions *positions)
{
    if (positions == NULL) return;
    device_free(backend, positions->memory);
    free(positions);
}

/* [rows, H, D] -> [H, rows, D] */
static void turn(float *to, const float *from, size_t rows, size_t heads, size_t head_size)
{
    for (size_t row = 0; row < rows; row++)
        for (size_t head = 0; head < heads; head++)
            memcpy(to + (head * rows + row) * head_size, from + (row * heads + head) * head_size,
                   head_size * sizeof *to);
}

static br_status positions_create(br_backend *backend, br_positions **out, const br_positions_source *source,
                                  br_error *error)
{
    *out = NULL;
    const size_t rows = 2 * (size_t)source->seq_tokens_max - 1;
    const size_t count = rows * (size_t)source->heads * (size_t)source->head_size;
    const size_t tables = (source->key != NULL ? 1U : 0U) + (source->query != NULL ? 1U : 0U);
    br_positions *positions = calloc(1, sizeof *positions);
    float *turned = br_alloc_array(tables * count, sizeof *turned);
    br_status status;
    if (positions == NULL || turned == NULL) {
        status = br_fail(error, BR_ENOMEM, "no memory for %zu projected positions", rows);
        goto done;
    }
    float *end = turned;
    if (source->key != NULL) {
        turn(end, source->key, rows, (size_t)source->heads, (size_t)source->head_size);
        end += count;
    }
    if (source->query != NULL)
        turn(end, source->query, rows, (size_t)source->heads, (size_t)source->head_size);
    status = put(backend, &positions->memory, turned, tables * count, backend->activation, error);
    if (status != BR_OK) goto done;

    const char *at = positions->memory;
    const size_t table_bytes = count * br_dtype_bytes(backend->activation);
    positions->tables.seq_tokens_max = source->seq_tokens_max;
    positions->tables.key = source->key != NULL ? at : NULL;
    positions->tables.query = source->query != NULL ? at + (tables - 1) * table_bytes : NULL;
    *out = positions;
    positions = NULL;

done:
    positions_destroy(backend, positions);
    free(turned);
    return status;
}

static br_status vector_create(br_backend *backend, float **out, const float *source, size_t count,
                               br_error *error)
{
    void *memory = NULL;
    *out = NULL;
    const br_status status = put(backend, &memory, source, count, BR_F32, error);
    if (status == BR_OK)
        *out = memory;
    else
        device_free(backend, memory);
    return status;
}

/* Streams. */

static void stream_destroy(br_stream *stream)
{
    if (stream == NULL) return;
    (void)use_device(&stream->backend->base);
    if (stream->queue.stream != NULL) (void)cudaStreamSynchronize(stream->queue.stream);
    for (int32_t i = 0; i < stream->recording_count; i++)
        (void)cudaGraphExecDestroy(stream->recordings[i].graph);
    br_gemm_destroy(stream->gemm);
    if (stream->staging != NULL) (void)cudaFreeHost(stream->staging);
    if (stream->queue.stream != NULL) (void)cudaStreamDestroy(stream->queue.stream);
    free(stream);
}

static size_t stream_bytes(const br_stream *stream)
{
    (void)stream;
    return BR_GEMM_WORKSPACE_BYTES;
}

static br_status stream_create(br_backend *backend, br_stream **out, const br_model *model,
                               const br_stream_shape *shape, br_error *error)
{
    (void)model;
    *out = NULL;
    br_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return br_fail(error, BR_ENOMEM, "no memory for a stream");
    stream->backend = cuda(backend);
    stream->queue = cuda(backend)->queue;
    stream->shape = *shape;
    stream->staging_bytes =
        (size_t)shape->tokens_max * sizeof(int32_t) + ((size_t)shape->seqs_max + 1) * sizeof(int32_t) +
        (size_t)shape->seqs_max * (size_t)shape->heads_count * sizeof(float) + STAGING_SPARE_BYTES;
    br_status status = BR_OK;
    cudaError_t code = use_device(backend);
    if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&stream->queue.stream, cudaStreamNonBlocking);
    if (code == cudaSuccess)
        code = cudaHostAlloc((void **)&stream->staging, stream->staging_bytes, cudaHostAllocDefault);
    status = code == cudaSuccess
                 ? br_gemm_create(&stream->gemm, backend->activation, cuda(backend)->choices, error)
                 : fail(error, code, "making a stream");
    if (status != BR_OK) {
        stream_destroy(stream);
        return status;
    }
    *out = stream;
    return BR_OK;
}

/* A piece of the staging, or NULL when it is used up until the next wait. */
static char *stage(br_stream *stream, size_t bytes)
{
    if (bytes > stream->staging_bytes - stream->staged_bytes) return NULL;
    char *at = stream->staging + stream->staged_bytes;
    const size_t end = stream->staged_bytes + (bytes + BR_ALIGNMENT - 1) / BR_ALIGNMENT * BR_ALIGNMENT;
    stream->staged_bytes = end < stream->staging_bytes ? end : stream->staging_bytes;
    return at;
}

static br_status wait_for(br_stream *stream)
{
    const cudaError_t code = cudaStreamSynchronize(stream->queue.stream);
    for (int32_t i = 0; i < stream->landing_count && code == cudaSuccess; i++)
        memcpy(stream->landings[i].host, stream->landings[i].staged, stream->landings[i].bytes);
    stream->landing_count = 0;
    stream->staged_bytes = 0;
    return status_of(code);
}

static br_status upload(br_stream *stream, void *device, const void *host, size_t bytes)
{
    if (bytes == 0) return BR_OK;
    char *staged = stage(stream, bytes);
    if (staged == NULL) /* more than a batch: the runtime stages it itself */
        return status_of(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream->queue.stream));
    memcpy(staged, host, bytes);
    return status_of(cudaMemcpyAsync(device, staged, bytes, cudaMemcpyHostToDevice, stream->queue.stream));
}

static br_status download(br_stream *stream, void *host, const void *device, size_t bytes)
{
    if (bytes == 0) return BR_OK;
    char *staged = stream->landing_count < LANDINGS_MAX ? stage(stream, bytes) : NULL;
    if (staged == NULL)
        return status_of(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream->queue.stream));
    stream->landings[stream->landing_count++] = (landing){host, staged, bytes};
    return status_of(cudaMemcpyAsync(staged, device, bytes, cudaMemcpyDeviceToHost, stream->queue.stream));
}

/* Passes. */

/* Tokens of the recorded passes: steps of a third to a half, and the multiples of 1408 = 11 * 128 that make
 * whole waves of 128 x 128 tiles on 132 multiprocessors. */
static const int32_t pass_tokens[] = {16,   32,   48,   64,   96,   128,  192,  256,   384,   512,  768,
                                      1024, 1408, 2112, 2816, 4224, 5632, 8448, 11264, 22528, 45056};

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t pass_shapes(const br_stream *stream, br_pass_shape out[BR_PASS_SHAPES_MAX])
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
        status_of(cudaStreamBeginCapture(stream->queue.stream, cudaStreamCaptureModeThreadLocal));
    if (status != BR_OK) return status;
    status = enqueue(stream, context);
    const br_status ended = status_of(cudaStreamEndCapture(stream->queue.stream, graph));
    return status != BR_OK ? status : ended;
}

static br_status record(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context)
{
    assert(stream->recording_count < BR_PASS_SHAPES_MAX);
    stream->planning = true;
    br_status status = enqueue(stream, context);
    stream->planning = false;
    if (status != BR_OK) return status;

    cudaGraph_t graph = NULL;
    recording *added = &stream->recordings[stream->recording_count];
    status = capture(stream, &graph, enqueue, context);
    if (status == BR_OK) status = status_of(cudaGraphInstantiate(&added->graph, graph, 0));
    if (status == BR_OK) {
        added->key = key;
        stream->recording_count++;
        status = status_of(cudaGraphUpload(added->graph, stream->queue.stream));
    }
    if (graph != NULL) (void)cudaGraphDestroy(graph);
    return status;
}

static br_status run(br_stream *stream, uint64_t key, br_enqueue_fn enqueue, void *context)
{
    for (int32_t i = 0; i < stream->recording_count; i++)
        if (stream->recordings[i].key == key)
            return status_of(cudaGraphLaunch(stream->recordings[i].graph, stream->queue.stream));
    return enqueue(stream, context);
}

/* Ops. */

static br_dtype type_of(const br_stream *stream)
{
    return stream->backend->base.activation;
}

static br_status embed_layernorm(br_stream *stream, const br_embed_args *a)
{
    if (stream->planning) return BR_OK;
    return br_launch_embed_layernorm(a, a->embedding->table, a->embedding->width, type_of(stream),
                                     &stream->queue);
}

static br_status linear(br_stream *stream, const br_linear_args *a)
{
    const br_matrix *m = a->matrix;
    if (m->fused) {
        if (stream->planning) return BR_OK;
        return br_launch_linear_gelu(
            &(br_linear_gelu_args){a->x, m->weight, m->bias, a->y, a->rows, m->outputs, m->inputs},
            type_of(stream), &stream->queue);
    }
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

static br_status attention(br_stream *stream, const br_attention_args *a)
{
    if (stream->planning) return BR_OK;
    const br_position_tables *tables = a->positions != NULL ? &a->positions->tables : NULL;
    return br_attention_band_fits(a, type_of(stream), &stream->queue)
               ? br_launch_attention_band(a, tables, type_of(stream), &stream->queue)
               : br_launch_attention_rows(a, tables, type_of(stream), &stream->queue);
}

static br_status pooled_attention(br_stream *stream, const br_pooled_attention_args *a)
{
    if (stream->planning) return BR_OK;
    return br_launch_pooled_attention(a, a->positions != NULL ? &a->positions->tables : NULL, type_of(stream),
                                      &stream->queue);
}

static br_status layernorm(br_stream *stream, const br_layernorm_args *a)
{
    assert(a->input == a->residual);
    return stream->planning ? BR_OK : br_launch_layernorm(a, type_of(stream), &stream->queue);
}

static br_status gather_rows(br_stream *stream, const br_gather_args *a)
{
    assert(a->pooled_input == a->pooled_residual);
    return stream->planning ? BR_OK : br_launch_gather_rows(a, type_of(stream), &stream->queue);
}

static br_status heads(br_stream *stream, const br_heads_args *a)
{
    return stream->planning ? BR_OK : br_launch_heads(a, type_of(stream), &stream->queue);
}

/* The device. */

static br_status tune(br_backend *backend, const char *file, br_error *error)
{
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    char name[160];
    (void)snprintf(name, sizeof name, "%s, driver %d, cublasLt %zu", backend->device, driver,
                   cublasLtGetVersion());
    return br_gemm_choices_create(&cuda(backend)->choices, file, name, error);
}

static void close_backend(br_backend *backend)
{
    br_gemm_choices_destroy(cuda(backend)->choices);
    free(backend);
}

static const br_backend_table table = {
    .engine = "cuda",
    .close = close_backend,
    .tune = tune,
    .matrix_create = matrix_create,
    .matrix_destroy = matrix_destroy,
    .embedding_create = embedding_create,
    .embedding_destroy = embedding_destroy,
    .positions_create = positions_create,
    .positions_destroy = positions_destroy,
    .vector_create = vector_create,
    .alloc = device_alloc,
    .free = device_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_bytes = stream_bytes,
    .upload = upload,
    .download = download,
    .pass_shapes = pass_shapes,
    .record = record,
    .run = run,
    .wait = wait_for,
    .embed_layernorm = embed_layernorm,
    .linear = linear,
    .attention = attention,
    .pooled_attention = pooled_attention,
    .layernorm = layernorm,
    .gather_rows = gather_rows,
    .heads = heads,
};

int32_t br_cuda_devices(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    (void)cudaGetLastError();
    return 0;
}

/* Tokens of a pass whose products of a 768-wide layer leave the fewest multiprocessors idle in their last wave
 * of 128 x 128 tiles: 2816 for 132 multiprocessors, 2304 for 108. */
static int32_t wave_aligned_tokens(int32_t multiprocessors)
{
    static const int32_t columns[] = {18, 6, 24,
                                      6}; /* tiles across: QKV, attention output, FFN up and down */
    int32_t best = 0;
    double best_share = 0;
    for (int32_t rows = 16; rows <= 32; rows++) {
        int64_t tiles = 0;
        int64_t slots = 0;
        for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
            const int32_t product = rows * columns[i];
            tiles += product;
            slots += (product + multiprocessors - 1) / multiprocessors * multiprocessors;
        }
        const double share = (double)tiles / (double)slots;
        if (share <= best_share) continue;
        best_share = share;
        best = rows * 128;
    }
    return best;
}

static br_status describe_device(cuda_backend *backend, br_error *error)
{
    struct cudaDeviceProp properties;
    const cudaError_t code = cudaGetDeviceProperties(&properties, backend->device);
    if (code != cudaSuccess) return fail(error, code, "asking for the device's properties");
    const int capability = properties.major * 10 + properties.minor;
    if (capability < COMPUTE_CAPABILITY_MIN)
        return br_fail(error, BR_ENOTSUP,
                       "engine cuda: %s has compute capability %d.%d; 8.0 and newer are supported",
                       properties.name, properties.major, properties.minor);
    backend->queue = (br_queue){
        .multiprocessors = properties.multiProcessorCount,
        .shared_bytes_max = properties.sharedMemPerBlockOptin,
        .overlaps = capability >= COMPUTE_CAPABILITY_PDL,
    };
    backend->base.batch_tokens = wave_aligned_tokens(properties.multiProcessorCount);
    (void)snprintf(backend->base.device, sizeof backend->base.device, "%.60s, sm_%d, %zu MiB",
                   properties.name, capability, properties.totalGlobalMem >> 20);
    return BR_OK;
}

br_status br_backend_open_cuda(br_backend **out, br_precision precision, int32_t device, br_error *error)
{
    *out = NULL;
    const int32_t devices = br_cuda_devices();
    if (devices == 0) return br_fail(error, BR_EDEVICE, "engine cuda: there is no CUDA device");
    if (device < 0 || device >= devices)
        return br_fail(error, BR_EINVAL, "engine cuda: device %d does not exist; there are 0 to %d",
                       (int)device, (int)devices - 1);
    cuda_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) return br_fail(error, BR_ENOMEM, "no memory for a backend");
    backend->device = device;
    backend->base.table = &table;
    /* Half's eleven bits keep eight times as much of a score as bf16's eight, at the same speed. */
    backend->base.precision = precision == BR_PRECISION_AUTO ? BR_PRECISION_F16 : precision;
    backend->base.activation = br_precision_dtype(backend->base.precision);
    backend->base.residual = backend->base.activation;
    backend->base.embedding_narrowed = true;

    const cudaError_t code = use_device(&backend->base);
    br_status status =
        code == cudaSuccess ? describe_device(backend, error) : fail(error, code, "choosing the device");
    if (status == BR_OK) {
        status = br_linear_gelu_prepare(&backend->queue);
        if (status == BR_OK) status = br_attention_band_prepare(&backend->queue);
        if (status != BR_OK) status = br_fail(error, status, "engine cuda: preparing the kernels failed");
    }
    if (status != BR_OK) {
        close_backend(&backend->base);
        return status;
    }
    *out = &backend->base;
    return BR_OK;
}
