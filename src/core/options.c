/* options.c - reads options from the command line, the environment and the table's own values. */
#include "options.h"

#include <assert.h>
#include <ctype.h>

#include "nearest.h"
#include "options_inside.h"

void br_options_init(br_options *options, const br_option_table *table, void *target)
{
    assert(table->row_count <= BR_OPTION_ROWS_MAX);
    *options = (br_options){.table = table, .target = target};
    br_arena_init(&options->arena);
}

void br_options_deinit(br_options *options)
{
    br_arena_deinit(&options->arena);
}

void br_option_key(char *out, const br_option_row *row)
{
    (void)snprintf(out, BR_OPTION_NAME_BYTES, "%s", row->name);
    for (char *c = out; *c != '\0'; c++)
        if (*c == '-') *c = '_';
}

void br_option_variable(char *out, const br_option_row *row)
{
    (void)snprintf(out, BR_OPTION_NAME_BYTES, "BESTROUTE_%s", row->name);
    for (char *c = out; *c != '\0'; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

static br_status no_memory(br_error *error)
{
    return br_no_memory(error, "the options");
}

static const br_option_row *find_name(const br_option_table *table, br_str name)
{
    for (size_t i = 0; i < table->row_count; i++) {
        const br_option_row *row = &table->rows[i];
        if (row->name != NULL && br_str_equal(name, br_str_from(row->name))) return row;
    }
    return NULL;
}

static const br_option_row *find_letter(const br_option_table *table, char letter)
{
    for (size_t i = 0; i < table->row_count; i++)
        if (table->rows[i].letter == letter) return &table->rows[i];
    return NULL;
}

const br_option_row *br_options_nearest(const br_option_table *table, br_str name)
{
    br_nearest nearest = br_nearest_to(name);
    const br_option_row *best = NULL;
    for (size_t i = 0; i < table->row_count; i++) {
        if (table->rows[i].name == NULL) continue;
        br_nearest_offer(&nearest, table->rows[i].name);
        if (nearest.best == table->rows[i].name) best = &table->rows[i];
    }
    return best;
}

static br_status refuse_unknown(const br_option_table *table, const char *argument, br_str name,
                                br_error *error)
{
    const char *hint = table->dash_hint;
    const br_option_row *nearest = br_options_nearest(table, name);
    if (nearest == NULL)
        return br_fail(error, BR_EINVAL, "%.200s: no such option; %s", argument,
                       hint != NULL ? hint : "--help lists them");
    return br_fail(error, BR_EINVAL, "%.200s: no such option; nearest is --%s%s%s", argument, nearest->name,
                   hint != NULL ? "; " : "", hint != NULL ? hint : "");
}

/* Reads the option at argv[*at], and its value, and moves *at past them. */
static br_status read_option(br_options *options, int argc, char *const *argv, int *at, br_error *error)
{
    const char *argument = argv[*at];
    const bool is_long = argument[1] == '-';
    br_str text = br_str_from(argument + (is_long ? 2 : 1));
    br_str name;
    (void)br_options_take(&name, &text, '='); /* without '=' the text is NULL now */
    const br_option_row *row = is_long               ? find_name(options->table, name)
                               : argument[2] == '\0' ? find_letter(options->table, argument[1])
                                                     : NULL;
    if (row == NULL) return refuse_unknown(options->table, argument, name, error);

    const char *flag = br_options_text(options, "--%s", row->name);
    if (flag == NULL) return no_memory(error);
    *at += 1;
    if (row->kind == BR_OPTION_SWITCH && text.data != NULL)
        return br_fail(error, BR_EINVAL, "%s: found \"%.200s\", but it takes no value", flag, text.data);
    if (row->kind != BR_OPTION_SWITCH && text.data == NULL) {
        if (*at >= argc)
            return br_fail(error, BR_EINVAL, "%s: expected a value (%s) after it", flag,
                           row->value != NULL ? row->value : row->words);
        text = br_str_from(argv[*at]);
        *at += 1;
    }
    const br_option_value value = {.row = row, .text = text, .source = flag, .place = flag};
    return br_options_set(options, BR_OPTION_FROM_ARGUMENTS, &value, error);
}

static bool is_option(const char *argument)
{
    return argument[0] == '-' && argument[1] != '\0';
}

static br_status keep_argument(br_options *options, const char *argument, br_error *error)
{
    if (!options->table->takes_arguments)
        return br_fail(error, BR_EINVAL, "found \"%.200s\", which belongs to no option; --help lists them",
                       argument);
    options->arguments[options->argument_count++] = argument;
    return BR_OK;
}

br_status br_options_read_arguments(br_options *options, int argc, char *const *argv, br_error *error)
{
    const size_t most = argc > 0 ? (size_t)argc : 1;
    options->arguments = br_arena_array(&options->arena, most, sizeof *options->arguments);
    if (options->arguments == NULL) return no_memory(error);
    br_status status = BR_OK;
    bool ended = false; /* by "--" */
    for (int at = 1; at < argc && status == BR_OK;) {
        if (ended || !is_option(argv[at])) {
            status = keep_argument(options, argv[at++], error);
        } else if (strcmp(argv[at], "--") == 0) {
            ended = true;
            at++;
        } else {
            status = read_option(options, argc, argv, &at, error);
        }
    }
    return status;
}

/* The value of the variable `name`, or NULL. */
static const char *find_variable(char *const *environment, const char *name)
{
    const size_t length = strlen(name);
    for (char *const *entry = environment; *entry != NULL; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
    return NULL;
}

br_status br_options_read_environment(br_options *options, char *const *environment, br_error *error)
{
    const br_option_table *table = options->table;
    br_status status = BR_OK;
    if (table->strict_environment && environment != NULL)
        status = br_options_check_variables(environment, error);
    for (size_t i = 0; environment != NULL && i < table->row_count && status == BR_OK; i++) {
        const br_option_row *row = &table->rows[i];
        if ((row->places & BR_OPTION_ENVIRONMENT) == 0) continue;
        char name[BR_OPTION_NAME_BYTES];
        br_option_variable(name, row);
        if (table->strict_environment && !br_options_variable_known(name))
            return br_fail(error, BR_EINVAL, "%s is missing in options_variables.c", name);
        const char *text = find_variable(environment, name);
        if (text == NULL || (*text == '\0' && table->empty_is_unset)) continue;
        const char *source = br_options_text(options, "%s", name);
        if (source == NULL) return no_memory(error);
        const br_option_value value = {
            .row = row, .text = br_str_from(text), .source = source, .place = source};
        status = br_options_set(options, BR_OPTION_FROM_ENVIRONMENT, &value, error);
    }
    return status;
}

br_status br_options_read_initial(br_options *options, br_error *error)
{
    br_status status = BR_OK;
    for (size_t i = 0; i < options->table->row_count && status == BR_OK; i++) {
        const br_option_row *row = &options->table->rows[i];
        if (row->initial == NULL) continue;
        const br_option_value value = {
            .row = row, .text = br_str_from(row->initial), .source = "default", .place = row->name};
        status = br_options_set(options, BR_OPTION_FROM_ROW, &value, error);
    }
    return status;
}

br_status br_options_read(br_options *options, int argc, char *const *argv, char *const *environment,
                          br_error *error)
{
    br_status status = br_options_read_arguments(options, argc, argv, error);
    if (status == BR_OK) status = br_options_read_environment(options, environment, error);
    if (status == BR_OK) status = br_options_read_initial(options, error);
    return status;
}

const char *br_options_source(const br_options *options, size_t offset)
{
    for (size_t i = 0; i < options->table->row_count; i++) {
        const br_option_row *row = &options->table->rows[i];
        if (row->name != NULL && row->kind != BR_OPTION_CUSTOM && row->offset == offset)
            return options->sources[i];
    }
    return NULL;
}

br_status br_options_check_command(const br_options *options, uint32_t command, const char *name,
                                   br_error *error)
{
    for (size_t i = 0; i < options->table->row_count; i++) {
        const br_option_row *row = &options->table->rows[i];
        if ((options->given[i] & BR_OPTION_FROM_ARGUMENTS) != 0 && row->commands != 0 &&
            (row->commands & command) == 0)
            return br_fail(error, BR_EINVAL, "--%s is not for this command, %s", row->name, name);
    }
    return BR_OK;
}
