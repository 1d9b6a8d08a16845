/*
 * wordpiece.h - text to BERT's pieces (vocab.txt), as Hugging Face's BertTokenizerFast does it.
 *
 *   normalize   control characters are removed, ideographs become words of their own; uncased: NFD without
 *               its marks, lower case
 *   words       cut at white space and around each punctuation character
 *   pieces      from the left, always the longest that matches; inside a word a piece begins with "##". A
 *               word of more than 100 characters, or one that no pieces can spell, is one [UNK]
 *
 * Special tokens in a text are ordinary characters, as everywhere in this service. Combining characters that
 * are not marks (Hangul tone marks, musical stems) keep their order; NFD would sort them.
 *
 * Immutable: any number of threads may encode at once. Encoding allocates nothing.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_WORDPIECE_H
#define BESTROUTE_BUNDLE_TOKENIZER_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "core/memory.h"

typedef struct wordpiece wordpiece;

/* `vocab`: vocab.txt, one piece a line, its number the id; copied. BR_ETOOBIG: over BR_VOCAB_MAX lines;
 * BR_EINVAL: [UNK], [CLS] or [SEP] is missing; BR_EFORMAT: not UTF-8. BR_ENOMEM. */
BR_NODISCARD br_status wordpiece_create(wordpiece **out, br_str vocab, bool lowercase, const char *file,
                                        br_error *error);
void wordpiece_destroy(wordpiece *w);

int32_t wordpiece_count(const wordpiece *w);

/* The id of a whole line, or -1. */
int32_t wordpiece_find(const wordpiece *w, br_str piece);

/* Writes the first ids_max ids of `text`, which is UTF-8, and returns the number of ids of the whole text. */
size_t wordpiece_encode(const wordpiece *w, br_str text, int32_t *ids, size_t ids_max);

#endif
