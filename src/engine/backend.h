/*
 * backend.h - the door to a device: seven fused ops and the memory they work on.
 *
 * A backend is one device in one precision. What is made from weights (matrices,
 * embeddings, position tables, vectors) belongs to the backend, is immutable
 * once made, and is shared by its streams. A stream is an order of execution:
 * ops enqueued on it run one after the other. A stream belongs to the thread
 * that created it (the CPU engine binds per-thread settings to it). Everything
 * else may be called from any thread, but one thread at a time creates and destroys.
 *
 * Two element types of a precision:
 *   residual     the stream of hidden states that LayerNorm writes and GEMMs accumulate into
 *   activation   what a GEMM or the attention reads
 * f32: both float32. bf16 and f16: the activation has 16 bits; the residual is float32 on the CPU, and may
 * have 16 bits on a device.
 *
 * Pointers in op arguments are device pointers; on the CPU they are plain ones.
 * Rows may be 0 everywhere: the op does nothing. Launching an op allocates
 * nothing and never waits.
 *
 * Sums, softmax, LayerNorm, GELU and heads are computed in float32 (or better) and
 * rounded once, when stored. One rounding more is allowed in bf16: the exponentials
 * of an attention row before they weigh the values.
 *
 * Shapes: B sequences, T packed tokens, C width, H heads, D = C / H, F ffn width, K quality heads.
 *
 * Which engines there are, and how one is opened: engines.h.
 */
#ifndef BESTROUTE_ENGINE_BACKEND_H
#define BESTROUTE_ENGINE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "bundle/model.h"
#include "bundle/safetensors.h"
#include "core/dtype.h"

typedef struct br_backend br_backend;
typedef struct br_stream br_stream;       /* backend's own */
typedef struct br_matrix br_matrix;       /* backend's own: a Linear's weight, bias and epilogue */
typedef struct br_embedding br_embedding; /* backend's own: [V, C] */
typedef struct br_positions br_positions; /* backend's own: projected positions of one layer */

/* What a Linear does with its product x W^T + b. */
typedef enum br_epilogue {
    BR_EPILOGUE_STORE,      /* y = ...        activation */
    BR_EPILOGUE_GELU,       /* y = gelu(...)  activation; erf form */
    BR_EPILOGUE_ACCUMULATE, /* y += ...       residual */
} br_epilogue;

typedef struct br_matrix_source {
    const float *weight; /* [outputs, inputs], host */
    const float *bias;   /* [outputs], host */
    int32_t outputs;
    int32_t inputs;
    br_epilogue epilogue;
} br_matrix_source;

/* Position keys and queries of one layer, one row per distance: row distance + S - 1 for
 * distance = query index - key index in (-S, S). Bucketing, clamping, bias and the score's
 * scale are already in. A term the model lacks is NULL. */
typedef struct br_positions_source {
    const float *key;       /* [2 * seq_tokens_max - 1, C], host: c2p, dotted with the query */
    const float *query;     /* [2 * seq_tokens_max - 1, C], host: p2c, dotted with the key */
    int32_t seq_tokens_max; /* S */
    int32_t heads;
    int32_t head_size;
} br_positions_source;

/* residual[t] = layernorm(embedding[ids[t]] + positions[index of t in its sequence]); input[t] = the same as
 * activation. ids are in 0 .. V - 1: this is checked where prompts enter, not here. Tokens after the last
 * sequence pad a recorded pass: they take position 0, and nobody uses their results. */
typedef struct br_embed_args {
    const br_embedding *embedding;
    const int32_t *ids; /* [T] */
    const float *gamma; /* [C] */
    const float *beta;  /* [C] */
    float epsilon;
    const float *positions; /* [longest sequence or more, C]; NULL: none, and offsets are not read */
    const int32_t *offsets; /* [B + 1] */
    int32_t seqs;           /* B */
    void *residual;         /* [T, C] */
    void *input;            /* [T, C]; == residual when the two types agree */
    int32_t tokens;
} br_embed_args;

/* y [rows, outputs] from x [rows, inputs] and the matrix's epilogue. */
typedef struct br_linear_args {
    const br_matrix *matrix;
    const void *x; /* activation */
    void *y;       /* activation, or residual for ACCUMULATE */
    int32_t rows;
} br_linear_args;

/* Disentangled self-attention within each sequence, all queries:
 *   score[i, j] = q_i . k_j + q_i . key[i - j] + k_j . query[i - j]     (q comes scaled)
 *   context[i]  = sum_j softmax_j(score[i, j]) v_j                      per head
 */
typedef struct br_attention_args {
    const void *q;                 /* T rows of C, one every q_stride elements; activation */
    const void *k;                 /* T rows of C, one every kv_stride elements; activation */
    const void *v;                 /* likewise */
    const br_positions *positions; /* NULL: content only */
    const int32_t *offsets;        /* [B + 1] */
    void *context;                 /* [T, C] activation */
    int32_t q_stride;              /* 3C when q, k, v are one GEMM's output [T, 3C] */
    int32_t kv_stride;             /* 3C, or 2C when k, v are one GEMM's output [T, 2C] */
    int32_t tokens;                /* T */
    int32_t seqs;                  /* B */
    int32_t seq_tokens_max;        /* the longest sequence of this batch; at most the positions' */
    int32_t heads;
    int32_t head_size;
} br_attention_args;

/* The same for one query per sequence, at index `pool_index` of each. */
typedef struct br_pooled_attention_args {
    const void *query;             /* [B, C] activation */
    const void *kv;                /* [T, 2C] activation: k | v */
    const br_positions *positions; /* NULL: content only */
    const int32_t *offsets;        /* [B + 1] */
    void *context;                 /* [B, C] activation */
    int32_t pool_index;
    int32_t seqs;
    int32_t seq_tokens_max;
    int32_t heads;
    int32_t head_size;
} br_pooled_attention_args;

/* residual = layernorm(residual), in place; input = the same as activation. */
typedef struct br_layernorm_args {
    void *residual; /* [rows, C] */
    void *input;    /* [rows, C]; == residual when the two types agree */
    const float *gamma;
    const float *beta;
    float epsilon;
    int32_t rows;
    int32_t width;
} br_layernorm_args;

/* pooled_x[b] = x[offsets[b] + pool_index] for residual and input. */
typedef struct br_gather_args {
    const void *residual;   /* [T, C] */
    const void *input;      /* [T, C] */
    const int32_t *offsets; /* [B + 1] */
    void *pooled_residual;  /* [B, C] */
    void *pooled_input;     /* [B, C]; == pooled_residual when the two types agree */
    int32_t pool_index;
    int32_t seqs;
    int32_t width;
} br_gather_args;

/* The function that the heads op applies to a row's K logits z. */
typedef enum br_activation {
    BR_ACTIVATION_SIGMOID,    /* 1 / (1 + exp(-z)) */
    BR_ACTIVATION_SOFTMAX,    /* exp(z) / sum over the row of exp(z) */
    BR_ACTIVATION_COMPLEMENT, /* 1 - softmax: the probability that it is one of the row's other classes */
    BR_ACTIVATION_TANH,
    BR_ACTIVATION_GELU, /* erf form */
    BR_ACTIVATION_RELU, /* max(z, 0) */
} br_activation;

/* quality[b] = activation(x . weight[k] + bias[k] for all k), in float32; x = layernorm(residual[b]), with
 * `unit` divided by its norm. With gamma the op may overwrite the rows of residual and input. */
typedef struct br_heads_args {
    void *residual;     /* [B, C]; float32 where `wide` */
    void *input;        /* [B, C]; not read */
    const float *gamma; /* [C]; NULL: the rows are normalised already, and are not written */
    const float *beta;  /* [C] */
    float epsilon;
    const float *weight; /* [K, C], folded: w0 - w1 */
    const float *bias;   /* [K] */
    float *quality;      /* [B, K] */
    br_activation activation;
    bool unit; /* x is divided by its Euclidean norm, so that unit weights give cosines */
    bool wide; /* residual is float32: the output of another heads op */
    int32_t seqs;
    int32_t width;
    int32_t heads_count;
} br_heads_args;

/* The shape in which a pass is computed. Each number is at least that of the batch. */
typedef struct br_pass_shape {
    int32_t tokens;         /* T: rows of the ops over all tokens */
    int32_t seqs;           /* B; sequences beyond the batch's have no tokens */
    int32_t seq_tokens_max; /* the longest sequence that may occur */
} br_pass_shape;

enum { BR_PASS_SHAPES_MAX = 64 };

/* The largest batch a stream will see. */
typedef struct br_stream_shape {
    int32_t tokens_max;     /* T */
    int32_t seqs_max;       /* B */
    int32_t seq_tokens_max; /* the longest sequence */
    int32_t heads_count;    /* K */
} br_stream_shape;

typedef br_status (*br_enqueue_fn)(br_stream *stream, void *context);

/* Device memory that holds weights, in the order in which it was allocated. */
typedef struct br_piece {
    void *memory;
    size_t bytes;
} br_piece;

typedef struct br_pieces {
    br_piece *items; /* owned; br_pieces_deinit */
    int32_t count;
    int32_t capacity;
} br_pieces;

typedef struct br_backend_table {
    const char *engine; /* "reference", "cpu", "cuda" */

    void (*close)(br_backend *);

    /* From now on streams measure which algorithm is fastest for each product, and keep the result in `file`,
     * which may not exist yet. NULL on engines with nothing to measure. BR_ENOMEM. */
    br_status (*tune)(br_backend *, const char *file, br_error *);

    /* Made from weights; shared by all streams. The sources are borrowed during the call.
     * BR_ENOMEM, BR_EDEVICE, BR_ENOTSUP (a shape the device cannot do). The destroys accept NULL. */
    br_status (*matrix_create)(br_backend *, br_matrix **out, const br_matrix_source *, br_error *);
    void (*matrix_destroy)(br_backend *, br_matrix *);
    br_status (*embedding_create)(br_backend *, br_embedding **out, const br_tensor *table, br_error *);
    void (*embedding_destroy)(br_backend *, br_embedding *);
    br_status (*positions_create)(br_backend *, br_positions **out, const br_positions_source *, br_error *);
    void (*positions_destroy)(br_backend *, br_positions *);

    /* Device memory holding a copy of source[count]; release it with free. */
    br_status (*vector_create)(br_backend *, float **out, const float *source, size_t count, br_error *);

    /* Makes the device usable again after a failure. Everything made by the backend has been destroyed
     * before. NULL where there is nothing to do. BR_EDEVICE: the device stays unusable. */
    br_status (*recover)(br_backend *, br_error *);

    /* From now on the memory of all weights that are made is listed in `pieces`; NULL ends this. With `empty`
     * that memory is allocated, but not written. Accelerators alone have it. */
    void (*collect)(br_backend *, br_pieces *pieces, bool empty);

    /* Plain device memory, aligned to BR_ALIGNMENT; NULL when there is none left. free accepts NULL. */
    void *(*alloc)(br_backend *, size_t bytes);
    void (*free)(br_backend *, void *memory);

    /* All the scratch the stream's ops will need is taken here. */
    br_status (*stream_create)(br_backend *, br_stream **out, const br_model *model, const br_stream_shape *,
                               br_error *);
    void (*stream_destroy)(br_stream *);

    /* Bytes of device memory that the stream holds. NULL on engines whose memory is the host's. */
    size_t (*stream_bytes)(const br_stream *);

    /* Copies between host and device in stream order. The host bytes of an upload may be
     * reused once the stream was waited for. */
    br_status (*upload)(br_stream *, void *device, const void *host, size_t bytes);
    br_status (*download)(br_stream *, void *host, const void *device, size_t bytes);

    /* The shapes of pass that the stream records, ascending; returns how many. NULL on engines
     * that record nothing. */
    int32_t (*pass_shapes)(const br_stream *, br_pass_shape out[BR_PASS_SHAPES_MAX]);

    /* Records what enqueue(stream, context) enqueues, without executing it. Keys are new.
     * BR_ENOMEM, BR_EDEVICE, or what enqueue returned. NULL where pass_shapes is. */
    br_status (*record)(br_stream *, uint64_t key, br_enqueue_fn enqueue, void *context);

    /* Replays what was recorded under an equal key; else calls enqueue(stream, context).
     * A key stands for every shape and pointer the enqueued ops were given. */
    br_status (*run)(br_stream *, uint64_t key, br_enqueue_fn enqueue, void *context);

    /* Returns when everything enqueued has been executed. BR_EDEVICE: some of it failed. */
    br_status (*wait)(br_stream *);

    br_status (*embed_layernorm)(br_stream *, const br_embed_args *);
    br_status (*linear)(br_stream *, const br_linear_args *);
    br_status (*attention)(br_stream *, const br_attention_args *);
    br_status (*pooled_attention)(br_stream *, const br_pooled_attention_args *);
    br_status (*layernorm)(br_stream *, const br_layernorm_args *);
    br_status (*gather_rows)(br_stream *, const br_gather_args *);
    br_status (*heads)(br_stream *, const br_heads_args *);
} br_backend_table;

/* Every backend begins with this. */
struct br_backend {
    const br_backend_table *table;
    br_precision precision; /* resolved: never AUTO */
    br_dtype residual;
    br_dtype activation;
    bool embedding_narrowed; /* the embedding is kept in the activation type, not in the file's */
    bool accelerator;        /* a device with memory of its own, beside the host's cores */
    int32_t batch_tokens;    /* of a full pass that suits the device */
    char device[96];         /* for people: "AMD EPYC, avx512_core_bf16" */
};

/* Accepts NULL. Everything made by the backend must be gone. */
void br_backend_close(br_backend *backend);

void br_pieces_deinit(br_pieces *pieces);
BR_NODISCARD br_status br_pieces_add(br_pieces *pieces, void *memory, size_t bytes); /* BR_ENOMEM */

#endif
