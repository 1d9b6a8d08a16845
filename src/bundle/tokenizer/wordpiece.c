/* wordpiece.c - see wordpiece.h. Pieces lie in the copied file;
 * a hash table of open addressing finds them. */
#include "wordpiece.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/limits.h"
#include "core/utf8.h"

/* The kinds of characters that normalizing and cutting into words tell apart. */
typedef enum kind { ORDINARY, DROPPED, SPACE, MARK, IDEOGRAPH, PUNCTUATION } kind;

typedef struct wordpiece_range {
    uint32_t first;
    uint32_t last;
    kind what;
} wordpiece_range;

#include "core/memory.h"
#include "wordpiece_table.h"

enum { WORD_CHARACTERS_MAX = 100, WORD_BYTES_MAX = 4 * WORD_CHARACTERS_MAX, INSIDE_BYTES = 2 };

struct wordpiece {
    char *text;     /* the file */
    br_str *lines;  /* [count], into text */
    int32_t *slots; /* [slot_count], id or -1; a power of two */
    size_t slot_count;
    size_t longest; /* bytes of the longest line */
    int32_t count;
    int32_t unknown;
    bool lowercase;
};

/* The kind of a character, from the table's ranges. */
static kind kind_of(uint32_t code)
{
    size_t low = 0;
    size_t high = sizeof wordpiece_ranges / sizeof wordpiece_ranges[0];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (code > wordpiece_ranges[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    const bool inside =
        low < sizeof wordpiece_ranges / sizeof wordpiece_ranges[0] && code >= wordpiece_ranges[low].first;
    return inside ? wordpiece_ranges[low].what : ORDINARY;
}

/* Decomposed, without marks, in lower case; returns how many characters that is. */
static size_t lower(uint32_t out[MAPPED_MAX], uint32_t code)
{
    enum { HANGUL = 0xac00, HANGUL_COUNT = 11172, PER_LEAD = 588, PER_VOWEL = 28 };
    if (code >= HANGUL && code < HANGUL + HANGUL_COUNT) {
        const uint32_t index = code - HANGUL;
        out[0] = 0x1100 + index / PER_LEAD;
        out[1] = 0x1161 + index % PER_LEAD / PER_VOWEL;
        out[2] = 0x11a7 + index % PER_VOWEL;
        return index % PER_VOWEL == 0 ? 2 : 3;
    }
    size_t low = 0;
    size_t high = sizeof wordpiece_lower / sizeof wordpiece_lower[0];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (code > wordpiece_lower[middle].code)
            low = middle + 1;
        else
            high = middle;
    }
    out[0] = code;
    if (low == sizeof wordpiece_lower / sizeof wordpiece_lower[0] || wordpiece_lower[low].code != code)
        return 1;
    size_t count = 0;
    for (; count < MAPPED_MAX && wordpiece_lower[low].lower[count] != 0; count++)
        out[count] = wordpiece_lower[low].lower[count];
    return count;
}

/* Hashes part by part: a piece inside a word is looked up as "##" and its bytes, which are not copied
 * together. */
static uint64_t hash_more(uint64_t hash, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3U; /* FNV-1a */
    return hash;
}

static size_t first_slot(const wordpiece *w, bool inside, const char *bytes, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325U;
    if (inside) hash = hash_more(hash, "##", INSIDE_BYTES);
    hash = hash_more(hash, bytes, size);
    return (size_t)(hash ^ hash >> 32) & (w->slot_count - 1);
}

static bool is_piece(br_str line, bool inside, const char *bytes, size_t size)
{
    const size_t lead = inside ? INSIDE_BYTES : 0;
    if (line.size != lead + size) return false;
    return memcmp(line.data, "##", lead) == 0 && memcmp(line.data + lead, bytes, size) == 0;
}

/* The slot of the piece, or the empty slot where it would be inserted. */
static size_t slot_of(const wordpiece *w, bool inside, const char *bytes, size_t size)
{
    size_t slot = first_slot(w, inside, bytes, size);
    while (w->slots[slot] >= 0 && !is_piece(w->lines[w->slots[slot]], inside, bytes, size))
        slot = (slot + 1) & (w->slot_count - 1);
    return slot;
}

int32_t wordpiece_find(const wordpiece *w, br_str piece)
{
    return w->slots[slot_of(w, false, piece.data, piece.size)];
}

int32_t wordpiece_count(const wordpiece *w)
{
    return w->count;
}

static size_t count_lines(br_str text)
{
    size_t count = 0;
    for (size_t i = 0; i < text.size; i++) count += text.data[i] == '\n';
    return count + (text.size > 0 && text.data[text.size - 1] != '\n');
}

/* Of two equal lines the later one has the id, as in Hugging Face's reader. */
static void add_lines(wordpiece *w, size_t bytes)
{
    size_t at = 0;
    for (int32_t id = 0; id < w->count; id++) {
        const char *end = memchr(w->text + at, '\n', bytes - at);
        const size_t next = end != NULL ? (size_t)(end - w->text) + 1 : bytes;
        size_t size = next - at - (end != NULL);
        if (size > 0 && w->text[at + size - 1] == '\r') size--;
        const size_t slot = slot_of(w, false, w->text + at, size);
        w->lines[id] = (br_str){w->text + at, size};
        w->slots[slot] = id;
        if (size > w->longest) w->longest = size;
        at = next;
    }
}

static br_status check_special(wordpiece *w, const char *file, br_error *error)
{
    static const char *const words[] = {"[UNK]", "[CLS]", "[SEP]"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (wordpiece_find(w, br_str_from(words[i])) < 0)
            return br_fail(error, BR_EINVAL, "%s: has no line %s", file, words[i]);
    }
    w->unknown = wordpiece_find(w, BR_STR_LITERAL("[UNK]"));
    return BR_OK;
}

br_status wordpiece_create(wordpiece **out, br_str vocab, bool lowercase, const char *file, br_error *error)
{
    *out = NULL;
    const size_t count = count_lines(vocab);
    if (count > BR_VOCAB_MAX)
        return br_fail(error, BR_ETOOBIG, "%s: found %zu lines, expected at most %d", file, count,
                       BR_VOCAB_MAX);
    if (br_utf8_invalid_at(vocab.data, vocab.size) != vocab.size)
        return br_fail(error, BR_EFORMAT, "%s: found a byte that is not UTF-8 at %zu", file,
                       br_utf8_invalid_at(vocab.data, vocab.size));

    br_status status;
    wordpiece *w = calloc(1, sizeof *w);
    if (w == NULL) return br_no_memory(error, "%s", file);
    w->count = (int32_t)count;
    w->lowercase = lowercase;
    w->slot_count = 2;
    while (w->slot_count < 2 * count) w->slot_count *= 2;
    w->text = br_alloc_array(vocab.size + 1, 1);
    w->lines = br_alloc_array(count + 1, sizeof *w->lines);
    w->slots = br_alloc_array(w->slot_count, sizeof *w->slots);
    if (w->text == NULL || w->lines == NULL || w->slots == NULL) {
        status = br_no_memory(error, "%s", file);
        goto fail;
    }
    if (vocab.size > 0) memcpy(w->text, vocab.data, vocab.size);
    for (size_t i = 0; i < w->slot_count; i++) w->slots[i] = -1;
    add_lines(w, vocab.size);
    status = check_special(w, file, error);
    if (status != BR_OK) goto fail;
    *out = w;
    return BR_OK;

fail:
    wordpiece_destroy(w);
    return status;
}

void wordpiece_destroy(wordpiece *w)
{
    if (w == NULL) return;
    free(w->text);
    free(w->lines);
    free(w->slots);
    free(w);
}

/* The word that is being read, and the array of the caller. */
typedef struct encoding {
    const wordpiece *w;
    int32_t *ids;
    size_t ids_max;
    size_t count; /* of all ids, also of those that did not fit */
    char word[WORD_BYTES_MAX];
    size_t bytes;
    size_t characters; /* of the word, also of those that `word` does not hold */
} encoding;

static void append(encoding *e, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++, e->count++)
        if (e->count < e->ids_max) e->ids[e->count] = ids[i];
}

/* The longest piece at word[first..]; its id, or -1, and where it ends. */
static int32_t longest_piece(const encoding *e, size_t first, size_t *end)
{
    const bool inside = first > 0;
    size_t last = e->bytes;
    if (last - first > e->w->longest) last = first + e->w->longest;
    for (; last > first; last--) {
        const bool whole = last == e->bytes || !br_utf8_is_continuation(e->word[last]);
        if (!whole) continue;
        const int32_t id = e->w->slots[slot_of(e->w, inside, e->word + first, last - first)];
        *end = last;
        if (id >= 0) return id;
    }
    return -1;
}

static void end_word(encoding *e)
{
    int32_t pieces[WORD_CHARACTERS_MAX];
    size_t count = 0;
    bool known = e->characters <= WORD_CHARACTERS_MAX;
    for (size_t at = 0; known && at < e->bytes; count++) {
        pieces[count] = longest_piece(e, at, &at);
        known = pieces[count] >= 0;
    }
    if (e->characters > 0) append(e, known ? pieces : &e->w->unknown, known ? count : 1);
    e->bytes = 0;
    e->characters = 0;
}

static void put(encoding *e, uint32_t code)
{
    if (e->characters++ >= WORD_CHARACTERS_MAX) return; /* the word is [UNK] already */
    char *to = e->word + e->bytes;
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    e->bytes = (size_t)(to - e->word);
}

/* Takes one normalized character. */
static void put_normal(encoding *e, uint32_t code)
{
    const bool alone = kind_of(code) == PUNCTUATION;
    if (alone) end_word(e);
    put(e, code);
    if (alone) end_word(e);
}

static void put_character(encoding *e, uint32_t code)
{
    const kind what = kind_of(code);
    if (what == DROPPED || (what == MARK && e->w->lowercase)) return;
    if (what == SPACE || what == IDEOGRAPH) end_word(e);
    if (what == SPACE) return;

    uint32_t normal[MAPPED_MAX] = {code};
    const size_t count = e->w->lowercase ? lower(normal, code) : 1;
    for (size_t i = 0; i < count; i++) put_normal(e, normal[i]);
    if (what == IDEOGRAPH) end_word(e);
}

size_t wordpiece_encode(const wordpiece *w, br_str text, int32_t *ids, size_t ids_max)
{
    encoding e = {.w = w, .ids = ids, .ids_max = ids_max};
    for (size_t at = 0; at < text.size;) {
        const size_t size = br_utf8_size(text.data[at]);
        put_character(&e, br_utf8_code(text.data + at, size));
        at += size;
    }
    end_word(&e);
    return e.count;
}
