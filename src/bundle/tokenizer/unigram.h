/*
 * unigram.h - the most probable way to cut one word into pieces.
 *
 * Pieces lie in a trie of bytes; the best cut is found with Viterbi's algorithm in time linear in the word
 * (times the longest piece). Scores are summed in double from the word's start, and a later cut wins only if
 * it is strictly better: ties are then decided as in Hugging Face's Unigram model.
 *
 * A character that no piece covers is unseen. A run of unseen characters becomes one unknown piece, or one
 * byte piece for each of its UTF-8 bytes.
 *
 * Immutable after create and unigram_use_bytes.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_UNIGRAM_H
#define BESTROUTE_BUNDLE_TOKENIZER_UNIGRAM_H

#include "spm.h"

typedef struct unigram unigram;

/* Copies what it needs of `model`. BR_EFORMAT: two pieces are spelled the same. BR_ENOMEM. */
BR_NODISCARD br_status unigram_create(unigram **out, const spm_model *model, const char *file,
                                      br_error *error);

/* Accepts NULL. */
void unigram_destroy(unigram *u);

/* Unseen characters become byte pieces from now on. BR_ENOTSUP: the model lacks some of the 256. */
BR_NODISCARD br_status unigram_use_bytes(unigram *u);

/* Cuts `word`, valid UTF-8 of `size` bytes, and returns the number of ids. They are at the end of path[0 ..
 * size]: the first one is path[size + 1 - count]. */
size_t unigram_cut(const unigram *u, int32_t *path, const char *word, size_t size);

#endif
