/* scores.c - lines of qualities to a table sorted by id. */
#include "scores.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/memory.h"
#include "json_lines.h"

static int by_id(const void *a, const void *b)
{
    return strcmp(((const br_score_file_entry *)a)->id, ((const br_score_file_entry *)b)->id);
}

static br_status read_qualities(float *out, size_t count, const br_json *top)
{
    const json_t *list = json_object_get(top->object, "quality");
    char expected[64];
    snprintf(expected, sizeof expected, "an array of %zu numbers, one for each candidate", count);
    if (!json_is_array(list) || json_array_size(list) != count)
        return br_json_refuse(top, BR_EFORMAT, "quality", list, expected);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        const double quality = json_is_number(value) ? json_number_value(value) : -1;
        char key[40];
        snprintf(key, sizeof key, "quality[%zu]", i);
        if (!(quality >= 0 && quality <= 1))
            return br_json_refuse(top, BR_EINVAL, key, value, "a number in 0..1");
        out[i] = (float)quality;
    }
    return BR_OK;
}

static br_status read_entry(br_score_file_entry *entry, size_t candidates, const br_json *top)
{
    const json_t *id = json_object_get(top->object, "id");
    if (!json_is_string(id) && !json_is_integer(id))
        return br_json_refuse(top, BR_EFORMAT, "id", id, "the id of a record");
    char digits[32]; /* as in records: a whole number is taken for its digits */
    (void)snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(id));
    entry->id = strdup(json_is_integer(id) ? digits : json_string_value(id));
    entry->qualities = calloc(candidates + 1, sizeof *entry->qualities);
    if (entry->id == NULL || entry->qualities == NULL) return br_no_memory(top->error, "scores");
    return read_qualities(entry->qualities, candidates, top);
}

static br_status take_line(void *context, br_str line, const char *where, br_error *error)
{
    br_score_file *file = context;
    if ((file->count & (file->count - 1)) == 0) { /* doubles at each power of two */
        const size_t room = file->count == 0 ? 1 : 2 * file->count;
        br_score_file_entry *larger = realloc(file->entries, room * sizeof *larger);
        if (larger == NULL) return br_no_memory(error, "scores");
        file->entries = larger;
    }
    json_t *object;
    br_status status = br_json_parse(&object, line, JSON_LINES_BYTES_MAX, where, error);
    if (status != BR_OK) return status;
    const br_json top = {.object = object, .file = where, .path = "", .error = error};
    br_score_file_entry *entry = &file->entries[file->count++];
    *entry = (br_score_file_entry){0};
    status = read_entry(entry, file->candidates, &top);
    json_decref(object);
    return status;
}

br_status br_score_file_read(br_score_file *out, const char *path, size_t candidates, br_error *error)
{
    *out = (br_score_file){.candidates = candidates};
    const br_status status = json_lines_read(path, take_line, out, error);
    if (status != BR_OK) return status;
    if (out->count > 0) qsort(out->entries, out->count, sizeof *out->entries, by_id);
    for (size_t i = 1; i < out->count; i++) {
        if (by_id(&out->entries[i - 1], &out->entries[i]) == 0)
            return br_fail(error, BR_EINVAL, "%s: two lines have the id '%s'", path, out->entries[i].id);
    }
    return BR_OK;
}

void br_score_file_deinit(br_score_file *file)
{
    for (size_t i = 0; i < file->count; i++) {
        free(file->entries[i].id);
        free(file->entries[i].qualities);
    }
    free(file->entries);
    *file = (br_score_file){0};
}

const float *br_score_file_find(const br_score_file *file, const char *id)
{
    const br_score_file_entry wanted = {.id = (char *)id};
    const br_score_file_entry *found =
        file->count == 0 ? NULL : bsearch(&wanted, file->entries, file->count, sizeof wanted, by_id);
    return found == NULL ? NULL : found->qualities;
}
