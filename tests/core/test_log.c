/* test_log.c - the lines of core/log.h: format, quoting, levels. */
#include "core/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Writes one event at `level` to a log of level INFO and returns the line after its time stamp. */
static char *written(br_log_level level, const br_field *fields, size_t count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    const br_log log = {.stream = stream, .level = BR_LOG_INFO};
    br_log_write(&log, level, "event", fields, count);
    (void)fclose(stream);
    if (size == 0) return text;
    char *after = strstr(text, "Z ");
    assert_non_null(after);
    memmove(text, after + 2, strlen(after + 2) + 1);
    return text;
}

static void test_fields_are_written_in_order_and_quoted_when_they_must_be(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        const char *line;
    } cases[] = {
        {"plain", "info event a=1 s=plain f=0.5\n"},
        {"two words", "info event a=1 s=\"two words\" f=0.5\n"},
        {"", "info event a=1 s=\"\" f=0.5\n"},
        {NULL, "info event a=1 s=- f=0.5\n"},
        {"k=v", "info event a=1 s=\"k=v\" f=0.5\n"},
        {"quote\"back\\slash", "info event a=1 s=\"quote\\\"back\\\\slash\" f=0.5\n"},
        {"forged\nline error x=1", "info event a=1 s=\"forged\\u000aline error x=1\" f=0.5\n"},
        {"na\xc3\xafve", "info event a=1 s=na\xc3\xafve f=0.5\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const br_field fields[] = {BR_I64("a", 1), BR_STR("s", cases[i].value), BR_F64("f", 0.5)};
        char *line = written(BR_LOG_INFO, fields, 3);
        assert_string_equal(line, cases[i].line);
        free(line);
    }
}

static void test_levels_below_the_logs_own_are_silent(void **state)
{
    (void)state;
    const br_field field = BR_I64("a", 1);
    char *line = written(BR_LOG_DEBUG, &field, 1);
    assert_string_equal(line, "");
    free(line);
    line = written(BR_LOG_ERROR, &field, 1);
    assert_string_equal(line, "error event a=1\n");
    free(line);
    br_log_write(NULL, BR_LOG_ERROR, "event", &field, 1);
}

static void test_an_overlong_line_is_cut_and_still_ends(void **state)
{
    (void)state;
    char *value = malloc(10001);
    assert_non_null(value);
    memset(value, 'x', 10000);
    value[10000] = '\0';
    const br_field field = BR_STR("s", value);
    char *line = written(BR_LOG_INFO, &field, 1);
    const size_t size = strlen(line);
    assert_true(size < 4097);
    assert_int_equal(line[size - 1], '\n');
    assert_int_equal(line[size - 2], 'x');
    free(line);
    free(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_are_written_in_order_and_quoted_when_they_must_be),
        cmocka_unit_test(test_levels_below_the_logs_own_are_silent),
        cmocka_unit_test(test_an_overlong_line_is_cut_and_still_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
