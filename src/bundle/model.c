/* model.c - see model.h: reads config.json, and finds the row of a relative position. */
#include "model.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/limits.h"

/* Longer words are compared as they are, and shown shortened in errors. */
enum { WORD_BYTES_MAX = 32 };

/* The keys that a family of encoders uses for its sizes, and Hugging Face's defaults for missing keys. */
typedef struct family_keys {
    const char *name; /* model_type */
    const char *width;
    const char *layers;
    const char *heads;
    const char *ffn_width;
    const char *activation;
    br_model defaults;
} family_keys;

static const family_keys families[BR_FAMILIES] = {
    [BR_FAMILY_DEBERTA] = {"deberta-v2",
                           "hidden_size",
                           "num_hidden_layers",
                           "num_attention_heads",
                           "intermediate_size",
                           "hidden_act",
                           {.width = 1536, .layers = 24, .heads = 24, .ffn_width = 6144, .vocab = 128100}},
    [BR_FAMILY_BERT] = {"bert",
                        "hidden_size",
                        "num_hidden_layers",
                        "num_attention_heads",
                        "intermediate_size",
                        "hidden_act",
                        {.family = BR_FAMILY_BERT,
                         .width = 768,
                         .layers = 12,
                         .heads = 12,
                         .ffn_width = 3072,
                         .vocab = 30522,
                         .absolute_positions = 512,
                         .token_types = 2}},
    [BR_FAMILY_DISTILBERT] = {"distilbert",
                              "dim",
                              "n_layers",
                              "n_heads",
                              "hidden_dim",
                              "activation",
                              {.family = BR_FAMILY_DISTILBERT,
                               .width = 768,
                               .layers = 6,
                               .heads = 12,
                               .ffn_width = 3072,
                               .vocab = 30522,
                               .absolute_positions = 512}},
};

typedef struct word_set {
    const char *const *words; /* NULL ends the list */
    const char *expected;     /* for messages */
} word_set;

static const char *const position_words[] = {"c2p", "p2c", NULL};
static const word_set position_terms = {position_words, "c2p, p2c, both or none"};
static const char *const norm_words[] = {"layer_norm", "none", NULL};
static const word_set norm_terms = {norm_words, "layer_norm or none"};

/* Sets bit i of *set for word i. An empty word is none. */
static br_status add_word(uint32_t *set, const word_set *known, const br_json *scope, const char *key,
                          br_str word)
{
    if (word.size == 0) return BR_OK;
    for (uint32_t i = 0; known->words[i] != NULL; i++) {
        if (!br_str_equal(word, br_str_from(known->words[i]))) continue;
        *set |= 1u << i;
        return BR_OK;
    }
    const int shown = word.size < WORD_BYTES_MAX ? (int)word.size : WORD_BYTES_MAX;
    return br_fail(scope->error, BR_ENOTSUP, "%s: %s%s: found the word \"%.*s\", expected %s", scope->file,
                   scope->path, key, shown, word.data, known->expected);
}

/* "a| B" as Hugging Face reads it: lower case, each word stripped. */
static br_status add_joined(uint32_t *set, const word_set *known, const br_json *scope, const char *key,
                            br_str text)
{
    size_t begin = 0;
    while (begin <= text.size) {
        size_t end = begin;
        while (end < text.size && text.data[end] != '|') end++;
        size_t first = begin;
        size_t last = end;
        while (first < last && isspace((unsigned char)text.data[first])) first++;
        while (last > first && isspace((unsigned char)text.data[last - 1])) last--;

        char lower[WORD_BYTES_MAX];
        br_str word = {text.data + first, last - first};
        if (word.size <= sizeof lower) {
            for (size_t i = 0; i < word.size; i++) lower[i] = (char)tolower((unsigned char)word.data[i]);
            word.data = lower;
        }
        const br_status status = add_word(set, known, scope, key, word);
        if (status != BR_OK) return status;
        begin = end + 1;
    }
    return BR_OK;
}

static br_status read_words(uint32_t *set, const word_set *known, const br_json *scope, const char *key)
{
    *set = 0;
    const json_t *value = json_object_get(scope->object, key);
    if (value == NULL || json_is_null(value)) return BR_OK;
    if (json_is_string(value)) return add_joined(set, known, scope, key, br_json_view(value));
    if (!json_is_array(value)) {
        return br_json_refuse(scope, BR_EFORMAT, key, value, "a list of words, or words joined by '|'");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *word = json_array_get(value, i);
        if (!json_is_string(word)) return br_json_refuse(scope, BR_EFORMAT, key, word, "a list of words");
        /* Compared as they are: Hugging Face strips and lowers the joined form alone. */
        const br_status status = add_word(set, known, scope, key, br_json_view(word));
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

/* A string that may be missing, or must be `supported`. */
static br_status only_word(const br_json *scope, const char *key, const char *supported)
{
    const json_t *value = json_object_get(scope->object, key);
    if (value == NULL) return BR_OK;
    char expected[64];
    snprintf(expected, sizeof expected, "\"%s\", the only one supported", supported);
    if (!json_is_string(value)) return br_json_refuse(scope, BR_EFORMAT, key, value, expected);
    if (strcmp(json_string_value(value), supported) == 0) return BR_OK;
    return br_json_refuse(scope, BR_ENOTSUP, key, value, expected);
}

/* An integer that may be missing, or must be at most `supported`. */
static br_status only_up_to(const br_json *scope, const char *key, int64_t supported, const char *expected)
{
    int64_t value = supported;
    const br_status status = br_json_int(scope, key, INT32_MIN, INT32_MAX, &value);
    if (status != BR_OK) return status;
    if (value <= supported) return BR_OK;
    return br_json_refuse(scope, BR_ENOTSUP, key, json_object_get(scope->object, key), expected);
}

static br_status refuse_unsupported(const br_json *scope, const br_model *model)
{
    br_status status = only_word(scope, "hidden_act", "gelu");
    if (status != BR_OK) return status;
    status = only_up_to(scope, "conv_kernel_size", 0, "0: the convolution layer is not supported");
    if (status != BR_OK) return status;
    status = only_up_to(scope, "type_vocab_size", 0, "0: token types are not supported");
    if (status != BR_OK) return status;

    bool biased = true; /* Hugging Face's default */
    status = br_json_bool(scope, "position_biased_input", &biased);
    if (status != BR_OK) return status;
    if (biased) {
        return br_json_refuse(scope, BR_ENOTSUP, "position_biased_input",
                              json_object_get(scope->object, "position_biased_input"),
                              "false (absent means true): absolute positions are not supported");
    }

    int64_t embedding_size = model->width;
    status = br_json_int(scope, "embedding_size", INT32_MIN, INT32_MAX, &embedding_size);
    if (status != BR_OK) return status;
    if (embedding_size != model->width) {
        return br_json_refuse(scope, BR_ENOTSUP, "embedding_size",
                              json_object_get(scope->object, "embedding_size"),
                              "hidden_size: an embedding projection is not supported");
    }
    int64_t head_size = model->head_size;
    status = br_json_int(scope, "attention_head_size", INT32_MIN, INT32_MAX, &head_size);
    if (status != BR_OK) return status;
    if (head_size != model->head_size) {
        return br_json_refuse(scope, BR_ENOTSUP, "attention_head_size",
                              json_object_get(scope->object, "attention_head_size"),
                              "hidden_size / num_attention_heads");
    }
    return BR_OK;
}

/* An integer in 1..high, where high is a limit of the engine. */
static br_status read_size(int32_t *value, const br_json *scope, const char *key, int32_t high)
{
    const br_status status = br_json_int32(scope, key, 1, INT32_MAX, value);
    if (status != BR_OK || *value <= high) return status;
    char expected[64];
    snprintf(expected, sizeof expected, "at most %d", (int)high);
    return br_json_refuse(scope, BR_ETOOBIG, key, json_object_get(scope->object, key), expected);
}

static br_status read_sizes(br_model *model, const br_json *scope)
{
    const family_keys *keys = &families[model->family];
    const struct {
        const char *key;
        int32_t *value;
        int32_t high;
    } sizes[] = {
        {keys->width, &model->width, BR_WIDTH_MAX},  {keys->layers, &model->layers, BR_LAYERS_MAX},
        {keys->heads, &model->heads, BR_HEADS_MAX},  {keys->ffn_width, &model->ffn_width, BR_FFN_MAX},
        {"vocab_size", &model->vocab, BR_VOCAB_MAX},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const br_status status = read_size(sizes[i].value, scope, sizes[i].key, sizes[i].high);
        if (status != BR_OK) return status;
    }
    if (model->width % model->heads != 0) {
        return br_fail(scope->error, BR_EINVAL, "%s: %s: found %d, expected a divisor of %s %d", scope->file,
                       keys->heads, (int)model->heads, keys->width, (int)model->width);
    }
    model->head_size = model->width / model->heads;

    double epsilon = model->family == BR_FAMILY_DEBERTA ? 1e-7 : 1e-12;
    if (model->family == BR_FAMILY_DISTILBERT) { /* a constant in DistilBERT's code, no key */
        model->layer_norm_epsilon = (float)epsilon;
        return BR_OK;
    }
    const br_status status = br_json_number(scope, "layer_norm_eps", 0, 1, &epsilon);
    model->layer_norm_epsilon = (float)epsilon;
    return status;
}

/* Refuses the two cases in which Hugging Face's formula divides by zero: one bucket, and a logarithm of base
 * 1. */
static br_status check_buckets(const br_model *model, const br_json *scope)
{
    if (model->position_buckets == 1) {
        return br_fail(scope->error, BR_EINVAL, "%s: position_buckets: found 1, expected at least 2, or none",
                       scope->file);
    }
    if (model->position_buckets > 1 && model->max_positions - 1 == model->position_buckets / 2) {
        return br_fail(
            scope->error, BR_EINVAL,
            "%s: max_relative_positions: found %d, expected not position_buckets / 2 + 1, for which "
            "the buckets are undefined",
            scope->file, (int)model->max_positions);
    }
    return BR_OK;
}

/* The position terms of attention, and whether they share projections. */
static br_status read_position_terms(br_model *model, const br_json *scope)
{
    uint32_t terms = 0;
    uint32_t norms = 0;
    br_status status = br_json_bool(scope, "relative_attention", &model->relative_attention);
    if (status == BR_OK) status = br_json_bool(scope, "share_att_key", &model->share_att_key);
    if (status == BR_OK) status = read_words(&terms, &position_terms, scope, "pos_att_type");
    if (status == BR_OK) status = read_words(&norms, &norm_terms, scope, "norm_rel_ebd");
    model->c2p = (terms & 1u) != 0;
    model->p2c = (terms & 2u) != 0;
    model->norm_rel_ebd = (norms & 1u) != 0;
    return status;
}

/* The reach of positions. Without relative_attention the model's three numbers stay 0. */
static br_status read_position_reach(br_model *model, const br_json *scope)
{
    int32_t buckets = -1;
    int32_t positions = -1;
    int32_t embeddings = 512;
    br_status status = br_json_int32(scope, "position_buckets", INT32_MIN, INT32_MAX, &buckets);
    if (status == BR_OK)
        status = br_json_int32(scope, "max_relative_positions", INT32_MIN, INT32_MAX, &positions);
    if (status == BR_OK)
        status = br_json_int32(scope, "max_position_embeddings", INT32_MIN, INT32_MAX, &embeddings);
    if (status != BR_OK || !model->relative_attention) return status;

    model->position_buckets = buckets > 0 ? buckets : 0;
    model->max_positions = positions < 1 ? embeddings : positions;
    model->position_span = buckets > 0 ? buckets : model->max_positions;
    if (model->max_positions < 1) {
        return br_fail(scope->error, BR_EINVAL, "%s: max_position_embeddings: found %d, expected at least 1",
                       scope->file, (int)embeddings);
    }
    if (model->position_span > BR_POSITION_SPAN_MAX) {
        return br_fail(scope->error, BR_ETOOBIG, "%s: %s: found %d, expected at most %d", scope->file,
                       buckets > 0 ? "position_buckets" : "max_relative_positions", (int)model->position_span,
                       (int)BR_POSITION_SPAN_MAX);
    }
    return check_buckets(model, scope);
}

/* Absolute positions and token types: BERT's and DistilBERT's. */
static br_status read_absolute(br_model *model, const br_json *scope)
{
    br_status status = only_word(scope, families[model->family].activation, "gelu");
    if (status == BR_OK) status = only_word(scope, "position_embedding_type", "absolute");
    if (status == BR_OK)
        status = read_size(&model->absolute_positions, scope, "max_position_embeddings", BR_VOCAB_MAX);
    if (status == BR_OK && model->family == BR_FAMILY_BERT)
        status = read_size(&model->token_types, scope, "type_vocab_size", BR_VOCAB_MAX);
    return status;
}

static br_status read_family(br_model *model, const br_json *scope)
{
    static const char expected[] = "\"deberta-v2\", \"bert\" or \"distilbert\"";
    const json_t *type = json_object_get(scope->object, "model_type");
    if (type == NULL) {
        *model = families[BR_FAMILY_DEBERTA].defaults;
        return BR_OK;
    }
    if (!json_is_string(type)) return br_json_refuse(scope, BR_EFORMAT, "model_type", type, expected);
    for (int i = 0; i < BR_FAMILIES; i++) {
        if (strcmp(json_string_value(type), families[i].name) != 0) continue;
        *model = families[i].defaults;
        return BR_OK;
    }
    return br_json_refuse(scope, BR_ENOTSUP, "model_type", type, expected);
}

br_status br_model_parse(br_model *out, br_str json, const char *file, br_error *error)
{
    *out = (br_model){0};

    json_t *top;
    br_status status = br_json_parse(&top, json, BR_JSON_BYTES_MAX, file, error);
    if (status != BR_OK) return status;
    const br_json scope = {.object = top, .file = file, .path = "", .error = error};

    status = read_family(out, &scope);
    if (status == BR_OK) status = read_sizes(out, &scope);
    if (status != BR_OK) goto done;
    if (out->family != BR_FAMILY_DEBERTA) {
        status = read_absolute(out, &scope);
        goto done;
    }
    status = refuse_unsupported(&scope, out);
    if (status == BR_OK) status = read_position_terms(out, &scope);
    if (status == BR_OK) status = read_position_reach(out, &scope);

done:
    json_decref(top);
    return status;
}

/* make_log_bucket_position in the float32 steps of torch. Logarithms are taken in double and rounded once:
 * for many distances the argument of the ceil below is an exact integer, where one ulp changes the bucket. */
static int32_t log_bucket(int32_t distance, int32_t buckets, int32_t max_positions)
{
    const int32_t middle = buckets / 2;
    const int32_t size = distance < 0 ? -distance : distance;
    if (size <= middle) return distance;

    const float ratio = (float)size / (float)middle;
    const float base = (float)((double)(max_positions - 1) / (double)middle);
    const float log_ratio = (float)log((double)ratio);
    const float log_base = (float)log((double)base);
    const float quotient = log_ratio / log_base;
    const float steps = ceilf(quotient * (float)(middle - 1));
    const int32_t bucket = (int32_t)(steps + (float)middle);
    return distance < 0 ? -bucket : bucket;
}

int32_t br_model_position_row(const br_model *model, int32_t distance)
{
    const int32_t span = model->position_span;
    assert(span > 0);
    assert(distance > -(1 << 24));
    assert(distance < 1 << 24); /* a float holds it exactly */
    int32_t position = distance;
    if (model->position_buckets > 0) {
        position = log_bucket(distance, model->position_buckets, model->max_positions);
    }
    const int32_t row = position + span;
    if (row < 0) return 0;
    return row < 2 * span ? row : 2 * span - 1;
}
