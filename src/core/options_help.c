/* options_help.c - prints a table of options: flags on the left, what they do on the right. */
#include "options.h"

enum {
    COLUMNS = 100,
    LEFT_MOST = 26, /* a longer flag has its text on the next line */
};

static bool is_shown(const br_option_row *row, uint32_t command)
{
    return row->name != NULL && (command == 0 || row->commands == 0 || (row->commands & command) != 0);
}

static int write_flag(char *out, size_t size, const br_option_row *row)
{
    const char *value = row->value != NULL ? row->value : row->words;
    char letter[8] = "";
    if (row->letter != '\0') (void)snprintf(letter, sizeof letter, "-%c, ", row->letter);
    return snprintf(out, size, "%s--%s%s%s", letter, row->name, value != NULL ? " " : "",
                    value != NULL ? value : "");
}

/* The columns that the flags take. */
static int left_columns(const br_option_table *table, uint32_t command)
{
    int widest = 0;
    for (size_t i = 0; i < table->row_count; i++) {
        if (!is_shown(&table->rows[i], command)) continue;
        char flag[2 * BR_OPTION_NAME_BYTES];
        const int width = write_flag(flag, sizeof flag, &table->rows[i]);
        if (width <= LEFT_MOST && width > widest) widest = width;
    }
    return widest;
}

/* Bytes of `text` for one line of `columns`, up to a space where there is one. */
static int line_bytes(const char *text, int columns)
{
    int end = 0;
    int space = 0;
    for (; text[end] != '\0' && end < columns; end++)
        if (text[end] == ' ') space = end;
    if (text[end] == '\0' || text[end] == ' ') return end;
    return space > 0 ? space : end;
}

static void print_text(const char *text, int indent, FILE *to)
{
    for (bool first = true; *text != '\0'; first = false) {
        const int bytes = line_bytes(text, COLUMNS - indent);
        (void)fprintf(to, "%*s%.*s\n", first ? 0 : indent, "", bytes, text);
        text += bytes;
        while (*text == ' ') text++;
    }
}

static void print_row(const br_option_row *row, int left, FILE *to)
{
    char flag[2 * BR_OPTION_NAME_BYTES];
    char text[1024];
    const int width = write_flag(flag, sizeof flag, row);
    const bool has_initial = row->initial != NULL && *row->initial != '\0';
    (void)snprintf(text, sizeof text, "%s%s%s%s", row->help, has_initial ? " [" : "",
                   has_initial ? row->initial : "", has_initial ? "]" : "");
    const int indent = 2 + left + 2;
    if (width > left)
        (void)fprintf(to, "  %s\n%*s", flag, indent, "");
    else
        (void)fprintf(to, "  %-*s  ", left, flag);
    print_text(text, indent, to);
}

void br_options_print_help(const br_option_table *table, uint32_t command, FILE *to)
{
    const int left = left_columns(table, command);
    const char *heading = NULL; /* not printed so far */
    for (size_t i = 0; i < table->row_count; i++) {
        const br_option_row *row = &table->rows[i];
        if (row->name == NULL) heading = row->heading;
        if (!is_shown(row, command)) continue;
        if (heading != NULL) (void)fprintf(to, "\n%s\n", heading);
        heading = NULL;
        print_row(row, left, to);
    }
}
