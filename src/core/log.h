/*
 * log.h - one line per event: time, level, event, then key=value fields.
 *
 *   2026-01-31T12:00:00.123Z info listening url=tcp://127.0.0.1:5555 contexts=1088
 *
 * Values with spaces, quotes, '=' or control bytes are quoted and escaped as
 * JSON strings, so a line can be split again and no input can forge one. A
 * prompt's text is never a field. Thread-safe: a line is one write.
 */
#ifndef BESTROUTE_CORE_LOG_H
#define BESTROUTE_CORE_LOG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum br_log_level {
    BR_LOG_DEBUG,
    BR_LOG_INFO,
    BR_LOG_WARN,
    BR_LOG_ERROR,
} br_log_level;

typedef struct br_log {
    FILE *stream; /* borrowed; usually stderr */
    br_log_level level;
} br_log;

typedef struct br_field {
    const char *key;
    enum { BR_FIELD_STR, BR_FIELD_I64, BR_FIELD_F64 } type;
    union {
        const char *str; /* NULL is written as "-" */
        int64_t i64;
        double f64;
    } value;
} br_field;

#define BR_STR(k, v) ((br_field){.key = (k), .type = BR_FIELD_STR, .value.str = (v)})
#define BR_I64(k, v) ((br_field){.key = (k), .type = BR_FIELD_I64, .value.i64 = (int64_t)(v)})
#define BR_F64(k, v) ((br_field){.key = (k), .type = BR_FIELD_F64, .value.f64 = (v)})

/* `event` is a word. A NULL log is silent. */
void br_log_write(const br_log *log, br_log_level level, const char *event, const br_field *fields,
                  size_t field_count);

/* BR_LOG(log, BR_LOG_INFO, "listening", BR_STR("url", url)); at least one field. */
#define BR_LOG(log, level, event, ...)                                                                       \
    br_log_write(log, level, event, (const br_field[]){__VA_ARGS__},                                         \
                 sizeof((const br_field[]){__VA_ARGS__}) / sizeof(br_field))

#endif
