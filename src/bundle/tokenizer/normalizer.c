/*
 * normalizer.c - see normalizer.h.
 *
 * The character map is SentencePiece's: a double-array trie over the bytes of
 * the texts to replace (darts-clone's units, little endian), whose values are
 * offsets into replacements, each ended by a NUL:
 *
 *   4 bytes trie size | trie | replacements
 *
 * The trie comes from a file, so each step checks its index.
 */
#include "normalizer.h"

#include <assert.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/utf8.h"

enum {
    UNIT_BYTES = 4,
    REPLACEMENT_BYTES_MAX = 64, /* the longest of Unicode's NFKC is 33 */
    WHOLE_BYTES_MAX = 5,        /* of a cluster that rules match as a whole */
    /* The most that one step writes: each character of a cluster replaced by spaces, and the first mark. */
    WRITTEN_MAX = (WHOLE_BYTES_MAX + 1) * REPLACEMENT_BYTES_MAX * BR_SPACE_MARK_BYTES + BR_SPACE_MARK_BYTES,
};

static_assert((int)WRITTEN_MAX < (int)NORMALIZER_ROOM_MIN, "one step fits the least room");

struct normalizer {
    uint32_t *units;
    size_t unit_count;
    char *replacements; /* ends with a NUL */
    size_t replacement_bytes;
    bool plain[128]; /* true for ASCII that no rule changes, but for the space and the "[" of "[SEP]" */
};

static uint32_t unit_label(uint32_t unit)
{
    return unit & (UINT32_C(1) << 31 | 0xFF);
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (UINT32_C(1) << 9)) >> 6);
}

static bool unit_has_leaf(uint32_t unit)
{
    return (unit >> 8 & 1) != 0;
}

/* The replacement of the shortest rule that matches the beginning of text[0 .. size]; data is NULL: no rule
 * does. */
static br_str replacement_of(const normalizer *n, const char *text, size_t size)
{
    if (n->unit_count == 0) return (br_str){0};
    size_t at = unit_offset(n->units[0]);
    for (size_t i = 0; i < size && text[i] != '\0'; i++) {
        const uint32_t byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= n->unit_count) break;
        const uint32_t unit = n->units[at];
        if (unit_label(unit) != byte) break;
        at ^= unit_offset(unit);
        if (!unit_has_leaf(unit)) continue;

        if (at >= n->unit_count) break;
        const size_t value = n->units[at] & (UINT32_MAX >> 1);
        if (value >= n->replacement_bytes || br_utf8_is_continuation(n->replacements[value])) break;
        return br_str_from(n->replacements + value);
    }
    return (br_str){0};
}

static const char *check_replacements(br_str texts)
{
    if (texts.size == 0 || texts.data[texts.size - 1] != '\0') return "replacements do not end with a NUL";
    if (br_utf8_invalid_at(texts.data, texts.size) != texts.size) return "replacements are not UTF-8";
    for (size_t at = 0; at < texts.size;) {
        const size_t size = strlen(texts.data + at);
        if (size > REPLACEMENT_BYTES_MAX) return "a replacement is too long";
        at += size + 1;
    }
    return NULL;
}

static br_status read_map(normalizer *n, br_str map, const char *file, br_error *error)
{
    const unsigned char *bytes = (const unsigned char *)map.data;
    if (map.size < UNIT_BYTES) return br_fail(error, BR_EFORMAT, "%s: the character map is cut off", file);
    const size_t trie_bytes =
        bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
    if (trie_bytes > map.size - UNIT_BYTES || trie_bytes % UNIT_BYTES != 0 || trie_bytes == 0) {
        return br_fail(error, BR_EFORMAT, "%s: the character map's trie has %zu bytes of %zu", file,
                       trie_bytes, map.size);
    }
    const br_str texts = {map.data + UNIT_BYTES + trie_bytes, map.size - UNIT_BYTES - trie_bytes};
    const char *wrong = check_replacements(texts);
    if (wrong != NULL) return br_fail(error, BR_EFORMAT, "%s: the character map's %s", file, wrong);

    n->units = calloc(trie_bytes / UNIT_BYTES, sizeof *n->units);
    n->replacements = malloc(texts.size);
    if (n->units == NULL || n->replacements == NULL) return br_no_memory(error, "%s", file);
    memcpy(n->replacements, texts.data, texts.size);
    n->replacement_bytes = texts.size;
    n->unit_count = trie_bytes / UNIT_BYTES;
    for (size_t i = 0; i < n->unit_count; i++) {
        const unsigned char *unit = bytes + UNIT_BYTES + i * UNIT_BYTES;
        n->units[i] = unit[0] | (uint32_t)unit[1] << 8 | (uint32_t)unit[2] << 16 | (uint32_t)unit[3] << 24;
    }
    return BR_OK;
}

br_status normalizer_create(normalizer **out, br_str charsmap, const char *file, br_error *error)
{
    *out = NULL;
    normalizer *n = calloc(1, sizeof *n);
    if (n == NULL) return br_no_memory(error, "%s", file);
    if (charsmap.size > 0) {
        const br_status status = read_map(n, charsmap, file, error);
        if (status != BR_OK) {
            normalizer_destroy(n);
            return status;
        }
    }
    for (int c = '!'; c <= '~'; c++) {
        const char text = (char)c;
        n->plain[c] = c != '[' && replacement_of(n, &text, 1).data == NULL;
    }
    *out = n;
    return BR_OK;
}

void normalizer_destroy(normalizer *n)
{
    if (n == NULL) return;
    free(n->units);
    free(n->replacements);
    free(n);
}

typedef struct output {
    normalizing *reading;
    char *at;
} output;

static void write_bytes(output *out, const char *bytes, size_t size)
{
    memcpy(out->at, bytes, size);
    out->at += size;
}

/* Writes a mark before the first character, unless that is a space or a mark itself. */
static void write_first(output *out, const char *bytes, size_t size)
{
    const bool marked =
        bytes[0] == ' ' || (size == BR_SPACE_MARK_BYTES && memcmp(bytes, BR_SPACE_MARK, size) == 0);
    if (!marked) write_bytes(out, BR_SPACE_MARK, BR_SPACE_MARK_BYTES);
    out->reading->started = true;
}

/* Steps 4 and 5 of normalizer.h, for one character. */
static void write_character(output *out, const char *bytes, size_t size)
{
    normalizing *r = out->reading;
    if (!r->started) write_first(out, bytes, size);
    const bool space = bytes[0] == ' ';
    if (!space) {
        write_bytes(out, bytes, size);
    } else if (!r->last_space) {
        write_bytes(out, BR_SPACE_MARK, BR_SPACE_MARK_BYTES);
    }
    r->last_space = space;
}

static void write_text(output *out, br_str text)
{
    for (size_t i = 0; i < text.size;) {
        const size_t size = br_utf8_size(text.data[i]);
        write_character(out, text.data + i, size);
        i += size;
    }
}

static void map_character(output *out, const char *bytes, size_t size)
{
    const br_str replacement = replacement_of(out->reading->normalizer, bytes, size);
    if (replacement.data != NULL) {
        write_text(out, replacement);
    } else {
        write_character(out, bytes, size);
    }
}

static void map_characters(output *out, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size;) {
        const size_t step = br_utf8_size(bytes[i]);
        map_character(out, bytes + i, step);
        i += step;
    }
}

/* Step 3 for a complete cluster. */
static void end_cluster(output *out)
{
    normalizing *r = out->reading;
    if (r->cluster_bytes > 0 && !r->spilled) {
        const br_str replacement = replacement_of(r->normalizer, r->cluster, r->cluster_bytes);
        if (replacement.data != NULL) {
            write_text(out, replacement);
        } else {
            map_characters(out, r->cluster, r->cluster_bytes);
        }
    }
    r->cluster_bytes = 0;
    r->spilled = false;
}

/* Adds a character to the cluster. */
static void extend_cluster(output *out, const char *bytes, size_t size)
{
    normalizing *r = out->reading;
    if (!r->spilled && r->cluster_bytes + size <= WHOLE_BYTES_MAX) {
        memcpy(r->cluster + r->cluster_bytes, bytes, size);
        r->cluster_bytes += size;
        return;
    }
    if (!r->spilled) {
        map_characters(out, r->cluster, r->cluster_bytes);
        r->spilled = true;
        r->cluster_bytes = 1; /* not empty */
    }
    map_character(out, bytes, size);
}

static const br_str separator = {"[SEP]", 5};

static bool is_separator(const char *at, const char *end)
{
    return (size_t)(end - at) >= separator.size && memcmp(at, separator.data, separator.size) == 0;
}

/* Unicode's White_Space. */
static bool is_white_space(uint32_t code)
{
    if (code <= 0x20) return code == 0x20 || (code >= 0x09 && code <= 0x0D);
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* Step 2 of normalizer.h. */
static void strip(normalizing *r)
{
    while (r->at < r->end) {
        const size_t size = br_utf8_size(*r->at);
        if (is_separator(r->at, r->end)) {
            r->at += separator.size;
        } else if (is_white_space(br_utf8_code(r->at, size))) {
            r->at += size;
        } else {
            break;
        }
    }
    while (r->at < r->end) {
        const char *last = r->end - 1;
        while (br_utf8_is_continuation(*last)) last--;
        if (*last == ']' && (size_t)(r->end - r->at) >= separator.size &&
            is_separator(r->end - separator.size, r->end)) {
            r->end -= separator.size;
        } else if (is_white_space(br_utf8_code(last, (size_t)(r->end - last)))) {
            r->end = last;
        } else {
            break;
        }
    }
}

void normalizing_begin(normalizing *reading, const normalizer *n, br_str text)
{
    const char *start = text.size == 0 ? "" : text.data;
    *reading = (normalizing){.normalizer = n, .at = start, .end = start + text.size};
    strip(reading);
}

/* Copies plain ASCII characters that ASCII follows: each of them is a cluster of its own. */
static void copy_plain(output *out, const char *limit)
{
    normalizing *r = out->reading;
    const bool *plain = r->normalizer->plain;
    const char *at = r->at;
    const char *last = r->end - 1;
    if (at >= last || (signed char)at[0] < 0 || (signed char)at[1] < 0 || !plain[(unsigned char)at[0]])
        return;
    if (!r->started) write_first(out, at, 1);
    while (at < last && out->at < limit) {
        if ((signed char)at[0] < 0 || (signed char)at[1] < 0 || !plain[(unsigned char)at[0]]) break;
        *out->at++ = *at++;
    }
    r->last_space = false;
    r->at = at;
}

/* Takes one character of the text, or ends the cluster before it. */
static void step(output *out)
{
    normalizing *r = out->reading;
    const bool cut = *r->at == '[' && is_separator(r->at, r->end);
    const size_t size = cut ? separator.size : br_utf8_size(*r->at);
    const uint32_t code = cut ? ' ' : br_utf8_code(r->at, size);
    if (r->cluster_bytes == 0) {
        grapheme_begin(&r->grapheme, code);
    } else if (!grapheme_joins(&r->grapheme, code)) {
        end_cluster(out);
        return; /* the next step takes this character, as the first of a cluster */
    }
    extend_cluster(out, cut ? " " : r->at, cut ? 1 : size);
    r->at += size;
}

size_t normalizing_read(normalizing *reading, char *out, size_t room)
{
    assert(room >= NORMALIZER_ROOM_MIN);
    output o = {.reading = reading, .at = out};
    const char *limit = out + room - WRITTEN_MAX;
    while (reading->at < reading->end && o.at < limit) {
        if (reading->cluster_bytes == 0) copy_plain(&o, limit);
        if (reading->at < reading->end) step(&o);
    }
    if (reading->at == reading->end) end_cluster(&o);
    return (size_t)(o.at - out);
}
