/*
 * error.h - why loading failed, in words a user can act on.
 *
 * Loading code fills an optional br_error beside its status: which file, which
 * tensor or key, what was found and what was expected. Nothing here allocates.
 */
#ifndef BESTROUTE_ERROR_H
#define BESTROUTE_ERROR_H

#include "bestroute/status.h"

enum { BR_ERROR_TEXT_BYTES = 512 };

typedef struct br_error {
    br_status status;
    char text[BR_ERROR_TEXT_BYTES]; /* one line, no newline at its end; "" while status is BR_OK */
} br_error;

/* Formats into *error (which may be NULL) and returns `status`, so that a
 * failing function reads `return br_fail(error, BR_EFORMAT, "...", ...)`.
 * Control characters in the result are replaced by '?', because texts may quote bytes from outside. */
BR_NODISCARD br_status br_fail(br_error *error, br_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
