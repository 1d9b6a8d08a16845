/*
 * text.c - text in columns of a terminal.
 *
 * Text from outside must not control the terminal. Control characters and the marks that change the direction
 * of writing are shown as escapes, and bytes that are not UTF-8 as a replacement character.
 */
#include "text.h"

#include <langinfo.h>
#include <locale.h>
#include <stdbool.h>
#include <string.h>
#include <wchar.h>

enum { SHOWN_BYTES_MAX = 12 }; /* of one character: "\u{10ffff}" */

void cli_text_setup(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

/* One character as it is shown. */
typedef struct shown {
    char bytes[SHOWN_BYTES_MAX];
    int byte_count;
    int columns;
} shown;

static bool turns_direction(wchar_t c)
{
    return (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f ||
           c == 0x061c;
}

static void escape(shown *out, wchar_t c)
{
    static const char letters[] = {['\t'] = 't', ['\n'] = 'n', ['\r'] = 'r'};
    const size_t index = (size_t)c;
    if (index < sizeof letters && letters[index] != '\0') {
        out->byte_count = snprintf(out->bytes, sizeof out->bytes, "\\%c", letters[index]);
    } else {
        out->byte_count =
            snprintf(out->bytes, sizeof out->bytes, c < 0x100 ? "\\x%02x" : "\\u{%x}", (unsigned)c);
    }
    out->columns = out->byte_count;
}

/* Bytes of `text` taken; at least 1. */
static size_t show(shown *out, const char *text, size_t bytes)
{
    mbstate_t state = {0};
    wchar_t c = L'\0';
    const size_t taken = mbrtowc(&c, text, bytes, &state);
    if (taken == 0) {
        escape(out, L'\0');
        return 1;
    }
    if (taken > bytes) { /* malformed or cut off */
        *out = (shown){.bytes = "\xef\xbf\xbd", .byte_count = 3, .columns = 1};
        return 1;
    }
    const int columns = wcwidth(c);
    if (columns < 0 || turns_direction(c)) {
        escape(out, c);
    } else {
        memcpy(out->bytes, text, taken);
        out->byte_count = (int)taken;
        out->columns = columns;
    }
    return taken;
}

int cli_text_print(FILE *to, const char *text, size_t bytes, int columns)
{
    int written = 0;
    size_t at = 0;
    size_t safe_at = 0; /* up to here the text leaves a column for the ellipsis */
    shown c;
    while (at < bytes) { /* does it fit whole? */
        const size_t taken = show(&c, text + at, bytes - at);
        if (written + c.columns > columns) break;
        at += taken;
        written += c.columns;
        if (written < columns) safe_at = at;
    }
    const bool whole = at == bytes;
    const size_t end = whole ? bytes : safe_at;
    written = 0;
    for (at = 0; at < end;) {
        at += show(&c, text + at, end - at);
        fwrite(c.bytes, 1, (size_t)c.byte_count, to);
        written += c.columns;
    }
    if (!whole && columns > 0) {
        fputs("\xe2\x80\xa6", to);
        written++;
    }
    return written;
}

int cli_text_width(const char *text)
{
    int columns = 0;
    shown c;
    for (size_t at = 0, bytes = strlen(text); at < bytes;) {
        at += show(&c, text + at, bytes - at);
        columns += c.columns;
    }
    return columns;
}

void cli_text_print_padded(FILE *to, const char *text, size_t bytes, int columns)
{
    for (int written = cli_text_print(to, text, bytes, columns); written < columns; written++) fputc(' ', to);
}
