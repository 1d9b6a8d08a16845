/* memory.c - aligned arrays and the arena. */
#include "memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARENA_ALIGNMENT = 16, ARENA_BLOCK_BYTES_MIN = 4096 };

/* Blocks form a list, newest first; each holds `size` bytes after its header. */
struct br_arena_block {
    br_arena_block *next;
    size_t size;
    size_t used;
    _Alignas(ARENA_ALIGNMENT) unsigned char bytes[];
};

br_status br_no_memory(br_error *error, const char *what, ...)
{
    char text[BR_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, what);
    (void)vsnprintf(text, sizeof text, what, arguments);
    va_end(arguments);
    return br_fail(error, BR_ENOMEM, "out of memory for %s", text);
}

void *br_alloc_array(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    if (bytes > SIZE_MAX - BR_ALIGNMENT) return NULL;
    if (bytes == 0) bytes = 1;
    /* aligned_alloc wants a multiple of the alignment. */
    return aligned_alloc(BR_ALIGNMENT, (bytes + BR_ALIGNMENT - 1) / BR_ALIGNMENT * BR_ALIGNMENT);
}

void br_arena_init(br_arena *arena)
{
    arena->blocks = NULL;
}

static void free_blocks(br_arena_block *block)
{
    while (block != NULL) {
        br_arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void br_arena_deinit(br_arena *arena)
{
    free_blocks(arena->blocks);
    arena->blocks = NULL;
}

static br_arena_block *add_block(br_arena *arena, size_t size)
{
    if (size > SIZE_MAX - sizeof(br_arena_block)) return NULL;
    br_arena_block *block = malloc(sizeof *block + size);
    if (block == NULL) return NULL;
    block->next = arena->blocks;
    block->size = size;
    block->used = 0;
    arena->blocks = block;
    return block;
}

void br_arena_reset(br_arena *arena, size_t keep_bytes_max)
{
    size_t total = 0;
    for (const br_arena_block *block = arena->blocks; block != NULL; block = block->next)
        total += block->size;

    const bool one_block = arena->blocks != NULL && arena->blocks->next == NULL;
    if (one_block && total <= keep_bytes_max) {
        arena->blocks->used = 0;
        return;
    }
    br_arena_deinit(arena);
    /* One block that is as large as all of them: the next request of this size needs no other. It does not
     * matter if there is no memory for it. */
    if (total > 0 && total <= keep_bytes_max) (void)add_block(arena, total);
}

void *br_arena_array(br_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;

    br_arena_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < bytes) {
        size_t wanted = block == NULL ? ARENA_BLOCK_BYTES_MIN : 2 * block->size;
        if (wanted < bytes) wanted = bytes;
        block = add_block(arena, wanted);
        if (block == NULL) return NULL;
    }
    void *piece = block->bytes + block->used;
    block->used += bytes;
    return memset(piece, 0, bytes);
}
