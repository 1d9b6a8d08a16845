/* golden_case.c - see golden_case.h. The generator below is make_golden.py's, step by step. */
#include "golden_case.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle/tensor_names.h"
#include "core/memory.h"
#include "support/files.h"

const char *const golden_names[] = {
    "log_buckets",   "one_layer",      "own_projections",
    "c2p_alone",     "p2c_alone",      "no_terms",
    "content_alone", "raw_positions",  "no_buckets",
    "short_reach",   "narrow_buckets", "odd_buckets",
    "odd_width",     "heads_of_64",    "float16",
    "bfloat16",      "hybrid_llm",     "n_label",
    "n_class",       "zooter",         "zooter_pooled",
    "router_dc",     "route_llm_bert", "bert",
    "bert_cosine",   "distilbert",     NULL,
};

enum { POOL_INDEX = 1, ROWS_WHOLE = 33, ROWS_SELECTED = 12, HEADER_BYTES = 1 << 15, NAME_BYTES = 128 };

static uint64_t stream_of(const golden_case *g, const char *name)
{
    char whole[2 * NAME_BYTES];
    snprintf(whole, sizeof whole, "%s/%s", g->name, name);
    uint64_t key = 0xcbf29ce484222325U; /* FNV-1a */
    for (const char *c = whole; *c != '\0'; c++) key = (key ^ (uint8_t)*c) * 0x100000001b3U;
    return key;
}

/* splitmix64 */
static uint64_t hash_at(uint64_t stream, size_t index)
{
    uint64_t z = stream + (index + 1) * 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static bool ends_with(const char *name, const char *end)
{
    const size_t length = strlen(name);
    return length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

/* The largest 2^k with 4^k <= n, as 2^-k. */
static double power_of_two_below_root(double n)
{
    double root = 1;
    while (4 * root * root <= n) root *= 2;
    return 1 / root;
}

static void offset_and_scale(double *offset, double *scale, const char *name, int32_t inputs)
{
    const bool norm = strstr(name, "LayerNorm.") != NULL || strstr(name, "layer_norm.") != NULL;
    *offset = norm && ends_with(name, ".weight") ? 1 : 0;
    if (norm)
        *scale = 0.5;
    else if (ends_with(name, ".bias"))
        *scale = 0.25;
    else if (strstr(name, "embeddings") != NULL)
        *scale = 1;
    else if (strstr(name, "query") != NULL || strstr(name, "key") != NULL || strstr(name, "q_lin") != NULL ||
             strstr(name, "k_lin") != NULL)
        *scale = power_of_two_below_root(inputs / 4.0);
    else
        *scale = power_of_two_below_root(inputs);
}

static uint16_t half_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffU) == 0) return 0;
    const uint32_t exponent = ((bits >> 23) & 0xffU) - 127 + 15;
    assert_in_range(exponent, 1, 30);
    return (uint16_t)(((bits >> 16) & 0x8000U) | (exponent << 10) | ((bits >> 13) & 0x3ffU));
}

typedef struct writer {
    golden_case *g;
    bool measuring; /* the first of two passes: header and size alone */
    char header[HEADER_BYTES];
    size_t header_bytes;
    size_t data_bytes;
    char *data; /* where the next tensor goes in the second pass */
} writer;

static void write_values(const golden_case *g, char *to, const char *name, size_t count, int32_t inputs)
{
    const int bits = g->type == BR_F32 ? 23 : 6;
    const uint64_t stream = stream_of(g, name);
    double offset;
    double scale;
    offset_and_scale(&offset, &scale, name, inputs);
    for (size_t i = 0; i < count; i++) {
        const int64_t n = (int64_t)(hash_at(stream, i) >> (63 - bits)) - (INT64_C(1) << bits);
        const float value = (float)(offset + scale * ((double)n / (double)(INT64_C(1) << bits)));
        const uint16_t narrow = g->type == BR_F16 ? half_bits(value) : br_f32_to_bf16(value);
        if (g->type == BR_F32)
            memcpy(to + i * sizeof value, &value, sizeof value);
        else
            memcpy(to + i * sizeof narrow, &narrow, sizeof narrow);
        if (g->type == BR_F16) assert_true(br_f16_to_f32(narrow) == value);
        if (g->type == BR_BF16) assert_true(br_bf16_to_f32(narrow) == value);
    }
}

/* A tensor [rows, columns], or [rows] when columns is 0. */
static void add(writer *w, const char *name, int32_t rows, int32_t columns)
{
    static const char *const types[] = {[BR_F32] = "F32", [BR_F16] = "F16", [BR_BF16] = "BF16"};
    const size_t count = (size_t)rows * (size_t)(columns > 0 ? columns : 1);
    const size_t bytes = count * br_dtype_bytes(w->g->type);
    if (!w->measuring) {
        write_values(w->g, w->data, name, count, columns);
        w->data += bytes;
        return;
    }
    char shape[32];
    snprintf(shape, sizeof shape, columns > 0 ? "%d,%d" : "%d", (int)rows, (int)columns);
    const int written = snprintf(w->header + w->header_bytes, HEADER_BYTES - w->header_bytes,
                                 "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                 w->header_bytes == 0 ? '{' : ',', name, types[w->g->type], shape,
                                 w->data_bytes, w->data_bytes + bytes);
    w->header_bytes += (size_t)written;
    w->data_bytes += bytes;
    assert_true(w->header_bytes + 16 < HEADER_BYTES);
}

static void add_named(writer *w, const char *module, int32_t rows, int32_t columns, bool has_bias)
{
    char name[NAME_BYTES + sizeof ".weight"];
    snprintf(name, sizeof name, "%s.weight", module);
    add(w, name, rows, columns);
    snprintf(name, sizeof name, "%s.bias", module);
    if (has_bias) add(w, name, rows, 0);
}

static void add_weight(writer *w, br_module module, int32_t layer, int32_t rows, int32_t columns)
{
    char name[BR_TENSOR_NAME_BYTES];
    br_tensor_name(name, &w->g->bundle, module, layer, "weight");
    add(w, name, rows, columns);
}

static void add_pair(writer *w, br_module module, int32_t layer, int32_t rows, int32_t columns)
{
    char name[BR_TENSOR_NAME_BYTES];
    add_weight(w, module, layer, rows, columns);
    br_tensor_name(name, &w->g->bundle, module, layer, "bias");
    add(w, name, rows, 0);
}

static void add_layer(writer *w, int32_t layer)
{
    const br_model *m = &w->g->bundle.model;
    const bool own = m->relative_attention && !m->share_att_key;
    add_pair(w, BR_MODULE_QUERY, layer, m->width, m->width);
    add_pair(w, BR_MODULE_KEY, layer, m->width, m->width);
    add_pair(w, BR_MODULE_VALUE, layer, m->width, m->width);
    if (own && m->c2p) add_pair(w, BR_MODULE_POSITION_KEY, layer, m->width, m->width);
    if (own && m->p2c) add_pair(w, BR_MODULE_POSITION_QUERY, layer, m->width, m->width);
    add_pair(w, BR_MODULE_ATTENTION_OUTPUT, layer, m->width, m->width);
    add_pair(w, BR_MODULE_ATTENTION_NORM, layer, m->width, 0);
    add_pair(w, BR_MODULE_FFN_UP, layer, m->ffn_width, m->width);
    add_pair(w, BR_MODULE_FFN_DOWN, layer, m->width, m->ffn_width);
    add_pair(w, BR_MODULE_OUTPUT_NORM, layer, m->width, 0);
}

static void add_heads(writer *w)
{
    const br_router *router = &w->g->bundle.router;
    const int32_t width = w->g->bundle.model.width;
    if (router->pooler != BR_POOLER_NONE) add_pair(w, BR_MODULE_POOLER, 0, width, width);
    bool has_bias;
    const char *classifier = br_classifier_name(router->heads, &has_bias);
    if (classifier != NULL) {
        add_named(w, classifier, br_classifier_rows(router), width, has_bias);
        return;
    }
    for (int32_t k = 0; k < router->head_count; k++) {
        char module[NAME_BYTES];
        snprintf(module, sizeof module, "single_heads.%d.1", (int)k);
        add_named(w, module, 2, width, true);
    }
}

static void add_all(writer *w)
{
    const br_model *m = &w->g->bundle.model;
    add_weight(w, BR_MODULE_WORDS, 0, m->vocab, m->width);
    if (m->absolute_positions > 0) add_weight(w, BR_MODULE_POSITIONS, 0, m->absolute_positions, m->width);
    if (m->token_types > 0) add_weight(w, BR_MODULE_TYPES, 0, m->token_types, m->width);
    add_pair(w, BR_MODULE_EMBEDDING_NORM, 0, m->width, 0);
    if (m->relative_attention) add_weight(w, BR_MODULE_RELATIVE, 0, 2 * m->position_span, m->width);
    if (m->relative_attention && m->norm_rel_ebd) add_pair(w, BR_MODULE_RELATIVE_NORM, 0, m->width, 0);
    for (int32_t i = 0; i < m->layers; i++) add_layer(w, i);
    add_heads(w);
}

static void make_weights(golden_case *g)
{
    writer *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->g = g;
    w->measuring = true;
    add_all(w);
    w->header[w->header_bytes++] = '}';

    const uint64_t header_bytes = w->header_bytes;
    g->weights_bytes = sizeof header_bytes + w->header_bytes + w->data_bytes;
    g->weights = malloc(g->weights_bytes);
    assert_non_null(g->weights);
    memcpy(g->weights, &header_bytes, sizeof header_bytes);
    memcpy(g->weights + sizeof header_bytes, w->header, w->header_bytes);
    w->data = g->weights + sizeof header_bytes + w->header_bytes;
    w->measuring = false;
    add_all(w);
    assert_ptr_equal(w->data, g->weights + g->weights_bytes);
    free(w);

    br_error error = {0};
    if (br_safetensors_create(&g->bundle.tensors, g->weights, g->weights_bytes, "model.safetensors",
                              &error) != BR_OK)
        fail_msg("%s: %s", g->name, error.text);
}

static char *read_file(const golden_case *g, const char *ending, size_t *size)
{
    const char *source = getenv("BESTROUTE_SOURCE");
    char path[1024];
    snprintf(path, sizeof path, "%s/tests/golden/%s.%s", source != NULL ? source : ".", g->name, ending);
    return read_whole(path, size);
}

/* What "router" declares, read by policy/router.c: the rest of a router.json is made up around it. */
static void read_router(golden_case *g, const json_t *declared)
{
    br_router *router = &g->bundle.router;
    const int32_t head_count = router->head_count;
    json_t *whole = json_pack("{s:s, s:s, s:i, s:{s:{}}, s:[]}", "format", "bestroute-bundle/1", "name",
                              "golden", "max_tokens", (int)router->max_tokens, "models", "m", "candidates");
    json_t *candidates = json_object_get(whole, "candidates");
    json_object_update(whole, (json_t *)(uintptr_t)declared);
    const char *kind = json_string_value(json_object_get(declared, "heads"));
    const bool pair = strcmp(kind, "hybrid_llm") == 0 || strcmp(kind, "route_llm_bert") == 0;
    const bool scored = !pair && strcmp(kind, "n_label") != 0;
    const int32_t heads = pair ? 1 : head_count;
    for (int32_t k = 0; k < heads; k++) {
        const bool reference = scored && k == heads - 1;
        json_array_append_new(candidates, json_pack("{s:s, s:i, s:i, s:b}", "model", "m", "n", (int)k + 1,
                                                    "head", (int)k, "reference", reference));
    }
    if (!scored)
        json_array_append_new(candidates,
                              json_pack("{s:s, s:i, s:b}", "model", "m", "n", 1000, "reference", 1));

    char *text = json_dumps(whole, 0);
    br_error error = {0};
    if (br_router_parse(router, br_str_from(text), g->name, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(router->head_count, head_count);
    free(text);
    json_decref(whole);
}

static void read_config(golden_case *g)
{
    size_t size;
    char *text = read_file(g, "json", &size);
    br_error error = {0};
    if (br_model_parse(&g->bundle.model, (br_str){text, size}, g->name, &error) != BR_OK)
        fail_msg("%s", error.text);

    json_t *config = json_loadb(text, size, 0, NULL);
    const json_t *golden = json_object_get(config, "golden");
    assert_non_null(golden);
    const char *type = json_string_value(json_object_get(golden, "type"));
    g->type = strcmp(type, "F32") == 0 ? BR_F32 : strcmp(type, "F16") == 0 ? BR_F16 : BR_BF16;
    g->bundle.router.head_count = (int32_t)json_integer_value(json_object_get(golden, "heads"));
    g->all_rows = json_is_true(json_object_get(golden, "all_rows"));
    const json_t *lengths = json_object_get(golden, "lengths");
    g->length_count = (int32_t)json_array_size(lengths);
    assert_in_range(g->length_count, 1, GOLDEN_LENGTHS_MAX);
    for (int32_t i = 0; i < g->length_count; i++) {
        g->lengths[i] = (int32_t)json_integer_value(json_array_get(lengths, (size_t)i));
        if (g->lengths[i] > g->bundle.router.max_tokens) g->bundle.router.max_tokens = g->lengths[i];
    }
    g->bundle.prefix = "pretrained_model.";
    const json_t *router = json_object_get(golden, "router");
    if (router != NULL) read_router(g, router);
    json_decref(config);
    free(text);
}

void golden_open(golden_case *g, const char *name)
{
    *g = (golden_case){.name = name};
    read_config(g);
    make_weights(g);
    size_t size;
    g->expected_bytes = read_file(g, "safetensors", &size);
    br_error error = {0};
    if (br_safetensors_create(&g->expected, g->expected_bytes, size, name, &error) != BR_OK)
        fail_msg("%s: %s", name, error.text);
}

void golden_close(golden_case *g)
{
    br_safetensors_destroy(g->bundle.tensors);
    br_safetensors_destroy(g->expected);
    br_router_deinit(&g->bundle.router);
    free(g->weights);
    free(g->expected_bytes);
}

void golden_ids(const golden_case *g, int32_t *ids, int32_t length)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "ids.%d", (int)length);
    const uint64_t stream = stream_of(g, name);
    for (int32_t i = 0; i < length; i++)
        ids[i] = (int32_t)(hash_at(stream, (size_t)i) % (uint64_t)g->bundle.model.vocab);
}

int32_t golden_rows(const golden_case *g, int32_t *rows, int32_t length)
{
    int32_t count = 0;
    if (g->all_rows || length <= ROWS_WHOLE) {
        for (; count < length; count++) rows[count] = count;
        return count;
    }
    rows[count++] = POOL_INDEX;
    for (int32_t i = 0; i < ROWS_SELECTED; i++) rows[count++] = i * (length - 1) / (ROWS_SELECTED - 1);
    return count;
}

static const float *expected(const golden_case *g, const char *what, int32_t length)
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%s.%d", what, (int)length);
    const br_tensor *tensor = br_safetensors_find(g->expected, name);
    if (tensor == NULL) fail_msg("%s: there is no %s", g->name, name);
    assert_int_equal((uintptr_t)tensor->data % sizeof(float), 0); /* the file pads its header */
    return tensor->data;
}

const float *golden_hidden(const golden_case *g, int32_t length)
{
    return expected(g, "hidden", length);
}

const float *golden_quality(const golden_case *g, int32_t length)
{
    return expected(g, "quality", length);
}

void *golden_weight(golden_case *g, const char *name, size_t *bytes)
{
    const br_tensor *tensor = br_safetensors_find(g->bundle.tensors, name);
    if (tensor == NULL) fail_msg("%s: there is no %s", g->name, name);
    *bytes = tensor->bytes;
    return g->weights + ((const char *)tensor->data - g->weights);
}
