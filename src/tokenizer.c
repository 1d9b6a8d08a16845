/*
 * tokenizer.c - see tokenizer.h.
 */
#include "bestroute/tokenizer.h"

#include <stdlib.h>

#include "bestroute/utf8.h"
#include "sentencepiece_shim.h"

struct br_tokenizer {
    br_spm *spm;
    int32_t piece_count;
    int32_t cls;
    int32_t sep;
};

static br_status find_control(int32_t *id, const br_spm *spm, const char *piece, const char *file,
                              br_error *error)
{
    *id = br_spm_find(spm, piece);
    if (*id < 0) return br_fail(error, BR_EINVAL, "%s: has no piece %s", file, piece);
    if (br_spm_piece_kind(spm, *id) != BR_SPM_CONTROL) {
        return br_fail(error, BR_EINVAL, "%s: piece %s (id %d) is not a control piece", file, piece,
                       (int)*id);
    }
    return BR_OK;
}

br_status br_tokenizer_create(br_tokenizer **out, br_str model, const char *file, br_error *error)
{
    *out = NULL;
    br_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL) return br_fail(error, BR_ENOMEM, "%s: out of memory", file);

    char reason[256] = "";
    br_status status = br_spm_create(&t->spm, model.data, model.size, reason, sizeof reason);
    if (status != BR_OK) {
        status = br_fail(error, status, "%s: not a SentencePiece model: %s", file, reason);
        goto fail;
    }
    t->piece_count = br_spm_piece_count(t->spm);
    status = find_control(&t->cls, t->spm, "[CLS]", file, error);
    if (status != BR_OK) goto fail;
    status = find_control(&t->sep, t->spm, "[SEP]", file, error);
    if (status != BR_OK) goto fail;

    *out = t;
    return BR_OK;

fail:
    br_tokenizer_destroy(t);
    return status;
}

void br_tokenizer_destroy(br_tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    br_spm_destroy(tokenizer->spm);
    free(tokenizer);
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
    if (id < 0 || id >= tokenizer->piece_count) return false;
    return br_spm_piece_kind(tokenizer->spm, (int32_t)id) == BR_SPM_TEXT;
}

/* A copy of `text` in which every "[SEP]" is a space; NULL when memory is out. */
static char *without_separators(br_str text, size_t *size)
{
    static const char separator[] = "[SEP]";
    char *copy = malloc(text.size + 1);
    if (copy == NULL) return NULL;
    size_t written = 0;
    size_t i = 0;
    while (i < text.size) {
        const char *next = memmem(text.data + i, text.size - i, separator, sizeof separator - 1);
        const size_t run = next == NULL ? text.size - i : (size_t)(next - text.data) - i;
        memcpy(copy + written, text.data + i, run);
        written += run;
        i += run;
        if (next == NULL) break;
        copy[written++] = ' ';
        i += sizeof separator - 1;
    }
    *size = written;
    return copy;
}

br_status br_tokenizer_encode(const br_tokenizer *tokenizer, br_str text, int32_t *ids, size_t ids_max,
                              size_t *count)
{
    *count = 0;
    if (text.size == 0) return BR_OK;
    if (br_utf8_invalid_at(text.data, text.size) != text.size) return BR_EFORMAT;
    if (memmem(text.data, text.size, "[SEP]", 5) == NULL) {
        return br_spm_encode(tokenizer->spm, text.data, text.size, ids, ids_max, count);
    }

    size_t size = 0;
    char *copy = without_separators(text, &size);
    if (copy == NULL) return BR_ENOMEM;
    const br_status status = br_spm_encode(tokenizer->spm, copy, size, ids, ids_max, count);
    free(copy);
    return status;
}
