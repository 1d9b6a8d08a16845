/*
 * spm.h - reads a SentencePiece model file (a protocol buffer) held in memory.
 *
 * It reads what segmenting needs: pieces with their scores and types, and the character map. The whole file
 * is checked first. Pure: the strings are views into the caller's bytes.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_SPM_H
#define BESTROUTE_BUNDLE_TOKENIZER_SPM_H

#include <stdint.h>

#include "bestroute/error.h"
#include "core/memory.h"

enum { PIECE_BYTES_MAX = 255 }; /* unigram.c has a ring of so many scores on its stack */

typedef enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6,
} piece_type;

typedef struct spm_model_piece {
    br_str text; /* UTF-8, 1..PIECE_BYTES_MAX bytes; no two pieces have the same */
    float score; /* log probability; finite */
    piece_type type;
} spm_model_piece;

typedef struct spm_model {
    spm_model_piece *pieces; /* [piece_count], owned; the index is the id */
    int32_t piece_count;
    int32_t unknown; /* id of the one UNKNOWN piece */
    br_str charsmap; /* normalizer_spec.precompiled_charsmap; empty when absent */
} spm_model;

/* True for pieces that a text can be cut into. Control pieces such as "[CLS]" never match a text. */
static inline bool piece_is_text(piece_type type)
{
    return type == PIECE_NORMAL || type == PIECE_UNUSED || type == PIECE_BYTE;
}

/* Borrows `bytes` as long as the model is used. `file` names it in errors.
 * BR_EFORMAT: malformed, or not a unigram model; BR_ETOOBIG: over BR_VOCAB_MAX pieces; BR_ENOMEM.
 * Release with spm_model_deinit, which also accepts a model whose parse failed. */
BR_NODISCARD br_status spm_model_parse(spm_model *out, br_str bytes, const char *file, br_error *error);
void spm_model_deinit(spm_model *model);

/* The id of the piece with this text, or -1. Searches all pieces. */
int32_t spm_model_find(const spm_model *model, br_str text);

#endif
