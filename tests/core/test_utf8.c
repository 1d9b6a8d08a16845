/* test_utf8.c - what is UTF-8, and where it stops being so. */
#include "core/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The form RFC 3629 gives a number, surrogates and too large ones included. */
static size_t write_code(char *out, uint32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = size - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(leads[size] | code);
    return size;
}

static void test_every_code_point_is_valid_but_surrogates_and_those_too_large(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x200000; code++) {
        char text[4];
        const size_t size = write_code(text, code);
        const bool valid = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
        if ((br_utf8_invalid_at(text, size) == size) != valid) fail_msg("U+%04X", (unsigned)code);
        if (!valid) continue;
        if (br_utf8_size(text[0]) != size || br_utf8_code(text, size) != code)
            fail_msg("U+%04X", (unsigned)code);
    }
}

static void test_malformed_sequences_are_found_where_they_begin(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *text;
        size_t size;
        size_t invalid_at;
    } cases[] = {
        {"nothing", "", 0, 0},
        {"ASCII", "plain", 5, 5},
        {"a NUL", "a\0b", 3, 3},
        {"a lone continuation", "a\x80", 2, 1},
        {"overlong NUL", "\xC0\x80", 2, 0},
        {"overlong slash", "a\xC1\xAF", 3, 1},
        {"overlong in three", "\xE0\x9F\xBF", 3, 0},
        {"overlong in four", "\xF0\x8F\xBF\xBF", 4, 0},
        {"the least of three", "\xE0\xA0\x80", 3, 3},
        {"the least of four", "\xF0\x90\x80\x80", 4, 4},
        {"the last before surrogates", "\xED\x9F\xBF", 3, 3},
        {"a surrogate", "\xED\xA0\x80", 3, 0},
        {"the greatest", "\xF4\x8F\xBF\xBF", 4, 4},
        {"too large", "\xF4\x90\x80\x80", 4, 0},
        {"a lead that never is", "\xF5\x80\x80\x80", 4, 0},
        {"0xFF", "\xFF", 1, 0},
        {"two of three bytes", "ab\xE2\x82", 4, 2},
        {"one of two bytes", "ab\xC3", 3, 2},
        {"three of four bytes", "\xF0\x9F\xA6", 3, 0},
        {"a lead for a continuation", "\xC3\xC3\xA9", 3, 0},
        {"ASCII for a continuation",
         "\xE2\x82"
         "a",
         3, 0},
        {"far behind ASCII", "01234567890123456789\xFF", 21, 20},
        {"at the end of a word", "0123456\xFF", 8, 7},
        {"good, then bad", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x99\x99", 10, 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* A copy of the exact size, so that a read past the end is seen. */
        char *text = malloc(cases[i].size + 1);
        assert_non_null(text);
        char *exact = text + 1;
        memcpy(exact, cases[i].text, cases[i].size);
        if (br_utf8_invalid_at(exact, cases[i].size) != cases[i].invalid_at) fail_msg("%s", cases[i].name);
        free(text);
    }
}

static void test_a_bad_byte_is_found_at_every_offset(void **state)
{
    (void)state;
    enum { SIZE = 64 };
    for (size_t at = 0; at < SIZE; at++) {
        char text[SIZE];
        memset(text, 'x', sizeof text);
        text[at] = (char)0x80;
        assert_int_equal(br_utf8_invalid_at(text, SIZE), at);
        assert_int_equal(br_utf8_invalid_at(text, at), at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point_is_valid_but_surrogates_and_those_too_large),
        cmocka_unit_test(test_malformed_sequences_are_found_where_they_begin),
        cmocka_unit_test(test_a_bad_byte_is_found_at_every_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
