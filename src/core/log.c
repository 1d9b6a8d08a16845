/* log.c - formats one event into a buffer and writes it as one line. */
#include "log.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { LINE_BYTES = 4096 };

/* A line that grows until it is full, then drops the rest: a log line is never worth failing for. */
typedef struct line {
    char text[LINE_BYTES];
    size_t size;
} line;

static void put(line *l, const char *text, size_t size)
{
    const size_t room = sizeof l->text - 1 - l->size; /* one byte stays for the newline */
    if (size > room) size = room;
    memcpy(l->text + l->size, text, size);
    l->size += size;
}

static void put_string(line *l, const char *text)
{
    put(l, text, strlen(text));
}

static bool is_plain(const char *text)
{
    if (*text == '\0') return false;
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f) return false;
    }
    return true;
}

static void put_value(line *l, const char *text)
{
    if (is_plain(text)) {
        put_string(l, text);
        return;
    }
    put(l, "\"", 1);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        char escaped[8];
        if (c == '"' || c == '\\') {
            (void)snprintf(escaped, sizeof escaped, "\\%c", c);
        } else if (c < ' ' || c == 0x7f) {
            (void)snprintf(escaped, sizeof escaped, "\\u%04x", c);
        } else {
            escaped[0] = (char)c;
            escaped[1] = '\0';
        }
        put_string(l, escaped);
    }
    put(l, "\"", 1);
}

static void put_time(line *l)
{
    struct timespec now;
    struct tm utc;
    char text[40];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    const size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    (void)snprintf(text + size, sizeof text - size, ".%03ldZ ", now.tv_nsec / 1000000);
    put_string(l, text);
}

static void put_field(line *l, const br_field *field)
{
    char number[40];
    put(l, " ", 1);
    put_string(l, field->key);
    put(l, "=", 1);
    switch (field->type) {
    case BR_FIELD_STR:
        put_value(l, field->value.str != NULL ? field->value.str : "-");
        return;
    case BR_FIELD_I64:
        (void)snprintf(number, sizeof number, "%" PRId64, field->value.i64);
        break;
    case BR_FIELD_F64:
        (void)snprintf(number, sizeof number, "%.6g", field->value.f64);
        break;
    }
    put_string(l, number);
}

void br_log_write(const br_log *log, br_log_level level, const char *event, const br_field *fields,
                  size_t field_count)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (log == NULL || level < log->level) return;

    line l;
    l.size = 0;
    put_time(&l);
    put_string(&l, names[level]);
    put(&l, " ", 1);
    put_string(&l, event);
    for (size_t i = 0; i < field_count; i++) put_field(&l, &fields[i]);
    l.text[l.size++] = '\n';

    /* One fwrite holds the stream's lock once, so lines of several threads never mix. */
    (void)fwrite(l.text, 1, l.size, log->stream);
    (void)fflush(log->stream);
}
