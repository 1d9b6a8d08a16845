/* test_file.c - core/file.h: whole files, files that change while they are read, and what is no file. */
#include "core/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_BYTES = 128 };

typedef struct fixture {
    char folder[64];
    char path[PATH_BYTES]; /* of a file with "0123456789" */
} fixture;

static void store(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
    static fixture f;
    snprintf(f.folder, sizeof f.folder, "/tmp/bestroute-file-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof f.path, "%s/file", f.folder);
    store(f.path, "0123456789");
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    const fixture *f = *state;
    (void)unlink(f->path);
    (void)rmdir(f->folder);
    return 0;
}

static void test_a_file_is_loaded_whole_and_ends_in_zero(void **state)
{
    const fixture *f = *state;
    char *bytes;
    size_t size;
    assert_int_equal(br_file_load(&bytes, &size, f->path, 10, NULL), BR_OK);
    assert_int_equal(size, 10);
    assert_string_equal(bytes, "0123456789");
    free(bytes);
    store(f->path, "");
    assert_int_equal(br_file_load(&bytes, &size, f->path, 10, NULL), BR_OK);
    assert_int_equal(size, 0);
    assert_string_equal(bytes, "");
    free(bytes);
}

static void test_a_file_over_the_limit_is_refused(void **state)
{
    const fixture *f = *state;
    char *bytes;
    size_t size;
    br_error error = {0};
    assert_int_equal(br_file_load(&bytes, &size, f->path, 9, &error), BR_ETOOBIG);
    assert_null(bytes);
    assert_non_null(strstr(error.text, "found 10 bytes, expected at most 9"));
}

static void test_a_part_is_read_where_it_lies(void **state)
{
    const fixture *f = *state;
    br_file file;
    char part[4] = "";
    assert_int_equal(br_file_open(&file, f->path, NULL), BR_OK);
    assert_int_equal(file.size, 10);
    assert_int_equal(br_file_read_at(&file, part, 7, 3, NULL), BR_OK);
    assert_string_equal(part, "789");
    assert_int_equal(br_file_read_at(&file, part, 10, 0, NULL), BR_OK);
    br_file_close(&file);
}

static void test_a_file_that_shrinks_is_an_error(void **state)
{
    const fixture *f = *state;
    br_file file;
    br_error error = {0};
    char bytes[10];
    assert_int_equal(br_file_open(&file, f->path, NULL), BR_OK);
    assert_int_equal(truncate(f->path, 4), 0);
    assert_int_equal(br_file_read_at(&file, bytes, 0, 10, &error), BR_EIO);
    assert_non_null(strstr(error.text, "found 4 bytes, expected 10: it shrank while it was read"));
    assert_int_equal(br_file_check_unchanged(&file, &error), BR_EIO);
    br_file_close(&file);
}

static void test_a_file_that_is_written_to_is_an_error(void **state)
{
    const fixture *f = *state;
    br_file file;
    br_error error = {0};
    assert_int_equal(br_file_open(&file, f->path, NULL), BR_OK);
    assert_int_equal(br_file_check_unchanged(&file, NULL), BR_OK);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(0, f->path, times, 0), 0);
    assert_int_equal(br_file_check_unchanged(&file, &error), BR_EIO);
    assert_non_null(strstr(error.text, "written to while it was read"));
    br_file_close(&file);
}

/* None of them may make the test wait. */
static void test_what_is_no_regular_file_is_named(void **state)
{
    const fixture *f = *state;
    char pipe_path[PATH_BYTES];
    snprintf(pipe_path, sizeof pipe_path, "%s/pipe", f->folder);
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    const struct {
        const char *path;
        const char *says;
    } cases[] = {
        {f->folder, "a folder"},   {pipe_path, "a pipe (FIFO)"},     {"/dev/null", "a device"},
        {"/dev/zero", "a device"}, {"/nowhere/file", "cannot open"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_file file;
        br_error error = {0};
        assert_int_equal(br_file_open(&file, cases[i].path, &error), BR_EIO);
        assert_non_null(strstr(error.text, cases[i].path));
        if (strstr(error.text, cases[i].says) == NULL) fail_msg("%s", error.text);
    }
    assert_int_equal(unlink(pipe_path), 0);
}

static void test_a_socket_is_no_file(void **state)
{
    const fixture *f = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", f->folder);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    br_file file;
    assert_int_equal(br_file_open(&file, address.sun_path, NULL), BR_EIO);
    close(fd);
    assert_int_equal(unlink(address.sun_path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_file_is_loaded_whole_and_ends_in_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_over_the_limit_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_part_is_read_where_it_lies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_shrinks_is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_written_to_is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_regular_file_is_named, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_is_no_file, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
