/*
 * fields.c - the known keys of a map, read and refused by name.
 */
#include "fields.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/limits.h"
#include "core/nearest.h"

enum { PLACE_BYTES = 160 };

/* Writes "queries[3].policy." and returns its length. Names are ours and short: it always fits. */
static size_t write_place(char *out, size_t size, const br_place *place)
{
    if (place == NULL) return 0;
    size_t used = write_place(out, size, place->outer);
    int more = place->index < 0
                   ? snprintf(out + used, size - used, "%s.", place->name)
                   : snprintf(out + used, size - used, "%s[%" PRId64 "].", place->name, place->index);
    assert(more > 0);
    assert(used + (size_t)more < size);
    return used + (size_t)more;
}

br_status br_field_fail(const br_fields *fields, size_t key, br_status status, const char *format, ...)
{
    char place[PLACE_BYTES] = "";
    write_place(place, sizeof place, fields->place);
    char text[BR_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return br_fail(fields->error, status, "%s%.*s: %s", place, (int)fields->keys[key].size,
                   fields->keys[key].data, text);
}

br_status br_field_no_memory(const br_fields *fields, size_t key)
{
    return br_field_fail(fields, key, BR_ENOMEM, "out of memory");
}

br_status br_field_expected(const br_fields *fields, size_t key, const char *what, br_wire found)
{
    return br_field_fail(fields, key, BR_EINVAL, "expected %s, found %s", what,
                         br_wire_type_name(found.type));
}

/* An error about the map itself: "queries[3]: ...", or "the message: ...". */
static br_status fail_map(const br_place *place, br_error *error, br_status status, const char *text)
{
    char name[PLACE_BYTES] = "";
    size_t size = write_place(name, sizeof name, place);
    if (size == 0) return br_fail(error, status, "the message: %s", text);
    name[size - 1] = '\0'; /* the last dot */
    return br_fail(error, status, "%s: %s", name, text);
}

static br_status fail_bytes(const br_place *place, br_error *error, const br_reader *reader)
{
    if (!reader->too_deep) return fail_map(place, error, BR_EFORMAT, "truncated, or not msgpack");
    char text[64];
    (void)snprintf(text, sizeof text, "a value is nested deeper than %d levels", BR_NESTING_MAX);
    return fail_map(place, error, BR_EFORMAT, text);
}

static size_t find_key(br_str word, const br_str *keys, size_t key_count)
{
    size_t key = 0;
    while (key < key_count && !br_str_equal(word, keys[key])) key++;
    return key;
}

static bool is_nil(const uint8_t *value, const uint8_t *end)
{
    br_reader reader = {.at = value, .end = end};
    return br_read(&reader).type == BR_WIRE_NIL;
}

enum { SHOWN_KEY_BYTES = 40 };

/* The bytes come from outside: an error's text is printable. */
static void copy_shown(char out[SHOWN_KEY_BYTES + 1], br_str word)
{
    const size_t size = word.size < SHOWN_KEY_BYTES ? word.size : SHOWN_KEY_BYTES;
    for (size_t i = 0; i < size; i++)
        out[i] = word.data[i] >= ' ' && word.data[i] <= '~' ? word.data[i] : '?';
    out[size] = '\0';
}

br_status br_fields_unknown(const br_fields *fields)
{
    if (fields->nearest == NULL) return BR_OK;
    char place[PLACE_BYTES] = "";
    write_place(place, sizeof place, fields->place);
    char shown[SHOWN_KEY_BYTES + 1];
    copy_shown(shown, fields->unknown);
    return br_fail(fields->error, BR_EINVAL, "%s%s: unknown key; nearest is %s", place, shown,
                   fields->nearest);
}

/* The known key with the fewest edits, however many those are. */
static const char *find_nearest(const br_fields *fields, size_t key_count, br_str word, size_t *edits)
{
    size_t nearest = 0;
    *edits = SIZE_MAX;
    for (size_t key = 0; key < key_count; key++) {
        const size_t distance = br_edit_distance(word, fields->keys[key]);
        if (distance >= *edits) continue;
        *edits = distance;
        nearest = key;
    }
    return fields->keys[nearest].data;
}

static void meet_unknown(br_fields *fields, size_t key_count, br_str word, br_unknown_keys unknown)
{
    const bool own = word.size >= 2 && memcmp(word.data, "x_", 2) == 0;
    if (unknown == BR_UNKNOWN_SKIPPED || own || fields->nearest != NULL) return;
    size_t edits;
    const char *nearest = find_nearest(fields, key_count, word, &edits);
    if (unknown == BR_UNKNOWN_NEAR_REFUSED && edits > BR_NEAR_KEY_EDITS) return;
    fields->unknown = word;
    fields->nearest = nearest;
}

br_status br_fields_read(br_fields *out, br_reader *reader, const br_str *keys, size_t key_count,
                         br_unknown_keys unknown, const br_place *place, br_error *error)
{
    assert(key_count <= BR_FIELDS_MAX);
    static_assert(BR_FIELDS_MAX <= 32, "a bit for each key");
    *out = (br_fields){.keys = keys, .end = reader->end, .place = place, .error = error};

    br_wire head = br_read(reader);
    if (reader->failed) return fail_bytes(place, error, reader);
    if (head.type != BR_WIRE_MAP) {
        char text[64];
        (void)snprintf(text, sizeof text, "expected a map, found %s", br_wire_type_name(head.type));
        br_skip_body(reader, head);
        return reader->failed ? fail_bytes(place, error, reader) : fail_map(place, error, BR_EINVAL, text);
    }

    /* Malformed bytes are reported before any other fault, so the whole map is read first. */
    br_status status = BR_OK;
    uint32_t met = 0; /* a bit for each key */
    for (uint32_t pair = 0; pair < head.as.count && !reader->failed; pair++) {
        br_wire word = br_read(reader);
        if (word.type != BR_WIRE_STR) {
            br_skip_body(reader, word);
            br_skip(reader);
            if (!reader->failed) status = fail_map(place, error, BR_EINVAL, "a key is not a string");
            continue;
        }
        const uint8_t *value = reader->at;
        br_skip(reader);
        if (reader->failed) continue;
        size_t key = find_key(word.as.bytes, keys, key_count);
        if (key == key_count) {
            meet_unknown(out, key_count, word.as.bytes, unknown);
            continue;
        }
        const bool twice = (met >> key & 1) != 0;
        met |= UINT32_C(1) << key;
        if (twice) status = br_field_fail(out, key, BR_EINVAL, "given twice");
        if (!twice && !is_nil(value, reader->end)) out->values[key] = value;
    }
    if (!reader->failed && status == BR_OK && unknown == BR_UNKNOWN_REFUSED) return br_fields_unknown(out);
    if (!reader->failed) return status;
    if (error != NULL) *error = (br_error){0};
    return fail_bytes(place, error, reader);
}

bool br_field_present(const br_fields *fields, size_t key)
{
    return fields->values[key] != NULL;
}

br_reader br_field_reader(const br_fields *fields, size_t key)
{
    assert(fields->values[key] != NULL);
    return (br_reader){.at = fields->values[key], .end = fields->end};
}

static br_wire read_value(const br_fields *fields, size_t key)
{
    br_reader reader = br_field_reader(fields, key);
    return br_read(&reader);
}

br_status br_field_bool(const br_fields *fields, size_t key, bool *out)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_wire value = read_value(fields, key);
    if (value.type != BR_WIRE_BOOL) return br_field_expected(fields, key, "a bool", value);
    *out = value.as.boolean;
    return BR_OK;
}

br_status br_field_uint(const br_fields *fields, size_t key, uint64_t *out)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_wire value = read_value(fields, key);
    if (value.type != BR_WIRE_UINT) return br_field_expected(fields, key, "an unsigned integer", value);
    *out = value.as.uint;
    return BR_OK;
}

br_status br_field_real(const br_fields *fields, size_t key, double *out)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_wire value = read_value(fields, key);
    double real = 0;
    switch (value.type) {
    case BR_WIRE_UINT:
        real = (double)value.as.uint;
        break;
    case BR_WIRE_INT:
        real = (double)value.as.sint;
        break;
    case BR_WIRE_FLOAT:
        real = value.as.real;
        break;
    default:
        return br_field_expected(fields, key, "a number", value);
    }
    if (!isfinite(real)) {
        return br_field_fail(fields, key, BR_EINVAL, "expected a finite number, found %s",
                             isnan(real) ? "NaN" : "an infinity");
    }
    *out = real;
    return BR_OK;
}

br_status br_field_str(const br_fields *fields, size_t key, br_str *out)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_wire value = read_value(fields, key);
    if (value.type != BR_WIRE_STR) return br_field_expected(fields, key, "a string", value);
    *out = value.as.bytes;
    return BR_OK;
}

br_status br_field_array(const br_fields *fields, size_t key, br_reader *out, uint32_t *count)
{
    *out = br_field_reader(fields, key);
    br_wire head = br_read(out);
    if (head.type != BR_WIRE_ARRAY) return br_field_expected(fields, key, "an array", head);
    *count = head.as.count;
    return BR_OK;
}

br_status br_field_strs(const br_fields *fields, size_t key, size_t count_max, br_arena *arena,
                        const br_str **out, size_t *count)
{
    if (!br_field_present(fields, key)) return BR_OK;
    br_reader reader;
    uint32_t found = 0;
    br_status status = br_field_array(fields, key, &reader, &found);
    if (status != BR_OK) return status;
    if (found > count_max) {
        return br_field_fail(fields, key, BR_EINVAL, "expected at most %zu strings, found %" PRIu32,
                             count_max, found);
    }

    br_str *strs = br_arena_array(arena, found, sizeof *strs);
    if (strs == NULL) return br_field_no_memory(fields, key);
    for (uint32_t i = 0; i < found; i++) {
        br_wire value = br_read(&reader);
        if (value.type != BR_WIRE_STR) return br_field_expected(fields, key, "strings", value);
        strs[i] = value.as.bytes;
    }
    *out = strs;
    *count = found;
    return BR_OK;
}
