/* options_value.c - checks the value of an option and puts it into its field. */
#include "options.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "options_inside.h"

br_str br_options_trim(br_str text)
{
    while (text.size > 0 && isspace((unsigned char)text.data[0])) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && isspace((unsigned char)text.data[text.size - 1])) text.size--;
    return text;
}

bool br_options_take(br_str *part, br_str *rest, char separator)
{
    if (rest->data == NULL) return false;
    const char *end = rest->size > 0 ? memchr(rest->data, separator, rest->size) : NULL;
    if (end == NULL) {
        *part = *rest;
        *rest = (br_str){NULL, 0};
        return true;
    }
    *part = (br_str){rest->data, (size_t)(end - rest->data)};
    *rest = (br_str){end + 1, rest->size - part->size - 1};
    return true;
}

const char *br_options_text(br_options *options, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = size < 0 ? NULL : br_arena_array(&options->arena, (size_t)size + 1, 1);
    if (text == NULL) return NULL;
    va_start(arguments, format);
    (void)vsnprintf(text, (size_t)size + 1, format, arguments);
    va_end(arguments);
    return text;
}

static const char *keep(br_options *options, br_str text)
{
    return br_options_text(options, "%.*s", (int)text.size, text.size > 0 ? text.data : "");
}

static br_status no_memory(br_error *error)
{
    return br_no_memory(error, "the options");
}

br_status br_option_refuse(const br_option_value *value, br_error *error, const char *expected, ...)
{
    char wanted[BR_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, expected);
    (void)vsnprintf(wanted, sizeof wanted, expected, arguments);
    va_end(arguments);
    const int shown = (int)(value->text.size < 200 ? value->text.size : 200);
    return br_fail(error, BR_EINVAL, "%s: found \"%.*s\", expected %s", value->place, shown,
                   value->text.size > 0 ? value->text.data : "", wanted);
}

/* What a value is before it is put into its field. */
typedef struct parsed {
    const char *text;
    int64_t whole;
    double real;
    br_option_list list;
} parsed;

static br_status parse_whole(int64_t *out, const br_option_value *value, br_error *error)
{
    const br_option_row *row = value->row;
    const br_str text = value->text;
    int64_t whole = 0;
    bool good = text.size > 0 && text.size <= 17; /* no overflow below */
    for (size_t i = 0; good && i < text.size; i++) {
        good = isdigit((unsigned char)text.data[i]);
        whole = whole * 10 + (text.data[i] - '0');
    }
    if (!good || (double)whole < row->least || (double)whole > row->most)
        return br_option_refuse(value, error, "a whole number from %.0f to %.0f", row->least, row->most);
    *out = whole;
    return BR_OK;
}

static br_status parse_real(double *out, const br_option_value *value, const char *text, br_error *error)
{
    const br_option_row *row = value->row;
    char *end;
    const double real = strtod(text, &end);
    const bool good = end != text && *end == '\0' && isfinite(real);
    if (good && real >= row->least && real <= row->most) {
        *out = real;
        return BR_OK;
    }
    if (isinf(row->most)) return br_option_refuse(value, error, "a number of at least %g", row->least);
    return br_option_refuse(value, error, "a number from %g to %g", row->least, row->most);
}

static br_status parse_word(parsed *out, br_options *options, const br_option_value *value, br_error *error)
{
    br_str rest = br_str_from(value->row->words);
    br_str word;
    for (out->whole = 0; br_options_take(&word, &rest, '|'); out->whole++)
        if (br_str_equal(word, value->text)) {
            out->text = keep(options, word);
            return out->text != NULL ? BR_OK : no_memory(error);
        }
    return br_option_refuse(value, error, "one of %s", value->row->words);
}

static size_t items_max(const br_option_row *row)
{
    assert(row->most <= BR_OPTION_ITEMS_MAX);
    return row->most > 0 ? (size_t)row->most : BR_OPTION_ITEMS_MAX;
}

static br_status parse_list(br_option_list *out, br_options *options, const br_option_value *value,
                            br_error *error)
{
    const br_option_row *row = value->row;
    br_str rest = value->text;
    br_str part;
    while (br_options_take(&part, &rest, row->commas ? '\0' : ',')) {
        part = br_options_trim(part);
        if (part.size == 0)
            return br_option_refuse(value, error,
                                    row->commas ? "a value that is not empty"
                                                : "values with commas between them, none empty");
        if (out->count == items_max(row))
            return br_option_refuse(value, error, "no more than %zu values", items_max(row));
        const char *item = keep(options, part);
        if (item == NULL) return no_memory(error);
        out->items[out->count++] = item;
    }
    return BR_OK;
}

static br_status parse(parsed *out, br_options *options, const br_option_value *value, br_error *error)
{
    const br_option_row *row = value->row;
    if (value->text.size > 0 && memchr(value->text.data, '\0', value->text.size) != NULL)
        return br_option_refuse(value, error, "text without zero bytes");
    if (row->words != NULL) return parse_word(out, options, value, error);
    switch (row->kind) {
    case BR_OPTION_SWITCH:
        return BR_OK;
    case BR_OPTION_LIST:
        return parse_list(&out->list, options, value, error);
    case BR_OPTION_INT32:
    case BR_OPTION_INT64:
    case BR_OPTION_UINT32:
    case BR_OPTION_UINT64:
        return parse_whole(&out->whole, value, error);
    case BR_OPTION_REAL:
    case BR_OPTION_TEXT:
    case BR_OPTION_CUSTOM:
        break;
    }
    out->text = keep(options, value->text);
    if (out->text == NULL) return no_memory(error);
    return row->kind == BR_OPTION_REAL ? parse_real(&out->real, value, out->text, error) : BR_OK;
}

static void append(br_option_list *list, const br_option_list *more)
{
    memcpy(list->items + list->count, more->items, more->count * sizeof *more->items);
    list->count += more->count;
}

/* What a row reads for itself, in a text that the options own. */
static br_status store_custom(void *target, const br_option_value *value, const char *text, br_error *error)
{
    br_option_value kept = *value;
    kept.text = br_str_from(text);
    return value->row->read(target, &kept, error);
}

/* A custom row's value, and a list's when it is added to another, can still be refused here. */
static br_status store(void *target, const br_option_value *value, const parsed *found, bool again,
                       br_error *error)
{
    void *field = (char *)target + value->row->offset;
    switch (value->row->kind) {
    case BR_OPTION_SWITCH:
        *(bool *)field = true;
        break;
    case BR_OPTION_TEXT:
        *(const char **)field = found->text;
        break;
    case BR_OPTION_INT32:
        *(int32_t *)field = (int32_t)found->whole;
        break;
    case BR_OPTION_INT64:
        *(int64_t *)field = found->whole;
        break;
    case BR_OPTION_UINT32:
        *(uint32_t *)field = (uint32_t)found->whole;
        break;
    case BR_OPTION_UINT64:
        *(uint64_t *)field = (uint64_t)found->whole;
        break;
    case BR_OPTION_REAL:
        *(double *)field = found->real;
        break;
    case BR_OPTION_LIST: {
        br_option_list *list = field;
        if (!again) list->count = 0;
        if (list->count + found->list.count > items_max(value->row))
            return br_option_refuse(value, error, "no more than %zu values", items_max(value->row));
        append(list, &found->list);
        break;
    }
    case BR_OPTION_CUSTOM:
        return store_custom(target, value, found->text, error);
    }
    return BR_OK;
}

static void mark_given(void *target, const br_option_row *row)
{
    if (row->has_offset == 0) return;
    void *has = (char *)target + row->has_offset;
    if (row->has_bit != 0)
        *(uint32_t *)has |= row->has_bit;
    else
        *(bool *)has = true;
}

br_status br_options_set(br_options *options, br_option_source from, const br_option_value *value,
                         br_error *error)
{
    const br_option_row *row = value->row;
    const size_t index = (size_t)(row - options->table->rows);
    const bool again = (options->given[index] & from) != 0;
    if (again && options->table->once && row->kind != BR_OPTION_LIST && row->kind != BR_OPTION_SWITCH)
        return br_fail(error, BR_EINVAL, "%s is given a second time", value->place);

    parsed found = {0};
    br_status status = parse(&found, options, value, error);
    const bool overruled = options->given[index] >= 2 * from;
    options->given[index] |= (uint8_t)from;
    if (status != BR_OK || overruled) return status;
    options->sources[index] = value->source;
    status = store(options->target, value, &found, again, error);
    if (status == BR_OK && from != BR_OPTION_FROM_ROW) mark_given(options->target, row);
    return status;
}
