/*
 * backend.c - see backend.h.
 */
#include "backend.h"

#include <stdlib.h>

void br_backend_close(br_backend *backend)
{
    if (backend == NULL) return;
    backend->table->close(backend);
}

void br_pieces_deinit(br_pieces *pieces)
{
    free(pieces->items);
    *pieces = (br_pieces){0};
}

br_status br_pieces_add(br_pieces *pieces, void *memory, size_t bytes)
{
    if (pieces->count == pieces->capacity) {
        const int32_t capacity = pieces->capacity == 0 ? 128 : 2 * pieces->capacity;
        br_piece *items = realloc(pieces->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return BR_ENOMEM;
        pieces->items = items;
        pieces->capacity = capacity;
    }
    pieces->items[pieces->count++] = (br_piece){memory, bytes};
    return BR_OK;
}
