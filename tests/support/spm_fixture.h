/*
 * spm_fixture.h - writes small SentencePiece models in memory, right or wrong, for tests and fuzzing.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_SPM_FIXTURE_H
#define BESTROUTE_TESTS_SUPPORT_SPM_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bundle/tokenizer/spm.h"
#include "core/memory.h"

enum { SPM_BYTES_MAX = 1 << 20 };

typedef struct spm_file {
    char *bytes; /* [SPM_BYTES_MAX], owned */
    size_t size;
} spm_file;

static inline spm_file spm_begin(void)
{
    spm_file file = {.bytes = malloc(SPM_BYTES_MAX)};
    if (file.bytes == NULL) abort();
    return file;
}

static inline void spm_end(spm_file *file)
{
    free(file->bytes);
    file->bytes = NULL;
}

static inline br_str spm_view(const spm_file *file)
{
    return (br_str){file->bytes, file->size};
}

static inline void spm_raw(spm_file *file, const void *bytes, size_t size)
{
    if (file->size + size > SPM_BYTES_MAX) abort();
    if (size > 0) memcpy(file->bytes + file->size, bytes, size);
    file->size += size;
}

static inline void spm_varint(spm_file *file, uint64_t value)
{
    do {
        const unsigned char byte = (unsigned char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        spm_raw(file, &byte, 1);
        value >>= 7;
    } while (value != 0);
}

static inline void spm_field(spm_file *file, uint64_t number, const void *bytes, size_t size)
{
    spm_varint(file, number << 3 | 2);
    spm_varint(file, size);
    spm_raw(file, bytes, size);
}

/* `type` is written as it is, known or not. */
static inline void spm_piece(spm_file *file, br_str text, float score, unsigned type)
{
    spm_file piece = spm_begin();
    spm_field(&piece, 1, text.data, text.size);
    spm_varint(&piece, 2 << 3 | 5);
    spm_raw(&piece, &score, sizeof score);
    spm_varint(&piece, 3 << 3 | 0);
    spm_varint(&piece, type);
    spm_field(file, 1, piece.bytes, piece.size);
    spm_end(&piece);
}

/* ids 0 .. 3 as DeBERTa-v3 has them. */
static inline void spm_special(spm_file *file)
{
    spm_piece(file, br_str_from("[PAD]"), 0.0F, PIECE_CONTROL);
    spm_piece(file, br_str_from("[CLS]"), 0.0F, PIECE_CONTROL);
    spm_piece(file, br_str_from("[SEP]"), 0.0F, PIECE_CONTROL);
    spm_piece(file, br_str_from("[UNK]"), 0.0F, PIECE_UNKNOWN);
}

/* The 256 byte pieces. */
static inline void spm_bytes(spm_file *file)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        (void)snprintf(text, sizeof text, "<0x%02X>", byte);
        spm_piece(file, br_str_from(text), 0.0F, PIECE_BYTE);
    }
}

static inline void spm_normalizer(spm_file *file, br_str charsmap)
{
    spm_file spec = spm_begin();
    spm_field(&spec, 2, charsmap.data, charsmap.size);
    spm_field(file, 3, spec.bytes, spec.size);
    spm_end(&spec);
}

static inline void spm_trainer(spm_file *file, uint64_t model_type)
{
    spm_file spec = spm_begin();
    spm_varint(&spec, 3 << 3 | 0);
    spm_varint(&spec, model_type);
    spm_field(file, 2, spec.bytes, spec.size);
    spm_end(&spec);
}

/* One rule of a character map. */
typedef struct spm_rule {
    const char *from;
    const char *to;
} spm_rule;

/*
 * A character map in its binary form (see bundle/tokenizer/normalizer.c). Every node of the trie gets 256
 * units of its own, at the index of the node's block; the child along byte b is unit block ^ b.
 */
static inline spm_file spm_charsmap(const spm_rule *rules, size_t rule_count)
{
    enum { BLOCK = 256, BLOCKS_MAX = 256 };
    static const uint32_t unused = UINT32_C(1) << 31;
    uint32_t *units = calloc((size_t)BLOCK * BLOCKS_MAX, sizeof *units);
    if (units == NULL) abort();
    uint32_t block_count = 2; /* block 0 is the root's own unit, block 1 its children */
    for (size_t i = 0; i < (size_t)BLOCK * BLOCKS_MAX; i++) units[i] = unused;
    units[0] = (uint32_t)BLOCK << 10;

    spm_file texts = spm_begin();
    for (size_t r = 0; r < rule_count; r++) {
        uint32_t block = BLOCK;
        uint32_t at = 0;
        for (const char *byte = rules[r].from; *byte != '\0'; byte++) {
            const uint32_t label = (unsigned char)*byte;
            at = block ^ label;
            if (units[at] == unused) {
                if (block_count == BLOCKS_MAX) abort();
                units[at] = (at ^ block_count++ * BLOCK) << 10 | label;
            }
            block = at ^ units[at] >> 10;
        }
        units[at] |= 1u << 8;
        units[block] = unused | (uint32_t)texts.size;
        spm_raw(&texts, rules[r].to, strlen(rules[r].to) + 1);
    }

    spm_file map = spm_begin();
    const uint32_t trie_bytes = block_count * BLOCK * (uint32_t)sizeof *units;
    spm_raw(&map, &trie_bytes, sizeof trie_bytes);
    spm_raw(&map, units, trie_bytes);
    spm_raw(&map, texts.bytes, texts.size);
    spm_end(&texts);
    free(units);
    return map;
}

#endif
