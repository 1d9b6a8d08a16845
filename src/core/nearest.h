/*
 * nearest.h - which known word a misspelt one most likely stands for.
 *
 *   br_nearest nearest = br_nearest_to(br_str_from("nmae"));
 *   br_nearest_offer(&nearest, "name");    each known word
 *   nearest.best                           "name"; NULL where no known word is near enough
 *
 * The distance of two words is the number of edits from one to the other. An edit inserts, removes or
 * replaces a letter, or swaps two neighbours. A known word is near enough when its distance is at most a
 * third of the misspelt word's length, or one. Of equally near words the first one offered wins.
 *
 * Nothing here allocates.
 */
#ifndef BESTROUTE_CORE_NEAREST_H
#define BESTROUTE_CORE_NEAREST_H

#include <stddef.h>

#include "core/memory.h"

enum { BR_NEAREST_BYTES_MAX = 64 }; /* no word longer than this is near another */

typedef struct br_nearest {
    br_str word;
    const char *best;
    size_t distance; /* of best; without one, the smallest distance that is too far */
} br_nearest;

/* Borrows `word`. */
br_nearest br_nearest_to(br_str word);

/* Borrows `known`. */
void br_nearest_offer(br_nearest *nearest, const char *known);

/* SIZE_MAX where one of them is longer than BR_NEAREST_BYTES_MAX. */
size_t br_edit_distance(br_str a, br_str b);

#endif
