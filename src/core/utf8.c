/*
 * utf8.c - see utf8.h. Eight bytes at a time while the text is ASCII, else one sequence at a time.
 */
#include "utf8.h"

#include <string.h>

/* Bytes of the well-formed sequence at `at`, of which `left` bytes exist; 0 when there is none. */
static size_t sequence_bytes(const unsigned char *at, size_t left)
{
    const unsigned char lead = at[0];
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0; /* a continuation, or an overlong form of ASCII */
    if (left < 2 || !br_utf8_is_continuation((char)at[1])) return 0;
    if (lead < 0xE0) return 2;

    if (left < 3 || !br_utf8_is_continuation((char)at[2])) return 0;
    if (lead < 0xF0) {
        if (lead == 0xE0 && at[1] < 0xA0) return 0; /* overlong */
        if (lead == 0xED && at[1] > 0x9F) return 0; /* surrogate */
        return 3;
    }

    if (left < 4 || !br_utf8_is_continuation((char)at[3])) return 0;
    if (lead == 0xF0 && at[1] < 0x90) return 0; /* overlong */
    if (lead == 0xF4 && at[1] > 0x8F) return 0; /* above U+10FFFF */
    return lead <= 0xF4 ? 4 : 0;
}

size_t br_utf8_invalid_at(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t i = 0;
    while (i < size) {
        uint64_t word;
        if (size - i >= sizeof word) {
            memcpy(&word, bytes + i, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof word;
                continue;
            }
        }
        const size_t step = sequence_bytes(bytes + i, size - i);
        if (step == 0) return i;
        i += step;
    }
    return size;
}
