/* options_inside.h - what the files of core/options.h share; for nobody else. */
#ifndef BESTROUTE_CORE_OPTIONS_INSIDE_H
#define BESTROUTE_CORE_OPTIONS_INSIDE_H

#include "options.h"

/* Bits; the larger one is the stronger source. */
typedef enum br_option_source {
    BR_OPTION_FROM_ROW = 1,
    BR_OPTION_FROM_FILE = 2,
    BR_OPTION_FROM_ENVIRONMENT = 4,
    BR_OPTION_FROM_ARGUMENTS = 8,
} br_option_source;

/* Checks a value and puts it into its field, unless a stronger source has given another. */
BR_NODISCARD br_status br_options_set(br_options *options, br_option_source from,
                                      const br_option_value *value, br_error *error);

/* A formatted text that lives as long as `options`; NULL where memory runs out. */
const char *br_options_text(br_options *options, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The option whose name is most like `name`, or NULL. */
const br_option_row *br_options_nearest(const br_option_table *table, br_str name);

/* BR_EINVAL: a variable BESTROUTE_... that no program reads. */
BR_NODISCARD br_status br_options_check_variables(char *const *environment, br_error *error);

/* Whether "BESTROUTE_..." is on the list of those that a program reads. */
bool br_options_variable_known(const char *variable);

/* Without white space at its ends. */
br_str br_options_trim(br_str text);

/* Takes the part of *rest before `separator`, or all of it. False when nothing is left. */
bool br_options_take(br_str *part, br_str *rest, char separator);

#endif
