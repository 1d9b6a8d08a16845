/*
 * notation.h - msgpack written down so that a table of messages can be read.
 *
 *   {'v': 1, 'op': 'route', 'queries': [{'text': 'hi', 'max_cost': 0.5f}], 'id': <c4 01 ff>}
 *
 * Maps, arrays, 'strings', integers, floats (with a point or exponent: float64; with an f at the end:
 * float32), true, false, nil, nan, inf, and <hex> for bytes as they are. Keys may be any value and may
 * repeat. A mistake in the notation ends the test program.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_NOTATION_H
#define BESTROUTE_TESTS_SUPPORT_NOTATION_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/msgpack.h"

/* A growing run of bytes; release with free(bytes). */
typedef struct message {
    uint8_t *bytes;
    size_t size;
    size_t room;
} message;

/* Has the form of br_write_fn. */
static inline int message_append(void *sink, const char *bytes, size_t size)
{
    message *out = sink;
    if (out->size + size > out->room) {
        out->room = 2 * (out->size + size);
        out->bytes = realloc(out->bytes, out->room);
        if (out->bytes == NULL) abort();
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
    return 0;
}

static inline void notation_fail(const char *at)
{
    (void)fprintf(stderr, "notation.h: cannot read: %s\n", at);
    abort();
}

static inline const char *notation_space(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == ',' || *at == ':') at++;
    return at;
}

static inline const char *notation_hex(br_packer *packer, const char *at)
{
    while (*(at = notation_space(at)) != '>') {
        unsigned int byte;
        if (sscanf(at, "%2x", &byte) != 1) notation_fail(at);
        const char c = (char)byte;
        br_pack_raw(packer, (br_str){&c, 1});
        at += 2;
    }
    return at + 1;
}

static inline const char *notation_number(br_packer *packer, const char *at)
{
    char *end;
    const size_t size = strspn(at, "+-0123456789.eE");
    const bool is_real = memchr(at, '.', size) != NULL || memchr(at, 'e', size) != NULL;
    if (!is_real && *at != '-') {
        br_pack_uint(packer, strtoull(at, &end, 10));
        return end;
    }
    if (!is_real) {
        const uint64_t bits = (uint64_t)strtoll(at, &end, 10);
        char bytes[9] = {(char)0xd3};
        for (int i = 0; i < 8; i++) bytes[1 + i] = (char)(bits >> (56 - 8 * i));
        br_pack_raw(packer, (br_str){bytes, sizeof bytes});
        return end;
    }
    const double value = strtod(at, &end);
    if (*end != 'f') {
        br_pack_real(packer, value);
        return end;
    }
    const float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    const char bytes[5] = {(char)0xca, (char)(bits >> 24), (char)(bits >> 16), (char)(bits >> 8), (char)bits};
    br_pack_raw(packer, (br_str){bytes, sizeof bytes});
    return end + 1;
}

static inline const char *notation_value(br_packer *packer, const char *at);

static inline const char *notation_items(br_packer *packer, const char *at, char close)
{
    message items = {0};
    br_packer inner;
    br_packer_init(&inner, &items, message_append);
    size_t count = 0;
    while (*(at = notation_space(at)) != close) {
        at = notation_value(&inner, at);
        count++;
    }
    if (br_packer_finish(&inner) != 0) abort();
    if (close == ']') br_pack_array(packer, count);
    if (close == '}') br_pack_map(packer, count / 2);
    br_pack_raw(packer, (br_str){(const char *)items.bytes, items.size});
    free(items.bytes);
    return at + 1;
}

static inline const char *notation_value(br_packer *packer, const char *at)
{
    static const struct {
        const char *word;
        const char *bytes;
        size_t size;
    } words[] = {
        {"true", "\xc3", 1},
        {"false", "\xc2", 1},
        {"nil", "\xc0", 1},
        {"nan", "\xcb\x7f\xf8\0\0\0\0\0\0", 9},
        {"inf", "\xcb\x7f\xf0\0\0\0\0\0\0", 9},
    };
    at = notation_space(at);
    if (*at == '{') return notation_items(packer, at + 1, '}');
    if (*at == '[') return notation_items(packer, at + 1, ']');
    if (*at == '<') return notation_hex(packer, at + 1);
    if (*at == '\'') {
        const char *end = strchr(at + 1, '\'');
        if (end == NULL) notation_fail(at);
        br_pack_str(packer, (br_str){at + 1, (size_t)(end - at - 1)});
        return end + 1;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strncmp(at, words[i].word, strlen(words[i].word)) != 0) continue;
        br_pack_raw(packer, (br_str){words[i].bytes, words[i].size});
        return at + strlen(words[i].word);
    }
    if (strchr("+-0123456789", *at) == NULL || *at == '\0') notation_fail(at);
    return notation_number(packer, at);
}

/* Every value of `text`, one after the other: usually one. */
static inline message message_from(const char *text)
{
    message out = {0};
    br_packer packer;
    br_packer_init(&packer, &out, message_append);
    while (*(text = notation_space(text)) != '\0') text = notation_value(&packer, text);
    if (br_packer_finish(&packer) != 0) abort();
    /* A block of exactly this size: a read one byte beyond it is seen by the address sanitizer. */
    uint8_t *exact = malloc(out.size > 0 ? out.size : 1);
    if (exact == NULL) abort();
    if (out.size > 0) memcpy(exact, out.bytes, out.size);
    free(out.bytes);
    out.bytes = exact;
    out.room = out.size;
    return out;
}

#endif
