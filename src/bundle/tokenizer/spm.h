/*
 * spm.h - reads a SentencePiece model file (a protocol buffer) held in memory.
 *
 * Only what segmenting needs: pieces with their scores and types, and the
 * character map. Everything is checked before anything is handed out. Pure: the
 * strings are views into the caller's bytes.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_SPM_H
#define BESTROUTE_BUNDLE_TOKENIZER_SPM_H

#include <stdint.h>

#include "bestroute/error.h"
#include "core/memory.h"

enum { BR_PIECE_BYTES_MAX = 255 }; /* sizes a ring of scores on the stack of the segmenter */

typedef enum br_piece_type {
    BR_PIECE_NORMAL = 1,
    BR_PIECE_UNKNOWN = 2,
    BR_PIECE_CONTROL = 3,
    BR_PIECE_USER_DEFINED = 4,
    BR_PIECE_UNUSED = 5,
    BR_PIECE_BYTE = 6,
} br_piece_type;

typedef struct br_piece {
    br_str text; /* UTF-8, 1..BR_PIECE_BYTES_MAX bytes, unlike every other piece's */
    float score; /* log probability; finite */
    br_piece_type type;
} br_piece;

typedef struct br_spm_model {
    br_piece *pieces; /* [piece_count], owned; the index is the id */
    int32_t piece_count;
    int32_t unknown; /* id of the one UNKNOWN piece */
    br_str charsmap; /* normalizer_spec.precompiled_charsmap; empty when absent */
} br_spm_model;

/* What a text may be cut into. "[CLS]" and its like are never matched, however a text spells them. */
static inline bool br_piece_is_text(br_piece_type type)
{
    return type == BR_PIECE_NORMAL || type == BR_PIECE_UNUSED || type == BR_PIECE_BYTE;
}

/* Borrows `bytes` as long as the model is used. `file` names it in errors.
 * BR_EFORMAT: malformed, or not a unigram model; BR_ETOOBIG: over BR_VOCAB_MAX pieces; BR_ENOMEM.
 * Release with br_spm_model_deinit, which also accepts a model whose parse failed. */
BR_NODISCARD br_status br_spm_model_parse(br_spm_model *out, br_str bytes, const char *file, br_error *error);
void br_spm_model_deinit(br_spm_model *model);

/* The id of the piece spelled so, or -1. Searches all pieces. */
int32_t br_spm_model_find(const br_spm_model *model, br_str text);

#endif
