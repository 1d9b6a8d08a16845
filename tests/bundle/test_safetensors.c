/* test_safetensors.c - the table of a safetensors file, and errors of every kind in it. */
#include "bundle/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/oom.h"

/* A file in memory of exactly its size, so that a sanitizer finds a read past its end. */
typedef struct image {
    unsigned char *bytes;
    size_t size;
} image;

static image make_image(const char *header, size_t data_bytes)
{
    const size_t length = strlen(header);
    image file = {.size = 8 + length + data_bytes};
    file.bytes = malloc(file.size);
    assert_non_null(file.bytes);
    for (int i = 0; i < 8; i++) file.bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(file.bytes + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) file.bytes[8 + length + i] = (unsigned char)i;
    return file;
}

static br_status open_image(br_safetensors **table, const char *header, size_t data_bytes, image *file,
                            br_error *error)
{
    *file = make_image(header, data_bytes);
    return br_safetensors_create(table, file->bytes, file->size, "model.safetensors", error);
}

static void test_tensors_come_in_the_order_of_their_data(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"b\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[24,30]},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                                 "\"c\":{\"dtype\":\"BF16\",\"shape\":[1,1,1],\"data_offsets\":[30,32]}}  ";
    br_safetensors *table;
    br_error error;
    image file;
    assert_int_equal(open_image(&table, header, 32, &file, &error), BR_OK);
    assert_int_equal(br_safetensors_count(table), 3);

    const unsigned char *data = file.bytes + file.size - 32;
    const br_tensor *a = br_safetensors_at(table, 0);
    assert_true(br_str_equal(a->name, BR_STR_LITERAL("a")));
    assert_true(a->readable);
    assert_int_equal(a->type, BR_F32);
    assert_string_equal(a->type_name, "F32");
    assert_int_equal(a->rank, 2);
    assert_int_equal(a->shape[0], 2);
    assert_int_equal(a->shape[1], 3);
    assert_ptr_equal(a->data, data);
    assert_int_equal(a->bytes, 24);

    const br_tensor *b = br_safetensors_find(table, "b");
    assert_ptr_equal(b, br_safetensors_at(table, 1));
    assert_int_equal(b->type, BR_F16);
    assert_ptr_equal(b->data, data + 24);
    const br_tensor *c = br_safetensors_find(table, "c");
    assert_ptr_equal(c, br_safetensors_at(table, 2));
    assert_int_equal(c->type, BR_BF16);
    assert_int_equal(c->rank, 3);

    assert_null(br_safetensors_find(table, "d"));
    assert_null(br_safetensors_find(table, ""));
    assert_null(br_safetensors_find(table, "__metadata__"));
    br_safetensors_destroy(table);
    free(file.bytes);
}

/* Features of the format that few writers use. */
static void test_unusual_files_are_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *header;
        size_t data_bytes;
        size_t count;
    } cases[] = {
        {"no tensors", "{}", 0, 0},
        {"metadata alone", "{\"__metadata__\":{}}", 0, 0},
        {"a scalar", "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, 1},
        {"no elements", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4,0],\"data_offsets\":[0,0]}}", 0, 1},
        {"no elements between others",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},"
         "\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
         4, 3},
        {"a type we do not read", "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, 1},
        {"a type smaller than a byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[6],\"data_offsets\":[0,3]}}", 3,
         1},
        {"rank 8", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]}}", 2, 1},
        {"keys of the future", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"note\":{}}}",
         1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("%s\n", cases[i].name);
        br_safetensors *table;
        br_error error;
        image file;
        assert_int_equal(open_image(&table, cases[i].header, cases[i].data_bytes, &file, &error), BR_OK);
        assert_int_equal(br_safetensors_count(table), cases[i].count);
        br_safetensors_destroy(table);
        free(file.bytes);
    }
}

static void test_other_types_are_listed_and_not_readable(void **state)
{
    (void)state;
    br_safetensors *table;
    image file;
    assert_int_equal(open_image(&table, "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
                                &file, NULL),
                     BR_OK);
    assert_false(br_safetensors_at(table, 0)->readable);
    assert_string_equal(br_safetensors_at(table, 0)->type_name, "I64");
    br_safetensors_destroy(table);
    free(file.bytes);
}

#define ONE(fields) "{\"a\":{" fields "}}"

static void test_a_table_that_is_not_true_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *words; /* in the message */
        const char *header;
        size_t data_bytes;
        br_status status;
    } cases[] = {
        {"expected it to begin with '{'", "", 0, BR_EFORMAT},
        {"expected it to begin with '{'", " {}", 0, BR_EFORMAT},
        {"expected it to begin with '{'", "[]", 0, BR_EFORMAT},
        {"JSON", "{", 0, BR_EFORMAT},
        {"JSON", "{}x", 0, BR_EFORMAT},
        {"duplicate",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
         0, BR_EFORMAT},
        {"__metadata__", "{\"__metadata__\":1}", 0, BR_EFORMAT},
        {"__metadata__", "{\"__metadata__\":{\"a\":1}}", 0, BR_EFORMAT},
        {"tensor a: entry", "{\"a\":[]}", 0, BR_EFORMAT},
        {"dtype: found nothing", ONE("\"shape\":[1],\"data_offsets\":[0,1]"), 1, BR_EFORMAT},
        {"dtype: found 1", ONE("\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]"), 1, BR_EFORMAT},
        {"F32x", ONE("\"dtype\":\"F32x\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, BR_EFORMAT},
        {"f32", ONE("\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]"), 4, BR_EFORMAT},
        {"shape: found nothing", ONE("\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1, BR_EFORMAT},
        {"shape: found -1", ONE("\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]"), 1, BR_EFORMAT},
        {"shape: found 1.5", ONE("\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]"), 1, BR_EFORMAT},
        {"at most 8", ONE("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
         BR_ETOOBIG},
        {"2^64", ONE("\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
         BR_EFORMAT},
        {"overflows", ONE("\"dtype\":\"F32\",\"shape\":[4611686018427387904,2],\"data_offsets\":[0,0]"), 0,
         BR_EFORMAT},
        {"data_offsets: found nothing", ONE("\"dtype\":\"U8\",\"shape\":[1]"), 1, BR_EFORMAT},
        {"data_offsets: found an array of 3", ONE("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]"),
         1, BR_EFORMAT},
        {"data_offsets: found -1", ONE("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]"), 1,
         BR_EFORMAT},
        {"data_offsets: found 2", ONE("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 1,
         BR_EFORMAT},
        {"data_offsets: found 9223372036854775807",
         ONE("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]"), 1, BR_EFORMAT},
        {"JSON", ONE("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,18446744073709551616]"), 1,
         BR_EFORMAT},
        {"not above the end", ONE("\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,0]"), 1, BR_EFORMAT},
        {"found 4 bytes, expected 8", ONE("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]"), 4,
         BR_EFORMAT},
        {"found 8 bytes, expected 4", ONE("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]"), 8,
         BR_EFORMAT},
        {"found 2 bytes, expected 3", ONE("\"dtype\":\"F4\",\"shape\":[5],\"data_offsets\":[0,2]"), 2,
         BR_EFORMAT},
        {"a hole", ONE("\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]"), 2, BR_EFORMAT},
        {"overlap",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, BR_EFORMAT},
        {"overlap",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
         2, BR_EFORMAT},
        {"found 3 bytes of tensor data, expected 2",
         ONE("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 3, BR_EFORMAT},
        {"found 1 bytes of tensor data, expected 0", "{}", 1, BR_EFORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("%s\n", cases[i].header);
        br_safetensors *table = NULL;
        br_error error = {0};
        image file;
        assert_int_equal(open_image(&table, cases[i].header, cases[i].data_bytes, &file, &error),
                         cases[i].status);
        assert_null(table);
        assert_int_equal(error.status, cases[i].status);
        assert_non_null(strstr(error.text, "model.safetensors: "));
        assert_non_null(strstr(error.text, cases[i].words));
        assert_int_equal(br_safetensors_create(&table, file.bytes, file.size, "x", NULL), cases[i].status);
        free(file.bytes);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
    image file = make_image(header, 8);
    for (size_t size = 0; size < file.size; size++) {
        unsigned char *part = malloc(size + 1);
        assert_non_null(part);
        memcpy(part, file.bytes, size);
        unsigned char *exact = realloc(part, size == 0 ? 1 : size);
        assert_non_null(exact);
        br_safetensors *table = NULL;
        assert_int_equal(br_safetensors_create(&table, exact, size, "x", NULL), BR_EFORMAT);
        assert_null(table);
        free(exact);
    }
    free(file.bytes);
}

static void test_a_header_size_beyond_the_file_is_refused(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {3, 1u << 20, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        image file = make_image("{}", 0);
        for (int k = 0; k < 8; k++) file.bytes[k] = (unsigned char)(sizes[i] >> (8 * k));
        br_safetensors *table;
        br_error error = {0};
        assert_int_equal(br_safetensors_create(&table, file.bytes, file.size, "x", &error), BR_EFORMAT);
        assert_non_null(strstr(error.text, "header size"));
        free(file.bytes);
    }
}

/* A header of `tensors` empty ones. */
static char *many_tensors(size_t tensors)
{
    const size_t room = tensors * 64 + 3;
    char *header = malloc(room);
    assert_non_null(header);
    size_t at = 0;
    header[at++] = '{';
    for (size_t i = 0; i < tensors; i++) {
        at += (size_t)snprintf(header + at, room - at,
                               "%s\"%zu\":{\"dtype\":\"U8\",\"shape\":[0],"
                               "\"data_offsets\":[0,0]}",
                               i == 0 ? "" : ",", i);
    }
    header[at++] = '}';
    header[at] = '\0';
    return header;
}

static void test_the_number_of_tensors_is_bounded(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        char *header = many_tensors(BR_TENSORS_MAX + over);
        br_safetensors *table;
        image file;
        assert_int_equal(open_image(&table, header, 0, &file, NULL), over ? BR_ETOOBIG : BR_OK);
        if (!over) assert_non_null(br_safetensors_find(table, "65535"));
        br_safetensors_destroy(table);
        free(file.bytes);
        free(header);
    }
}

static void test_the_header_is_bounded(void **state)
{
    (void)state;
    for (size_t over = 0; over < 2; over++) {
        const size_t length = BR_SAFETENSORS_HEADER_BYTES_MAX + over;
        char *header = malloc(length + 1);
        assert_non_null(header);
        memset(header, ' ', length);
        memcpy(header, "{}", 2);
        header[length] = '\0';
        br_safetensors *table;
        image file;
        assert_int_equal(open_image(&table, header, 0, &file, NULL), over ? BR_ETOOBIG : BR_OK);
        br_safetensors_destroy(table);
        free(file.bytes);
        free(header);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    image file = make_image("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2);
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_safetensors *table;
        status = br_safetensors_create(&table, file.bytes, file.size, "x", NULL);
        if (status != BR_OK) {
            assert_int_equal(status, BR_ENOMEM);
            assert_null(table);
            failures++;
        }
        br_safetensors_destroy(table);
    });
    assert_int_equal(status, BR_OK);
    assert_true(failures >= 3);
    free(file.bytes);
}

static void test_destroying_nothing_is_allowed(void **state)
{
    (void)state;
    br_safetensors_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tensors_come_in_the_order_of_their_data),
        cmocka_unit_test(test_unusual_files_are_accepted),
        cmocka_unit_test(test_other_types_are_listed_and_not_readable),
        cmocka_unit_test(test_a_table_that_is_not_true_is_refused_by_name),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_a_header_size_beyond_the_file_is_refused),
        cmocka_unit_test(test_the_number_of_tensors_is_bounded),
        cmocka_unit_test(test_the_header_is_bounded),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_destroying_nothing_is_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
