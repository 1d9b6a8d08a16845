/*
 * tokenizer.h - text to DeBERTa-v3 piece ids (a SentencePiece unigram model, spm.model),
 * or to BERT's (vocab.txt).
 *
 * Ids equal those of Hugging Face's DebertaV2TokenizerFast (transformers 4), which BEST-Route trains with,
 * with one deliberate difference: no text yields a special id. "[MASK]" or "<|source|>" in a prompt are
 * ordinary characters. A literal "[SEP]" is first replaced by a space, as in BEST-Route's trainer.
 *
 * For a character that the vocabulary does not have, and its neighbours of the same kind, the fast tokenizer
 * writes one [UNK]; SentencePiece itself writes the UTF-8 bytes. The first is the default;
 * br_tokenizer_use_bytes chooses the second.
 *
 * Immutable after create and br_tokenizer_use_bytes: any number of threads may encode at once.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_TOKENIZER_H
#define BESTROUTE_BUNDLE_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "core/memory.h"

typedef struct br_tokenizer br_tokenizer;

/* `model` holds the bytes of spm.model, and is only read during the call. `file` names it in errors.
 * BR_EFORMAT: not a SentencePiece unigram model; BR_ETOOBIG: over BR_VOCAB_MAX pieces;
 * BR_EINVAL: it lacks [CLS] or [SEP] control pieces. BR_ENOMEM. */
BR_NODISCARD br_status br_tokenizer_create(br_tokenizer **out, br_str model, const char *file,
                                           br_error *error);

/* `vocab` holds the bytes of vocab.txt; ids equal those of Hugging Face's BertTokenizerFast, but that text is
 * only ever text. `lowercase`: its do_lower_case, which strips accents too.
 * BR_EFORMAT, BR_ETOOBIG, BR_ENOMEM; BR_EINVAL: it lacks [UNK], [CLS] or [SEP]. */
BR_NODISCARD br_status br_tokenizer_create_wordpiece(br_tokenizer **out, br_str vocab, bool lowercase,
                                                     const char *file, br_error *error);

/* Accepts NULL. */
void br_tokenizer_destroy(br_tokenizer *tokenizer);

/* Unseen characters become byte pieces instead of [UNK]. Call before the tokenizer is shared.
 * BR_ENOTSUP: the model lacks some of the 256 byte pieces; nothing changes. */
BR_NODISCARD br_status br_tokenizer_use_bytes(br_tokenizer *tokenizer);

/* Number of pieces in the model, special ones included: ids are 0 .. count - 1. */
int32_t br_tokenizer_piece_count(const br_tokenizer *tokenizer);
int32_t br_tokenizer_cls(const br_tokenizer *tokenizer);
int32_t br_tokenizer_sep(const br_tokenizer *tokenizer);

/* True for ids that a text can yield: normal, byte and unknown pieces. `id` may be any number. */
bool br_tokenizer_is_text_id(const br_tokenizer *tokenizer, int64_t id);

/* Writes the first ids_max ids of `text`, without special tokens, and sets *count to the number of ids of the
 * whole text (it may exceed ids_max). Time is linear in the text; memory is allocated only for a word of more
 * than about 2,000 bytes. BR_EFORMAT: the text is not UTF-8, and nothing is written. BR_ENOMEM. On failure
 * *count is 0. */
BR_NODISCARD br_status br_tokenizer_encode(const br_tokenizer *tokenizer, br_str text, int32_t *ids,
                                           size_t ids_max, size_t *count);

#endif
