/* file.c - see file.h. */
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

/* Bytes from the beginning to the end; -1: not a file that has an end. */
static long size_of(FILE *file)
{
    if (fseek(file, 0, SEEK_END) != 0) return -1;
    const long size = ftell(file);
    return fseek(file, 0, SEEK_SET) == 0 ? size : -1;
}

static br_status read_bytes(char **out, size_t *size, FILE *file, const char *path, br_error *error)
{
    errno = 0;
    const long all = size_of(file);
    if (all < 0) return br_fail(error, BR_EIO, "%s: cannot read it: %s", path, strerror(errno));
    char *bytes = malloc((size_t)all + 1);
    if (bytes == NULL) return br_no_memory(error, "%s", path);
    *size = fread(bytes, 1, (size_t)all, file);
    if (*size < (size_t)all) {
        free(bytes);
        return br_fail(error, BR_EIO, "%s: cannot read it: %s", path,
                       errno != 0 ? strerror(errno) : "it became shorter meanwhile");
    }
    bytes[*size] = '\0';
    *out = bytes;
    return BR_OK;
}

br_status br_file_read(char **out, size_t *size, const char *path, br_error *error)
{
    *out = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return br_fail(error, BR_EIO, "%s: cannot open it: %s", path, strerror(errno));
    const br_status status = read_bytes(out, size, file, path, error);
    (void)fclose(file);
    return status;
}
