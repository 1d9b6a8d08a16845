/*
 * malformed.h - makes malformed messages of many kinds; a number picks one, so a failure replays.
 */
#ifndef BESTROUTE_TESTS_PROTOCOL_MALFORMED_H
#define BESTROUTE_TESTS_PROTOCOL_MALFORMED_H

#include "support/notation.h"

/* The limits that the kind OVER_A_LIMIT exceeds; the service must run with them. */
enum { MALFORMED_TEXT_BYTES_MAX = 2000, MALFORMED_MESSAGE_BYTES_MAX = 200000, MALFORMED_QUERIES_MAX = 256 };

typedef enum kind {
    TRUNCATED,
    WRONG_TYPE,
    WRONG_TYPE_IN_QUERY,
    HUGE_COUNT,
    NESTING_BOMB,
    DUPLICATE_KEY,
    TRAILING_BYTES,
    NOT_A_NUMBER,
    NOT_A_MAP,
    KEY_NOT_A_STRING,
    VERSION_OR_OP,
    OVER_A_LIMIT,
    NOT_UTF8,
    RANDOM_BYTES,
    MUTATED,
    SPLICED,
    KINDS,
} kind;

typedef enum outcome {
    REFUSED,       /* ok is false */
    QUERY_REFUSED, /* ok is true, the first result is an error and the second is not */
    ANY,           /* a mutation may stay valid */
} outcome;

typedef struct malformed_kind {
    const char *name;
    outcome outcome;
} malformed_kind;

extern const malformed_kind malformed_kinds[KINDS];

/* One message of that kind, the same for the same number. Release with free(bytes). */
message malformed_make(kind which, uint64_t number);

#endif
