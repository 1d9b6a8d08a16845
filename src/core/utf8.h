/*
 * utf8.h - strict UTF-8 validation (Unicode 15, table 3-7): no overlong forms, no surrogates,
 * nothing above U+10FFFF. And reading code points from text that passed it.
 */
#ifndef BESTROUTE_CORE_UTF8_H
#define BESTROUTE_CORE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The offset of the first byte that is not part of a well-formed sequence; `size` when all is well. */
size_t br_utf8_invalid_at(const char *text, size_t size);

/* Bytes of the character that begins with `lead`, the first byte of a well-formed sequence. */
static inline size_t br_utf8_size(char lead)
{
    const unsigned char byte = (unsigned char)lead;
    return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/* The code point at `at`, where a well-formed sequence of `size` bytes begins. */
static inline uint32_t br_utf8_code(const char *at, size_t size)
{
    const unsigned char *byte = (const unsigned char *)at;
    switch (size) {
    case 1:
        return byte[0];
    case 2:
        return (byte[0] & 0x1Fu) << 6 | (byte[1] & 0x3Fu);
    case 3:
        return (byte[0] & 0x0Fu) << 12 | (byte[1] & 0x3Fu) << 6 | (byte[2] & 0x3Fu);
    default:
        return (byte[0] & 0x07u) << 18 | (byte[1] & 0x3Fu) << 12 | (byte[2] & 0x3Fu) << 6 | (byte[3] & 0x3Fu);
    }
}

/* True for every byte of a well-formed sequence but its first. */
static inline int br_utf8_is_continuation(char byte)
{
    return ((unsigned char)byte & 0xC0) == 0x80;
}

#endif
