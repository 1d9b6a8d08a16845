/*
 * head_weights.c - the heads of a router of any kind, as rows [K, C] and biases [K]; and the pooler before
 * them.
 *
 * All rows are read and folded (pairs of logits, calibration, directions, temperature), then copied to the
 * backend together.
 */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle/tensor_names.h"
#include "weight_loader.h"

typedef struct head_rows {
    float *weight; /* [K, C] */
    float *bias;   /* [K] */
} head_rows;

/* scale * (w x + b) + bias is again a head, so that calibration costs nothing at run time. */
static void calibrate_heads(const head_rows *rows, size_t width, const br_router *router)
{
    for (int32_t c = 0; c < router->candidate_count; c++) {
        const br_candidate *candidate = &router->candidates[c];
        if (candidate->head < 0) continue;
        const size_t k = (size_t)candidate->head;
        for (size_t i = 0; i < width; i++) rows->weight[k * width + i] *= candidate->scale;
        rows->bias[k] = candidate->scale * rows->bias[k] + candidate->bias;
    }
}

/* softmax over two logits, entry 0, is sigmoid of their difference. */
static br_status read_pair(const weight_loader *l, const head_rows *out, size_t k, const char *module)
{
    const size_t width = (size_t)l->w->model.width;
    float *pair = br_alloc_array(2 * width, sizeof *pair);
    if (pair == NULL) return loader_no_memory(l, 2 * width);
    br_status status = loader_widen(l, pair, br_bundle_tensor(l->bundle, "%s.weight", module), 2 * width);
    if (status != BR_OK) goto done;
    for (size_t i = 0; i < width; i++) out->weight[k * width + i] = pair[i] - pair[width + i];
    status = loader_widen(l, pair, br_bundle_tensor(l->bundle, "%s.bias", module), 2);
    if (status == BR_OK) out->bias[k] = pair[0] - pair[1];

done:
    free(pair);
    return status;
}

static br_status read_pairs(const weight_loader *l, const head_rows *out)
{
    br_status status = BR_OK;
    for (int32_t k = 0; k < l->w->heads_count && status == BR_OK; k++) {
        char module[32];
        snprintf(module, sizeof module, "single_heads.%d.1", (int)k);
        status = read_pair(l, out, (size_t)k, module);
    }
    return status;
}

/* The first K rows of a classifier, as they are; a table of vectors has biases of 0. */
static br_status read_classifier(const weight_loader *l, const head_rows *out, const char *module,
                                 bool has_bias)
{
    const size_t count = (size_t)l->w->heads_count;
    const size_t width = (size_t)l->w->model.width;
    const size_t rows = (size_t)br_classifier_rows(&l->bundle->router);
    assert(rows >= count);
    float *values = br_alloc_array(rows * width, sizeof *values);
    if (values == NULL) return loader_no_memory(l, rows * width);
    br_status status =
        loader_widen(l, values, br_bundle_tensor(l->bundle, "%s.weight", module), rows * width);
    if (status == BR_OK) memcpy(out->weight, values, count * width * sizeof *values);
    memset(values, 0, rows * sizeof *values);
    if (status == BR_OK && has_bias)
        status = loader_widen(l, values, br_bundle_tensor(l->bundle, "%s.bias", module), rows);
    if (status == BR_OK) memcpy(out->bias, values, count * sizeof *values);
    free(values);
    return status;
}

/* Divides the rows of a cosine by their norms and by the temperature. */
static br_status scale_vectors(const weight_loader *l, const head_rows *rows)
{
    const size_t width = (size_t)l->w->model.width;
    for (int32_t k = 0; k < l->w->heads_count; k++) {
        float *row = rows->weight + (size_t)k * width;
        double squares = 0;
        for (size_t i = 0; i < width; i++) squares += (double)row[i] * (double)row[i];
        if (!(squares > 0))
            return br_fail(
                l->error, BR_EINVAL,
                "model.safetensors: tensor 'embeddings.weight': row %d is zero: it has no direction", (int)k);
        const double scale = 1 / (sqrt(squares) * l->bundle->router.temperature);
        for (size_t i = 0; i < width; i++) row[i] = (float)((double)row[i] * scale);
    }
    return BR_OK;
}

static br_status read_head_rows(const weight_loader *l, const head_rows *out)
{
    bool has_bias;
    const br_heads_kind kind = l->bundle->router.heads;
    const char *module = br_classifier_name(kind, &has_bias);
    switch (kind) {
    case BR_HEADS_BEST_ROUTE:
        l->w->head_activation = BR_ACTIVATION_SIGMOID;
        return read_pairs(l, out);
    case BR_HEADS_HYBRID_LLM:
        l->w->head_activation = BR_ACTIVATION_SIGMOID;
        return read_pair(l, out, 0, module);
    case BR_HEADS_N_LABEL:
        l->w->head_activation = BR_ACTIVATION_SIGMOID;
        break;
    case BR_HEADS_ROUTE_LLM_BERT:
        l->w->head_activation = BR_ACTIVATION_COMPLEMENT;
        break;
    case BR_HEADS_N_CLASS:
    case BR_HEADS_ZOOTER:
    case BR_HEADS_ROUTER_DC:
        l->w->head_activation = BR_ACTIVATION_SOFTMAX;
        break;
    }
    const br_status status = read_classifier(l, out, module, has_bias);
    if (status != BR_OK || kind != BR_HEADS_ROUTER_DC) return status;
    l->w->head_unit = true;
    return l->empty ? BR_OK : scale_vectors(l, out);
}

static br_status make_pooler(const weight_loader *l)
{
    static const br_activation activations[] = {
        [BR_POOLER_NONE] = BR_ACTIVATION_SIGMOID, /* not used */
        [BR_POOLER_TANH] = BR_ACTIVATION_TANH,
        [BR_POOLER_GELU] = BR_ACTIVATION_GELU,
        [BR_POOLER_RELU] = BR_ACTIVATION_RELU,
    };
    br_encoder_weights *w = l->w;
    const size_t width = (size_t)w->model.width;
    float *values = br_alloc_array(width * width, sizeof *values);
    if (values == NULL) return loader_no_memory(l, width * width);
    w->pooler_activation = activations[l->bundle->router.pooler];
    br_status status =
        loader_widen(l, values, br_module_tensor(l->bundle, BR_MODULE_POOLER, 0, "weight"), width * width);
    if (status == BR_OK) status = loader_make_vector(l, &w->pooler_weight, values, width * width);
    if (status == BR_OK)
        status = loader_widen(l, values, br_module_tensor(l->bundle, BR_MODULE_POOLER, 0, "bias"), width);
    if (status == BR_OK) status = loader_make_vector(l, &w->pooler_bias, values, width);
    free(values);
    return status;
}

br_status head_weights_make(const weight_loader *l)
{
    br_encoder_weights *w = l->w;
    const size_t width = (size_t)w->model.width;
    const size_t count = (size_t)w->heads_count;
    const head_rows rows = {br_alloc_array(count * width, sizeof(float)),
                            br_alloc_array(count, sizeof(float))};
    br_status status = BR_OK;
    if (rows.weight == NULL || rows.bias == NULL) {
        status = loader_no_memory(l, count * width);
        goto done;
    }
    status = read_head_rows(l, &rows);
    if (status == BR_OK && br_heads_rule_of(l->bundle->router.heads)->own_sigmoids)
        calibrate_heads(&rows, width, &l->bundle->router);
    if (status == BR_OK) status = loader_make_vector(l, &w->head_weight, rows.weight, count * width);
    if (status == BR_OK) status = loader_make_vector(l, &w->head_bias, rows.bias, count);
    if (status == BR_OK && l->bundle->router.pooler != BR_POOLER_NONE) status = make_pooler(l);

done:
    free(rows.weight);
    free(rows.bias);
    return status;
}
