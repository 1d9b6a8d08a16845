/*
 * files.h - files that a test needs.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_FILES_H
#define BESTROUTE_TESTS_SUPPORT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/file.h"

/* The bytes of a file, with a zero byte behind them; release with free. The test fails where it cannot be
 * read. */
static inline char *read_whole(const char *path, size_t *size)
{
    char *bytes;
    br_error error = {0};
    if (br_file_read(&bytes, size, path, &error) != BR_OK) fail_msg("%s", error.text);
    return bytes;
}

#endif
