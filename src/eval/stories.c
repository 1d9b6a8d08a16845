/* stories.c - cuts off the last sentence of each prompt and compares what is left. */
#include "stories.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STORY_BYTES_MIN = 20 };

static bool is_space(char c)
{
    return strchr(" \t\r\n\f\v", c) != NULL;
}

static bool ends_sentence(char c)
{
    return c == '.' || c == '!' || c == '?';
}

static size_t trim(const char *text, size_t bytes)
{
    while (bytes > 0 && is_space(text[bytes - 1])) bytes--;
    return bytes;
}

size_t br_story_bytes(const char *prompt, size_t bytes)
{
    size_t end = trim(prompt, bytes);
    if (end > 0 && ends_sentence(prompt[end - 1])) end--;
    while (end > 0 && !ends_sentence(prompt[end - 1]) && prompt[end - 1] != '\n') end--;
    end = trim(prompt, end);
    return end >= STORY_BYTES_MIN ? end : bytes;
}

typedef struct line {
    const char *text;
    size_t bytes;
    int32_t task;
    size_t row;
} line;

static int by_text(const void *a, const void *b)
{
    const line *x = a;
    const line *y = b;
    if (x->task != y->task) return x->task < y->task ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    const int order = memcmp(x->text, y->text, x->bytes);
    if (order != 0) return order;
    return x->row < y->row ? -1 : x->row > y->row;
}

static bool same_story(const line *a, const line *b)
{
    return a->task == b->task && a->bytes == b->bytes && memcmp(a->text, b->text, a->bytes) == 0;
}

br_status br_stories_number(int32_t *story, const br_records *r)
{
    line *lines = calloc(r->row_count + 1, sizeof *lines);
    size_t *first = calloc(r->row_count + 1, sizeof *first);
    if (lines == NULL || first == NULL) {
        free(lines);
        free(first);
        return BR_ENOMEM;
    }
    for (size_t i = 0; i < r->row_count; i++) {
        const br_records_row *row = &r->rows[i];
        lines[i] = (line){row->prompt, br_story_bytes(row->prompt, row->prompt_bytes), row->task, i};
    }
    qsort(lines, r->row_count, sizeof *lines, by_text);
    for (size_t i = 0; i < r->row_count; i++)
        first[lines[i].row] =
            i > 0 && same_story(&lines[i - 1], &lines[i]) ? first[lines[i - 1].row] : lines[i].row;
    int32_t count = 0;
    for (size_t i = 0; i < r->row_count; i++) story[i] = first[i] == i ? count++ : story[first[i]];
    free(lines);
    free(first);
    return BR_OK;
}
