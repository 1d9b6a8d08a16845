/*
 * encoder.c - see encoder.h. The forward pass over the ops of engine/backend.h.
 *
 *   embed -> layer 0 .. L - 2, all tokens -> last layer, pooled token -> heads
 *
 * A layer is attention, attention_output accumulated into the residual, LayerNorm,
 * FFN accumulated into the residual, LayerNorm. The last one has the same steps
 * on B rows: only its keys and values are needed for every token.
 */
#include "encoder.h"

#include <assert.h>
#include <stdlib.h>

#include "core/limits.h"
#include "core/memory.h"
#include "plan.h"
#include "weights.h"

struct br_encoder {
    const br_encoder_weights *weights;
    br_backend *backend;
    const br_backend_table *ops;
    br_stream *stream;
    br_encoder_options options;
    workspace_plan plan;
    char *workspace; /* the backend's memory */

    br_pass_shape recorded[BR_PASS_SHAPES_MAX]; /* ascending */
    int32_t recorded_count;
    int32_t *offsets; /* [seqs_max + 1]: the batch's, then its end for the sequences that only the pass has */

    int32_t tokens;     /* of the latest batch */
    br_pass_shape pass; /* in which that batch is computed */
};

/* The rows that go through a layer: all tokens, or the pooled ones. */
typedef struct rows_view {
    void *residual;
    void *input;
    void *context;
    void *ffn;
    int32_t rows;
} rows_view;

static void *at(const br_encoder *e, size_t offset)
{
    return e->workspace + offset;
}

static rows_view all_rows(const br_encoder *e)
{
    return (rows_view){
        .residual = at(e, e->plan.residual),
        .input = at(e, e->plan.input),
        .context = at(e, e->plan.context),
        .ffn = at(e, e->plan.ffn),
        .rows = e->pass.tokens,
    };
}

static rows_view pooled_rows(const br_encoder *e)
{
    return (rows_view){
        .residual = at(e, e->plan.pooled_residual),
        .input = at(e, e->plan.pooled_input),
        .context = at(e, e->plan.pooled_context),
        .ffn = at(e, e->plan.pooled_ffn),
        .rows = e->pass.seqs,
    };
}

static br_status linear(br_encoder *e, void *y, const br_matrix *matrix, const void *x, int32_t rows)
{
    return e->ops->linear(e->stream, &(br_linear_args){.matrix = matrix, .x = x, .y = y, .rows = rows});
}

static br_status layernorm(br_encoder *e, const rows_view *v, const layernorm_weights *norm)
{
    return e->ops->layernorm(e->stream, &(br_layernorm_args){
                                            .residual = v->residual,
                                            .input = v->input,
                                            .gamma = norm->gamma,
                                            .beta = norm->beta,
                                            .epsilon = e->weights->model.layer_norm_epsilon,
                                            .rows = v->rows,
                                            .width = e->weights->model.width,
                                        });
}

static br_status embed(br_encoder *e)
{
    const br_encoder_weights *w = e->weights;
    const rows_view v = all_rows(e);
    return e->ops->embed_layernorm(e->stream, &(br_embed_args){
                                                  .embedding = w->embedding,
                                                  .ids = at(e, e->plan.ids),
                                                  .gamma = w->embedding_norm.gamma,
                                                  .beta = w->embedding_norm.beta,
                                                  .epsilon = w->model.layer_norm_epsilon,
                                                  .positions = w->absolute_positions,
                                                  .offsets = at(e, e->plan.offsets),
                                                  .seqs = e->pass.seqs,
                                                  .residual = v.residual,
                                                  .input = v.input,
                                                  .tokens = v.rows,
                                              });
}

/* From the attention's context to the layer's last sum. The LayerNorm that follows is not done here. */
static br_status mix_rows(br_encoder *e, const layer_weights *layer, const rows_view *v)
{
    br_status status = linear(e, v->residual, layer->attention_output, v->context, v->rows);
    if (status != BR_OK) return status;
    status = layernorm(e, v, &layer->attention_norm);
    if (status != BR_OK) return status;
    status = linear(e, v->ffn, layer->ffn_up, v->input, v->rows);
    if (status != BR_OK) return status;
    return linear(e, v->residual, layer->ffn_down, v->ffn, v->rows);
}

/* Elements of the activation type from the start of the qkv buffer. */
static char *qkv_at(const br_encoder *e, size_t elements)
{
    return (char *)at(e, e->plan.qkv) + elements * br_dtype_bytes(e->backend->activation);
}

static br_status layer_for_all_tokens(br_encoder *e, const layer_weights *layer)
{
    const br_model *model = &e->weights->model;
    const size_t width = (size_t)model->width;
    const size_t tokens = (size_t)e->pass.tokens;
    const rows_view v = all_rows(e);
    br_attention_args args = {
        .positions = layer->positions,
        .offsets = at(e, e->plan.offsets),
        .context = v.context,
        .tokens = e->pass.tokens,
        .seqs = e->pass.seqs,
        .seq_tokens_max = e->pass.seq_tokens_max,
        .heads = model->heads,
        .head_size = model->head_size,
    };
    br_status status;
    if (layer->qkv != NULL) { /* [T, 3C] */
        args.q = qkv_at(e, 0), args.k = qkv_at(e, width), args.v = qkv_at(e, 2 * width);
        args.q_stride = 3 * model->width;
        args.kv_stride = 3 * model->width;
        status = linear(e, qkv_at(e, 0), layer->qkv, v.input, v.rows);
    } else { /* [T, C], then [T, 2C] */
        args.q = qkv_at(e, 0), args.k = qkv_at(e, tokens * width), args.v = qkv_at(e, (tokens + 1) * width);
        args.q_stride = model->width;
        args.kv_stride = 2 * model->width;
        status = linear(e, qkv_at(e, 0), layer->q, v.input, v.rows);
        if (status == BR_OK) status = linear(e, qkv_at(e, tokens * width), layer->kv, v.input, v.rows);
    }
    if (status != BR_OK) return status;
    status = e->ops->attention(e->stream, &args);
    if (status == BR_OK) status = mix_rows(e, layer, &v);
    return status == BR_OK ? layernorm(e, &v, &layer->output_norm) : status;
}

static br_status gather_pooled(br_encoder *e)
{
    const rows_view all = all_rows(e);
    const rows_view pooled = pooled_rows(e);
    return e->ops->gather_rows(e->stream, &(br_gather_args){
                                              .residual = all.residual,
                                              .input = all.input,
                                              .offsets = at(e, e->plan.offsets),
                                              .pooled_residual = pooled.residual,
                                              .pooled_input = pooled.input,
                                              .pool_index = e->weights->pool_index,
                                              .seqs = e->pass.seqs,
                                              .width = e->weights->model.width,
                                          });
}

static br_status last_layer_for_pooled_tokens(br_encoder *e, const layer_weights *layer)
{
    const br_model *model = &e->weights->model;
    const rows_view v = pooled_rows(e);
    void *query = at(e, e->plan.pooled_query);
    void *kv = qkv_at(e, 0);

    br_status status = linear(e, kv, layer->kv, at(e, e->plan.input), e->pass.tokens);
    if (status != BR_OK) return status;
    status = gather_pooled(e);
    if (status != BR_OK) return status;
    status = linear(e, query, layer->q, v.input, v.rows);
    if (status != BR_OK) return status;
    status = e->ops->pooled_attention(e->stream, &(br_pooled_attention_args){
                                                     .query = query,
                                                     .kv = kv,
                                                     .positions = layer->positions,
                                                     .offsets = at(e, e->plan.offsets),
                                                     .context = v.context,
                                                     .pool_index = e->weights->pool_index,
                                                     .seqs = e->pass.seqs,
                                                     .seq_tokens_max = e->pass.seq_tokens_max,
                                                     .heads = model->heads,
                                                     .head_size = model->head_size,
                                                 });
    return status == BR_OK ? mix_rows(e, layer, &v) : status;
}

/* `norm`: the LayerNorm of the pooled rows, or NULL where they are normalised already. A pooler is the same
 * op with as many outputs as a row has columns. */
static br_status heads(br_encoder *e, const layernorm_weights *norm)
{
    const br_encoder_weights *w = e->weights;
    br_heads_args args = {
        .residual = at(e, e->plan.pooled_residual),
        .input = at(e, e->plan.pooled_input),
        .gamma = norm != NULL ? norm->gamma : NULL,
        .beta = norm != NULL ? norm->beta : NULL,
        .epsilon = w->model.layer_norm_epsilon,
        .seqs = e->pass.seqs,
        .width = w->model.width,
    };
    if (w->pooler_weight != NULL) {
        args.weight = w->pooler_weight;
        args.bias = w->pooler_bias;
        args.quality = at(e, e->plan.pooler);
        args.activation = w->pooler_activation;
        args.heads_count = w->model.width;
        const br_status status = e->ops->heads(e->stream, &args);
        if (status != BR_OK) return status;
        args.residual = args.quality;
        args.gamma = NULL;
        args.wide = true;
    }
    args.weight = w->head_weight;
    args.bias = w->head_bias;
    args.quality = at(e, e->plan.quality);
    args.activation = w->head_activation;
    args.unit = w->head_unit;
    args.heads_count = w->heads_count;
    return e->ops->heads(e->stream, &args);
}

static br_status enqueue_pass(br_stream *stream, void *context)
{
    br_encoder *e = context;
    assert(stream == e->stream);
    (void)stream;
    const int32_t last = e->weights->model.layers - 1;

    br_status status = embed(e);
    for (int32_t i = 0; i < last && status == BR_OK; i++)
        status = layer_for_all_tokens(e, &e->weights->layers[i]);
    if (status != BR_OK) return status;

    if (e->options.all_tokens) {
        status = layer_for_all_tokens(e, &e->weights->layers[last]);
        if (status == BR_OK) status = gather_pooled(e);
        return status == BR_OK ? heads(e, NULL) : status;
    }
    status = last_layer_for_pooled_tokens(e, &e->weights->layers[last]);
    return status == BR_OK ? heads(e, &e->weights->layers[last].output_norm) : status;
}

/* These three numbers decide all arguments of the ops, since all pointers are the workspace's. */
static uint64_t key_of(const br_pass_shape *shape)
{
    static_assert(BR_BATCH_SEQS_MAX < 1 << 16, "seqs has 16 bits of the key");
    static_assert(BR_SEQ_TOKENS_MAX < 1 << 16, "the longest sequence has 16 bits of the key");
    return (uint64_t)shape->tokens << 32 | (uint64_t)shape->seqs << 16 | (uint64_t)shape->seq_tokens_max;
}

/* Records a pass of each shape that the engine names, so that running allocates nothing. */
static br_status record_passes(br_encoder *e, br_error *error)
{
    if (e->ops->pass_shapes == NULL) return BR_OK;
    e->recorded_count = e->ops->pass_shapes(e->stream, e->recorded);
    for (int32_t i = 0; i < e->recorded_count; i++) {
        e->pass = e->recorded[i];
        const br_status status = e->ops->record(e->stream, key_of(&e->pass), enqueue_pass, e);
        if (status != BR_OK)
            return br_fail(error, status, "recording a pass of %d tokens: %s", (int)e->pass.tokens,
                           br_status_text(status));
    }
    return BR_OK;
}

/* The smallest recorded shape that holds the batch, or the batch's own. */
static br_pass_shape shape_for(const br_encoder *e, br_pass_shape batch)
{
    for (int32_t i = 0; i < e->recorded_count; i++) {
        const br_pass_shape *r = &e->recorded[i];
        if (r->tokens >= batch.tokens && r->seqs >= batch.seqs && r->seq_tokens_max >= batch.seq_tokens_max)
            return *r;
    }
    return batch;
}

static br_status check_options(const br_encoder_options *options, const br_encoder_weights *weights,
                               br_error *error)
{
    if (options->tokens_max < weights->seq_tokens_max || options->tokens_max > BR_BATCH_TOKENS_MAX)
        return br_fail(error, BR_EINVAL,
                       "tokens per batch is %d; expected %d, the bundle's max_tokens, to %d",
                       (int)options->tokens_max, (int)weights->seq_tokens_max, (int)BR_BATCH_TOKENS_MAX);
    if (options->seqs_max < 1 || options->seqs_max > BR_BATCH_SEQS_MAX)
        return br_fail(error, BR_EINVAL, "queries per batch is %d; expected 1 to %d", (int)options->seqs_max,
                       (int)BR_BATCH_SEQS_MAX);
    return BR_OK;
}

static br_status make_workspace(br_encoder *e, br_error *error)
{
    const br_encoder_weights *w = e->weights;
    const workspace_shape shape = {
        .tokens_max = e->options.tokens_max,
        .seqs_max = e->options.seqs_max,
        .heads_count = w->heads_count,
        .residual = e->backend->residual,
        .activation = e->backend->activation,
        .has_pooler = w->pooler_weight != NULL,
    };
    workspace_plan_make(&e->plan, &w->model, &shape);
    e->workspace = e->ops->alloc(e->backend, e->plan.total_bytes);
    if (e->workspace == NULL) return br_no_memory(error, "a workspace of %zu bytes", e->plan.total_bytes);
    e->offsets = br_alloc_array((size_t)e->options.seqs_max + 1, sizeof *e->offsets);
    return e->offsets != NULL ? BR_OK : br_no_memory(error, "an encoder");
}

static br_status make_stream(br_encoder *e, br_error *error)
{
    const br_stream_shape shape = {
        .tokens_max = e->options.tokens_max,
        .seqs_max = e->options.seqs_max,
        .seq_tokens_max = e->weights->seq_tokens_max,
        .heads_count = e->weights->heads_count,
    };
    return e->ops->stream_create(e->backend, &e->stream, &e->weights->model, &shape, error);
}

br_status br_encoder_create(br_encoder **out, const br_encoder_weights *weights,
                            const br_encoder_options *options, br_error *error)
{
    *out = NULL;
    br_status status = check_options(options, weights, error);
    if (status != BR_OK) return status;

    br_encoder *e = calloc(1, sizeof *e); /* zeroed: destroy is safe from here on */
    if (e == NULL) return br_no_memory(error, "an encoder");
    e->weights = weights;
    e->backend = weights->backend;
    e->ops = weights->backend->table;
    e->options = *options;

    status = make_workspace(e, error);
    if (status == BR_OK) status = make_stream(e, error);
    if (status == BR_OK) status = record_passes(e, error);
    if (status != BR_OK) {
        br_encoder_destroy(e);
        return status;
    }
    *out = e;
    return BR_OK;
}

void br_encoder_destroy(br_encoder *encoder)
{
    if (encoder == NULL) return;
    if (encoder->stream != NULL) encoder->ops->stream_destroy(encoder->stream);
    if (encoder->workspace != NULL) encoder->ops->free(encoder->backend, encoder->workspace);
    free(encoder->offsets);
    free(encoder);
}

/* Asserts that the batch is one this encoder was made for, and returns its longest sequence. */
static int32_t check_batch(const br_encoder *e, const br_packing *batch)
{
    (void)e; /* used by asserts alone */
    assert(batch->seqs >= 1);
    assert(batch->seqs <= e->options.seqs_max);
    assert(batch->tokens <= e->options.tokens_max);
    assert(batch->offsets[0] == 0);
    assert(batch->offsets[batch->seqs] == batch->tokens);
    for (int32_t t = 0; t < batch->tokens; t++) {
        assert(batch->ids[t] >= 0);
        assert(batch->ids[t] < e->weights->model.vocab);
    }
    int32_t longest = 0;
    for (int32_t b = 0; b < batch->seqs; b++) {
        const int32_t tokens = batch->offsets[b + 1] - batch->offsets[b];
        assert(tokens >= e->weights->pool_index + 2);
        assert(tokens <= e->weights->seq_tokens_max);
        if (tokens > longest) longest = tokens;
    }
    return longest;
}

br_status br_encoder_run(br_encoder *encoder, const br_packing *batch, float *quality)
{
    br_encoder *e = encoder;
    const int32_t longest = check_batch(e, batch);
    e->tokens = batch->tokens;
    e->pass = shape_for(e, (br_pass_shape){batch->tokens, batch->seqs, longest});
    for (int32_t b = 0; b <= e->pass.seqs; b++)
        e->offsets[b] = batch->offsets[b < batch->seqs ? b : batch->seqs];

    const size_t ids_bytes = (size_t)batch->tokens * sizeof *batch->ids;
    const size_t offsets_bytes = ((size_t)e->pass.seqs + 1) * sizeof *e->offsets;
    const size_t quality_bytes = (size_t)batch->seqs * (size_t)e->weights->heads_count * sizeof *quality;
    br_status status = e->ops->upload(e->stream, at(e, e->plan.ids), batch->ids, ids_bytes);
    if (status == BR_OK)
        status = e->ops->upload(e->stream, at(e, e->plan.offsets), e->offsets, offsets_bytes);
    if (status == BR_OK) status = e->ops->run(e->stream, key_of(&e->pass), enqueue_pass, e);
    if (status == BR_OK) status = e->ops->download(e->stream, quality, at(e, e->plan.quality), quality_bytes);

    /* Also after a failure: when this returns, the device must no longer use the batch or `quality`. */
    const br_status waited = e->ops->wait(e->stream);
    return status != BR_OK ? status : waited;
}

br_status br_encoder_hidden(br_encoder *encoder, float *hidden)
{
    br_encoder *e = encoder;
    assert(e->options.all_tokens);
    const size_t count = (size_t)e->tokens * (size_t)e->weights->model.width;
    const br_dtype type = e->backend->residual;

    /* 16-bit elements are downloaded into the upper half and widened from the front: no element is
     * overwritten before it is read. */
    uint16_t *narrow = (uint16_t *)(void *)hidden + count;
    void *landing = type == BR_F32 ? (void *)hidden : (void *)narrow;
    br_status status =
        e->ops->download(e->stream, landing, at(e, e->plan.residual), count * br_dtype_bytes(type));
    const br_status waited = e->ops->wait(e->stream);
    if (status == BR_OK) status = waited;
    if (status != BR_OK || type == BR_F32) return status;

    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, (const char *)hidden + (count + i) * sizeof bits, sizeof bits);
        const float wide = br_dtype_get(&bits, 0, type);
        memcpy((char *)hidden + i * sizeof wide, &wide, sizeof wide);
    }
    return BR_OK;
}

size_t br_encoder_bytes(const br_encoder *encoder)
{
    const br_encoder *e = encoder;
    return e->plan.total_bytes + (e->ops->stream_bytes != NULL ? e->ops->stream_bytes(e->stream) : 0);
}
