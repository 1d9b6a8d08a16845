/* safetensors.c - see safetensors.h. */
#include "safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/memory.h"

enum { HEADER_SIZE_BYTES = 8 };

struct br_safetensors {
    br_arena arena;     /* holds everything below */
    br_tensor *tensors; /* in the order of their data */
    size_t count;
    const br_tensor **by_name; /* the same, sorted for br_safetensors_find */
};

/* One entry of the header, with its offsets, which are compared with those of the others. */
typedef struct entry {
    br_tensor tensor;
    size_t begin;
    size_t end;
} entry;

typedef struct parser {
    const char *file;
    br_error *error;
    const unsigned char *data; /* the tensors' bytes, after the header */
    size_t data_bytes;
    br_arena *arena;
} parser;

static const struct {
    const char *name;
    int bits;
} types[] = {
    {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"F64", 64},    {"I64", 64},    {"I32", 32}, {"I16", 16},
    {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},      {"BOOL", 8}, {"C64", 64},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},
};

/* Errors show tensor names shortened, since the file may hold names of any length. */
static br_json tensor_scope(const parser *p, const json_t *info, char path[128], const char *name)
{
    snprintf(path, 128, "tensor %.100s: ", name);
    return (br_json){.object = info, .file = p->file, .path = path, .error = p->error};
}

static br_status read_type(br_tensor *tensor, int *bits, const br_json *scope)
{
    static const char expected[] = "the name of a safetensors type";
    const json_t *value = json_object_get(scope->object, "dtype");
    if (!json_is_string(value)) return br_json_refuse(scope, BR_EFORMAT, "dtype", value, expected);

    const char *name = json_string_value(value);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, name) != 0) continue;
        snprintf(tensor->type_name, sizeof tensor->type_name, "%s", name);
        *bits = types[i].bits;
        tensor->readable = true;
        if (strcmp(name, "F32") == 0) {
            tensor->type = BR_F32;
        } else if (strcmp(name, "F16") == 0) {
            tensor->type = BR_F16;
        } else if (strcmp(name, "BF16") == 0) {
            tensor->type = BR_BF16;
        } else {
            tensor->readable = false;
        }
        return BR_OK;
    }
    return br_json_refuse(scope, BR_EFORMAT, "dtype", value, expected);
}

/* Sets *elements to the product of the sizes. */
static br_status read_shape(br_tensor *tensor, uint64_t *elements, const br_json *scope)
{
    const json_t *shape = json_object_get(scope->object, "shape");
    if (!json_is_array(shape)) {
        return br_json_refuse(scope, BR_EFORMAT, "shape", shape, "an array of sizes");
    }
    if (json_array_size(shape) > BR_TENSOR_RANK_MAX) {
        return br_json_refuse(scope, BR_ETOOBIG, "shape", shape, "an array of at most 8 sizes");
    }
    static_assert(BR_TENSOR_RANK_MAX == 8, "the message above says so");

    *elements = 1;
    tensor->rank = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < tensor->rank; i++) {
        const json_t *value = json_array_get(shape, (size_t)i);
        if (!json_is_integer(value) || json_integer_value(value) < 0) {
            return br_json_refuse(scope, BR_EFORMAT, "shape", value, "sizes >= 0");
        }
        tensor->shape[i] = json_integer_value(value);
        if (__builtin_mul_overflow(*elements, (uint64_t)tensor->shape[i], elements)) {
            return br_json_refuse(scope, BR_EFORMAT, "shape", shape, "a product of sizes below 2^64");
        }
    }
    return BR_OK;
}

static br_status read_offsets(entry *e, const parser *p, const br_json *scope)
{
    static const char expected[] = "[begin, end) inside the file";
    const json_t *offsets = json_object_get(scope->object, "data_offsets");
    if (!json_is_array(offsets) || json_array_size(offsets) != 2) {
        return br_json_refuse(scope, BR_EFORMAT, "data_offsets", offsets, expected);
    }
    size_t ends[2];
    for (size_t i = 0; i < 2; i++) {
        const json_t *value = json_array_get(offsets, i);
        const bool inside = json_is_integer(value) && json_integer_value(value) >= 0 &&
                            (uint64_t)json_integer_value(value) <= p->data_bytes;
        if (!inside) return br_json_refuse(scope, BR_EFORMAT, "data_offsets", value, expected);
        ends[i] = (size_t)json_integer_value(value);
    }
    if (ends[0] > ends[1]) {
        return br_json_refuse(scope, BR_EFORMAT, "data_offsets", json_array_get(offsets, 0),
                              "a begin that is not above the end");
    }
    e->begin = ends[0];
    e->end = ends[1];
    return BR_OK;
}

static br_status check_size(const entry *e, uint64_t elements, int bits, const parser *p)
{
    const char *name = e->tensor.name.data;
    uint64_t total_bits;
    if (__builtin_mul_overflow(elements, (uint64_t)bits, &total_bits)) {
        return br_fail(p->error, BR_EFORMAT, "%s: tensor %.100s: its shape times its type overflows", p->file,
                       name);
    }
    const uint64_t found = e->end - e->begin;
    if (total_bits % 8 == 0 && total_bits / 8 == found) return BR_OK;
    return br_fail(
        p->error, BR_EFORMAT,
        "%s: tensor %.100s: data_offsets: found %llu bytes, expected %llu from its shape and type %s",
        p->file, name, (unsigned long long)found, (unsigned long long)((total_bits + 7) / 8),
        e->tensor.type_name);
}

static br_status read_entry(entry *e, const parser *p, const char *name, const json_t *info)
{
    char path[128];
    const br_json scope = tensor_scope(p, info, path, name);
    if (!json_is_object(info)) return br_json_refuse(&scope, BR_EFORMAT, "entry", info, "an object");

    const size_t length = strlen(name);
    char *copy = br_arena_array(p->arena, length + 1, 1);
    if (copy == NULL) return br_no_memory(p->error, "%s", p->file);
    memcpy(copy, name, length);
    e->tensor.name = (br_str){copy, length};

    int bits = 0;
    br_status status = read_type(&e->tensor, &bits, &scope);
    if (status != BR_OK) return status;
    uint64_t elements = 0;
    status = read_shape(&e->tensor, &elements, &scope);
    if (status != BR_OK) return status;
    status = read_offsets(e, p, &scope);
    if (status != BR_OK) return status;
    status = check_size(e, elements, bits, p);
    if (status != BR_OK) return status;

    e->tensor.data = p->data + e->begin;
    e->tensor.bytes = e->end - e->begin;
    return BR_OK;
}

/* Fails unless all values are strings. They are not used. */
static br_status check_metadata(const parser *p, const json_t *metadata)
{
    const br_json scope = {.object = metadata, .file = p->file, .path = "", .error = p->error};
    static const char expected[] = "an object of strings";
    if (!json_is_object(metadata)) {
        return br_json_refuse(&scope, BR_EFORMAT, "__metadata__", metadata, expected);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value)
    {
        if (!json_is_string(value)) {
            return br_json_refuse(&scope, BR_EFORMAT, "__metadata__", value, expected);
        }
    }
    return BR_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const entry *x = a;
    const entry *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* Fails unless each tensor begins where the one before it ends, in the order of offsets. */
static br_status check_coverage(const entry *entries, size_t count, const parser *p)
{
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (entries[i].begin != at) {
            return br_fail(p->error, BR_EFORMAT,
                           "%s: tensor %.100s: data_offsets: found a begin at %zu, expected %zu: %s", p->file,
                           entries[i].tensor.name.data, entries[i].begin, at,
                           entries[i].begin < at ? "tensors overlap" : "there is a hole before it");
        }
        at = entries[i].end;
    }
    if (at == p->data_bytes) return BR_OK;
    return br_fail(p->error, BR_EFORMAT, "%s: found %zu bytes of tensor data, expected %zu from the header",
                   p->file, p->data_bytes, at);
}

static int compare_names(const void *a, const void *b)
{
    const br_tensor *x = *(const br_tensor *const *)a;
    const br_tensor *y = *(const br_tensor *const *)b;
    return strcmp(x->name.data, y->name.data);
}

/* Fills *count entries, in the order of their data. */
static br_status read_entries(entry *entries, size_t *count, const parser *p, json_t *header)
{
    *count = 0;
    const char *name;
    json_t *info;
    json_object_foreach(header, name, info)
    {
        br_status status;
        if (strcmp(name, "__metadata__") == 0) {
            status = check_metadata(p, info);
        } else {
            status = read_entry(&entries[*count], p, name, info);
            *count += 1;
        }
        if (status != BR_OK) return status;
    }
    qsort(entries, *count, sizeof *entries, compare_offsets);
    return check_coverage(entries, *count, p);
}

static br_status read_table(br_safetensors *table, const parser *p, json_t *header)
{
    const size_t size = json_object_size(header);
    if (size > BR_TENSORS_MAX) {
        return br_fail(p->error, BR_ETOOBIG, "%s: found %zu tensors, expected at most %d", p->file, size,
                       (int)BR_TENSORS_MAX);
    }
    entry *entries = calloc(size + 1, sizeof *entries); /* never 0 bytes */
    if (entries == NULL) return br_no_memory(p->error, "%s", p->file);

    br_status status = read_entries(entries, &table->count, p, header);
    if (status != BR_OK) goto done;

    table->tensors = br_arena_array(p->arena, table->count + 1, sizeof *table->tensors);
    table->by_name = br_arena_array(p->arena, table->count + 1, sizeof *table->by_name);
    if (table->tensors == NULL || table->by_name == NULL) {
        status = br_no_memory(p->error, "%s", p->file);
        goto done;
    }
    for (size_t i = 0; i < table->count; i++) {
        table->tensors[i] = entries[i].tensor;
        table->by_name[i] = &table->tensors[i];
    }
    qsort(table->by_name, table->count, sizeof(const br_tensor *), compare_names);

done:
    free(entries);
    return status;
}

/* Splits the file into the header's text and the tensors' bytes. */
static br_status split(br_str *header, parser *p, const unsigned char *bytes, size_t size)
{
    if (size < HEADER_SIZE_BYTES) {
        return br_fail(p->error, BR_EFORMAT, "%s: found %zu bytes, expected at least %d", p->file, size,
                       (int)HEADER_SIZE_BYTES);
    }
    uint64_t header_bytes = 0;
    for (int i = HEADER_SIZE_BYTES - 1; i >= 0; i--) header_bytes = header_bytes << 8 | bytes[i];

    if (header_bytes > size - HEADER_SIZE_BYTES) {
        return br_fail(p->error, BR_EFORMAT,
                       "%s: header size: found %llu, expected at most the %zu bytes that follow it", p->file,
                       (unsigned long long)header_bytes, size - HEADER_SIZE_BYTES);
    }
    const unsigned char *text = bytes + HEADER_SIZE_BYTES;
    if (header_bytes == 0 || text[0] != '{') {
        return br_fail(p->error, BR_EFORMAT, "%s: header: expected it to begin with '{'", p->file);
    }
    *header = (br_str){(const char *)text, (size_t)header_bytes};
    p->data = text + header_bytes;
    p->data_bytes = size - HEADER_SIZE_BYTES - (size_t)header_bytes;
    return BR_OK;
}

br_status br_safetensors_create(br_safetensors **out, const void *bytes, size_t size, const char *file,
                                br_error *error)
{
    *out = NULL;
    br_safetensors *table = calloc(1, sizeof *table); /* zeroed: destroy is safe from here on */
    if (table == NULL) return br_no_memory(error, "%s", file);
    br_arena_init(&table->arena);
    parser p = {.file = file, .error = error, .arena = &table->arena};

    json_t *header = NULL;
    br_str text;
    br_status status = split(&text, &p, bytes, size);
    if (status != BR_OK) goto done;
    status = br_json_parse(&header, text, BR_SAFETENSORS_HEADER_BYTES_MAX, file, error);
    if (status != BR_OK) goto done;
    status = read_table(table, &p, header);
    if (status != BR_OK) goto done;
    *out = table;
    table = NULL;

done:
    json_decref(header);
    br_safetensors_destroy(table);
    return status;
}

void br_safetensors_destroy(br_safetensors *table)
{
    if (table == NULL) return;
    br_arena_deinit(&table->arena);
    free(table);
}

size_t br_safetensors_count(const br_safetensors *table)
{
    return table->count;
}

const br_tensor *br_safetensors_at(const br_safetensors *table, size_t index)
{
    assert(index < table->count);
    return &table->tensors[index];
}

const br_tensor *br_safetensors_find(const br_safetensors *table, const char *name)
{
    size_t low = 0;
    size_t high = table->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(table->by_name[middle]->name.data, name);
        if (order == 0) return table->by_name[middle];
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}
