/* cuda_kernels.c - bench_cuda's other ops at a full batch. */
#include <stdlib.h>

#include "cuda_measure.h"

enum {
    VOCAB = 4096,
    LENGTH = 64
}; /* LENGTH: of the sequences, for the ops whose time does not depend on it */

/* Launches whose operands are the same in every turn: launch_heads launches the op heads. */
#define LAUNCHER(op)                                                                                         \
    static br_status launch_##op(bench *b, br_stream *stream, const void *args, int32_t turn)                \
    {                                                                                                        \
        (void)turn;                                                                                          \
        return b->ops->op(stream, args);                                                                     \
    }
LAUNCHER(embed_layernorm)
LAUNCHER(layernorm)
LAUNCHER(attention)
LAUNCHER(pooled_attention)
LAUNCHER(gather_rows)
LAUNCHER(heads)
#undef LAUNCHER

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

/* The operands of the ops over rows, besides the rows. */
typedef struct row_operands {
    float *gamma; /* [C] */
    float *beta;
    float *weight; /* [K, C] */
    float *bias;   /* [K] */
    float *quality;
    int32_t *ids; /* [T] */
    br_embedding *embedding;
} row_operands;

static br_embedding *make_embedding(bench *b)
{
    const size_t count = (size_t)VOCAB * WIDTH;
    float *values = malloc(count * sizeof *values);
    br_embedding *embedding = NULL;
    br_error error = {0};
    if (values == NULL) die("memory", BR_ENOMEM);
    make_values(values, count, 4, 1);
    const br_tensor table = {.type = BR_F32,
                             .readable = true,
                             .rank = 2,
                             .shape = {VOCAB, WIDTH},
                             .data = (const void *)values,
                             .bytes = count * sizeof *values};
    const br_status status = b->ops->embedding_create(b->backend, &embedding, &table, &error);
    free(values);
    if (status != BR_OK) die(error.text, status);
    return embedding;
}

static void upload_now(bench *b, void *device, const void *host, size_t bytes)
{
    br_status status = b->ops->upload(b->stream, device, host, bytes);
    if (status == BR_OK) status = b->ops->wait(b->stream);
    if (status != BR_OK) die("upload", status);
}

static void open_operands(bench *b, row_operands *r)
{
    int32_t ids[FULL_TOKENS];
    for (uint32_t i = 0; i < FULL_TOKENS; i++) ids[i] = (int32_t)(i * 2654435761U >> 20);
    r->gamma = constant_vector(b, 1, WIDTH);
    r->beta = constant_vector(b, 0, WIDTH);
    r->weight = constant_vector(b, 0.01F, (size_t)CANDIDATES * WIDTH);
    r->bias = constant_vector(b, 0, CANDIDATES);
    r->quality = take(b, (size_t)FULL_TOKENS * CANDIDATES * sizeof *r->quality);
    r->ids = take(b, sizeof ids);
    upload_now(b, r->ids, ids, sizeof ids);
    r->embedding = make_embedding(b);
}

static void close_operands(bench *b, const row_operands *r)
{
    b->ops->embedding_destroy(b->backend, r->embedding);
    b->ops->free(b->backend, r->ids);
    b->ops->free(b->backend, r->quality);
    b->ops->free(b->backend, r->gamma);
    b->ops->free(b->backend, r->beta);
    b->ops->free(b->backend, r->weight);
    b->ops->free(b->backend, r->bias);
}

/* Ops over the rows of all tokens. */
static void bench_token_rows(bench *b, const row_operands *r, void *rows, int32_t tokens)
{
    const br_embed_args embed = {
        .embedding = r->embedding,
        .ids = r->ids,
        .gamma = r->gamma,
        .beta = r->beta,
        .epsilon = 1e-7F,
        .residual = rows,
        .input = rows,
        .tokens = tokens,
    };
    report(b, "kernel", "embed_layernorm", tokens, 0, measure(b, launch_embed_layernorm, &embed, 1),
           4.0 * tokens * WIDTH, 0);
    const br_layernorm_args norm = {rows, rows, r->gamma, r->beta, 1e-7F, tokens, WIDTH};
    report(b, "kernel", "layernorm", tokens, 0, measure(b, launch_layernorm, &norm, 1), 4.0 * tokens * WIDTH,
           0);
}

/* Ops over one row per sequence. */
static void bench_pooled_rows(bench *b, const row_operands *r, void *rows, void *pooled,
                              const int32_t *offsets, int32_t tokens)
{
    const int32_t seqs = tokens / LENGTH;
    const br_gather_args gather = {rows, rows, offsets, pooled, pooled, 1, seqs, WIDTH};
    report(b, "kernel", "gather_rows", tokens, LENGTH, measure(b, launch_gather_rows, &gather, 1),
           4.0 * seqs * WIDTH, 0);
    const br_heads_args heads = {
        .residual = pooled,
        .input = pooled,
        .gamma = r->gamma,
        .beta = r->beta,
        .epsilon = 1e-7F,
        .weight = r->weight,
        .bias = r->bias,
        .quality = r->quality,
        .seqs = seqs,
        .width = WIDTH,
        .heads_count = CANDIDATES,
    };
    report(b, "kernel", "heads", tokens, LENGTH, measure(b, launch_heads, &heads, 1),
           2.0 * seqs * WIDTH + 4.0 * CANDIDATES * (WIDTH + seqs), 2.0 * seqs * WIDTH * CANDIDATES);
}

/* Sets offsets[seqs + 1] to sequences of equal length. */
static void set_offsets(bench *b, int32_t *offsets, int32_t seqs, int32_t length)
{
    int32_t host[FULL_TOKENS + 1];
    for (int32_t i = 0; i <= seqs; i++) host[i] = i * length;
    upload_now(b, offsets, host, ((size_t)seqs + 1) * sizeof *host);
}

static void bench_rows(bench *b, void *rows, void *pooled, int32_t *offsets)
{
    const int32_t tokens = b->quick ? LENGTH : FULL_TOKENS;
    row_operands r;
    open_operands(b, &r);
    set_offsets(b, offsets, tokens / LENGTH, LENGTH);
    bench_token_rows(b, &r, rows, tokens);
    bench_pooled_rows(b, &r, rows, pooled, offsets, tokens);
    close_operands(b, &r);
}

static void bench_attention(bench *b, const br_positions *positions, void *qkv, void *context,
                            int32_t *offsets, int32_t length)
{
    const int32_t seqs =
        (b->quick ? 256 : FULL_TOKENS) / length > 0 ? (b->quick ? 256 : FULL_TOKENS) / length : 1;
    const int32_t tokens = seqs * length;
    set_offsets(b, offsets, seqs, length);
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
    report(b, "kernel", "pooled_attention", tokens, length, measure(b, launch_pooled_attention, &pooled, 1),
           2.0 * tokens * WIDTH * 2, 8.0 * tokens * WIDTH);
}

void bench_kernels(bench *b)
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
