/*
 * grapheme.h - where extended grapheme clusters end (Unicode Standard Annex 29).
 *
 * One cluster at a time: a cluster is begun with its first code point and then
 * asked, code point by code point, whether the next one belongs to it. Pure.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_GRAPHEME_H
#define BESTROUTE_BUNDLE_TOKENIZER_GRAPHEME_H

#include <stdbool.h>
#include <stdint.h>

/* What has been seen of the current cluster, as far as the next decision needs it. */
typedef struct grapheme {
    uint8_t last;     /* class of the last code point */
    uint8_t picture;  /* pictograph Extend* (1), and then a joiner (2) */
    uint8_t conjunct; /* consonant (1), and since then a linker (2) */
    uint8_t flags;    /* regional indicators so far, modulo 2 */
} grapheme;

void grapheme_begin(grapheme *cluster, uint32_t code);

/* True when `code` belongs to the cluster, which then includes it. False when a new cluster begins. */
bool grapheme_joins(grapheme *cluster, uint32_t code);

#endif
