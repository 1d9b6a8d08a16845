/*
 * backend_cuda.c - one CUDA device behind the door of engine/backend.h.
 *
 * Residual and activation share one type, so LayerNorm works in place, and a GEMM adds to the result of
 * LayerNorm. Two encoders on a device overlap: while the pass of one is computed, the batch of the other is
 * packed, copied and enqueued on a stream of its own.
 *
 * The other half is stream_cuda.c.
 */
#include "backend_cuda.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "engine_cuda.h"
#include "runtime.h"

enum {
    COMPUTE_CAPABILITY_MIN = 80,  /* bf16, cp.async, ldmatrix with m16n8k16 */
    COMPUTE_CAPABILITY_E4M3 = 89, /* mma of e4m3 */
    COMPUTE_CAPABILITY_PDL = 90,  /* programmatic dependent launch */
    CHUNK = 1 << 20,              /* elements converted at a time */
};

/* The runtime's default stream and ours do not wait for each other. So these functions return only when their
 * work is done. */
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

/* Filled with zeros: the rows that pad a pass are computed, though nobody uses them, and should be finite. */
static void *device_alloc(br_backend *backend, size_t bytes)
{
    void *memory = NULL;
    if (cuda_use_device(backend) != cudaSuccess ||
        cudaMalloc(&memory, bytes > 0 ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError(); /* else a later call would return this error */
        return NULL;
    }
    if (zero_now(memory, bytes) == cudaSuccess) return memory;
    (void)cudaFree(memory);
    return NULL;
}

static void device_free(br_backend *backend, void *memory)
{
    if (memory == NULL) return;
    (void)cuda_use_device(backend);
    (void)cudaFree(memory);
}

static void collect(br_backend *backend, br_pieces *pieces, bool empty)
{
    cuda(backend)->pieces = pieces;
    cuda(backend)->empty = empty;
}

/* Memory for weights; it is added to the list, if there is one. */
static void *weights_alloc(br_backend *backend, size_t bytes)
{
    void *memory = device_alloc(backend, bytes);
    br_pieces *pieces = cuda(backend)->pieces;
    if (memory == NULL || pieces == NULL || br_pieces_add(pieces, memory, bytes) == BR_OK) return memory;
    device_free(backend, memory);
    return NULL;
}

/* Device memory holding `count` floats rounded to `type`. */
static br_status put(br_backend *backend, void **out, const float *source, size_t count, br_dtype type,
                     br_error *error)
{
    const size_t bytes = count * br_dtype_bytes(type);
    *out = weights_alloc(backend, bytes);
    if (*out != NULL && cuda(backend)->empty) return BR_OK;
    char *narrow = type != BR_F32 ? br_alloc_array(count, br_dtype_bytes(type)) : NULL;
    if (*out == NULL || (type != BR_F32 && narrow == NULL)) {
        free(narrow);
        return br_no_memory(error, "%zu bytes of weights (engine cuda)", bytes);
    }
    const void *from = source;
    if (type != BR_F32) {
        for (size_t i = 0; i < count; i++) br_dtype_set(narrow, i, type, source[i]);
        from = narrow;
    }
    const cudaError_t code = copy_now(*out, from, bytes);
    free(narrow);
    return code == cudaSuccess ? BR_OK : cuda_fail(error, code, "copying weights");
}

static void matrix_destroy(br_backend *backend, br_matrix *matrix)
{
    if (matrix == NULL) return;
    device_free(backend, matrix->weight);
    device_free(backend, matrix->weight_scale);
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

/* Scales the weights of each output so that the largest becomes 448, the largest e4m3. */
static void quantize(uint8_t *narrow, float *scale, const br_matrix_source *source)
{
    const size_t inputs = (size_t)source->inputs;
    for (int32_t o = 0; o < source->outputs; o++) {
        const float *row = source->weight + (size_t)o * inputs;
        float largest = 0;
        for (size_t i = 0; i < inputs; i++) largest = fmaxf(largest, fabsf(row[i]));
        scale[o] = largest > 0 ? largest / 448.0f : 1.0f;
        for (size_t i = 0; i < inputs; i++)
            narrow[(size_t)o * inputs + i] = br_f32_to_e4m3(row[i] / scale[o]);
    }
}

static br_status put_quantized(br_backend *backend, br_matrix *matrix, const br_matrix_source *source,
                               br_error *error)
{
    const size_t weights = (size_t)source->outputs * (size_t)source->inputs;
    uint8_t *narrow = br_alloc_array(weights, 1);
    float *scale = br_alloc_array((size_t)source->outputs, sizeof *scale);
    void *device_scale = NULL;
    br_status status;
    matrix->weight = weights_alloc(backend, weights);
    if (narrow == NULL || scale == NULL || matrix->weight == NULL) {
        status = br_no_memory(error, "%zu bytes of weights (engine cuda)", weights);
        goto done;
    }
    quantize(narrow, scale, source);
    const cudaError_t code = cuda(backend)->empty ? cudaSuccess : copy_now(matrix->weight, narrow, weights);
    status = code == cudaSuccess ? put(backend, &device_scale, scale, (size_t)source->outputs, BR_F32, error)
                                 : cuda_fail(error, code, "copying weights");
    matrix->weight_scale = device_scale;

done:
    free(narrow);
    free(scale);
    return status;
}

static br_status matrix_create(br_backend *backend, br_matrix **out, const br_matrix_source *source,
                               br_error *error)
{
    *out = NULL;
    const br_dtype type = backend->activation;
    const br_queue *queue = &cuda(backend)->queue;
    const size_t weights = (size_t)source->outputs * (size_t)source->inputs;
    br_matrix *matrix = calloc(1, sizeof *matrix);
    if (matrix == NULL) return br_no_memory(error, "a matrix");
    matrix->outputs = source->outputs;
    matrix->inputs = source->inputs;
    matrix->epilogue = source->epilogue;
    const bool quantized =
        backend->precision == BR_PRECISION_FP8 &&
        br_linear_fits(source->outputs, source->inputs, source->epilogue, true, type, queue);
    matrix->own =
        quantized || br_linear_fits(source->outputs, source->inputs, source->epilogue, false, type, queue);

    br_status status = check_range(source->weight, weights, type, error);
    if (status == BR_OK)
        status = quantized ? put_quantized(backend, matrix, source, error)
                           : put(backend, &matrix->weight, source->weight, weights, type, error);
    if (status == BR_OK)
        status = put(backend, &matrix->bias, source->bias, (size_t)source->outputs,
                     matrix->own ? BR_F32 : type, error);
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
    if (cuda(backend)->empty) return BR_OK;
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
    return code == cudaSuccess ? BR_OK : cuda_fail(error, code, "copying the embedding");
}

static br_status embedding_create(br_backend *backend, br_embedding **out, const br_tensor *table,
                                  br_error *error)
{
    *out = NULL;
    assert(table->readable);
    assert(table->rank == 2);
    const size_t count = (size_t)table->shape[0] * (size_t)table->shape[1];
    br_embedding *embedding = calloc(1, sizeof *embedding);
    if (embedding == NULL) return br_no_memory(error, "an embedding");
    embedding->width = (int32_t)table->shape[1];
    embedding->table = weights_alloc(backend, count * br_dtype_bytes(backend->activation));
    const br_status status = embedding->table != NULL
                                 ? copy_table(backend, embedding, table, error)
                                 : br_no_memory(error, "an embedding of %zu elements (engine cuda)", count);
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
        status = br_no_memory(error, "%zu projected positions", rows);
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

static br_status tune(br_backend *backend, const char *file, br_error *error)
{
    int driver = 0;
    (void)cudaDriverGetVersion(&driver);
    char name[160];
    (void)snprintf(name, sizeof name, "%s, driver %d, cublasLt %zu", backend->device, driver,
                   cublasLtGetVersion());
    return gemm_choices_create(&cuda(backend)->choices, file, name, error);
}

/* A reset of the device loses the attributes of kernels, so this is called again after it. */
static br_status prepare_kernels(const cuda_backend *backend, br_error *error)
{
    br_status status = br_linear_prepare(&backend->queue);
    if (status == BR_OK) status = br_attention_band_prepare(&backend->queue);
    if (status == BR_OK) return BR_OK;
    return br_fail(error, status, "engine cuda: preparing the kernels failed");
}

/* Most errors of kernels stay until the device's context is destroyed, which a reset does. */
static br_status recover(br_backend *backend, br_error *error)
{
    cudaError_t code = cuda_use_device(backend);
    if (code == cudaSuccess) code = cudaDeviceReset();
    (void)cudaGetLastError();
    if (code == cudaSuccess) code = cuda_use_device(backend);
    if (code != cudaSuccess) return cuda_fail(error, code, "resetting the device");
    return prepare_kernels(cuda(backend), error);
}

static void close_backend(br_backend *backend)
{
    gemm_choices_destroy(cuda(backend)->choices);
    free(backend);
}

static const br_backend_table table = {
    .engine = "cuda",
    .close = close_backend,
    .tune = tune,
    .recover = recover,
    .collect = collect,
    .matrix_create = matrix_create,
    .matrix_destroy = matrix_destroy,
    .embedding_create = embedding_create,
    .embedding_destroy = embedding_destroy,
    .positions_create = positions_create,
    .positions_destroy = positions_destroy,
    .vector_create = vector_create,
    .alloc = device_alloc,
    .free = device_free,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_bytes = cuda_stream_bytes,
    .upload = cuda_upload,
    .download = cuda_download,
    .pass_shapes = cuda_pass_shapes,
    .record = cuda_record,
    .run = cuda_run,
    .wait = cuda_wait,
    .embed_layernorm = cuda_embed_layernorm,
    .linear = cuda_linear,
    .attention = cuda_attention,
    .pooled_attention = cuda_pooled_attention,
    .layernorm = cuda_layernorm,
    .gather_rows = cuda_gather_rows,
    .heads = cuda_heads,
};

int32_t br_cuda_devices(void)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    (void)cudaGetLastError();
    return 0;
}

/* Tokens of a pass whose products of a 768-wide layer leave the fewest multiprocessors idle in their last
 * wave of 128 x 128 tiles: 2816 tokens for 132 multiprocessors, 2304 for 108. */
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
    if (code != cudaSuccess) return cuda_fail(error, code, "asking for the device's properties");
    const int capability = properties.major * 10 + properties.minor;
    if (capability < COMPUTE_CAPABILITY_MIN)
        return br_fail(error, BR_ENOTSUP,
                       "engine cuda: %s has compute capability %d.%d; 8.0 and newer are supported",
                       properties.name, properties.major, properties.minor);
    if (backend->base.precision == BR_PRECISION_FP8 && capability < COMPUTE_CAPABILITY_E4M3)
        return br_fail(error, BR_ENOTSUP,
                       "engine cuda: precision fp8 needs compute capability 8.9; %s has %d.%d",
                       properties.name, properties.major, properties.minor);
    backend->queue = (br_queue){
        .multiprocessors = properties.multiProcessorCount,
        .shared_bytes_max = properties.sharedMemPerBlockOptin,
        .multiplies_e4m3 = capability >= COMPUTE_CAPABILITY_E4M3,
        .has_warpgroups = capability == 90,
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
    if (backend == NULL) return br_no_memory(error, "a backend");
    backend->device = device;
    backend->base.table = &table;
    /* float16 is as fast as bf16, and with its eleven bits eight times as exact. */
    backend->base.precision = precision == BR_PRECISION_AUTO ? BR_PRECISION_F16 : precision;
    backend->base.activation = br_precision_dtype(backend->base.precision);
    backend->base.residual = backend->base.activation;
    backend->base.embedding_narrowed = true;
    backend->base.accelerator = true;

    const cudaError_t code = cuda_use_device(&backend->base);
    br_status status =
        code == cudaSuccess ? describe_device(backend, error) : cuda_fail(error, code, "choosing the device");
    if (status == BR_OK) status = prepare_kernels(backend, error);
    if (status != BR_OK) {
        close_backend(&backend->base);
        return status;
    }
    *out = &backend->base;
    return BR_OK;
}
