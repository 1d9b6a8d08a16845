/*
 * packing.c - see packing.h.
 */
#include "packing.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

br_status br_packing_init(br_packing *packing, int32_t tokens_max, int32_t seqs_max)
{
    assert(tokens_max > 0);
    assert(seqs_max > 0);
    *packing = (br_packing){.tokens_max = tokens_max, .seqs_max = seqs_max};
    packing->ids = br_alloc_array((size_t)tokens_max, sizeof *packing->ids);
    packing->offsets = br_alloc_array((size_t)seqs_max + 1, sizeof *packing->offsets);
    if (packing->ids == NULL || packing->offsets == NULL) goto fail;

    br_packing_clear(packing);
    return BR_OK;

fail:
    br_packing_deinit(packing);
    return BR_ENOMEM;
}

void br_packing_deinit(br_packing *packing)
{
    free(packing->ids);
    free(packing->offsets);
    *packing = (br_packing){0};
}

void br_packing_clear(br_packing *packing)
{
    packing->tokens = 0;
    packing->seqs = 0;
    packing->offsets[0] = 0;
}

bool br_packing_add(br_packing *packing, const int32_t *ids, int32_t tokens)
{
    assert(tokens > 0);
    if (packing->seqs == packing->seqs_max) return false;
    if (tokens > packing->tokens_max - packing->tokens) return false;

    memcpy(packing->ids + packing->tokens, ids, (size_t)tokens * sizeof *ids);
    packing->tokens += tokens;
    packing->seqs += 1;
    packing->offsets[packing->seqs] = packing->tokens;
    return true;
}
