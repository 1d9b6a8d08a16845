/*
 * bundle.h - a bundle folder, opened, checked whole, and hashed (BUNDLE.md).
 *
 *   router.json  config.json  model.safetensors  spm.model  added_tokens.json
 *
 * added_tokens.json is not part of a bundle whose router.json pools the first token; a BERT or DistilBERT
 * encoder has vocab.txt instead of spm.model, last in the order.
 *
 * Opening checks every tensor that the encoder and the heads need (name, shape, type), then reads
 * model.safetensors once, hashing what it reads, and keeps those tensors. No file is mapped. A file that is
 * changed or shortened while it is read is refused; a later change has no effect. br_bundle_drop_weights
 * frees the tensors once the engines have their own copies. Everything else stays in memory. A bundle is
 * immutable after opening (but for the drop): threads may share it.
 *
 * The hash is SHA-256 over its files in the order above, each as name, a zero byte, size in 8 bytes
 * little-endian, content. Other files in the folder (a card, a licence) are not hashed, and other tensors in
 * the weights are ignored.
 */
#ifndef BESTROUTE_BUNDLE_BUNDLE_H
#define BESTROUTE_BUNDLE_BUNDLE_H

#include <stdatomic.h>

#include "bestroute/error.h"
#include "bundle/tokenizer/tokenizer.h"
#include "model.h"
#include "policy/router.h"
#include "safetensors.h"

/* The largest known spm.model has a quarter of a million pieces in 4.3 MB; read into memory once. */
enum { BR_BUNDLE_SPM_BYTES_MAX = 64 << 20 };

typedef struct br_bundle {
    br_model model;
    br_router router;
    br_tokenizer *tokenizer;
    const char *prefix; /* of the encoder's tensor names, static: "pretrained_model.", "", ... */
    int32_t source_id;  /* of router.source_prefix, from added_tokens.json; -1: the first token is pooled */
    char hash[65];      /* 64 hex digits */
    uint64_t digest[4]; /* the same as numbers, big-endian */
    br_safetensors *tensors; /* NULL once dropped */
    void *weights;           /* the demanded tensors, where they lie in the file; NULL once dropped */
    size_t weights_bytes;
} br_bundle;

/* BR_EIO: a file is missing, unreadable, or changes while it is read; BR_EFORMAT, BR_EINVAL, BR_ENOTSUP,
 * BR_ETOOBIG, BR_ENOMEM. The error names the file and the key or tensor. On failure *out is NULL. */
BR_NODISCARD br_status br_bundle_open(br_bundle **out, const char *folder, br_error *error);

/* The same, given up as soon as *stop is true: BR_ECLOSED. `stop` may be NULL. */
BR_NODISCARD br_status br_bundle_open_unless(br_bundle **out, const char *folder, const atomic_bool *stop,
                                             br_error *error);

/* Accepts NULL. */
void br_bundle_close(br_bundle *bundle);

/* Frees the weights. Not thread-safe: call it before the bundle is shared. */
void br_bundle_drop_weights(br_bundle *bundle);

/* The tensor of that whole name ("pretrained_model.encoder.layer.%d.output.dense.weight", 3).
 * Never NULL for a name that br_bundle_open demands (bundle.c has the list). Call it before the weights are
 * dropped. */
const br_tensor *br_bundle_tensor(const br_bundle *bundle, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The input of the encoder: [CLS] <|source|> pieces [SEP], or [CLS] pieces [SEP] where the first token is
 * pooled; at most router.max_tokens ids. */
typedef struct br_prompt {
    int32_t tokens;       /* ids written */
    bool truncated;       /* pieces were dropped, from the end or as router.truncate_left says */
    uint64_t text_tokens; /* pieces of the whole prompt, before truncation, without special tokens */
} br_prompt;

/* ids has room for router.max_tokens. BR_EFORMAT: not UTF-8. BR_ENOMEM. */
BR_NODISCARD br_status br_bundle_prompt_from_text(const br_bundle *bundle, br_str text, int32_t *ids,
                                                  br_prompt *out);

/* The same from piece ids. BR_EINVAL: an id that no text yields (special, or out of range). */
BR_NODISCARD br_status br_bundle_prompt_from_ids(const br_bundle *bundle, const uint32_t *pieces,
                                                 size_t piece_count, int32_t *ids, br_prompt *out);

#endif
