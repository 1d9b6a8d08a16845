/*
 * weights.c - see encoder.h: a bundle's weights, folded and handed to a backend.
 *
 * Tensors are handled one after the other: widened to float, checked to be finite, folded, copied to the
 * backend, freed. At any time there are at most one layer's query, key and value matrices and its two
 * position tables besides the backend's own copies.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "bundle/tensor_names.h"
#include "core/memory.h"
#include "positions.h"
#include "weight_loader.h"
#include "weights.h"

static br_status make_layernorm(const weight_loader *l, layernorm_weights *out, const br_tensor *gamma,
                                const br_tensor *beta)
{
    const size_t width = (size_t)l->w->model.width;
    float *values = br_alloc_array(width, sizeof *values);
    if (values == NULL) return loader_no_memory(l, width);

    br_status status = loader_widen(l, values, gamma, width);
    if (status == BR_OK) status = loader_make_vector(l, &out->gamma, values, width);
    if (status == BR_OK) status = loader_widen(l, values, beta, width);
    if (status == BR_OK) status = loader_make_vector(l, &out->beta, values, width);
    free(values);
    return status;
}

static br_status make_layer_norm_of(const weight_loader *l, layernorm_weights *out, int32_t layer,
                                    br_module module)
{
    return make_layernorm(l, out, br_module_tensor(l->bundle, module, layer, "weight"),
                          br_module_tensor(l->bundle, module, layer, "bias"));
}

static br_status make_matrix(const weight_loader *l, br_matrix **out, const br_matrix_source *source)
{
    const size_t weights = (size_t)source->outputs * (size_t)source->inputs;
    const bool quantized = l->backend->precision == BR_PRECISION_FP8;
    l->w->bytes += weights * (quantized ? 1 : br_dtype_bytes(l->backend->activation));
    l->w->bytes += (size_t)source->outputs * sizeof *source->bias;
    return l->backend->table->matrix_create(l->backend, out, source, l->error);
}

/* `module`.weight and .bias of a layer, as they are. */
static br_status make_linear(const weight_loader *l, br_matrix **out, int32_t layer, br_module module,
                             int32_t outputs, int32_t inputs, br_epilogue epilogue)
{
    const size_t weights = (size_t)outputs * (size_t)inputs;
    float *values = br_alloc_array(weights + (size_t)outputs, sizeof *values);
    if (values == NULL) return loader_no_memory(l, weights);

    float *bias = values + weights;
    br_status status = loader_widen(l, values, br_module_tensor(l->bundle, module, layer, "weight"), weights);
    if (status == BR_OK)
        status = loader_widen(l, bias, br_module_tensor(l->bundle, module, layer, "bias"), (size_t)outputs);
    if (status == BR_OK)
        status = make_matrix(l, out, &(br_matrix_source){values, bias, outputs, inputs, epilogue});
    free(values);
    return status;
}

/* The weights of a projection C -> C, and its bias. */
typedef struct projection {
    float *weight; /* [C, C] */
    float *bias;   /* [C] */
} projection;

static br_status read_projection(const weight_loader *l, const projection *out, int32_t layer,
                                 br_module module, float scale)
{
    const size_t width = (size_t)l->w->model.width;
    br_status status =
        loader_widen(l, out->weight, br_module_tensor(l->bundle, module, layer, "weight"), width * width);
    if (status == BR_OK)
        status = loader_widen(l, out->bias, br_module_tensor(l->bundle, module, layer, "bias"), width);
    if (status != BR_OK) return status;

    for (size_t i = 0; i < width * width; i++) out->weight[i] *= scale;
    for (size_t i = 0; i < width; i++) out->bias[i] *= scale;
    return BR_OK;
}

/* 1 / sqrt(D * terms). The terms that the configuration names count even without relative attention. */
static float score_scale(const br_model *model)
{
    const int terms = 1 + (model->c2p ? 1 : 0) + (model->p2c ? 1 : 0);
    return (float)(1 / sqrt((double)model->head_size * terms));
}

/* Projects the reachable rows with the shared projection, or with the layer's own `module` if the model
 * shares none. */
static br_status project_positions(const weight_loader *l, float **out, int32_t layer, br_module module,
                                   const projection *shared, float scale)
{
    const br_model *model = &l->w->model;
    const size_t width = (size_t)model->width;
    float *own = NULL;
    br_status status = BR_OK;
    projection p = *shared;
    if (!model->share_att_key) {
        own = br_alloc_array((width + 1) * width, sizeof *own);
        if (own == NULL) return loader_no_memory(l, (width + 1) * width);
        p = (projection){.weight = own, .bias = own + width * width};
        status = read_projection(l, &p, layer, module, scale);
    }
    if (status == BR_OK) {
        status = l->empty ? position_rows_zeros(out, &l->rows)
                          : position_rows_project(out, &l->rows, p.weight, p.bias);
        if (status != BR_OK) status = loader_no_memory(l, width * width);
    }
    free(own);
    return status;
}

static br_status make_positions(const weight_loader *l, br_positions **out, int32_t layer,
                                const projection *query, const projection *key)
{
    const br_model *model = &l->w->model;
    float *keys = NULL;
    float *queries = NULL;
    br_status status = BR_OK;
    /* Position keys are multiplied by queries, which are scaled already; position queries are scaled here. */
    if (model->c2p) status = project_positions(l, &keys, layer, BR_MODULE_POSITION_KEY, key, 1);
    if (model->p2c && status == BR_OK)
        status = project_positions(l, &queries, layer, BR_MODULE_POSITION_QUERY, query, score_scale(model));
    if (status != BR_OK) goto done;

    const br_positions_source source = {
        .key = keys,
        .query = queries,
        .seq_tokens_max = l->w->seq_tokens_max,
        .heads = model->heads,
        .head_size = model->head_size,
    };
    const size_t rows = 2 * (size_t)source.seq_tokens_max - 1;
    const size_t tables = (model->c2p ? 1U : 0U) + (model->p2c ? 1U : 0U);
    l->w->bytes += tables * rows * (size_t)model->width * br_dtype_bytes(l->backend->activation);
    status = l->backend->table->positions_create(l->backend, out, &source, l->error);

done:
    free(keys);
    free(queries);
    return status;
}

static bool has_positions(const br_model *model)
{
    return model->relative_attention && (model->c2p || model->p2c);
}

/* q | k | v stacked as one [3C, C]; the last layer has q and k | v apart. */
static br_status make_attention(const weight_loader *l, layer_weights *out, int32_t layer)
{
    const br_model *model = &l->w->model;
    const int32_t c = model->width;
    const size_t width = (size_t)c;
    float *weight = br_alloc_array(3 * width * width, sizeof *weight);
    float *bias = br_alloc_array(3 * width, sizeof *bias);
    br_status status;
    if (weight == NULL || bias == NULL) {
        status = loader_no_memory(l, 3 * width * width);
        goto done;
    }
    const projection query = {weight, bias};
    const projection key = {weight + width * width, bias + width};
    const projection value = {weight + 2 * width * width, bias + 2 * width};
    status = read_projection(l, &query, layer, BR_MODULE_QUERY, score_scale(model));
    if (status == BR_OK) status = read_projection(l, &key, layer, BR_MODULE_KEY, 1);
    if (status == BR_OK) status = read_projection(l, &value, layer, BR_MODULE_VALUE, 1);
    if (status == BR_OK && has_positions(model))
        status = make_positions(l, &out->positions, layer, &query, &key);
    if (status != BR_OK) goto done;

    if (layer < model->layers - 1) {
        status = make_matrix(l, &out->qkv, &(br_matrix_source){weight, bias, 3 * c, c, BR_EPILOGUE_STORE});
    } else {
        status =
            make_matrix(l, &out->q, &(br_matrix_source){query.weight, query.bias, c, c, BR_EPILOGUE_STORE});
        if (status == BR_OK)
            status = make_matrix(l, &out->kv,
                                 &(br_matrix_source){key.weight, key.bias, 2 * c, c, BR_EPILOGUE_STORE});
    }

done:
    free(weight);
    free(bias);
    return status;
}

static br_status make_layer(const weight_loader *l, layer_weights *out, int32_t layer)
{
    const int32_t width = l->w->model.width;
    const int32_t ffn_width = l->w->model.ffn_width;
    br_status status = make_attention(l, out, layer);
    if (status == BR_OK)
        status = make_linear(l, &out->attention_output, layer, BR_MODULE_ATTENTION_OUTPUT, width, width,
                             BR_EPILOGUE_ACCUMULATE);
    if (status == BR_OK)
        status = make_layer_norm_of(l, &out->attention_norm, layer, BR_MODULE_ATTENTION_NORM);
    if (status == BR_OK)
        status = make_linear(l, &out->ffn_up, layer, BR_MODULE_FFN_UP, ffn_width, width, BR_EPILOGUE_GELU);
    if (status == BR_OK)
        status = make_linear(l, &out->ffn_down, layer, BR_MODULE_FFN_DOWN, width, ffn_width,
                             BR_EPILOGUE_ACCUMULATE);
    if (status == BR_OK) status = make_layer_norm_of(l, &out->output_norm, layer, BR_MODULE_OUTPUT_NORM);
    return status;
}

static br_status make_embedding(const weight_loader *l)
{
    enum { CHUNK = 1 << 16 };
    br_encoder_weights *w = l->w;
    const br_tensor *table = br_module_tensor(l->bundle, BR_MODULE_WORDS, 0, "weight");
    float *values = br_alloc_array(CHUNK, sizeof *values);
    if (values == NULL) return loader_no_memory(l, CHUNK);

    const size_t count = loader_elements(table);
    br_status status = BR_OK;
    for (size_t first = 0; first < count && status == BR_OK && !l->empty; first += CHUNK) {
        const size_t chunk = count - first < CHUNK ? count - first : CHUNK;
        const char *from = (const char *)table->data + first * br_dtype_bytes(table->type);
        br_dtype_to_f32(values, from, table->type, chunk);
        status = loader_check_finite(l, table, values, first, chunk);
    }
    free(values);
    if (status != BR_OK) return status;

    w->bytes +=
        l->backend->embedding_narrowed ? count * br_dtype_bytes(l->backend->activation) : table->bytes;
    status = l->backend->table->embedding_create(l->backend, &w->embedding, table, l->error);
    if (status != BR_OK) return status;
    return make_layer_norm_of(l, &w->embedding_norm, 0, BR_MODULE_EMBEDDING_NORM);
}

/* position_embeddings + token_type_embeddings[0] for the positions of the longest prompt: every token has
 * type 0. */
static br_status make_absolute_positions(const weight_loader *l)
{
    br_encoder_weights *w = l->w;
    const size_t width = (size_t)w->model.width;
    const size_t rows = (size_t)w->model.absolute_positions;
    const size_t types = (size_t)w->model.token_types;
    float *table = br_alloc_array(rows * width, sizeof *table);
    float *type = br_alloc_array((types > 0 ? types : 1) * width, sizeof *type);
    br_status status;
    if (table == NULL || type == NULL) {
        status = loader_no_memory(l, rows * width);
        goto done;
    }
    status =
        loader_widen(l, table, br_module_tensor(l->bundle, BR_MODULE_POSITIONS, 0, "weight"), rows * width);
    if (status == BR_OK && types > 0)
        status =
            loader_widen(l, type, br_module_tensor(l->bundle, BR_MODULE_TYPES, 0, "weight"), types * width);
    if (status != BR_OK) goto done;
    for (size_t i = 0; types > 0 && i < rows * width; i++) table[i] += type[i % width];
    assert((size_t)w->seq_tokens_max <= rows);
    status = loader_make_vector(l, &w->absolute_positions, table, (size_t)w->seq_tokens_max * width);

done:
    free(table);
    free(type);
    return status;
}

/* Widens gamma [C] and beta [C] of the LayerNorm over relative embeddings. */
static br_status read_positions_norm(const weight_loader *l, float *gamma_beta)
{
    const size_t width = (size_t)l->w->model.width;
    const br_tensor *gamma = br_module_tensor(l->bundle, BR_MODULE_RELATIVE_NORM, 0, "weight");
    const br_tensor *beta = br_module_tensor(l->bundle, BR_MODULE_RELATIVE_NORM, 0, "bias");
    br_status status = loader_widen(l, gamma_beta, gamma, width);
    if (status == BR_OK) status = loader_widen(l, gamma_beta + width, beta, width);
    return status;
}

/* The relative embeddings, normalised if the model has a LayerNorm for them: the rows that every layer
 * projects. */
static br_status read_positions(weight_loader *l)
{
    const br_model *model = &l->w->model;
    const size_t width = (size_t)model->width;
    const size_t count = 2 * (size_t)model->position_span * width;
    float *table = br_alloc_array(count, sizeof *table);
    float *norm = br_alloc_array(2 * width, sizeof *norm); /* gamma, beta */
    br_status status;
    if (table == NULL || norm == NULL) {
        status = loader_no_memory(l, count);
        goto done;
    }
    status = loader_widen(l, table, br_module_tensor(l->bundle, BR_MODULE_RELATIVE, 0, "weight"), count);
    if (status == BR_OK && model->norm_rel_ebd) status = read_positions_norm(l, norm);
    if (status != BR_OK) goto done;

    const float *gamma = model->norm_rel_ebd ? norm : NULL;
    const float *beta = model->norm_rel_ebd ? norm + width : NULL;
    status = position_rows_init(&l->rows, model, l->w->seq_tokens_max, table, gamma, beta);
    if (status != BR_OK) status = loader_no_memory(l, count);

done:
    free(table);
    free(norm);
    return status;
}

static br_status make_weights(br_encoder_weights **out, br_backend *backend, const br_bundle *bundle,
                              bool empty, br_error *error)
{
    *out = NULL;
    const br_model *model = &bundle->model;
    br_encoder_weights *w = calloc(1, sizeof *w); /* zeroed: destroy is safe from here on */
    if (w == NULL) return br_no_memory(error, "weights");
    w->backend = backend;
    w->model = *model;
    w->seq_tokens_max = bundle->router.max_tokens;
    w->heads_count = bundle->router.head_count;
    w->pool_index = bundle->router.pool_first ? 0 : BR_POOL_INDEX;
    assert(w->model.layers >= 1);
    assert(w->heads_count >= 1);

    weight_loader l = {.w = w, .backend = backend, .bundle = bundle, .error = error, .empty = empty};
    br_status status;
    w->layers = calloc((size_t)model->layers, sizeof *w->layers);
    if (w->layers == NULL) {
        status = loader_no_memory(&l, 0);
        goto done;
    }
    status = make_embedding(&l);
    if (status == BR_OK && has_positions(model)) status = read_positions(&l);
    if (status == BR_OK && model->absolute_positions > 0) status = make_absolute_positions(&l);
    for (int32_t i = 0; i < model->layers && status == BR_OK; i++) status = make_layer(&l, &w->layers[i], i);
    if (status == BR_OK) status = head_weights_make(&l);
    if (status != BR_OK) goto done;

    *out = w;
    w = NULL;

done:
    position_rows_deinit(&l.rows);
    br_encoder_weights_destroy(w);
    return status;
}

br_status br_encoder_weights_create(br_encoder_weights **out, br_backend *backend, const br_bundle *bundle,
                                    br_error *error)
{
    return make_weights(out, backend, bundle, false, error);
}

br_status br_encoder_weights_collect(br_encoder_weights **out, br_backend *backend, const br_bundle *bundle,
                                     br_pieces *pieces, bool empty, br_error *error)
{
    assert(backend->accelerator);
    backend->table->collect(backend, pieces, empty);
    const br_status status = make_weights(out, backend, bundle, empty, error);
    backend->table->collect(backend, NULL, false);
    return status;
}

static void destroy_layernorm(br_backend *backend, const layernorm_weights *norm)
{
    backend->table->free(backend, norm->gamma);
    backend->table->free(backend, norm->beta);
}

static void destroy_layer(br_backend *backend, const layer_weights *layer)
{
    const br_backend_table *table = backend->table;
    table->matrix_destroy(backend, layer->qkv);
    table->matrix_destroy(backend, layer->q);
    table->matrix_destroy(backend, layer->kv);
    table->matrix_destroy(backend, layer->attention_output);
    table->matrix_destroy(backend, layer->ffn_up);
    table->matrix_destroy(backend, layer->ffn_down);
    table->positions_destroy(backend, layer->positions);
    destroy_layernorm(backend, &layer->attention_norm);
    destroy_layernorm(backend, &layer->output_norm);
}

void br_encoder_weights_destroy(br_encoder_weights *weights)
{
    if (weights == NULL) return;
    br_backend *backend = weights->backend;
    const int32_t layers = weights->layers != NULL ? weights->model.layers : 0;
    for (int32_t i = 0; i < layers; i++) destroy_layer(backend, &weights->layers[i]);
    free(weights->layers);
    backend->table->embedding_destroy(backend, weights->embedding);
    destroy_layernorm(backend, &weights->embedding_norm);
    backend->table->free(backend, weights->absolute_positions);
    backend->table->free(backend, weights->head_weight);
    backend->table->free(backend, weights->head_bias);
    backend->table->free(backend, weights->pooler_weight);
    backend->table->free(backend, weights->pooler_bias);
    free(weights);
}

size_t br_encoder_weights_bytes(const br_encoder_weights *weights)
{
    return weights->bytes;
}
