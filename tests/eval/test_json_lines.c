/* test_json_lines.c - eval/json_lines.h: lines of every kind, and what is refused with its number. */
#include "eval/json_lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct seen {
    size_t lines;
    size_t bytes;
    char last[64];
    char where[128];
} seen;

static char path[64];

static br_status take(void *context, br_str line, const char *where, br_error *error)
{
    (void)error;
    seen *s = context;
    s->lines++;
    s->bytes += line.size;
    snprintf(s->last, sizeof s->last, "%.*s", (int)(line.size < 60 ? line.size : 60), line.data);
    snprintf(s->where, sizeof s->where, "%s", where);
    return BR_OK;
}

static br_status read_text(seen *s, const char *text, size_t size, br_error *error)
{
    *s = (seen){0};
    *error = (br_error){0};
    snprintf(path, sizeof path, "/tmp/bestroute-lines-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, size), (ssize_t)size);
    assert_int_equal(close(fd), 0);
    const br_status status = json_lines_read(path, take, s, error);
    assert_int_equal(unlink(path), 0);
    return status;
}

static void test_lines_are_handed_over_but_blank_ones(void **state)
{
    (void)state;
    seen s;
    br_error error;
    static const char text[] = "{\"a\":1}\n\n \t\r\n{\"b\":2}\r\n{\"c\":3}";
    assert_int_equal(read_text(&s, text, sizeof text - 1, &error), BR_OK);
    assert_int_equal(s.lines, 3);
    assert_string_equal(s.last, "{\"c\":3}");
    assert_non_null(strstr(s.where, ":5"));
    assert_int_equal(read_text(&s, "", 0, &error), BR_OK);
    assert_int_equal(s.lines, 0);
}

static void test_a_byte_order_mark_is_passed_over(void **state)
{
    (void)state;
    seen s;
    br_error error;
    assert_int_equal(read_text(&s, "\xef\xbb\xbf{}\n{}\n", 9, &error), BR_OK);
    assert_int_equal(s.lines, 2);
    assert_int_equal(s.bytes, 6);
    assert_int_equal(read_text(&s, "\xef\xbb\xbf", 3, &error), BR_OK);
    assert_int_equal(s.lines, 0);
}

static void test_a_zero_byte_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *says;
    } cases[] = {
        {"\0{}\n", 4, ":1: byte 1 is a zero byte"},     {"\0", 1, ":1: byte 1 is a zero byte"},
        {"{}\n\0\n", 5, ":2: byte 1 is a zero byte"},   {"{}\n{\"a\":\0}", 10, ":2: byte 6 is a zero byte"},
        {"\n\n\0\0\0", 5, ":3: byte 1 is a zero byte"}, {"\xef\xbb\xbf\0", 4, ":1: byte 1 is a zero byte"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        seen s;
        br_error error;
        assert_int_equal(read_text(&s, cases[i].text, cases[i].size, &error), BR_EFORMAT);
        if (strstr(error.text, cases[i].says) == NULL) fail_msg("%s", error.text);
    }
}

static void test_lines_may_be_long_up_to_the_limit(void **state)
{
    (void)state;
    const size_t size = JSON_LINES_BYTES_MAX + 2;
    char *text = malloc(size);
    assert_non_null(text);
    memset(text, 'x', size);
    seen s;
    br_error error;
    assert_int_equal(read_text(&s, text, (1 << 16) + 1, &error), BR_OK);
    assert_int_equal(s.bytes, (1 << 16) + 1);
    assert_int_equal(read_text(&s, text, size - 2, &error), BR_OK);
    assert_int_equal(s.lines, 1);
    assert_int_equal(read_text(&s, text, size, &error), BR_EFORMAT);
    assert_non_null(strstr(error.text, ":1: a line of more than 64 MiB"));
    free(text);
}

static void test_what_is_no_file_is_refused_without_waiting(void **state)
{
    (void)state;
    seen s = {0};
    br_error error = {0};
    assert_int_equal(json_lines_read("/tmp", take, &s, &error), BR_EIO);
    assert_non_null(strstr(error.text, "a folder"));
    snprintf(path, sizeof path, "/tmp/bestroute-lines-%d", (int)getpid());
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(json_lines_read(path, take, &s, &error), BR_EIO);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_handed_over_but_blank_ones),
        cmocka_unit_test(test_a_byte_order_mark_is_passed_over),
        cmocka_unit_test(test_a_zero_byte_is_refused_with_its_place),
        cmocka_unit_test(test_lines_may_be_long_up_to_the_limit),
        cmocka_unit_test(test_what_is_no_file_is_refused_without_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
