/*
 * sentencepiece_shim.h - the few calls of libsentencepiece the tokenizer needs, in C.
 *
 * The library is C++ and reports through exceptions, status objects and vectors;
 * none of them passes this door. Nothing here knows DeBERTa: see tokenizer.h.
 *
 * Immutable after create: any number of threads may encode at once.
 */
#ifndef BESTROUTE_SENTENCEPIECE_SHIM_H
#define BESTROUTE_SENTENCEPIECE_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "bestroute/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct br_spm br_spm;

typedef enum br_spm_kind {
    BR_SPM_TEXT,    /* a normal, user-defined, byte or unknown piece: text can yield it */
    BR_SPM_CONTROL, /* [CLS] and the like */
    BR_SPM_UNUSED,
} br_spm_kind;

/* Parses the bytes of a model; they are copied. BR_EFORMAT: the library refuses them, and
 * why is written to reason[reason_bytes] as text. BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_spm_create(br_spm **out, const void *bytes, size_t size, char *reason,
                                     size_t reason_bytes);

/* Accepts NULL. */
void br_spm_destroy(br_spm *spm);

int32_t br_spm_piece_count(const br_spm *spm);

/* id is in 0 .. count - 1. */
br_spm_kind br_spm_piece_kind(const br_spm *spm, int32_t id);

/* The id of the piece spelled so, or -1. */
int32_t br_spm_find(const br_spm *spm, const char *piece);

/* Writes the first ids_max ids and sets *count to the number of all. `text` is valid UTF-8.
 * BR_ENOMEM, BR_EINTERNAL: the library failed. On failure *count is 0. */
BR_NODISCARD br_status br_spm_encode(const br_spm *spm, const char *text, size_t size, int32_t *ids,
                                     size_t ids_max, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
