/*
 * memory.h - strings by length, aligned memory, and an arena that stops growing.
 *
 * The arena serves one request at a time: it hands out pieces, is reset when
 * the request is answered, and keeps its blocks. In steady state it allocates
 * nothing. Not thread-safe.
 */
#ifndef BESTROUTE_CORE_MEMORY_H
#define BESTROUTE_CORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bestroute/error.h"
#include "bestroute/status.h"

enum { BR_ALIGNMENT = 64 };

/* A view of bytes owned by somebody else; not terminated. */
typedef struct br_str {
    const char *data; /* may be NULL when size is 0 */
    size_t size;
} br_str;

#define BR_STR_LITERAL(text) ((br_str){(text), sizeof(text) - 1})

static inline bool br_str_equal(br_str a, br_str b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline br_str br_str_from(const char *text)
{
    return (br_str){text, strlen(text)};
}

/* Says "out of memory for <what>" and returns BR_ENOMEM; `error` may be NULL.
 * `what` is formatted as by printf. */
BR_NODISCARD br_status br_no_memory(br_error *error, const char *what, ...)
    __attribute__((format(printf, 2, 3)));

/* count * size bytes at BR_ALIGNMENT, uninitialised; NULL when that overflows or memory is out.
 * Never NULL for 0 bytes otherwise. Release with free(). */
void *br_alloc_array(size_t count, size_t size);

typedef struct br_arena_block br_arena_block;
typedef struct br_arena {
    br_arena_block *blocks; /* newest first */
} br_arena;

void br_arena_init(br_arena *arena);

/* Releases every block. */
void br_arena_deinit(br_arena *arena);

/* Everything handed out becomes invalid. Keeps one block, large enough for all that was in use,
 * unless that exceeds `keep_bytes_max`: a single huge request does not hold memory for ever. */
void br_arena_reset(br_arena *arena, size_t keep_bytes_max);

/* count * size zeroed bytes, aligned to 16; NULL when that overflows or memory is out. */
void *br_arena_array(br_arena *arena, size_t count, size_t size);

#endif
