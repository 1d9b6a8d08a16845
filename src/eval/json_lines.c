/* json_lines.c - lines of any length up to the limit, out of zlib's buffers. */
#include "json_lines.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/file.h"
#include "core/memory.h"

enum {
    READ_BYTES = 1 << 16,
    WHERE_BYTES = 320,
};

typedef struct reader {
    gzFile file;
    char *line; /* grows */
    size_t room;
    size_t bytes; /* of the line, with its line feed; 0 at the end of the file */
    size_t at;    /* what is not yet taken of `buffer`: at..used */
    size_t used;
    char buffer[READ_BYTES];
} reader;

/* False at the end of the file. */
static br_status fill(reader *r, bool *more, const char *where, br_error *error)
{
    const int count = gzread(r->file, r->buffer, READ_BYTES);
    int code = Z_OK;
    const char *text = gzerror(r->file, &code);
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END))
        return br_fail(error, BR_EIO, "%s: %s", where, text);
    r->at = 0;
    r->used = (size_t)count;
    *more = count > 0;
    return BR_OK;
}

static br_status append(reader *r, size_t bytes, const char *where, br_error *error)
{
    if (r->bytes + bytes > JSON_LINES_BYTES_MAX)
        return br_fail(error, BR_EFORMAT, "%s: a line of more than 64 MiB", where);
    if (r->room - r->bytes < bytes) {
        const size_t room = 2 * r->room + READ_BYTES;
        char *larger = realloc(r->line, room);
        if (larger == NULL) return br_no_memory(error, "%s", where);
        r->line = larger;
        r->room = room;
    }
    memcpy(r->line + r->bytes, r->buffer + r->at, bytes);
    r->bytes += bytes;
    r->at += bytes;
    return BR_OK;
}

static br_status next_line(reader *r, const char *where, br_error *error)
{
    r->bytes = 0;
    for (bool more = true; more;) {
        if (r->at == r->used) {
            const br_status status = fill(r, &more, where, error);
            if (status != BR_OK) return status;
            continue;
        }
        const char *start = r->buffer + r->at;
        const char *feed = memchr(start, '\n', r->used - r->at);
        const size_t bytes = feed == NULL ? r->used - r->at : (size_t)(feed - start) + 1;
        const br_status status = append(r, bytes, where, error);
        if (status != BR_OK || feed != NULL) return status;
    }
    return BR_OK;
}

static bool is_blank(br_str line)
{
    for (size_t i = 0; i < line.size; i++)
        if (memchr(" \t\r\n", line.data[i], 4) == NULL) return false;
    return true;
}

/* The first line without a byte order mark. A zero byte is no JSON, whatever stands around it. */
static br_status look_at(br_str *line, size_t number, const char *where, br_error *error)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (number == 1 && line->size >= 3 && memcmp(line->data, mark, 3) == 0)
        *line = (br_str){line->data + 3, line->size - 3};
    const char *zero = memchr(line->data, '\0', line->size);
    if (zero == NULL) return BR_OK;
    return br_fail(error, BR_EFORMAT, "%s: byte %zu is a zero byte, expected JSON", where,
                   (size_t)(zero - line->data) + 1);
}

static br_status read_lines(reader *r, const char *path, json_lines_take take, void *context, br_error *error)
{
    br_status status = BR_OK;
    for (size_t number = 1; status == BR_OK; number++) {
        char where[WHERE_BYTES];
        snprintf(where, sizeof where, "%s:%zu", path, number);
        status = next_line(r, where, error);
        if (status != BR_OK || r->bytes == 0) break;
        br_str line = {r->line, r->bytes};
        status = look_at(&line, number, where, error);
        if (status == BR_OK && !is_blank(line)) status = take(context, line, where, error);
    }
    return status;
}

br_status json_lines_read(const char *path, json_lines_take take, void *context, br_error *error)
{
    br_file file;
    br_status status = br_file_open(&file, path, error);
    if (status != BR_OK) return status;
    reader *r = calloc(1, sizeof *r);
    if (r != NULL) r->file = gzdopen(file.fd, "rb");
    if (r == NULL || r->file == NULL) {
        br_file_close(&file);
        free(r);
        return br_no_memory(error, "%s", path);
    }
    status = read_lines(r, path, take, context, error);
    (void)gzclose_r(r->file); /* closes the file too */
    free(r->line);
    free(r);
    return status;
}
