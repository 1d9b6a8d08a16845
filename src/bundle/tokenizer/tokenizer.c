/*
 * tokenizer.c - see tokenizer.h. The output of the normalizer is cut into words before each space mark, and
 * each word into pieces. BERT's tokenizer has a file of its own, wordpiece.c.
 */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/utf8.h"
#include "normalizer.h"
#include "unigram.h"
#include "wordpiece.h"

struct br_tokenizer {
    unigram *unigram;
    normalizer *normalizer;
    wordpiece *wordpiece; /* instead of those two */
    bool *is_text;        /* [piece_count] */
    int32_t piece_count;
    int32_t cls;
    int32_t sep;
};

static br_status find_control(int32_t *id, const spm_model *model, const char *piece, const char *file,
                              br_error *error)
{
    *id = spm_model_find(model, br_str_from(piece));
    if (*id < 0) return br_fail(error, BR_EINVAL, "%s: has no piece %s", file, piece);
    if (model->pieces[*id].type == PIECE_CONTROL) return BR_OK;
    return br_fail(error, BR_EINVAL, "%s: piece %s (id %d) has type %d, expected %d (control)", file, piece,
                   (int)*id, (int)model->pieces[*id].type, (int)PIECE_CONTROL);
}

static br_status read_kinds(br_tokenizer *t, const spm_model *model, const char *file, br_error *error)
{
    t->piece_count = model->piece_count;
    t->is_text = calloc((size_t)model->piece_count, sizeof *t->is_text);
    if (t->is_text == NULL) return br_no_memory(error, "%s", file);
    for (int32_t id = 0; id < model->piece_count; id++) {
        t->is_text[id] = id == model->unknown || piece_is_text(model->pieces[id].type);
    }
    const br_status status = find_control(&t->cls, model, "[CLS]", file, error);
    if (status != BR_OK) return status;
    return find_control(&t->sep, model, "[SEP]", file, error);
}

br_status br_tokenizer_create(br_tokenizer **out, br_str model, const char *file, br_error *error)
{
    *out = NULL;
    spm_model parsed = {0};
    br_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return br_no_memory(error, "%s", file);

    br_status status = spm_model_parse(&parsed, model, file, error);
    if (status != BR_OK) goto done;
    status = read_kinds(t, &parsed, file, error);
    if (status != BR_OK) goto done;
    status = normalizer_create(&t->normalizer, parsed.charsmap, file, error);
    if (status != BR_OK) goto done;
    status = unigram_create(&t->unigram, &parsed, file, error);

done:
    spm_model_deinit(&parsed);
    if (status == BR_OK) {
        *out = t;
    } else {
        br_tokenizer_destroy(t);
    }
    return status;
}

br_status br_tokenizer_create_wordpiece(br_tokenizer **out, br_str vocab, bool lowercase, const char *file,
                                        br_error *error)
{
    *out = NULL;
    br_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return br_no_memory(error, "%s", file);
    br_status status = wordpiece_create(&t->wordpiece, vocab, lowercase, file, error);
    if (status != BR_OK) goto fail;
    t->piece_count = wordpiece_count(t->wordpiece);
    t->is_text = calloc((size_t)t->piece_count, sizeof *t->is_text);
    if (t->is_text == NULL) {
        status = br_no_memory(error, "%s", file);
        goto fail;
    }
    memset(t->is_text, true, (size_t)t->piece_count * sizeof *t->is_text);
    static const char *const special[] = {"[PAD]", "[MASK]", "[CLS]", "[SEP]"};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
        const int32_t id = wordpiece_find(t->wordpiece, br_str_from(special[i]));
        if (id >= 0) t->is_text[id] = false;
    }
    t->cls = wordpiece_find(t->wordpiece, BR_STR_LITERAL("[CLS]"));
    t->sep = wordpiece_find(t->wordpiece, BR_STR_LITERAL("[SEP]"));
    *out = t;
    return BR_OK;

fail:
    br_tokenizer_destroy(t);
    return status;
}

void br_tokenizer_destroy(br_tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    wordpiece_destroy(tokenizer->wordpiece);
    unigram_destroy(tokenizer->unigram);
    normalizer_destroy(tokenizer->normalizer);
    free(tokenizer->is_text);
    free(tokenizer);
}

br_status br_tokenizer_use_bytes(br_tokenizer *tokenizer)
{
    return tokenizer->wordpiece != NULL ? BR_ENOTSUP : unigram_use_bytes(tokenizer->unigram);
}

int32_t br_tokenizer_piece_count(const br_tokenizer *tokenizer)
{
    return tokenizer->piece_count;
}

int32_t br_tokenizer_cls(const br_tokenizer *tokenizer)
{
    return tokenizer->cls;
}

int32_t br_tokenizer_sep(const br_tokenizer *tokenizer)
{
    return tokenizer->sep;
}

bool br_tokenizer_is_text_id(const br_tokenizer *tokenizer, int64_t id)
{
    return id >= 0 && id < tokenizer->piece_count && tokenizer->is_text[id];
}

enum { ROOM = 2 * NORMALIZER_ROOM_MIN };

/* Normalized text that is not cut yet, and room for the ids of a word. It is on the stack until a word needs
 * more room. */
typedef struct words {
    char *text;
    int32_t *path; /* [room + 1] */
    size_t room;
    size_t size;
    char small_text[ROOM];
    int32_t small_path[ROOM + 1];
    void *large; /* owned; path and text are in it once the stack is too small */
} words;

/* The array of the caller. */
typedef struct id_list {
    int32_t *ids;
    size_t max;
    size_t count; /* of all ids, also of those that did not fit */
} id_list;

static void append(id_list *list, const int32_t *ids, size_t count)
{
    if (list->count < list->max) {
        const size_t room = list->max - list->count;
        memcpy(list->ids + list->count, ids, (count < room ? count : room) * sizeof *ids);
    }
    list->count += count;
}

/* Doubles the room for text. The ids in `path` are lost; nobody needs them any more. */
static bool enlarge(words *w)
{
    const size_t room = w->room * 2;
    char *large = malloc((room + 1) * sizeof(int32_t) + room);
    if (large == NULL) return false;
    char *text = large + (room + 1) * sizeof(int32_t);
    memcpy(text, w->text, w->size);
    free(w->large);
    w->large = large;
    w->path = (int32_t *)(void *)large;
    w->text = text;
    w->room = room;
    return true;
}

/* The next space mark in text[from .. size], or `size`. */
static size_t find_mark(const char *text, size_t from, size_t size)
{
    while (from < size) {
        const char *found = memchr(text + from, BR_SPACE_MARK[0], size - from);
        if (found == NULL) return size;
        if (memcmp(found, BR_SPACE_MARK, BR_SPACE_MARK_BYTES) == 0) return (size_t)(found - text);
        from = (size_t)(found - text) + BR_SPACE_MARK_BYTES;
    }
    return size;
}

static void cut(const unigram *u, words *w, id_list *list, size_t first, size_t last)
{
    const size_t count = unigram_cut(u, w->path, w->text + first, last - first);
    append(list, w->path + (last - first) + 1 - count, count);
}

/* Cuts all words but the last one, which may continue in the text that follows. The text before `fresh` has
 * been searched for marks already. */
static void cut_complete(const unigram *u, words *w, id_list *list, size_t fresh)
{
    size_t first = 0;
    for (size_t mark = find_mark(w->text, fresh, w->size); mark < w->size;
         mark = find_mark(w->text, mark + BR_SPACE_MARK_BYTES, w->size)) {
        if (mark > first) cut(u, w, list, first, mark);
        first = mark;
    }
    memmove(w->text, w->text + first, w->size - first);
    w->size -= first;
}

br_status br_tokenizer_encode(const br_tokenizer *tokenizer, br_str text, int32_t *ids, size_t ids_max,
                              size_t *count)
{
    *count = 0;
    if (br_utf8_invalid_at(text.data, text.size) != text.size) return BR_EFORMAT;
    if (tokenizer->wordpiece != NULL) {
        *count = wordpiece_encode(tokenizer->wordpiece, text, ids, ids_max);
        return BR_OK;
    }

    words w;
    w.text = w.small_text;
    w.path = w.small_path;
    w.room = ROOM;
    w.size = 0;
    w.large = NULL;
    id_list list = {.ids = ids, .max = ids_max};
    normalizing reading;
    normalizing_begin(&reading, tokenizer->normalizer, text);

    br_status status = BR_OK;
    for (;;) {
        if (w.room - w.size < NORMALIZER_ROOM_MIN && !enlarge(&w)) {
            status = BR_ENOMEM;
            break;
        }
        const size_t fresh = w.size;
        const size_t size = normalizing_read(&reading, w.text + w.size, w.room - w.size);
        if (size == 0) break;
        w.size += size;
        cut_complete(tokenizer->unigram, &w, &list, fresh);
    }
    if (status == BR_OK) {
        if (w.size > 0) cut(tokenizer->unigram, &w, &list, 0, w.size);
        *count = list.count;
    }
    free(w.large);
    return status;
}
