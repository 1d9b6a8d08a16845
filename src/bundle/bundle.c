/* bundle.c - see bundle.h: reads the files of a bundle, hashes them and checks them against each other. */
#include "bundle.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/memory.h"
#include "tensor_names.h"
#include "weights_file.h"

enum { PATH_BYTES_MAX = 4096 };

/* The files in the order of the hash, each with the most bytes it may have (0: any). */
#define FILE_LIST(X)                                                                                         \
    X(ROUTER, "router.json", BR_JSON_BYTES_MAX)                                                              \
    X(CONFIG, "config.json", BR_JSON_BYTES_MAX)                                                              \
    X(WEIGHTS, "model.safetensors", 0)                                                                       \
    X(TOKENIZER, "spm.model", BR_BUNDLE_SPM_BYTES_MAX)                                                       \
    X(ADDED, "added_tokens.json", BR_JSON_BYTES_MAX)                                                         \
    X(VOCAB, "vocab.txt", BR_BUNDLE_SPM_BYTES_MAX)

enum {
#define FILE_ENUM(word, name, bytes_max) FILE_##word,
    FILE_LIST(FILE_ENUM)
#undef FILE_ENUM
        FILE_COUNT
};

static const struct {
    const char *name;
    size_t bytes_max;
} files[FILE_COUNT] = {
#define FILE_ROW(word, name, bytes_max) {name, bytes_max},
    FILE_LIST(FILE_ROW)
#undef FILE_ROW
};

/* The state of br_bundle_open. */
typedef struct opening {
    br_bundle *bundle;
    br_error *error;
    char paths[FILE_COUNT][PATH_BYTES_MAX];
    char *contents[FILE_COUNT]; /* NULL for the weights */
    size_t sizes[FILE_COUNT];
    weights_file weights;
    const atomic_bool *stop; /* may be NULL */
} opening;

/* The small files are tens of kilobytes to some megabytes; each is kept whole until the bundle is open. */
static br_status read_file(opening *o, int file)
{
    return br_file_load(&o->contents[file], &o->sizes[file], o->paths[file], files[file].bytes_max, o->error);
}

static br_status make_paths(opening *o, const char *folder)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        const int length = snprintf(o->paths[i], PATH_BYTES_MAX, "%s/%s", folder, files[i].name);
        if (length < 0 || length >= PATH_BYTES_MAX) {
            return br_fail(o->error, BR_EINVAL, "bundle: the folder's path is longer than %d bytes",
                           PATH_BYTES_MAX - 32);
        }
    }
    return BR_OK;
}

/* True if the file is part of this bundle. router.json and config.json decide it. */
static bool has_file(const opening *o, int file)
{
    const bool wordpiece = o->bundle->model.family != BR_FAMILY_DEBERTA;
    if (file == FILE_TOKENIZER) return !wordpiece;
    if (file == FILE_VOCAB) return wordpiece;
    return file != FILE_ADDED || !o->bundle->router.pool_first;
}

static br_str file_text(const opening *o, int file)
{
    return (br_str){o->contents[file], o->sizes[file]};
}

static bool add_to_hash(void *hash, const void *bytes, size_t size)
{
    return EVP_DigestUpdate(hash, bytes, size) == 1;
}

/* name, its terminator, size as 8 bytes little-endian; the content follows. */
static bool hash_name(EVP_MD_CTX *context, const char *name, size_t size)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)size >> (8 * i));
    return add_to_hash(context, name, strlen(name) + 1) && add_to_hash(context, length, sizeof length);
}

/* The weights are read here, after everything else about them was checked. */
static br_status hash_file(opening *o, EVP_MD_CTX *context, int file)
{
    const bool weights = file == FILE_WEIGHTS;
    const size_t size = weights ? o->weights.file.size : o->sizes[file];
    bool good = hash_name(context, files[file].name, size);
    if (good && weights) return weights_file_read(&o->weights, add_to_hash, context, o->stop, o->error);
    good = good && add_to_hash(context, o->contents[file], size);
    return good ? BR_OK : br_fail(o->error, BR_ENOMEM, "bundle: cannot compute its SHA-256");
}

static br_status hash_files(opening *o, EVP_MD_CTX *context, unsigned char digest[32])
{
    br_status status = BR_OK;
    bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    for (int i = 0; good && status == BR_OK && i < FILE_COUNT; i++)
        if (has_file(o, i)) status = hash_file(o, context, i);
    if (status != BR_OK) return status;
    good = good && EVP_DigestFinal_ex(context, digest, NULL) == 1;
    return good ? BR_OK : br_fail(o->error, BR_ENOMEM, "bundle: cannot compute its SHA-256");
}

static br_status hash_bundle(opening *o)
{
    unsigned char digest[32];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const br_status status = hash_files(o, context, digest);
    EVP_MD_CTX_free(context);
    if (status != BR_OK) return status;

    for (size_t i = 0; i < sizeof digest; i++) {
        snprintf(o->bundle->hash + 2 * i, 3, "%02x", digest[i]);
        o->bundle->digest[i / 8] = o->bundle->digest[i / 8] << 8 | digest[i];
    }
    return BR_OK;
}

/* Writes "[4, 8]". */
static void write_shape(char *out, size_t size, const int64_t *shape, int32_t rank)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int32_t i = 0; i < rank && at < size; i++) {
        at += (size_t)snprintf(out + at, size - at, "%s%lld", i == 0 ? "" : ", ", (long long)shape[i]);
    }
    if (at < size) snprintf(out + at, size - at, "]");
}

/* Fails unless there is a tensor of that name, of a readable type, [rows, columns], or [rows] when columns is
 * 0. Its bytes will be kept. */
static br_status demand(opening *o, const char *name, int64_t rows, int64_t columns)
{
    const char *path = o->paths[FILE_WEIGHTS];
    const int64_t shape[2] = {rows, columns};
    const int32_t rank = columns == 0 ? 1 : 2;
    char expected[64];
    write_shape(expected, sizeof expected, shape, rank);

    const br_tensor *tensor = br_safetensors_find(o->bundle->tensors, name);
    if (tensor == NULL) {
        return br_fail(o->error, BR_EINVAL, "%s: tensor %s: found nothing, expected shape %s", path, name,
                       expected);
    }
    bool equal = tensor->rank == rank;
    for (int32_t i = 0; equal && i < rank; i++) equal = tensor->shape[i] == shape[i];
    if (!equal) {
        char found[160];
        write_shape(found, sizeof found, tensor->shape, tensor->rank);
        return br_fail(o->error, BR_EINVAL, "%s: tensor %s: found shape %s, expected %s", path, name, found,
                       expected);
    }
    weights_file_keep(&o->weights, tensor);
    if (tensor->readable) return BR_OK;
    return br_fail(o->error, BR_ENOTSUP, "%s: tensor %s: found type %s, expected F32, F16 or BF16", path,
                   name, tensor->type_name);
}

static br_status demand_weight(opening *o, int64_t outputs, int64_t inputs, br_module module, int32_t layer)
{
    char name[BR_TENSOR_NAME_BYTES];
    br_tensor_name(name, o->bundle, module, layer, "weight");
    return demand(o, name, outputs, inputs);
}

/* The weight [outputs, inputs] and the bias [outputs] of a Linear; a LayerNorm has inputs 0. */
static br_status demand_pair(opening *o, int64_t outputs, int64_t inputs, br_module module, int32_t layer)
{
    const br_status status = demand_weight(o, outputs, inputs, module, layer);
    if (status != BR_OK) return status;
    char name[BR_TENSOR_NAME_BYTES];
    br_tensor_name(name, o->bundle, module, layer, "bias");
    return demand(o, name, outputs, 0);
}

static br_status demand_layer(opening *o, int layer)
{
    const br_model *m = &o->bundle->model;
    const int64_t width = m->width;
    const bool own = m->relative_attention && !m->share_att_key;
    const struct {
        br_module module;
        int64_t outputs;
        int64_t inputs;
        bool used;
    } pairs[] = {
        {BR_MODULE_QUERY, width, width, true},
        {BR_MODULE_KEY, width, width, true},
        {BR_MODULE_VALUE, width, width, true},
        {BR_MODULE_POSITION_KEY, width, width, own && m->c2p},
        {BR_MODULE_POSITION_QUERY, width, width, own && m->p2c},
        {BR_MODULE_ATTENTION_OUTPUT, width, width, true},
        {BR_MODULE_ATTENTION_NORM, width, 0, true},
        {BR_MODULE_FFN_UP, m->ffn_width, width, true},
        {BR_MODULE_FFN_DOWN, width, m->ffn_width, true},
        {BR_MODULE_OUTPUT_NORM, width, 0, true},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (!pairs[i].used) continue;
        const br_status status = demand_pair(o, pairs[i].outputs, pairs[i].inputs, pairs[i].module, layer);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

static br_status demand_embeddings(opening *o)
{
    const br_model *m = &o->bundle->model;
    br_status status = demand_weight(o, m->vocab, m->width, BR_MODULE_WORDS, 0);
    if (status == BR_OK) status = demand_pair(o, m->width, 0, BR_MODULE_EMBEDDING_NORM, 0);
    if (status == BR_OK && m->absolute_positions > 0)
        status = demand_weight(o, m->absolute_positions, m->width, BR_MODULE_POSITIONS, 0);
    if (status == BR_OK && m->token_types > 0)
        status = demand_weight(o, m->token_types, m->width, BR_MODULE_TYPES, 0);
    if (status == BR_OK && m->relative_attention)
        status = demand_weight(o, 2 * (int64_t)m->position_span, m->width, BR_MODULE_RELATIVE, 0);
    if (status == BR_OK && m->relative_attention && m->norm_rel_ebd)
        status = demand_pair(o, m->width, 0, BR_MODULE_RELATIVE_NORM, 0);
    return status;
}

static br_status demand_named_pair(opening *o, int64_t outputs, int64_t inputs, const char *stem,
                                   bool has_bias)
{
    char name[BR_TENSOR_NAME_BYTES];
    snprintf(name, sizeof name, "%s.weight", stem);
    const br_status status = demand(o, name, outputs, inputs);
    if (status != BR_OK || !has_bias) return status;
    snprintf(name, sizeof name, "%s.bias", stem);
    return demand(o, name, outputs, 0);
}

static br_status demand_heads(opening *o)
{
    const br_router *router = &o->bundle->router;
    const int32_t width = o->bundle->model.width;
    if (router->pooler != BR_POOLER_NONE) {
        const br_status status = demand_pair(o, width, width, BR_MODULE_POOLER, 0);
        if (status != BR_OK) return status;
    }
    bool has_bias;
    const char *classifier = br_classifier_name(router->heads, &has_bias);
    if (classifier != NULL)
        return demand_named_pair(o, br_classifier_rows(router), width, classifier, has_bias);
    for (int i = 0; i < router->head_count; i++) {
        char stem[32];
        snprintf(stem, sizeof stem, "single_heads.%d.1", i);
        const br_status status = demand_named_pair(o, 2, width, stem, true);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

/* Demands every tensor that the encoder and the heads will read. */
static br_status demand_tensors(opening *o)
{
    br_status status = demand_embeddings(o);
    for (int i = 0; i < o->bundle->model.layers && status == BR_OK; i++) status = demand_layer(o, i);
    return status == BR_OK ? demand_heads(o) : status;
}

/* Fails if another token has the id, or if a text can yield it. */
static br_status check_source_id(const opening *o, const json_t *added, int64_t id)
{
    const br_bundle *b = o->bundle;
    const char *path = o->paths[FILE_ADDED];
    const char *prefix = b->router.source_prefix;
    if (id >= b->model.vocab) {
        return br_fail(o->error, BR_EINVAL, "%s: %s: found id %lld, expected one below vocab_size %d", path,
                       prefix, (long long)id, (int)b->model.vocab);
    }
    const bool special = id != br_tokenizer_cls(b->tokenizer) && id != br_tokenizer_sep(b->tokenizer) &&
                         !br_tokenizer_is_text_id(b->tokenizer, id);
    if (!special) {
        return br_fail(o->error, BR_EINVAL,
                       "%s: %s: found id %lld, which is a piece of spm.model, expected an id of its own",
                       path, prefix, (long long)id);
    }
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)added, name, value)
    {
        if (strcmp(name, prefix) == 0 || json_integer_value(value) != id) continue;
        return br_fail(o->error, BR_EINVAL,
                       "%s: %s: found id %lld, the id of %.64s, expected an id of its own", path, prefix,
                       (long long)id, name);
    }
    return BR_OK;
}

static br_status read_added_tokens(opening *o)
{
    const char *prefix = o->bundle->router.source_prefix;
    json_t *added;
    br_status status =
        br_json_parse(&added, file_text(o, FILE_ADDED), BR_JSON_BYTES_MAX, o->paths[FILE_ADDED], o->error);
    if (status != BR_OK) return status;
    const br_json scope = {.object = added, .file = o->paths[FILE_ADDED], .path = "", .error = o->error};

    const char *name;
    json_t *value;
    json_object_foreach(added, name, value)
    {
        int64_t id;
        status = br_json_int(&scope, name, 0, INT32_MAX, &id);
        if (status != BR_OK) goto done;
    }
    status = br_json_require(&scope, prefix, "the id of router.json's source_prefix");
    if (status != BR_OK) goto done;
    const int64_t id = json_integer_value(json_object_get(added, prefix));
    status = check_source_id(o, added, id);
    if (status == BR_OK) o->bundle->source_id = (int32_t)id;

done:
    json_decref(added);
    return status;
}

static br_status read_tokenizer(opening *o)
{
    br_bundle *b = o->bundle;
    const int file = has_file(o, FILE_VOCAB) ? FILE_VOCAB : FILE_TOKENIZER;
    const char *path = o->paths[file];
    const br_status status = file == FILE_VOCAB
                                 ? br_tokenizer_create_wordpiece(&b->tokenizer, file_text(o, file),
                                                                 !b->router.cased, path, o->error)
                                 : br_tokenizer_create(&b->tokenizer, file_text(o, file), path, o->error);
    if (status != BR_OK) return status;
    if (br_tokenizer_piece_count(b->tokenizer) <= b->model.vocab) return BR_OK;
    return br_fail(o->error, BR_EINVAL, "%s: found %d pieces, expected at most config.json's vocab_size %d",
                   path, (int)br_tokenizer_piece_count(b->tokenizer), (int)b->model.vocab);
}

/* Checks router.json and config.json against each other. */
static br_status check_declarations(const opening *o)
{
    const br_router *router = &o->bundle->router;
    const br_model *model = &o->bundle->model;
    if (model->absolute_positions == 0) return BR_OK;
    if (!router->pool_first) {
        return br_fail(
            o->error, BR_EINVAL,
            "%s: pool: found \"source_prefix\", expected \"first\" with the encoder of config.json",
            o->paths[FILE_ROUTER]);
    }
    if (router->max_tokens > model->absolute_positions) {
        return br_fail(o->error, BR_EINVAL,
                       "%s: max_tokens: found %d, expected at most %d, config.json's max_position_embeddings",
                       o->paths[FILE_ROUTER], (int)router->max_tokens, (int)model->absolute_positions);
    }
    return BR_OK;
}

/* Reads the two files that decide which other files there are. */
static br_status read_declarations(opening *o)
{
    br_bundle *b = o->bundle;
    br_status status = read_file(o, FILE_ROUTER);
    if (status == BR_OK) status = read_file(o, FILE_CONFIG);
    if (status == BR_OK)
        status = br_router_parse(&b->router, file_text(o, FILE_ROUTER), o->paths[FILE_ROUTER], o->error);
    if (status == BR_OK)
        status = br_model_parse(&b->model, file_text(o, FILE_CONFIG), o->paths[FILE_CONFIG], o->error);
    return status == BR_OK ? check_declarations(o) : status;
}

static br_status read_contents(opening *o)
{
    br_bundle *b = o->bundle;
    br_status status = read_declarations(o);
    if (status == BR_OK) status = weights_file_open(&o->weights, o->paths[FILE_WEIGHTS], o->error);
    for (int i = FILE_TOKENIZER; i < FILE_COUNT && status == BR_OK; i++)
        if (has_file(o, i)) status = read_file(o, i);
    if (status == BR_OK) status = read_tokenizer(o);
    b->source_id = -1;
    if (status == BR_OK && !b->router.pool_first) status = read_added_tokens(o);
    if (status != BR_OK) return status;
    b->tensors = o->weights.tensors;
    br_bundle_find_prefix(b);
    return demand_tensors(o);
}

/* From here on the table and the bytes of the weights are the bundle's. */
static void take_weights(opening *o)
{
    o->bundle->weights = o->weights.memory;
    o->bundle->weights_bytes = o->weights.file.size;
    o->weights.memory = NULL;
    o->weights.tensors = NULL;
}

br_status br_bundle_open(br_bundle **out, const char *folder, br_error *error)
{
    return br_bundle_open_unless(out, folder, NULL, error);
}

br_status br_bundle_open_unless(br_bundle **out, const char *folder, const atomic_bool *stop, br_error *error)
{
    *out = NULL;
    br_status status;
    opening *o = calloc(1, sizeof *o);
    br_bundle *b = calloc(1, sizeof *b); /* zeroed: close is safe from here on */
    if (o == NULL || b == NULL) {
        status = br_no_memory(error, "the bundle");
        goto done;
    }
    o->bundle = b;
    o->error = error;
    o->stop = stop;

    status = make_paths(o, folder);
    if (status != BR_OK) goto done;
    status = read_contents(o);
    if (status != BR_OK) goto done;
    status = hash_bundle(o);
    if (status != BR_OK) goto done;
    take_weights(o);
    *out = b;
    b = NULL;

done:
    for (int i = 0; o != NULL && i < FILE_COUNT; i++) free(o->contents[i]);
    if (b != NULL) b->tensors = NULL; /* still the opening's */
    if (o != NULL) weights_file_close(&o->weights);
    free(o);
    br_bundle_close(b);
    return status;
}

void br_bundle_close(br_bundle *bundle)
{
    if (bundle == NULL) return;
    br_bundle_drop_weights(bundle);
    br_tokenizer_destroy(bundle->tokenizer);
    br_router_deinit(&bundle->router);
    free(bundle);
}

void br_bundle_drop_weights(br_bundle *bundle)
{
    br_safetensors_destroy(bundle->tensors);
    bundle->tensors = NULL;
    weights_file_free(bundle->weights, bundle->weights_bytes);
    bundle->weights = NULL;
    bundle->weights_bytes = 0;
}

const br_tensor *br_bundle_tensor(const br_bundle *bundle, const char *format, ...)
{
    assert(bundle->tensors != NULL);
    char name[BR_TENSOR_NAME_BYTES];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    assert(length >= 0);
    assert(length < (int)sizeof name);
    (void)length;
    return br_safetensors_find(bundle->tensors, name);
}

/* The number of ids before the pieces: [CLS], and the source prefix if it is pooled. */
static int32_t lead_of(const br_bundle *bundle)
{
    return bundle->router.pool_first ? 1 : 2;
}

/* The number of pieces that fit between those and [SEP]. */
static size_t room_of(const br_bundle *bundle)
{
    return (size_t)(bundle->router.max_tokens - lead_of(bundle) - 1);
}

/* Writes the special ids around `kept` pieces, which are already at ids + lead. */
static void finish_prompt(br_prompt *out, int32_t *ids, const br_bundle *bundle, int32_t kept, uint64_t total)
{
    const int32_t lead = lead_of(bundle);
    ids[0] = br_tokenizer_cls(bundle->tokenizer);
    if (lead > BR_POOL_INDEX) ids[BR_POOL_INDEX] = bundle->source_id;
    ids[lead + kept] = br_tokenizer_sep(bundle->tokenizer);
    *out = (br_prompt){.tokens = lead + kept + 1, .truncated = (uint64_t)kept < total, .text_tokens = total};
}

/* Writes the last `room` of the text's `count` pieces; count > room. */
static br_status encode_end(const br_bundle *bundle, br_str text, int32_t *ids, size_t room, size_t count)
{
    int32_t *all = br_alloc_array(count, sizeof *all);
    if (all == NULL) return BR_ENOMEM;
    const br_status status = br_tokenizer_encode(bundle->tokenizer, text, all, count, &count);
    if (status == BR_OK) memcpy(ids, all + count - room, room * sizeof *ids);
    free(all);
    return status;
}

br_status br_bundle_prompt_from_text(const br_bundle *bundle, br_str text, int32_t *ids, br_prompt *out)
{
    int32_t *pieces = ids + lead_of(bundle);
    const size_t room = room_of(bundle);
    size_t count;
    br_status status = br_tokenizer_encode(bundle->tokenizer, text, pieces, room, &count);
    if (status == BR_OK && count > room && bundle->router.truncate_left)
        status = encode_end(bundle, text, pieces, room, count);
    if (status != BR_OK) return status;
    finish_prompt(out, ids, bundle, (int32_t)(count < room ? count : room), count);
    return BR_OK;
}

br_status br_bundle_prompt_from_ids(const br_bundle *bundle, const uint32_t *pieces, size_t piece_count,
                                    int32_t *ids, br_prompt *out)
{
    /* Ids that truncation drops are checked too: whether a request is valid must not depend on max_tokens. */
    for (size_t i = 0; i < piece_count; i++) {
        if (!br_tokenizer_is_text_id(bundle->tokenizer, pieces[i])) return BR_EINVAL;
    }
    const size_t room = room_of(bundle);
    const size_t kept = piece_count < room ? piece_count : room;
    const size_t first = bundle->router.truncate_left ? piece_count - kept : 0;
    int32_t *to = ids + lead_of(bundle);
    for (size_t i = 0; i < kept; i++) to[i] = (int32_t)pieces[first + i];
    finish_prompt(out, ids, bundle, (int32_t)kept, piece_count);
    return BR_OK;
}
