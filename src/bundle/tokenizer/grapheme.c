/*
 * grapheme.c - see grapheme.h. Rules are called by their numbers in Annex 29.
 */
#include "grapheme.h"

#include <stddef.h>

typedef enum grapheme_class {
    OTHER,
    CR,
    LF,
    CONTROL,
    PREPEND,
    SPACING,
    EXTEND,          /* not part of a conjunct: a non-joiner */
    CONJUNCT_EXTEND, /* Extend that may stand between consonant and linker */
    LINKER,          /* Extend that links two consonants */
    JOINER,          /* U+200D */
    PICTURE,
    CONSONANT,
    REGIONAL,
    HANGUL_L,
    HANGUL_V,
    HANGUL_T,
    HANGUL_LV,
    HANGUL_LVT,
} grapheme_class;

typedef struct grapheme_range {
    uint32_t first;
    uint32_t last;
    uint32_t class;
} grapheme_range;

#include "grapheme_table.h"

static bool within(uint32_t code, uint32_t first, uint32_t last)
{
    return code - first <= last - first;
}

/* The classes of ranges that the table leaves out; OTHER: look into the table. */
static grapheme_class computed_class(uint32_t code)
{
    if (code == '\r') return CR;
    if (code == '\n') return LF;
    if (code == 0) return CONTROL;
    if (code == 0x200D) return JOINER;
    if (within(code, 0x1F1E6, 0x1F1FF)) return REGIONAL;
    if (within(code, 0xAC00, 0xD7A3)) return (code - 0xAC00) % 28 == 0 ? HANGUL_LV : HANGUL_LVT;
    if (within(code, 0x1100, 0x115F) || within(code, 0xA960, 0xA97C)) return HANGUL_L;
    if (within(code, 0x1160, 0x11A7) || within(code, 0xD7B0, 0xD7C6)) return HANGUL_V;
    if (within(code, 0x11A8, 0x11FF) || within(code, 0xD7CB, 0xD7FB)) return HANGUL_T;
    return OTHER;
}

static grapheme_class class_of(uint32_t code)
{
    if (within(code, 0x20, 0x7E)) return OTHER;
    if (within(code, 0x3400, 0xA000)) return OTHER; /* ideographs, without a search */
    const grapheme_class computed = computed_class(code);
    if (computed != OTHER) return computed;

    size_t low = 0;
    size_t high = sizeof grapheme_ranges / sizeof grapheme_ranges[0];
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (code > grapheme_ranges[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == sizeof grapheme_ranges / sizeof grapheme_ranges[0]) return OTHER;
    return code >= grapheme_ranges[low].first ? (grapheme_class)grapheme_ranges[low].class : OTHER;
}

static bool is_extend(grapheme_class class)
{
    return class >= EXTEND && class <= JOINER;
}

static bool is_control(grapheme_class class)
{
    return class >= CR && class <= CONTROL;
}

/* Adds a code point of class `class` to the cluster. */
static void take(grapheme *cluster, grapheme_class class)
{
    if (class == PICTURE) {
        cluster->picture = 1;
    } else if (!(cluster->picture == 1 && is_extend(class))) {
        cluster->picture = 0;
    } else if (class == JOINER) {
        cluster->picture = 2;
    }

    if (class == CONSONANT) {
        cluster->conjunct = 1;
    } else if (cluster->conjunct != 0 && class == LINKER) {
        cluster->conjunct = 2;
    } else if (class != CONJUNCT_EXTEND && class != JOINER) {
        cluster->conjunct = 0;
    }

    cluster->flags = class == REGIONAL ? cluster->flags ^ 1 : 0;
    cluster->last = (uint8_t) class;
}

void grapheme_begin(grapheme *cluster, uint32_t code)
{
    *cluster = (grapheme){0};
    take(cluster, class_of(code));
}

static bool hangul_joins(grapheme_class last, grapheme_class next)
{
    switch (last) {
    case HANGUL_L:
        return next == HANGUL_L || next == HANGUL_V || next == HANGUL_LV || next == HANGUL_LVT;
    case HANGUL_LV:
    case HANGUL_V:
        return next == HANGUL_V || next == HANGUL_T;
    case HANGUL_LVT:
    case HANGUL_T:
        return next == HANGUL_T;
    default:
        return false;
    }
}

static bool joins(const grapheme *cluster, grapheme_class next)
{
    const grapheme_class last = (grapheme_class)cluster->last;
    if (last == CR && next == LF) return true;                    /* GB3 */
    if (is_control(last) || is_control(next)) return false;       /* GB4, GB5 */
    if (is_extend(next) || next == SPACING) return true;          /* GB9, GB9a */
    if (last == PREPEND) return true;                             /* GB9b */
    if (hangul_joins(last, next)) return true;                    /* GB6, GB7, GB8 */
    if (cluster->conjunct == 2 && next == CONSONANT) return true; /* GB9c */
    if (cluster->picture == 2 && next == PICTURE) return true;    /* GB11 */
    return cluster->flags == 1 && next == REGIONAL;               /* GB12, GB13 */
}

bool grapheme_joins(grapheme *cluster, uint32_t code)
{
    const grapheme_class class = class_of(code);
    if (!joins(cluster, class)) return false;
    take(cluster, class);
    return true;
}
