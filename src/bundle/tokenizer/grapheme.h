/*
 * grapheme.h - where extended grapheme clusters end (Unicode Standard Annex 29).
 *
 * The caller begins a cluster with its first code point, then asks for each following one whether it belongs
 * to the cluster. Pure.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_GRAPHEME_H
#define BESTROUTE_BUNDLE_TOKENIZER_GRAPHEME_H

#include <stdbool.h>
#include <stdint.h>

/* The state of the current cluster that the next decision needs. */
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
