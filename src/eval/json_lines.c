/* json_lines.c - lines of any length up to the limit, out of zlib's buffers. */
#include "json_lines.h"
#include "core/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum {
    READ_BYTES = 1 << 16,
    WHERE_BYTES = 320,
};

/* *bytes is 0 at the end of the file. */
static br_status next_line(gzFile file, char **line, size_t *room, size_t *bytes, const char *where,
                           br_error *error)
{
    *bytes = 0;
    for (;;) {
        if (*room - *bytes < READ_BYTES) {
            char *larger = realloc(*line, *room * 2 + READ_BYTES);
            if (larger == NULL) return br_no_memory(error, "%s", where);
            *line = larger;
            *room = *room * 2 + READ_BYTES;
        }
        if (gzgets(file, *line + *bytes, (int)READ_BYTES) == NULL) {
            int code = Z_OK;
            const char *text = gzerror(file, &code);
            if (code != Z_OK && code != Z_STREAM_END) return br_fail(error, BR_EIO, "%s: %s", where, text);
            return BR_OK;
        }
        *bytes += strlen(*line + *bytes);
        if ((*line)[*bytes - 1] == '\n') return BR_OK;
        if (*bytes > JSON_LINES_BYTES_MAX)
            return br_fail(error, BR_EFORMAT, "%s: a line of more than 64 MiB", where);
    }
}

static bool is_blank(br_str line)
{
    for (size_t i = 0; i < line.size; i++)
        if (strchr(" \t\r\n", line.data[i]) == NULL) return false;
    return true;
}

br_status json_lines_read(const char *path, json_lines_take take, void *context, br_error *error)
{
    errno = 0;
    gzFile file = gzopen(path, "rb");
    if (file == NULL)
        return br_fail(error, BR_EIO, "%s: %s", path, errno == 0 ? "out of memory" : strerror(errno));
    char *line = NULL;
    size_t room = 0;
    br_status status = BR_OK;
    for (size_t number = 1; status == BR_OK; number++) {
        char where[WHERE_BYTES];
        size_t bytes;
        snprintf(where, sizeof where, "%s:%zu", path, number);
        status = next_line(file, &line, &room, &bytes, where, error);
        if (status != BR_OK || bytes == 0) break;
        const br_str view = {line, bytes};
        if (!is_blank(view)) status = take(context, view, where, error);
    }
    free(line);
    (void)gzclose_r(file);
    return status;
}
