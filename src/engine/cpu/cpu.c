/*
 * cpu.c - the CPU engine: dense products by oneDNN, everything else by our own kernels.
 *
 * An op computes before it returns, on the calling thread alone. One stream per core then uses all cores, and
 * no stream waits for another. Streams share weights, position tables and compiled products, which are
 * read-only; no op takes a lock.
 *
 * f32: everything is float32. bf16: the residual is float32; a product that feeds GELU
 * stays float32 in a small buffer until GELU has rounded it, once.
 */
#include "cpu.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "engine/host/host.h"
#include "kernels.h"
#include "onednn.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Rows of a product that GELU follows: few enough that GELU finds the float32 results still in the cache. */
enum { GELU_ROWS_MAX = 128 };

/* Longer passes gain only 1 % of throughput: bench/README.md. */
enum { BATCH_TOKENS = 256 };

typedef struct cpu_backend {
    br_backend base;
    onednn *dnn;
    const cpu_kernels *kernels;
} cpu_backend;

struct br_matrix {
    onednn_weights *weights;
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
};

struct br_stream {
    const cpu_backend *backend;
    onednn_runner *runner;
    void *scratch; /* the attention's */
    float *wide;   /* float32 results that GELU reads; bf16 only */
    size_t wide_count;
};

static cpu_backend *cpu(br_backend *backend)
{
    return (cpu_backend *)backend;
}

static void matrix_destroy(br_backend *backend, br_matrix *matrix)
{
    if (matrix == NULL) return;
    onednn_weights_destroy(cpu(backend)->dnn, matrix->weights);
    free(matrix);
}

static onednn_result result_of(br_epilogue epilogue)
{
    switch (epilogue) {
    case BR_EPILOGUE_STORE:
        return ONEDNN_STORE;
    case BR_EPILOGUE_GELU:
        return ONEDNN_STORE_WIDE;
    case BR_EPILOGUE_ACCUMULATE:
        return ONEDNN_ADD_WIDE;
    }
    return ONEDNN_STORE;
}

static br_status matrix_create(br_backend *backend, br_matrix **out, const br_matrix_source *source,
                               br_error *error)
{
    *out = NULL;
    br_matrix *matrix = calloc(1, sizeof *matrix);
    if (matrix == NULL) return br_no_memory(error, "a matrix");
    matrix->outputs = source->outputs;
    matrix->inputs = source->inputs;
    matrix->epilogue = source->epilogue;

    const onednn_source packed = {
        .weight = source->weight,
        .bias = source->bias,
        .outputs = source->outputs,
        .inputs = source->inputs,
        .result = result_of(source->epilogue),
    };
    const br_status status = onednn_weights_create(cpu(backend)->dnn, &matrix->weights, &packed, error);
    if (status != BR_OK) {
        matrix_destroy(backend, matrix);
        return status;
    }
    *out = matrix;
    return BR_OK;
}

static void positions_destroy(br_backend *backend, br_positions *positions)
{
    (void)backend;
    if (positions == NULL) return;
    free(positions->key);
    free(positions->query);
    free(positions);
}

/* One unit of one row: a float, or two bf16. The last pair of an odd head size ends with zero. */
static uint32_t position_unit(const float *row, int32_t unit, int32_t head_size, bool bf16)
{
    uint32_t bits;
    if (!bf16) {
        memcpy(&bits, row + unit, sizeof bits);
        return bits;
    }
    bits = br_f32_to_bf16(row[2 * unit]);
    if (2 * unit + 1 < head_size) bits |= (uint32_t)br_f32_to_bf16(row[2 * unit + 1]) << 16;
    return bits;
}

/* Rows of `source` become columns; with `reverse` the last row becomes the first column. NULL: no memory. */
static uint32_t *pack_positions(const br_positions *p, const float *source, int32_t head_size, bool bf16,
                                bool reverse)
{
    const size_t units = (size_t)p->heads * (size_t)p->depth;
    uint32_t *table = br_alloc_array(units * p->stride, sizeof *table);
    if (table == NULL) return NULL;
    memset(table, 0, units * p->stride * sizeof *table);

    const int32_t rows = 2 * p->seq_tokens_max - 1;
    const size_t width = (size_t)p->heads * (size_t)head_size;
    for (int32_t head = 0; head < p->heads; head++) {
        for (int32_t unit = 0; unit < p->depth; unit++) {
            uint32_t *to = table + ((size_t)head * (size_t)p->depth + (size_t)unit) * p->stride + p->lead;
            for (int32_t row = 0; row < rows; row++) {
                const float *from = source + (size_t)row * width + (size_t)head * (size_t)head_size;
                to[reverse ? rows - 1 - row : row] = position_unit(from, unit, head_size, bf16);
            }
        }
    }
    return table;
}

static br_status positions_create(br_backend *backend, br_positions **out, const br_positions_source *source,
                                  br_error *error)
{
    *out = NULL;
    const bool bf16 = backend->activation == BR_BF16;
    br_positions *p = calloc(1, sizeof *p);
    if (p == NULL) goto fail;
    p->lead = CPU_MARGIN;
    p->depth = cpu_depth(source->head_size, bf16);
    p->seq_tokens_max = source->seq_tokens_max;
    p->heads = source->heads;
    /* An odd number of cache lines, so that the rows of a table spread over all cache sets. */
    const size_t columns = 2 * (size_t)source->seq_tokens_max - 1 + 2 * CPU_MARGIN;
    p->stride = ((columns + 15) / 16 | 1) * 16;

    if (source->key != NULL) {
        p->key = pack_positions(p, source->key, source->head_size, bf16, true);
        if (p->key == NULL) goto fail;
    }
    if (source->query != NULL) {
        p->query = pack_positions(p, source->query, source->head_size, bf16, false);
        if (p->query == NULL) goto fail;
    }
    *out = p;
    return BR_OK;

fail:
    positions_destroy(backend, p);
    return br_no_memory(error, "the projected positions of %d tokens", (int)source->seq_tokens_max);
}

static void stream_destroy(br_stream *stream)
{
    if (stream == NULL) return;
    onednn_runner_destroy(stream->runner);
    free(stream->scratch);
    free(stream->wide);
    free(stream);
}

static br_status stream_create(br_backend *backend, br_stream **out, const br_model *model,
                               const br_stream_shape *shape, br_error *error)
{
    *out = NULL;
    br_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return br_no_memory(error, "a stream");
    stream->backend = cpu(backend);

    br_status status = onednn_runner_create(&stream->runner, cpu(backend)->dnn, error);
    if (status != BR_OK) goto fail;

    const size_t bytes = stream->backend->kernels->scratch_bytes(shape->seq_tokens_max, model->head_size);
    stream->scratch = br_alloc_array(bytes, 1);
    stream->wide_count =
        backend->activation == BR_BF16 ? (size_t)GELU_ROWS_MAX * (size_t)model->ffn_width : 0;
    stream->wide = br_alloc_array(stream->wide_count, sizeof *stream->wide);
    if (stream->scratch == NULL || stream->wide == NULL) {
        status = br_no_memory(error, "a stream's scratch");
        goto fail;
    }
    /* Kernels read a little beyond what they wrote, and ignore those values. */
    memset(stream->scratch, 0, bytes);
    *out = stream;
    return BR_OK;

fail:
    stream_destroy(stream);
    return status;
}

static br_status embed_layernorm(br_stream *stream, const br_embed_args *a)
{
    const size_t width = (size_t)a->embedding->width;
    const size_t input_bytes = width * br_dtype_bytes(stream->backend->base.activation);
    int32_t seq = 0;
    for (int32_t t = 0; t < a->tokens; t++) {
        float *residual = (float *)a->residual + (size_t)t * width;
        br_host_embed_token(residual, a, t, &seq);
        stream->backend->kernels->layernorm(&(br_layernorm_args){
            .residual = residual,
            .input = (char *)a->input + (size_t)t * input_bytes,
            .gamma = a->gamma,
            .beta = a->beta,
            .epsilon = a->epsilon,
            .rows = 1,
            .width = a->embedding->width,
        });
    }
    return BR_OK;
}

/* One block of rows of a product that GELU follows. */
static br_status multiply_gelu(br_stream *stream, const br_matrix *m, const void *x, void *y, int32_t rows)
{
    const bool bf16 = stream->backend->base.activation == BR_BF16;
    float *wide = bf16 ? stream->wide : y;
    const br_status status = onednn_multiply(stream->runner, m->weights, x, wide, rows);
    if (status == BR_OK) stream->backend->kernels->gelu(y, wide, (size_t)rows * (size_t)m->outputs);
    return status;
}

/* The most rows one product may take. */
static int32_t block_rows_max(const br_stream *stream, const br_matrix *m)
{
    if (m->epilogue != BR_EPILOGUE_GELU) return ONEDNN_ROWS_MAX;
    if (stream->wide_count == 0) return GELU_ROWS_MAX;
    const size_t rows = stream->wide_count / (size_t)m->outputs;
    return rows < GELU_ROWS_MAX ? (int32_t)rows : GELU_ROWS_MAX;
}

static br_status linear(br_stream *stream, const br_linear_args *a)
{
    if (a->rows == 0) return BR_OK;
    const br_backend *backend = &stream->backend->base;
    const br_matrix *m = a->matrix;
    const int32_t rows_max = block_rows_max(stream, m);
    if (rows_max < 1) return BR_EINVAL; /* wider than the model this stream was made for */

    const size_t x_bytes = (size_t)m->inputs * br_dtype_bytes(backend->activation);
    const size_t y_bytes =
        (size_t)m->outputs *
        br_dtype_bytes(m->epilogue == BR_EPILOGUE_ACCUMULATE ? backend->residual : backend->activation);
    for (int32_t row = 0; row < a->rows;) {
        const int32_t rows = onednn_block(a->rows - row, rows_max);
        const void *x = (const char *)a->x + (size_t)row * x_bytes;
        void *y = (char *)a->y + (size_t)row * y_bytes;
        const br_status status = m->epilogue == BR_EPILOGUE_GELU
                                     ? multiply_gelu(stream, m, x, y, rows)
                                     : onednn_multiply(stream->runner, m->weights, x, y, rows);
        if (status != BR_OK) return status;
        row += rows;
    }
    return BR_OK;
}

static br_status attention(br_stream *stream, const br_attention_args *a)
{
    if (a->seqs > 0) stream->backend->kernels->attention(a, stream->scratch);
    return BR_OK;
}

static br_status pooled_attention(br_stream *stream, const br_pooled_attention_args *a)
{
    if (a->seqs > 0) stream->backend->kernels->pooled_attention(a, stream->scratch);
    return BR_OK;
}

static br_status layernorm(br_stream *stream, const br_layernorm_args *a)
{
    stream->backend->kernels->layernorm(a);
    return BR_OK;
}

static br_status gather_rows(br_stream *stream, const br_gather_args *a)
{
    br_host_gather_rows(&stream->backend->base, a);
    return BR_OK;
}

static br_status heads(br_stream *stream, const br_heads_args *a)
{
    if (a->gamma != NULL)
        stream->backend->kernels->layernorm(&(br_layernorm_args){
            .residual = a->residual,
            .input = a->input,
            .gamma = a->gamma,
            .beta = a->beta,
            .epsilon = a->epsilon,
            .rows = a->seqs,
            .width = a->width,
        });
    stream->backend->kernels->heads(a);
    return BR_OK;
}

static void close_backend(br_backend *backend)
{
    onednn_close(cpu(backend)->dnn);
    free(backend);
}

static const br_backend_table table = {
    .engine = "cpu",
    BR_HOST_ENTRIES,
    .close = close_backend,
    .matrix_create = matrix_create,
    .matrix_destroy = matrix_destroy,
    .positions_create = positions_create,
    .positions_destroy = positions_destroy,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .embed_layernorm = embed_layernorm,
    .linear = linear,
    .attention = attention,
    .pooled_attention = pooled_attention,
    .layernorm = layernorm,
    .gather_rows = gather_rows,
    .heads = heads,
};

/* The name that the processor gives itself ("AMD EPYC"), without its padding; "CPU" if it gives none. */
static void name_processor(char name[49])
{
    memcpy(name, "CPU", 4);
#if defined(__x86_64__)
    unsigned words[12] = {0};
    for (unsigned i = 0; i < 3; i++) {
        unsigned *w = words + 4 * i;
        if (!__get_cpuid(0x80000002u + i, w, w + 1, w + 2, w + 3)) return;
    }
    char padded[49] = {0};
    memcpy(padded, words, sizeof words);
    const size_t skip = strspn(padded, " ");
    size_t size = strlen(padded + skip);
    while (size > 0 && padded[skip + size - 1] == ' ') size--;
    if (size == 0) return;
    memcpy(name, padded + skip, size);
    name[size] = '\0';
#endif
}

static br_status open_precision(br_backend **out, bool bf16, br_error *error)
{
    const cpu_kernels *kernels = cpu_kernels_choose(bf16);
    if (kernels == NULL)
        return br_fail(error, BR_ENOTSUP, "engine cpu: precision bf16 needs a processor with AVX-512 BF16");

    cpu_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) return br_no_memory(error, "a backend");
    backend->base.table = &table;
    backend->base.precision = bf16 ? BR_PRECISION_BF16 : BR_PRECISION_F32;
    backend->base.residual = BR_F32;
    backend->base.activation = bf16 ? BR_BF16 : BR_F32;
    backend->base.batch_tokens = BATCH_TOKENS;
    backend->kernels = kernels;

    br_status status = onednn_open(&backend->dnn, bf16, error);
    if (status == BR_OK && bf16 && !onednn_is_fast(backend->dnn))
        status = br_fail(error, BR_ENOTSUP, "engine cpu: for bf16 oneDNN has only %s here, which is slow",
                         onednn_implementation(backend->dnn));
    if (status != BR_OK) {
        br_backend_close(&backend->base);
        return status;
    }

    char processor[49];
    name_processor(processor);
    (void)snprintf(backend->base.device, sizeof backend->base.device, "%s, %s, %s", processor, kernels->name,
                   onednn_implementation(backend->dnn));
    *out = &backend->base;
    return BR_OK;
}

br_status br_backend_open_cpu(br_backend **out, br_precision precision, br_error *error)
{
    *out = NULL;
    if (precision == BR_PRECISION_F16 || precision == BR_PRECISION_FP8)
        return br_fail(error, BR_ENOTSUP, "engine cpu: precision %s is not supported; f32 and bf16 are",
                       br_precision_name(precision));
    if (precision == BR_PRECISION_AUTO) {
        const br_status status = open_precision(out, true, NULL);
        if (status != BR_ENOTSUP)
            return status == BR_OK ? BR_OK : br_fail(error, status, "engine cpu: %s", br_status_text(status));
        return open_precision(out, false, error);
    }
    return open_precision(out, precision == BR_PRECISION_BF16, error);
}
