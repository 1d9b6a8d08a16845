/*
 * options.h - the options of a program: one table that they are read with and that the help prints.
 *
 * A row of the table names an option and the field of the program's own struct that takes its value. The
 * field's type says what a value is. Values come from four sources, the strongest first:
 *
 *   --queue-max 1024  or  --queue-max=1024     the command line
 *   BESTROUTE_QUEUE_MAX=1024                   the environment, for rows with BR_OPTION_ENVIRONMENT
 *   queue_max = 1024                           a file, for rows with BR_OPTION_FILE
 *   .initial = "1024"                          the row itself
 *
 * A program reads the sources in this order. A value never replaces that of a stronger source, but a wrong
 * value is an error in any of them. An error begins with the source and says what was found and what was
 * expected.
 *
 *   static const br_option_row rows[] = {
 *       {.heading = "Limits"},
 *       {"queue-max", "N", "most queries that wait", AT(queue_max), BR_RANGE(1, 65536), .initial = "1024"},
 *       {"verbose", NULL, "tell more", AT(verbose)},
 *   };
 *
 * with `#define AT(field) BR_OPTION_AT(settings, field)`.
 */
#ifndef BESTROUTE_CORE_OPTIONS_H
#define BESTROUTE_CORE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bestroute/error.h"
#include "core/memory.h"

enum {
    BR_OPTION_ROWS_MAX = 96,
    BR_OPTION_ITEMS_MAX = 64,
    BR_OPTION_NAME_BYTES = 64, /* of a flag, a variable or a key */
};

typedef enum br_option_kind {
    BR_OPTION_SWITCH, /* bool: true once the flag stands there; takes no value */
    BR_OPTION_TEXT,   /* const char * */
    BR_OPTION_INT32,  /* int32_t; with `words` the index of the value among them, as of the next three */
    BR_OPTION_INT64,
    BR_OPTION_UINT32, /* an enum's type too */
    BR_OPTION_UINT64,
    BR_OPTION_REAL,   /* double */
    BR_OPTION_LIST,   /* br_option_list */
    BR_OPTION_CUSTOM, /* the row's `read` takes the value */
} br_option_kind;

/* The values of an option that may be given several times. */
typedef struct br_option_list {
    const char *items[BR_OPTION_ITEMS_MAX];
    size_t count;
} br_option_list;

/* The further sources of a row. */
enum { BR_OPTION_ENVIRONMENT = 1, BR_OPTION_FILE = 2 };

typedef struct br_option_row br_option_row;

/* A value on its way to its field. */
typedef struct br_option_value {
    const br_option_row *row;
    br_str text;
    const char *source; /* "--queue-max", "BESTROUTE_QUEUE_MAX", "FILE:12" or "default" */
    const char *place;  /* what an error begins with: the source, and in a file the key too */
} br_option_value;

/* Reads a value that is no plain one. `value->text` ends with a zero byte and lives as long as the
 * options. */
typedef br_status br_option_read(void *target, const br_option_value *value, br_error *error);

struct br_option_row {
    const char *name;  /* "queue-max"; NULL for a heading */
    const char *value; /* what the help calls the value; NULL for a switch, and where `words` says it */
    const char *help;
    br_option_kind kind;
    size_t offset;        /* of the field in the program's struct */
    const char *words;    /* "auto|cpu": the values allowed; NULL: no list of words */
    double least;         /* of numbers; whole ones up to 2^53 */
    double most;          /* of numbers; of a list the values allowed, 0: BR_OPTION_ITEMS_MAX */
    const char *initial;  /* the value where no source gives one; NULL: the field is left as it is */
    size_t has_offset;    /* of the field that says that a value was given; 0: none */
    uint32_t has_bit;     /* this bit of that uint32_t; 0: that field is a bool */
    uint32_t commands;    /* bits of the commands that take the option; 0: all of them */
    uint32_t places;      /* BR_OPTION_ENVIRONMENT, BR_OPTION_FILE */
    bool commas;          /* a comma is part of a list's value; else it separates two */
    char letter;          /* 'h': -h means the same */
    br_option_read *read; /* of BR_OPTION_CUSTOM */
    const char *heading;  /* of the rows that follow */
};

/* The kind, from the type of a field; does not compile for a type without one. */
#define BR_OPTION_KIND(field_)                                                                               \
    _Generic((field_),                                                                                       \
        bool: BR_OPTION_SWITCH,                                                                              \
        const char *: BR_OPTION_TEXT,                                                                        \
        int32_t: BR_OPTION_INT32,                                                                            \
        int64_t: BR_OPTION_INT64,                                                                            \
        uint32_t: BR_OPTION_UINT32,                                                                          \
        uint64_t: BR_OPTION_UINT64,                                                                          \
        double: BR_OPTION_REAL,                                                                              \
        br_option_list: BR_OPTION_LIST)

/* What a row says of its field and value. */
#define BR_OPTION_AT(type_, field_)                                                                          \
    .kind = BR_OPTION_KIND(((type_ *)NULL)->field_), .offset = offsetof(type_, field_)
#define BR_OPTION_READ(function_) .kind = BR_OPTION_CUSTOM, .read = (function_)
#define BR_OPTION_HAS(type_, field_) .has_offset = offsetof(type_, field_)
#define BR_RANGE(least_, most_) .least = (least_), .most = (most_)

typedef struct br_option_table {
    const br_option_row *rows;
    size_t row_count;     /* at most BR_OPTION_ROWS_MAX */
    bool takes_arguments; /* words that are no options, and all behind "--", are kept; else they are errors */
    bool once; /* one source may give an option one value; else a later value replaces the earlier one */
    bool empty_is_unset;     /* of a variable in the environment */
    bool strict_environment; /* a variable BESTROUTE_... that no program reads is an error */
    const char
        *dash_hint; /* for a word that begins with a dash and is no option; NULL: a pointer to the help */
} br_option_table;

/* The state of reading. It owns the texts that the fields point to. */
typedef struct br_options {
    const br_option_table *table;
    void *target;
    const char *sources[BR_OPTION_ROWS_MAX]; /* NULL: no value so far */
    uint8_t given[BR_OPTION_ROWS_MAX];       /* bits of the sources that gave a value */
    const char **arguments;                  /* words that are no options, in their order */
    size_t argument_count;
    br_arena arena;
} br_options;

/* Borrows both. */
void br_options_init(br_options *options, const br_option_table *table, void *target);
void br_options_deinit(br_options *options);

/* The sources: each at most once, the strongest first. BR_EINVAL, BR_ENOMEM; of a file BR_EIO too. After a
 * failure the fields hold what was read before it. */
BR_NODISCARD br_status br_options_read_arguments(br_options *options, int argc, char *const *argv,
                                                 br_error *error);
/* "NAME=value" texts, ended by NULL; the list may be NULL. With `strict_environment` the names are judged by
 * one list for all programs (options_variables.c), since one environment often serves several. */
BR_NODISCARD br_status br_options_read_environment(br_options *options, char *const *environment,
                                                   br_error *error);
/* One `name = value` a line; '#' begins a comment. */
BR_NODISCARD br_status br_options_read_file(br_options *options, const char *path, br_error *error);
BR_NODISCARD br_status br_options_read_initial(br_options *options, br_error *error);

/* For a program without a file of options: the command line, the environment, the initial values. */
BR_NODISCARD br_status br_options_read(br_options *options, int argc, char *const *argv,
                                       char *const *environment, br_error *error);

/* Where the value of the field at `offset` came from; NULL where none was read. */
const char *br_options_source(const br_options *options, size_t offset);

/* BR_EINVAL: an option stands on the command line that `command`, a bit of the rows' `commands`,
 * does not take. */
BR_NODISCARD br_status br_options_check_command(const br_options *options, uint32_t command, const char *name,
                                                br_error *error);

/* Fails with "<place>: found "<text>", expected <...>". */
BR_NODISCARD br_status br_option_refuse(const br_option_value *value, br_error *error, const char *expected,
                                        ...) __attribute__((format(printf, 3, 4)));

/* The rows below their headings: those of one command, or with 0 all of them. */
void br_options_print_help(const br_option_table *table, uint32_t command, FILE *to);

/* "BESTROUTE_QUEUE_MAX" and "queue_max" into out[BR_OPTION_NAME_BYTES]. */
void br_option_variable(char *out, const br_option_row *row);
void br_option_key(char *out, const br_option_row *row);

#endif
