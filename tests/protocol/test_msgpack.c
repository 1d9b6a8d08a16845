/*
 * test_msgpack.c - msgpack read byte by byte, packed, and skipped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/limits.h"
#include "support/notation.h"

static const struct {
    const char *bytes;
    br_wire_type type;
    double number; /* numbers and bools; counts of arrays and maps; sizes of strings */
} encodings[] = {
    {"<c0>", BR_WIRE_NIL, 0},
    {"<c2>", BR_WIRE_BOOL, 0},
    {"<c3>", BR_WIRE_BOOL, 1},
    {"<00>", BR_WIRE_UINT, 0},
    {"<7f>", BR_WIRE_UINT, 127},
    {"<cc ff>", BR_WIRE_UINT, 255},
    {"<cc 01>", BR_WIRE_UINT, 1},
    {"<cd ff fe>", BR_WIRE_UINT, 65534},
    {"<ce 00 00 00 05>", BR_WIRE_UINT, 5},
    {"<ce ff ff ff ff>", BR_WIRE_UINT, 4294967295.0},
    {"<cf 00 00 00 01 00 00 00 00>", BR_WIRE_UINT, 4294967296.0},
    {"<cf ff ff ff ff ff ff ff ff>", BR_WIRE_UINT, 18446744073709551615.0},
    {"<d0 7f>", BR_WIRE_UINT, 127},
    {"<d0 80>", BR_WIRE_INT, -128},
    {"<d1 7f ff>", BR_WIRE_UINT, 32767},
    {"<d1 80 00>", BR_WIRE_INT, -32768},
    {"<d2 00 00 00 07>", BR_WIRE_UINT, 7},
    {"<d2 80 00 00 00>", BR_WIRE_INT, -2147483648.0},
    {"<d3 00 00 00 00 00 00 00 09>", BR_WIRE_UINT, 9},
    {"<d3 80 00 00 00 00 00 00 00>", BR_WIRE_INT, -9223372036854775808.0},
    {"<ff>", BR_WIRE_INT, -1},
    {"<e0>", BR_WIRE_INT, -32},
    {"<ca 3f 00 00 00>", BR_WIRE_FLOAT, 0.5},
    {"<cb 3f e0 00 00 00 00 00 00>", BR_WIRE_FLOAT, 0.5},
    {"<cb c0 00 00 00 00 00 00 00>", BR_WIRE_FLOAT, -2},
    {"<a0>", BR_WIRE_STR, 0},
    {"<a2 61 62>", BR_WIRE_STR, 2},
    {"<d9 02 61 62>", BR_WIRE_STR, 2},
    {"<da 00 02 61 62>", BR_WIRE_STR, 2},
    {"<db 00 00 00 02 61 62>", BR_WIRE_STR, 2},
    {"<c4 01 61>", BR_WIRE_BIN, 1},
    {"<c5 00 01 61>", BR_WIRE_BIN, 1},
    {"<c6 00 00 00 01 61>", BR_WIRE_BIN, 1},
    {"<d4 05 61>", BR_WIRE_EXT, 1},
    {"<d5 05 61 61>", BR_WIRE_EXT, 2},
    {"<d6 05 61 61 61 61>", BR_WIRE_EXT, 4},
    {"<d7 05 61 61 61 61 61 61 61 61>", BR_WIRE_EXT, 8},
    {"<d8 05 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61>", BR_WIRE_EXT, 16},
    {"<c7 03 05 61 61 61>", BR_WIRE_EXT, 3},
    {"<c8 00 03 05 61 61 61>", BR_WIRE_EXT, 3},
    {"<c9 00 00 00 03 05 61 61 61>", BR_WIRE_EXT, 3},
    {"<c7 00 05>", BR_WIRE_EXT, 0},
    {"<90>", BR_WIRE_ARRAY, 0},
    {"<92 01 02>", BR_WIRE_ARRAY, 2},
    {"<dc 00 02 01 02>", BR_WIRE_ARRAY, 2},
    {"<dd 00 00 00 02 01 02>", BR_WIRE_ARRAY, 2},
    {"<80>", BR_WIRE_MAP, 0},
    {"<81 a1 61 01>", BR_WIRE_MAP, 1},
    {"<de 00 01 a1 61 01>", BR_WIRE_MAP, 1},
    {"<df 00 00 00 01 a1 61 01>", BR_WIRE_MAP, 1},
};

enum { ENCODINGS = sizeof encodings / sizeof *encodings };

static double number_of(br_wire value)
{
    switch (value.type) {
    case BR_WIRE_NIL:
        return 0;
    case BR_WIRE_BOOL:
        return value.as.boolean;
    case BR_WIRE_UINT:
        return (double)value.as.uint;
    case BR_WIRE_INT:
        return (double)value.as.sint;
    case BR_WIRE_FLOAT:
        return value.as.real;
    case BR_WIRE_STR:
    case BR_WIRE_BIN:
    case BR_WIRE_EXT:
        return (double)value.as.bytes.size;
    case BR_WIRE_ARRAY:
    case BR_WIRE_MAP:
        return value.as.count;
    }
    return NAN;
}

static void test_every_encoding_is_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < ENCODINGS; i++) {
        message m = message_from(encodings[i].bytes);
        br_reader reader = br_reader_make(m.bytes, m.size);
        br_wire value = br_read(&reader);
        if (value.type != encodings[i].type || number_of(value) != encodings[i].number || reader.failed) {
            fail_msg("%s was read as %s %g", encodings[i].bytes, br_wire_type_name(value.type),
                     number_of(value));
        }
        br_skip_body(&reader, value);
        assert_true(br_reader_done(&reader));

        reader = br_reader_make(m.bytes, m.size);
        br_skip(&reader);
        assert_true(br_reader_done(&reader));
        free(m.bytes);
    }
}

static void test_every_truncation_fails_and_stays_failed(void **state)
{
    (void)state;
    for (size_t i = 0; i < ENCODINGS; i++) {
        message m = message_from(encodings[i].bytes);
        for (size_t size = 0; size < m.size; size++) {
            uint8_t *part = malloc(size + 1); /* its own block: reading beyond it is seen */
            assert_non_null(part);
            memcpy(part, m.bytes, size);
            br_reader reader = br_reader_make(part, size);
            br_skip(&reader);
            assert_true(reader.failed);
            assert_false(br_reader_done(&reader));
            assert_int_equal(br_read(&reader).type, BR_WIRE_NIL);
            assert_true(reader.failed);
            free(part);
        }
        free(m.bytes);
    }
}

static void test_strings_are_views_and_keep_their_bytes(void **state)
{
    (void)state;
    message m = message_from("<d9 03 61 00 ff>");
    br_reader reader = br_reader_make(m.bytes, m.size);
    br_wire value = br_read(&reader);
    assert_ptr_equal(value.as.bytes.data, m.bytes + 2);
    assert_true(br_str_equal(value.as.bytes, BR_STR_LITERAL("a\0\xff")));
    free(m.bytes);
}

static void test_the_byte_msgpack_does_not_define_fails(void **state)
{
    (void)state;
    br_reader reader = br_reader_make("\xc1\x01", 2);
    assert_int_equal(br_read(&reader).type, BR_WIRE_NIL);
    assert_true(reader.failed);
}

static void test_no_bytes_at_all_fail(void **state)
{
    (void)state;
    br_reader reader = br_reader_make(NULL, 0);
    br_skip(&reader);
    assert_true(reader.failed);
}

static void test_a_count_beyond_the_bytes_left_fails_at_the_head(void **state)
{
    static const char *const lies[] = {
        "<dd ff ff ff ff 00 00 00 00 00>",
        "<df ff ff ff ff 00 00 00 00 00>",
        "<df 80 00 00 00 00 00>",
        "<dc ff ff 00>",
        "<de 00 02 00 00 00>",
        "<93 00 00>",
        "<82 00 00 00>",
        "<db ff ff ff ff 61>",
        "<c6 ff ff ff ff 61>",
        "<c9 ff ff ff ff 05 61>",
    };
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        message m = message_from(lies[i]);
        br_reader reader = br_reader_make(m.bytes, m.size);
        br_wire head = br_read(&reader);
        assert_int_equal(head.type, BR_WIRE_NIL);
        assert_true(reader.failed);
        assert_false(reader.too_deep);
        free(m.bytes);
    }
}

/* `levels` arrays (or maps of key 1) around a nil. */
static br_reader skip_nested(uint8_t *bytes, size_t levels, bool maps)
{
    size_t size = 0;
    for (size_t i = 0; i < levels; i++) {
        bytes[size++] = maps ? 0x81 : 0x91;
        if (maps) bytes[size++] = 0x01;
    }
    bytes[size++] = 0xc0;
    br_reader reader = br_reader_make(bytes, size);
    br_skip(&reader);
    return reader;
}

static void test_nesting_is_bounded_on_both_sides_of_the_limit(void **state)
{
    (void)state;
    static uint8_t bytes[2 * 1000000 + 1];
    for (int maps = 0; maps <= 1; maps++) {
        br_reader reader = skip_nested(bytes, BR_NESTING_MAX, maps);
        assert_true(br_reader_done(&reader));
        reader = skip_nested(bytes, BR_NESTING_MAX + 1, maps);
        assert_true(reader.failed);
        assert_true(reader.too_deep);
        reader = skip_nested(bytes, 1000000, maps);
        assert_true(reader.too_deep);
    }
}

static void test_a_long_row_of_siblings_is_not_nesting(void **state)
{
    (void)state;
    message m = message_from("[[], {}, [1], [[2], [3]], {1: [4], 2: {5: 6}}, [], [[[]]]] ");
    br_reader reader = br_reader_make(m.bytes, m.size);
    br_skip(&reader);
    assert_true(br_reader_done(&reader));
    free(m.bytes);
}

static void test_bytes_after_the_value_are_not_done(void **state)
{
    (void)state;
    br_reader reader = br_reader_make("\x01\x02", 2);
    br_skip(&reader);
    assert_false(reader.failed);
    assert_false(br_reader_done(&reader));
}

static void test_what_is_packed_is_read_back(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0,     127,   128,        255,        256,
                                       65535, 65536, UINT32_MAX, 4294967296, UINT64_MAX};
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 257, 65535, 65536, 100000};
    static char text[100000];
    message m = {0};
    br_packer packer;
    br_packer_init(&packer, &m, message_append);
    for (size_t i = 0; i < 10; i++) {
        br_pack_uint(&packer, numbers[i]);
        br_pack_str(&packer, (br_str){text, sizes[i]});
        br_pack_real(&packer, 0.1 * (double)i);
    }
    br_pack_real(&packer, NAN);
    br_pack_real(&packer, INFINITY);
    br_pack_bool(&packer, true);
    assert_int_equal(br_packer_finish(&packer), 0);

    br_reader reader = br_reader_make(m.bytes, m.size);
    for (size_t i = 0; i < 10; i++) {
        assert_true(br_read(&reader).as.uint == numbers[i]);
        assert_int_equal(br_read(&reader).as.bytes.size, sizes[i]);
        assert_true(br_read(&reader).as.real == 0.1 * (double)i);
    }
    assert_int_equal(br_read(&reader).type, BR_WIRE_NIL);
    assert_int_equal(br_read(&reader).type, BR_WIRE_NIL);
    assert_true(br_read(&reader).as.boolean);
    assert_true(br_reader_done(&reader));
    free(m.bytes);
}

typedef struct narrow_sink {
    size_t room;
    size_t calls_after_refusal;
    bool refused;
} narrow_sink;

static int refuse_beyond_room(void *data, const char *bytes, size_t size)
{
    (void)bytes;
    narrow_sink *sink = data;
    if (sink->refused) sink->calls_after_refusal++;
    if (size > sink->room) {
        sink->refused = true;
        return -1;
    }
    sink->room -= size;
    return 0;
}

static void test_a_sink_that_refuses_is_told_once_at_the_end(void **state)
{
    (void)state;
    static const char text[1000];
    for (size_t room = 0; room <= 2 + 3 + sizeof text; room++) {
        narrow_sink sink = {.room = room};
        br_packer packer;
        br_packer_init(&packer, &sink, refuse_beyond_room);
        br_pack_array(&packer, 2);
        br_pack_str(&packer, (br_str){text, sizeof text});
        br_pack_nil(&packer);
        assert_int_equal(br_packer_finish(&packer), room == 2 + 3 + sizeof text ? 0 : -1);
        assert_int_equal(sink.calls_after_refusal, 0);
    }
}

static void test_codes_have_words_and_words_have_codes(void **state)
{
    (void)state;
    static const char *const words[] = {"bad_request", "too_large",   "overloaded", "deadline",
                                        "not_ready",   "unsupported", "infeasible", "internal"};
    assert_string_equal(br_code_name(BR_CODE_NONE), "");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        const br_code code = br_code_parse(br_str_from(words[i]));
        assert_int_equal(code, BR_CODE_BAD_REQUEST + i);
        assert_string_equal(br_code_name(code), words[i]);
    }
    assert_int_equal(br_code_parse(BR_STR_LITERAL("")), BR_CODE_NONE);
    assert_int_equal(br_code_parse(BR_STR_LITERAL("bad_reques")), BR_CODE_NONE);
    assert_int_equal(br_code_parse(BR_STR_LITERAL("bad_request2")), BR_CODE_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_encoding_is_read),
        cmocka_unit_test(test_every_truncation_fails_and_stays_failed),
        cmocka_unit_test(test_strings_are_views_and_keep_their_bytes),
        cmocka_unit_test(test_the_byte_msgpack_does_not_define_fails),
        cmocka_unit_test(test_no_bytes_at_all_fail),
        cmocka_unit_test(test_a_count_beyond_the_bytes_left_fails_at_the_head),
        cmocka_unit_test(test_nesting_is_bounded_on_both_sides_of_the_limit),
        cmocka_unit_test(test_a_long_row_of_siblings_is_not_nesting),
        cmocka_unit_test(test_bytes_after_the_value_are_not_done),
        cmocka_unit_test(test_what_is_packed_is_read_back),
        cmocka_unit_test(test_a_sink_that_refuses_is_told_once_at_the_end),
        cmocka_unit_test(test_codes_have_words_and_words_have_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
