/*
 * spm.c - see spm.h.
 *
 * A protocol buffer is a sequence of fields: a varint (number << 3 | form), then
 * the value. The numbers below are those of sentencepiece_model.proto; all other fields are skipped.
 */
#include "spm.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/limits.h"
#include "core/memory.h"
#include "core/utf8.h"

enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_MODEL_TYPE = 3, TRAINER_UNIGRAM = 1 };
enum { NORMALIZER_CHARSMAP = 2 };

typedef enum field_form { FORM_VARINT = 0, FORM_64 = 1, FORM_BYTES = 2, FORM_32 = 5 } field_form;

typedef struct field {
    uint64_t number;
    field_form form;
    uint64_t varint; /* FORM_VARINT, FORM_32 */
    br_str bytes;    /* FORM_BYTES */
} field;

typedef struct fields {
    const char *at;
    const char *end;
    bool failed;
} fields;

static fields fields_of(br_str message)
{
    const char *start = message.size == 0 ? "" : message.data;
    return (fields){.at = start, .end = start + message.size};
}

static uint64_t read_varint(fields *f)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (f->at == f->end) break;
        const unsigned char byte = (unsigned char)*f->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    f->failed = true;
    return 0;
}

static br_str read_bytes(fields *f, uint64_t size)
{
    if (size > (uint64_t)(f->end - f->at)) {
        f->failed = true;
        return (br_str){0};
    }
    const br_str bytes = {f->at, (size_t)size};
    f->at += size;
    return bytes;
}

/* Reads the next field. False at the end, and if the rest is malformed; f->failed tells which. */
static bool next_field(field *out, fields *f)
{
    if (f->failed || f->at == f->end) return false;
    const uint64_t key = read_varint(f);
    *out = (field){.number = key >> 3, .form = (field_form)(key & 7)};
    switch (out->form) {
    case FORM_VARINT:
        out->varint = read_varint(f);
        break;
    case FORM_BYTES:
        out->bytes = read_bytes(f, read_varint(f));
        break;
    case FORM_64:
        (void)read_bytes(f, 8);
        break;
    case FORM_32: {
        const br_str raw = read_bytes(f, 4);
        for (size_t i = 0; i < raw.size; i++) out->varint |= (uint64_t)(unsigned char)raw.data[i] << (8 * i);
        break;
    }
    default:
        f->failed = true;
    }
    if (out->number == 0) f->failed = true;
    return !f->failed;
}

static float float_of(uint64_t bits)
{
    const uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static const char *parse_piece(spm_model_piece *piece, br_str message)
{
    *piece = (spm_model_piece){.type = PIECE_NORMAL};
    fields f = fields_of(message);
    field at;
    while (next_field(&at, &f)) {
        if (at.number == PIECE_TEXT && at.form == FORM_BYTES) {
            piece->text = at.bytes;
        } else if (at.number == PIECE_SCORE && at.form == FORM_32) {
            piece->score = float_of(at.varint);
        } else if (at.number == PIECE_TYPE && at.form == FORM_VARINT) {
            if (at.varint < PIECE_NORMAL || at.varint > PIECE_BYTE) return "unknown type";
            piece->type = (piece_type)at.varint;
        }
    }
    if (f.failed) return "malformed";
    if (piece->text.size == 0) return "empty text";
    if (piece->text.size > PIECE_BYTES_MAX) return "text too long";
    if (br_utf8_invalid_at(piece->text.data, piece->text.size) != piece->text.size)
        return "text is not UTF-8";
    if (!isfinite(piece->score)) return "score is not finite";
    return NULL;
}

static br_status count_pieces(int32_t *count, br_str bytes, const char *file, br_error *error)
{
    *count = 0;
    fields f = fields_of(bytes);
    field at;
    while (next_field(&at, &f)) {
        if (at.number != MODEL_PIECE || at.form != FORM_BYTES) continue;
        if (*count == BR_VOCAB_MAX) {
            return br_fail(error, BR_ETOOBIG, "%s: more than %d pieces", file, BR_VOCAB_MAX);
        }
        *count += 1;
    }
    if (f.failed) {
        return br_fail(error, BR_EFORMAT, "%s: not a SentencePiece model: malformed at byte %zu of %zu", file,
                       bytes.size - (size_t)(f.end - f.at), bytes.size);
    }
    if (*count == 0) return br_fail(error, BR_EFORMAT, "%s: not a SentencePiece model: no pieces", file);
    return BR_OK;
}

/* The model's type; unigram if the file names none. False: malformed. */
static bool parse_trainer(uint64_t *type, br_str message)
{
    fields f = fields_of(message);
    field at;
    while (next_field(&at, &f)) {
        if (at.number == TRAINER_MODEL_TYPE && at.form == FORM_VARINT) *type = at.varint;
    }
    return !f.failed;
}

static bool parse_normalizer(br_str *charsmap, br_str message)
{
    fields f = fields_of(message);
    field at;
    while (next_field(&at, &f)) {
        if (at.number == NORMALIZER_CHARSMAP && at.form == FORM_BYTES) *charsmap = at.bytes;
    }
    return !f.failed;
}

static br_status fill(spm_model *model, br_str bytes, const char *file, br_error *error)
{
    uint64_t type = TRAINER_UNIGRAM;
    int32_t id = 0;
    fields f = fields_of(bytes);
    field at;
    while (next_field(&at, &f)) {
        if (at.form != FORM_BYTES) continue;
        if (at.number == MODEL_PIECE) {
            const char *wrong = parse_piece(&model->pieces[id], at.bytes);
            if (wrong != NULL) return br_fail(error, BR_EFORMAT, "%s: piece %d: %s", file, (int)id, wrong);
            id++;
        } else if (at.number == MODEL_TRAINER && !parse_trainer(&type, at.bytes)) {
            return br_fail(error, BR_EFORMAT, "%s: trainer_spec is malformed", file);
        } else if (at.number == MODEL_NORMALIZER && !parse_normalizer(&model->charsmap, at.bytes)) {
            return br_fail(error, BR_EFORMAT, "%s: normalizer_spec is malformed", file);
        }
    }
    if (type != TRAINER_UNIGRAM) {
        return br_fail(error, BR_EFORMAT, "%s: model_type is %llu, expected %d (unigram)", file,
                       (unsigned long long)type, TRAINER_UNIGRAM);
    }
    return BR_OK;
}

static br_status find_unknown(spm_model *model, const char *file, br_error *error)
{
    model->unknown = -1;
    for (int32_t id = 0; id < model->piece_count; id++) {
        if (model->pieces[id].type != PIECE_UNKNOWN) continue;
        if (model->unknown >= 0) return br_fail(error, BR_EFORMAT, "%s: two unknown pieces", file);
        model->unknown = id;
    }
    return model->unknown < 0 ? br_fail(error, BR_EFORMAT, "%s: no unknown piece", file) : BR_OK;
}

br_status spm_model_parse(spm_model *out, br_str bytes, const char *file, br_error *error)
{
    *out = (spm_model){0};
    br_status status = count_pieces(&out->piece_count, bytes, file, error);
    if (status != BR_OK) return status;

    out->pieces = calloc((size_t)out->piece_count, sizeof *out->pieces);
    if (out->pieces == NULL) return br_no_memory(error, "%s", file);
    status = fill(out, bytes, file, error);
    if (status != BR_OK) return status;
    return find_unknown(out, file, error);
}

void spm_model_deinit(spm_model *model)
{
    free(model->pieces);
    *model = (spm_model){0};
}

int32_t spm_model_find(const spm_model *model, br_str text)
{
    for (int32_t id = 0; id < model->piece_count; id++) {
        if (br_str_equal(model->pieces[id].text, text)) return id;
    }
    return -1;
}
