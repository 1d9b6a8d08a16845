/* nearest.c - edit distance in three rows of its table. */
#include "nearest.h"

#include <stdint.h>

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/*
 * Row i of the table holds the distance of the first i letters of `a` from the first j letters of `b`, for
 * every j. A swap of neighbours reaches two rows back, so three rows take turns.
 */
size_t br_edit_distance(br_str a, br_str b)
{
    if (a.size > BR_NEAREST_BYTES_MAX || b.size > BR_NEAREST_BYTES_MAX) return SIZE_MAX;
    size_t table[3][BR_NEAREST_BYTES_MAX + 1];
    for (size_t j = 0; j <= b.size; j++) table[0][j] = j;
    for (size_t i = 1; i <= a.size; i++) {
        size_t *row = table[i % 3];
        const size_t *above = table[(i + 2) % 3];
        const size_t *swapped = table[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b.size; j++) {
            const bool same = a.data[i - 1] == b.data[j - 1];
            row[j] = smaller(above[j - 1] + (same ? 0 : 1), smaller(above[j], row[j - 1]) + 1);
            const bool swap =
                i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1];
            if (swap) row[j] = smaller(row[j], swapped[j - 2] + 1);
        }
    }
    return table[a.size % 3][b.size];
}

br_nearest br_nearest_to(br_str word)
{
    const size_t allowed = word.size / 3 > 1 ? word.size / 3 : 1;
    return (br_nearest){.word = word, .distance = allowed + 1};
}

void br_nearest_offer(br_nearest *nearest, const char *known)
{
    const size_t distance = br_edit_distance(nearest->word, br_str_from(known));
    if (distance >= nearest->distance) return;
    nearest->best = known;
    nearest->distance = distance;
}
