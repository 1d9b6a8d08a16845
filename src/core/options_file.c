/* options_file.c - reads options from a file, one `name = value` a line. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "file.h"
#include "options_inside.h"

enum { FILE_BYTES_MAX = 1 << 16 };

/* The file's bytes, in the options' arena; /dev/null is an empty file. */
static br_status read_bytes(br_options *options, br_str *out, const char *path, br_error *error)
{
    if (strcmp(path, "/dev/null") == 0) return BR_OK;
    char *bytes;
    size_t size;
    br_status status = br_file_load(&bytes, &size, path, FILE_BYTES_MAX, error);
    if (status != BR_OK) return status == BR_ETOOBIG ? BR_EINVAL : status;
    char *copy = br_arena_array(&options->arena, size + 1, 1);
    if (copy != NULL) memcpy(copy, bytes, size);
    free(bytes);
    if (copy == NULL) return br_no_memory(error, "%s", path);
    *out = (br_str){copy, size};
    return BR_OK;
}

/* Without a byte order mark. BR_EINVAL: a zero byte, in which a value would end unseen. */
static br_status check_text(br_str *text, const char *path, br_error *error)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (text->size >= 3 && memcmp(text->data, mark, 3) == 0) *text = (br_str){text->data + 3, text->size - 3};
    const char *zero = text->size > 0 ? memchr(text->data, '\0', text->size) : NULL;
    if (zero == NULL) return BR_OK;
    int line = 1;
    for (const char *c = text->data; c < zero; c++) line += *c == '\n';
    return br_fail(error, BR_EINVAL, "%s:%d: found a zero byte, expected text", path, line);
}

static const br_option_row *find_key(const br_option_table *table, br_str key)
{
    for (size_t i = 0; i < table->row_count; i++) {
        if (table->rows[i].name == NULL) continue;
        char name[BR_OPTION_NAME_BYTES];
        br_option_key(name, &table->rows[i]);
        if (br_str_equal(key, br_str_from(name))) return &table->rows[i];
    }
    return NULL;
}

static br_status refuse_unknown(const br_option_table *table, br_str key, const char *source, br_error *error)
{
    const int shown = (int)(key.size < 100 ? key.size : 100);
    char flag[BR_OPTION_NAME_BYTES]; /* the key as a flag is written, to be compared with flags */
    (void)snprintf(flag, sizeof flag, "%.*s", shown, key.data);
    for (char *c = flag; *c != '\0'; c++)
        if (*c == '_') *c = '-';
    const br_option_row *row = br_options_nearest(table, br_str_from(flag));
    if (row == NULL) return br_fail(error, BR_EINVAL, "%s: \"%.*s\" is no option", source, shown, key.data);
    char nearest[BR_OPTION_NAME_BYTES];
    br_option_key(nearest, row);
    return br_fail(error, BR_EINVAL, "%s: \"%.*s\" is no option; nearest is %s", source, shown, key.data,
                   nearest);
}

static br_status read_line(br_options *options, br_str line, const char *source, br_error *error)
{
    const char *comment = line.size > 0 ? memchr(line.data, '#', line.size) : NULL;
    if (comment != NULL) line.size = (size_t)(comment - line.data);
    line = br_options_trim(line);
    if (line.size == 0) return BR_OK;

    br_str text = line;
    br_str key;
    (void)br_options_take(&key, &text, '=');
    key = br_options_trim(key);
    if (text.data == NULL)
        return br_fail(error, BR_EINVAL, "%s: found \"%.*s\", expected name = value", source,
                       (int)(key.size < 100 ? key.size : 100), key.data);
    const br_option_row *row = find_key(options->table, key);
    if (row == NULL) return refuse_unknown(options->table, key, source, error);
    if ((row->places & BR_OPTION_FILE) == 0)
        return br_fail(error, BR_EINVAL, "%s: %.*s cannot be set in a file; --%s is its flag", source,
                       (int)key.size, key.data, row->name);
    const char *place = br_options_text(options, "%s: %.*s", source, (int)key.size, key.data);
    if (place == NULL) return br_no_memory(error, "%s", source);
    const br_option_value value = {
        .row = row, .text = br_options_trim(text), .source = source, .place = place};
    return br_options_set(options, BR_OPTION_FROM_FILE, &value, error);
}

br_status br_options_read_file(br_options *options, const char *path, br_error *error)
{
    br_str rest = {NULL, 0};
    br_status status = read_bytes(options, &rest, path, error);
    if (status == BR_OK) status = check_text(&rest, path, error);
    br_str line;
    for (int number = 1; status == BR_OK && br_options_take(&line, &rest, '\n'); number++) {
        const char *source = br_options_text(options, "%s:%d", path, number);
        if (source == NULL) return br_no_memory(error, "%s", path);
        status = read_line(options, line, source, error);
    }
    return status;
}
