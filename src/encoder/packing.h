/*
 * packing.h - prompts laid end to end: ids [T] and offsets [B + 1], no padding.
 *
 *   ids      1 128001 17 2 | 1 128001 9 4 6 2 | ...
 *   offsets  0               4                  10 ...
 */
#ifndef BESTROUTE_ENCODER_PACKING_H
#define BESTROUTE_ENCODER_PACKING_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/status.h"

typedef struct br_packing {
    int32_t *ids;     /* [tokens_max] */
    int32_t *offsets; /* [seqs_max + 1]; offsets[0] is 0 */
    int32_t tokens_max;
    int32_t seqs_max;
    int32_t tokens; /* T */
    int32_t seqs;   /* B */
} br_packing;

/* BR_ENOMEM. Release with br_packing_deinit, which also accepts a zeroed struct. */
BR_NODISCARD br_status br_packing_init(br_packing *packing, int32_t tokens_max, int32_t seqs_max);
void br_packing_deinit(br_packing *packing);

void br_packing_clear(br_packing *packing);

/* Copies `tokens` ids as the next sequence. False: it does not fit, and nothing has changed. */
bool br_packing_add(br_packing *packing, const int32_t *ids, int32_t tokens);

#endif
