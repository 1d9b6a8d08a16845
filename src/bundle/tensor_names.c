/* tensor_names.c - see tensor_names.h. */
#include "tensor_names.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* %d stands for the number of the layer. NULL: the family has no such module. */
static const char *const stems[BR_FAMILIES][BR_MODULES] = {
    [BR_FAMILY_DEBERTA] =
        {
            [BR_MODULE_WORDS] = "embeddings.word_embeddings",
            [BR_MODULE_EMBEDDING_NORM] = "embeddings.LayerNorm",
            [BR_MODULE_QUERY] = "encoder.layer.%d.attention.self.query_proj",
            [BR_MODULE_KEY] = "encoder.layer.%d.attention.self.key_proj",
            [BR_MODULE_VALUE] = "encoder.layer.%d.attention.self.value_proj",
            [BR_MODULE_POSITION_KEY] = "encoder.layer.%d.attention.self.pos_key_proj",
            [BR_MODULE_POSITION_QUERY] = "encoder.layer.%d.attention.self.pos_query_proj",
            [BR_MODULE_ATTENTION_OUTPUT] = "encoder.layer.%d.attention.output.dense",
            [BR_MODULE_ATTENTION_NORM] = "encoder.layer.%d.attention.output.LayerNorm",
            [BR_MODULE_FFN_UP] = "encoder.layer.%d.intermediate.dense",
            [BR_MODULE_FFN_DOWN] = "encoder.layer.%d.output.dense",
            [BR_MODULE_OUTPUT_NORM] = "encoder.layer.%d.output.LayerNorm",
            [BR_MODULE_RELATIVE] = "encoder.rel_embeddings",
            [BR_MODULE_RELATIVE_NORM] = "encoder.LayerNorm",
            [BR_MODULE_POOLER] = "pooler.dense",
        },
    [BR_FAMILY_BERT] =
        {
            [BR_MODULE_WORDS] = "embeddings.word_embeddings",
            [BR_MODULE_POSITIONS] = "embeddings.position_embeddings",
            [BR_MODULE_TYPES] = "embeddings.token_type_embeddings",
            [BR_MODULE_EMBEDDING_NORM] = "embeddings.LayerNorm",
            [BR_MODULE_QUERY] = "encoder.layer.%d.attention.self.query",
            [BR_MODULE_KEY] = "encoder.layer.%d.attention.self.key",
            [BR_MODULE_VALUE] = "encoder.layer.%d.attention.self.value",
            [BR_MODULE_ATTENTION_OUTPUT] = "encoder.layer.%d.attention.output.dense",
            [BR_MODULE_ATTENTION_NORM] = "encoder.layer.%d.attention.output.LayerNorm",
            [BR_MODULE_FFN_UP] = "encoder.layer.%d.intermediate.dense",
            [BR_MODULE_FFN_DOWN] = "encoder.layer.%d.output.dense",
            [BR_MODULE_OUTPUT_NORM] = "encoder.layer.%d.output.LayerNorm",
            [BR_MODULE_POOLER] = "pooler.dense",
        },
    [BR_FAMILY_DISTILBERT] =
        {
            [BR_MODULE_WORDS] = "embeddings.word_embeddings",
            [BR_MODULE_POSITIONS] = "embeddings.position_embeddings",
            [BR_MODULE_EMBEDDING_NORM] = "embeddings.LayerNorm",
            [BR_MODULE_QUERY] = "transformer.layer.%d.attention.q_lin",
            [BR_MODULE_KEY] = "transformer.layer.%d.attention.k_lin",
            [BR_MODULE_VALUE] = "transformer.layer.%d.attention.v_lin",
            [BR_MODULE_ATTENTION_OUTPUT] = "transformer.layer.%d.attention.out_lin",
            [BR_MODULE_ATTENTION_NORM] = "transformer.layer.%d.sa_layer_norm",
            [BR_MODULE_FFN_UP] = "transformer.layer.%d.ffn.lin1",
            [BR_MODULE_FFN_DOWN] = "transformer.layer.%d.ffn.lin2",
            [BR_MODULE_OUTPUT_NORM] = "transformer.layer.%d.output_layer_norm",
            [BR_MODULE_POOLER] = "pre_classifier",
        },
};

/* Of BEST-Route, of RouterDC, of the ForSequenceClassification models; last, of a bare encoder. */
static const char *const prefixes[] = {"pretrained_model.", "backbone.", "deberta.", "bert.",
                                       "distilbert.",       ""};

/* BERT keeps its pooler inside the encoder; the other families beside it. */
static const char *prefix_of(const br_bundle *bundle, br_module module)
{
    const bool beside = module == BR_MODULE_POOLER && bundle->model.family != BR_FAMILY_BERT;
    return beside || bundle->prefix == NULL ? "" : bundle->prefix;
}

void br_tensor_name(char out[BR_TENSOR_NAME_BYTES], const br_bundle *bundle, br_module module, int32_t layer,
                    const char *kind)
{
    const char *stem = stems[bundle->model.family][module];
    assert(stem != NULL);
    const char *number = strstr(stem, "%d");
    const int head = number == NULL ? (int)strlen(stem) : (int)(number - stem);
    int length = snprintf(out, BR_TENSOR_NAME_BYTES, "%s%.*s", prefix_of(bundle, module), head, stem);
    if (number != NULL)
        length +=
            snprintf(out + length, (size_t)(BR_TENSOR_NAME_BYTES - length), "%d%s", (int)layer, number + 2);
    length += snprintf(out + length, (size_t)(BR_TENSOR_NAME_BYTES - length), ".%s", kind);
    assert(length < BR_TENSOR_NAME_BYTES);
    (void)length;
}

const br_tensor *br_module_tensor(const br_bundle *bundle, br_module module, int32_t layer, const char *kind)
{
    char name[BR_TENSOR_NAME_BYTES];
    br_tensor_name(name, bundle, module, layer, kind);
    return br_safetensors_find(bundle->tensors, name);
}

void br_bundle_find_prefix(br_bundle *bundle)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        bundle->prefix = prefixes[i];
        if (br_module_tensor(bundle, BR_MODULE_WORDS, 0, "weight") != NULL) return;
    }
    bundle->prefix = prefixes[0];
}

const char *br_classifier_name(br_heads_kind kind, bool *has_bias)
{
    *has_bias = kind != BR_HEADS_ROUTER_DC;
    switch (kind) {
    case BR_HEADS_HYBRID_LLM:
    case BR_HEADS_N_LABEL:
    case BR_HEADS_N_CLASS:
        return "head_layer.1";
    case BR_HEADS_ZOOTER:
    case BR_HEADS_ROUTE_LLM_BERT:
        return "classifier";
    case BR_HEADS_ROUTER_DC:
        return "embeddings";
    case BR_HEADS_BEST_ROUTE:
        break;
    }
    return NULL;
}

int32_t br_classifier_rows(const br_router *router)
{
    switch (router->heads) {
    case BR_HEADS_HYBRID_LLM:
        return 2;
    case BR_HEADS_N_LABEL:
        return router->head_count + 1; /* the reference's own label, always true, is the last */
    default:
        return router->head_count;
    }
}
