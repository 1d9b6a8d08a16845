/* config.c - reads options from flags, environment and file into one struct. */
#include "config.h"
#include "core/memory.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    FILE_BYTES_MAX = 1 << 16,
    NAME_BYTES = 64,
};

static const char prefix[] = "BESTROUTE_";

static const br_option_row rows[BR_OPTION_COUNT] = {
#define ROW(kind_, name_, initial_, min_, max_, form_, help_)                                                \
    [BR_OPTION_INDEX_##name_] = {.kind = BR_OPTION_##kind_,                                                  \
                                 .name = #name_,                                                             \
                                 .initial = initial_,                                                        \
                                 .min = min_,                                                                \
                                 .max = max_,                                                                \
                                 .form = form_,                                                              \
                                 .help = help_},
    BR_OPTION_LIST_ALL(ROW)
#undef ROW
};

static const size_t offsets[BR_OPTION_COUNT] = {
#define OFFSET(kind, name, initial, min, max, form, help)                                                    \
    [BR_OPTION_INDEX_##name] = offsetof(br_config, name),
    BR_OPTION_LIST_ALL(OFFSET)
#undef OFFSET
};

const br_option_row *br_config_option(br_option_index index)
{
    assert(index < BR_OPTION_COUNT);
    return &rows[index];
}

void br_config_flag_name(char *out, size_t size, br_option_index index)
{
    (void)snprintf(out, size, "--%s", rows[index].name);
    for (char *c = out; *c != '\0'; c++)
        if (*c == '_') *c = '-';
}

void br_config_variable_name(char *out, size_t size, br_option_index index)
{
    (void)snprintf(out, size, "%s%s", prefix, rows[index].name);
    for (char *c = out; *c != '\0'; c++) *c = (char)toupper((unsigned char)*c);
}

static void *field_of(br_config *config, br_option_index index)
{
    return (char *)config + offsets[index];
}

/* A terminated copy that lives as long as the configuration; NULL when memory is out. */
static const char *keep(br_config *config, br_str text)
{
    char *copy = br_arena_array(&config->arena, text.size + 1, 1);
    if (copy != NULL && text.size > 0) memcpy(copy, text.data, text.size);
    return copy;
}

static br_str trim(br_str text)
{
    while (text.size > 0 && isspace((unsigned char)text.data[0])) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && isspace((unsigned char)text.data[text.size - 1])) text.size--;
    return text;
}

/* Takes the part of *rest before `separator`, or all of it. False when nothing is left. */
static bool take_part(br_str *part, br_str *rest, char separator)
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

/* One value on its way into the configuration. */
typedef struct setting {
    br_option_index index;
    br_str value;
    const char *source; /* lives as long as the configuration */
    bool append;        /* a list: add to what the same source gave before */
} setting;

static br_status refuse(const setting *s, br_error *error, const char *expected)
{
    return br_fail(error, BR_EINVAL, "%s (from %s): found \"%.*s\", expected %s", rows[s->index].name,
                   s->source, (int)(s->value.size < 200 ? s->value.size : 200),
                   s->value.size > 0 ? s->value.data : "", expected);
}

static br_status set_integer(int64_t *out, const setting *s, br_error *error)
{
    const br_option_row *row = &rows[s->index];
    int64_t value = 0;
    bool good = s->value.size > 0 && s->value.size <= 12;
    for (size_t i = 0; good && i < s->value.size; i++) {
        good = isdigit((unsigned char)s->value.data[i]);
        value = value * 10 + (s->value.data[i] - '0');
    }
    if (!good || value < row->min || value > row->max) {
        char expected[96];
        (void)snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, row->min,
                       row->max);
        return refuse(s, error, expected);
    }
    *out = value;
    return BR_OK;
}

static br_status set_word(int32_t *out, const setting *s, br_error *error)
{
    br_str rest = br_str_from(rows[s->index].form);
    br_str word;
    for (int32_t i = 0; take_part(&word, &rest, '|'); i++) {
        if (!br_str_equal(word, s->value)) continue;
        *out = i;
        return BR_OK;
    }
    char expected[96];
    (void)snprintf(expected, sizeof expected, "one of %s", rows[s->index].form);
    return refuse(s, error, expected);
}

static br_status set_list(br_config *config, br_config_list *out, const setting *s, br_error *error)
{
    if (!s->append) out->count = 0;
    br_str rest = s->value;
    br_str part;
    while (take_part(&part, &rest, ',')) {
        part = trim(part);
        if (part.size == 0) return refuse(s, error, "one value, or several with commas between them");
        if (out->count == BR_LISTENERS_MAX) return refuse(s, error, "no more than 16 values");
        const char *copy = keep(config, part);
        if (copy == NULL) return br_no_memory(error, "the configuration");
        out->items[out->count++] = copy;
    }
    return BR_OK;
}

static_assert(BR_LISTENERS_MAX == 16, "the text of set_list says 16");

static br_status apply(br_config *config, const setting *s, br_error *error)
{
    void *field = field_of(config, s->index);
    config->sources[s->index] = s->source;
    if (memchr(s->value.data != NULL ? s->value.data : "", '\0', s->value.size) != NULL)
        return refuse(s, error, "text without zero bytes");
    switch (rows[s->index].kind) {
    case BR_OPTION_TEXT: {
        const char *copy = keep(config, s->value);
        if (copy == NULL) return br_no_memory(error, "the configuration");
        memcpy(field, &copy, sizeof copy);
        return BR_OK;
    }
    case BR_OPTION_LIST:
        return set_list(config, field, s, error);
    case BR_OPTION_INT:
        return set_integer(field, s, error);
    case BR_OPTION_WORD:
        return set_word(field, s, error);
    case BR_OPTION_SWITCH:
        *(bool *)field = true;
        return BR_OK;
    }
    return BR_EINTERNAL;
}

static br_status apply_defaults(br_config *config, br_error *error)
{
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        config->sources[i] = "default";
        if (rows[i].kind == BR_OPTION_SWITCH) continue;
        const setting s = {.index = i, .value = br_str_from(rows[i].initial), .source = "default"};
        const br_status status = apply(config, &s, error);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

static bool find_option(br_option_index *out, br_str name)
{
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        if (!br_str_equal(br_str_from(rows[i].name), name)) continue;
        *out = i;
        return true;
    }
    return false;
}

static br_status read_file(br_config *config, br_str *out, const char *path, br_error *error)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return br_fail(error, BR_EIO, "config (from %s): cannot open \"%s\": %s",
                       config->sources[BR_OPTION_INDEX_config], path, strerror(errno));
    br_status status = BR_OK;
    char *bytes = br_arena_array(&config->arena, FILE_BYTES_MAX + 1, 1);
    if (bytes == NULL) {
        status = br_no_memory(error, "the configuration");
        goto close;
    }
    const size_t size = fread(bytes, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file) != 0)
        status = br_fail(error, BR_EIO, "config: cannot read \"%s\": %s", path, strerror(errno));
    else if (size > FILE_BYTES_MAX)
        status = br_fail(error, BR_EINVAL, "config: \"%s\" has more than %d bytes", path, FILE_BYTES_MAX);
    *out = (br_str){bytes, size};
close:
    (void)fclose(file);
    return status;
}

static br_status apply_line(br_config *config, bool *seen, br_str line, const char *source, br_error *error)
{
    const char *comment = line.size > 0 ? memchr(line.data, '#', line.size) : NULL;
    if (comment != NULL) line.size = (size_t)(comment - line.data);
    line = trim(line);
    if (line.size == 0) return BR_OK;

    br_str rest = line;
    br_str name;
    (void)take_part(&name, &rest, '=');
    name = trim(name);
    const int shown = (int)(name.size < 100 ? name.size : 100);
    if (rest.data == NULL)
        return br_fail(error, BR_EINVAL, "%s: found \"%.*s\", expected name = value", source, shown,
                       name.data);
    setting s = {.value = trim(rest), .source = source};
    if (!find_option(&s.index, name))
        return br_fail(error, BR_EINVAL, "%s: no option is called \"%.*s\"", source, shown, name.data);
    if (rows[s.index].kind == BR_OPTION_SWITCH || s.index == BR_OPTION_INDEX_config)
        return br_fail(error, BR_EINVAL, "%s: %s can only be a flag or a variable", source,
                       rows[s.index].name);
    s.append = seen[s.index];
    if (seen[s.index] && rows[s.index].kind != BR_OPTION_LIST)
        return br_fail(error, BR_EINVAL, "%s: %s is given a second time", source, rows[s.index].name);
    seen[s.index] = true;
    return apply(config, &s, error);
}

static br_status apply_file(br_config *config, const char *path, br_error *error)
{
    br_str rest = {NULL, 0};
    br_status status = read_file(config, &rest, path, error);
    bool seen[BR_OPTION_COUNT] = {false};
    br_str line;
    for (int number = 1; status == BR_OK && take_part(&line, &rest, '\n'); number++) {
        const size_t size = strlen(path) + 16;
        char *source = br_arena_array(&config->arena, size, 1);
        if (source == NULL) return br_no_memory(error, "the configuration");
        (void)snprintf(source, size, "%s:%d", path, number);
        status = apply_line(config, seen, line, source, error);
    }
    return status;
}

static br_status apply_environment(br_config *config, char *const *environment, bool only_config,
                                   br_error *error)
{
    if (environment == NULL) return BR_OK;
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        if (rows[i].kind == BR_OPTION_SWITCH) continue;
        if ((i == BR_OPTION_INDEX_config) != only_config) continue;
        char name[NAME_BYTES];
        br_config_variable_name(name, sizeof name, i);
        const size_t length = strlen(name);
        for (char *const *entry = environment; *entry != NULL; entry++) {
            if (strncmp(*entry, name, length) != 0 || (*entry)[length] != '=') continue;
            const char *source = keep(config, br_str_from(name));
            if (source == NULL) return br_no_memory(error, "the configuration");
            const setting s = {.index = i, .value = br_str_from(*entry + length + 1), .source = source};
            const br_status status = apply(config, &s, error);
            if (status != BR_OK) return status;
            break;
        }
    }
    return BR_OK;
}

/* The option that `argument` names: "--queue-max" or "--queue-max=...". */
static bool find_flag(br_option_index *out, const char *argument)
{
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        char name[NAME_BYTES];
        br_config_flag_name(name, sizeof name, i);
        const size_t length = strlen(name);
        if (strncmp(argument, name, length) != 0) continue;
        if (argument[length] != '\0' && argument[length] != '=') continue;
        *out = i;
        return true;
    }
    return false;
}

/* Reads the flag at argv[*at] and moves *at past it. */
static br_status read_flag(br_config *config, setting *out, int argc, char *const *argv, int *at,
                           br_error *error)
{
    const char *argument = argv[*at];
    if (!find_flag(&out->index, argument))
        return br_fail(error, BR_EINVAL, "found \"%.200s\", which is no option; --help lists them", argument);
    char name[NAME_BYTES];
    br_config_flag_name(name, sizeof name, out->index);
    out->source = keep(config, br_str_from(name));
    if (out->source == NULL) return br_no_memory(error, "the configuration");
    *at += 1;

    const char *value = strchr(argument, '=');
    out->value = (br_str){NULL, 0};
    if (rows[out->index].kind == BR_OPTION_SWITCH) {
        if (value != NULL)
            return br_fail(error, BR_EINVAL, "%s takes no value, found \"%.200s\"", name, value + 1);
        return BR_OK;
    }
    if (value != NULL) {
        out->value = br_str_from(value + 1);
        return BR_OK;
    }
    if (*at >= argc)
        return br_fail(error, BR_EINVAL, "%s: expected a value (%s) after it", name, rows[out->index].form);
    out->value = br_str_from(argv[*at]);
    *at += 1;
    return BR_OK;
}

static br_status apply_flags(br_config *config, int argc, char *const *argv, bool only_config,
                             br_error *error)
{
    bool seen[BR_OPTION_COUNT] = {false};
    for (int at = 1; at < argc;) {
        setting s = {0};
        br_status status = read_flag(config, &s, argc, argv, &at, error);
        if (status != BR_OK) return status;
        const br_option_kind kind = rows[s.index].kind;
        if (seen[s.index] && kind != BR_OPTION_LIST && kind != BR_OPTION_SWITCH)
            return br_fail(error, BR_EINVAL, "%s is given a second time", s.source);
        s.append = seen[s.index];
        seen[s.index] = true;
        if (only_config && s.index != BR_OPTION_INDEX_config && kind != BR_OPTION_SWITCH) continue;
        status = apply(config, &s, error);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static br_status check_listen(const br_config *config, br_error *error)
{
    static const char *const schemes[] = {"tcp://", "ipc://", "tls+tcp://", "inproc://"};
    for (int32_t i = 0; i < config->listen.count; i++) {
        const char *url = config->listen.items[i];
        bool known = false;
        for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++)
            known = known || starts_with(url, schemes[k]);
        if (!known)
            return br_fail(
                error, BR_EINVAL,
                "listen (from %s): found \"%.200s\", expected tcp://, ipc://, tls+tcp:// or inproc://",
                config->sources[BR_OPTION_INDEX_listen], url);
        if (starts_with(url, "tls+tcp://") && (*config->tls_cert == '\0' || *config->tls_key == '\0'))
            return br_fail(error, BR_EINVAL, "listen (from %s): \"%.200s\" needs tls_cert and tls_key",
                           config->sources[BR_OPTION_INDEX_listen], url);
    }
    return BR_OK;
}

static br_status check_ranks(const br_config *config, br_error *error)
{
    if (config->rank >= config->ranks)
        return br_fail(error, BR_EINVAL,
                       "rank (from %s): found %" PRId64 ", expected less than ranks, which is %" PRId64
                       " (from %s)",
                       config->sources[BR_OPTION_INDEX_rank], config->rank, config->ranks,
                       config->sources[BR_OPTION_INDEX_ranks]);
    if (config->ranks > 1 && *config->ranks_id == '\0' && getenv("NCCL_COMM_ID") == NULL)
        return br_fail(
            error, BR_EINVAL,
            "ranks (from %s): needs ranks_id, or NCCL_COMM_ID in the environment, for the ranks to meet",
            config->sources[BR_OPTION_INDEX_ranks]);
    return BR_OK;
}

static br_status check_relations(const br_config *config, br_error *error)
{
    br_status status = check_listen(config, error);
    if (status == BR_OK) status = check_ranks(config, error);
    if (status != BR_OK) return status;
    if (*config->bundle == '\0')
        return br_fail(error, BR_EINVAL, "bundle: no value was given, expected a folder (--bundle FOLDER)");
    if (*config->metrics != '\0' && !starts_with(config->metrics, "http://"))
        return br_fail(error, BR_EINVAL, "metrics (from %s): found \"%.200s\", expected http://address:port",
                       config->sources[BR_OPTION_INDEX_metrics], config->metrics);
    if (*config->admin != '\0' && !starts_with(config->admin, "ipc://") &&
        !starts_with(config->admin, "inproc://"))
        return br_fail(error, BR_EINVAL,
                       "admin (from %s): found \"%.200s\", expected an ipc:// or inproc:// URL",
                       config->sources[BR_OPTION_INDEX_admin], config->admin);
    if (config->max_queries > config->queue_max)
        return br_fail(error, BR_EINVAL,
                       "max_queries (from %s): found %" PRId64
                       ", expected at most queue_max, which is %" PRId64
                       " (from %s): a larger request could never be admitted",
                       config->sources[BR_OPTION_INDEX_max_queries], config->max_queries, config->queue_max,
                       config->sources[BR_OPTION_INDEX_queue_max]);
    if (config->max_text_bytes > config->max_message_bytes)
        return br_fail(error, BR_EINVAL,
                       "max_text_bytes (from %s): found %" PRId64
                       ", expected at most max_message_bytes, which is %" PRId64 " (from %s)",
                       config->sources[BR_OPTION_INDEX_max_text_bytes], config->max_text_bytes,
                       config->max_message_bytes, config->sources[BR_OPTION_INDEX_max_message_bytes]);
    return BR_OK;
}

br_status br_config_load(br_config *out, int argc, char *const *argv, char *const *environment,
                         br_error *error)
{
    memset(out, 0, sizeof *out);
    br_arena_init(&out->arena);

    /* The first pass finds the file and the switches; the second applies the rest, weakest source first. */
    br_status status = apply_defaults(out, error);
    if (status == BR_OK) status = apply_environment(out, environment, true, error);
    if (status == BR_OK) status = apply_flags(out, argc, argv, true, error);
    if (status != BR_OK || out->help || out->version) return status;

    if (*out->config != '\0') status = apply_file(out, out->config, error);
    if (status == BR_OK) status = apply_environment(out, environment, false, error);
    if (status == BR_OK) status = apply_flags(out, argc, argv, false, error);
    if (status == BR_OK) status = check_relations(out, error);
    return status;
}

void br_config_deinit(br_config *config)
{
    br_arena_deinit(&config->arena);
}

void br_config_print_help(FILE *stream)
{
    (void)fputs(
        "bestrouted: scores prompts and answers which model, sampled how often, should serve them.\n\n"
        "usage: bestrouted --bundle FOLDER [options]\n\n",
        stream);
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        char name[NAME_BYTES];
        br_config_flag_name(name, sizeof name, i);
        (void)fprintf(stream, "  %s%s%s\n      %s", name, *rows[i].form != '\0' ? " " : "", rows[i].form,
                      rows[i].help);
        if (*rows[i].initial != '\0') (void)fprintf(stream, " [%s]", rows[i].initial);
        (void)fputc('\n', stream);
    }
    (void)fputs(
        "\nEvery option but the last three can also be set in the environment (BESTROUTE_QUEUE_MAX=1024)\n"
        "and, but for config, in the file (queue_max = 1024). Flags win over the environment, the\n"
        "environment over the file.\n",
        stream);
}

/* A vertical bar would end the cell. */
static void print_cell(FILE *stream, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') (void)fputc('\\', stream);
        (void)fputc(*text, stream);
    }
}

void br_config_print_table(FILE *stream)
{
    (void)fputs("| flag | variable | file | value | default | meaning |\n"
                "| --- | --- | --- | --- | --- | --- |\n",
                stream);
    for (br_option_index i = 0; i < BR_OPTION_COUNT; i++) {
        const br_option_row *row = &rows[i];
        char flag[NAME_BYTES];
        char variable[NAME_BYTES];
        br_config_flag_name(flag, sizeof flag, i);
        br_config_variable_name(variable, sizeof variable, i);
        const bool in_environment = row->kind != BR_OPTION_SWITCH;
        const bool in_file = in_environment && i != BR_OPTION_INDEX_config;
        (void)fprintf(stream, "| `%s` | %s%s%s | %s%s%s | ", flag, in_environment ? "`" : "",
                      in_environment ? variable : "", in_environment ? "`" : "", in_file ? "`" : "",
                      in_file ? row->name : "", in_file ? "`" : "");
        print_cell(stream, row->form);
        if (row->kind == BR_OPTION_INT) (void)fprintf(stream, " %" PRId64 "..%" PRId64, row->min, row->max);
        (void)fprintf(stream, " | %s | ", row->initial);
        print_cell(stream, row->help);
        (void)fputs(" |\n", stream);
    }
}
