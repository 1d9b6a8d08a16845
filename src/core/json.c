/* json.c - typed getters over jansson. */
#include "json.h"
#include "memory.h"
#include "nearest.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

br_status br_json_parse(json_t **out, br_str text, size_t bytes_max, const char *file, br_error *error)
{
    *out = NULL;
    if (text.size > bytes_max) {
        return br_fail(error, BR_ETOOBIG, "%s: found %zu bytes of JSON, expected at most %zu", file,
                       text.size, bytes_max);
    }

    json_error_t reason;
    /* jansson takes NULL for a misuse rather than for an empty text. */
    json_t *top = json_loadb(text.size == 0 ? "" : text.data, text.size, JSON_REJECT_DUPLICATES, &reason);
    if (top == NULL) {
        if (json_error_code(&reason) == json_error_out_of_memory) {
            return br_no_memory(error, "%s", file);
        }
        return br_fail(error, BR_EFORMAT, "%s: line %d, byte %d: not the JSON expected: %s", file,
                       reason.line, reason.position, reason.text);
    }
    if (!json_is_object(top)) {
        char found[BR_JSON_FOUND_BYTES];
        const br_status status = br_fail(error, BR_EFORMAT, "%s: found %s at the top, expected an object",
                                         file, br_json_found(found, top));
        json_decref(top);
        return status;
    }
    *out = top;
    return BR_OK;
}

/* Bytes of `text` to quote: at most 64, not ending inside a character. */
static int quoted_bytes(const char *text)
{
    enum { QUOTED_MAX = 64 };
    int count = 0;
    while (count <= QUOTED_MAX && text[count] != '\0') count++;
    if (count <= QUOTED_MAX) return count;
    count = QUOTED_MAX;
    while (count > 0 && ((unsigned char)text[count] & 0xc0u) == 0x80u) count--;
    return count;
}

const char *br_json_found(char found[BR_JSON_FOUND_BYTES], const json_t *value)
{
    const size_t size = BR_JSON_FOUND_BYTES;
    if (value == NULL) {
        snprintf(found, size, "nothing");
        return found;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(found, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(found, size, "an array of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(found, size, "the string \"%.*s\"", quoted_bytes(json_string_value(value)),
                 json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(found, size, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(found, size, "%.17g", json_real_value(value));
        break;
    case JSON_TRUE:
        snprintf(found, size, "true");
        break;
    case JSON_FALSE:
        snprintf(found, size, "false");
        break;
    case JSON_NULL:
        snprintf(found, size, "null");
        break;
    }
    return found;
}

br_status br_json_refuse(const br_json *scope, br_status status, const char *key, const json_t *value,
                         const char *expected)
{
    char found[BR_JSON_FOUND_BYTES];
    return br_fail(scope->error, status, "%s: %s%.*s: found %s, expected %s", scope->file, scope->path,
                   quoted_bytes(key), key, br_json_found(found, value), expected);
}

bool br_json_has(const br_json *scope, const char *key)
{
    return json_object_get(scope->object, key) != NULL;
}

br_status br_json_require(const br_json *scope, const char *key, const char *expected)
{
    if (br_json_has(scope, key)) return BR_OK;
    return br_json_refuse(scope, BR_EINVAL, key, NULL, expected);
}

br_status br_json_bool(const br_json *scope, const char *key, bool *value)
{
    const json_t *found = json_object_get(scope->object, key);
    if (found == NULL) return BR_OK;
    if (!json_is_boolean(found)) return br_json_refuse(scope, BR_EFORMAT, key, found, "true or false");
    *value = json_is_true(found);
    return BR_OK;
}

br_status br_json_int(const br_json *scope, const char *key, int64_t low, int64_t high, int64_t *value)
{
    const json_t *found = json_object_get(scope->object, key);
    if (found == NULL) return BR_OK;

    char expected[80];
    snprintf(expected, sizeof expected, "an integer in %lld..%lld", (long long)low, (long long)high);
    if (!json_is_integer(found)) return br_json_refuse(scope, BR_EFORMAT, key, found, expected);
    const int64_t number = json_integer_value(found);
    if (number < low || number > high) return br_json_refuse(scope, BR_EINVAL, key, found, expected);
    *value = number;
    return BR_OK;
}

br_status br_json_int32(const br_json *scope, const char *key, int32_t low, int32_t high, int32_t *value)
{
    int64_t wide = *value;
    const br_status status = br_json_int(scope, key, low, high, &wide);
    if (status == BR_OK) *value = (int32_t)wide;
    return status;
}

br_status br_json_number(const br_json *scope, const char *key, double low, double high, double *value)
{
    const json_t *found = json_object_get(scope->object, key);
    if (found == NULL) return BR_OK;

    char expected[80];
    snprintf(expected, sizeof expected, "a number in %g..%g", low, high);
    if (!json_is_number(found)) return br_json_refuse(scope, BR_EFORMAT, key, found, expected);
    const double number = json_number_value(found);
    const bool inside = isfinite(number) && number >= low && number <= high;
    if (!inside) return br_json_refuse(scope, BR_EINVAL, key, found, expected);
    *value = number;
    return BR_OK;
}

br_status br_json_text(const br_json *scope, const char *key, char *value, size_t size)
{
    const json_t *found = json_object_get(scope->object, key);
    if (found == NULL) return BR_OK;

    char expected[80];
    snprintf(expected, sizeof expected, "a string of 1..%zu bytes", size - 1);
    if (!json_is_string(found)) return br_json_refuse(scope, BR_EFORMAT, key, found, expected);
    const size_t length = json_string_length(found);
    if (length == 0 || length >= size) return br_json_refuse(scope, BR_EINVAL, key, found, expected);
    memcpy(value, json_string_value(found), length);
    value[length] = '\0';
    return BR_OK;
}

static bool is_listed(const json_t *names, const char *key)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name != NULL && strcmp(name, key) == 0) return true;
    }
    return false;
}

static bool is_known(const br_json_keys *keys, const char *key)
{
    if (strncmp(key, "x_", 2) == 0 || is_listed(keys->optional, key)) return true;
    for (size_t i = 0; keys->known[i] != NULL; i++)
        if (strcmp(keys->known[i], key) == 0) return true;
    return false;
}

br_status br_json_known(const br_json *scope, const br_json_keys *keys)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)scope->object, key, value)
    {
        if (is_known(keys, key)) continue;
        const char *nearest = keys->known[0];
        size_t fewest = SIZE_MAX;
        for (size_t i = 0; keys->known[i] != NULL; i++) {
            const size_t edits = br_edit_distance(br_str_from(key), br_str_from(keys->known[i]));
            if (edits < fewest) nearest = keys->known[i];
            if (edits < fewest) fewest = edits;
        }
        return br_fail(scope->error, BR_EINVAL, "%s: %s%.*s: unknown key; nearest is %s", scope->file,
                       scope->path, quoted_bytes(key), key, nearest);
    }
    return BR_OK;
}

void br_json_drop_nulls(json_t *value)
{
    const char *key;
    void *next;
    json_t *member;
    json_object_foreach_safe(value, next, key, member)
    {
        if (json_is_null(member))
            (void)json_object_del(value, key);
        else
            br_json_drop_nulls(member);
    }
    for (size_t i = 0; i < json_array_size(value); i++) br_json_drop_nulls(json_array_get(value, i));
}

br_str br_json_view(const json_t *string)
{
    return (br_str){json_string_value(string), json_string_length(string)};
}

br_status br_json_item(br_json *out, char path[BR_JSON_PATH_BYTES], const br_json *scope, const char *key,
                       const json_t *list, size_t index)
{
    const json_t *value = json_array_get(list, index);
    if (!json_is_object(value)) {
        char name[BR_JSON_PATH_BYTES];
        snprintf(name, sizeof name, "%s[%zu]", key, index);
        return br_json_refuse(scope, BR_EFORMAT, name, value, "an object");
    }
    snprintf(path, BR_JSON_PATH_BYTES, "%s%s[%zu].", scope->path, key, index);
    *out = (br_json){.object = value, .file = scope->file, .path = path, .error = scope->error};
    return BR_OK;
}
