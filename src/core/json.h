/*
 * json.h - JSON files read strictly: every refusal names the file, the key, what was found and
 * what was expected.
 *
 * Over jansson. Duplicate keys, trailing bytes and texts over BR_JSON_BYTES_MAX (or the caller's
 * bound) are refused. A scope is one object of a file with the path that leads to it, so that a
 * getter deep inside says "router.json: candidates[3].n: found 0, expected an integer in 1..1000".
 *
 * br_json_known refuses the keys that nobody reads, so that a misspelt one is no silent default.
 *
 * Getters leave *value alone when the key is absent: it holds the default.
 *   BR_EFORMAT: the value has another type; BR_EINVAL: it is out of range.
 */
#ifndef BESTROUTE_CORE_JSON_H
#define BESTROUTE_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "memory.h"

typedef struct br_json {
    const json_t *object;
    const char *file; /* names the file in errors */
    const char *path; /* "" at the top, else it ends with '.': "candidates[3]." */
    br_error *error;  /* may be NULL */
} br_json;

enum { BR_JSON_FOUND_BYTES = 96, BR_JSON_PATH_BYTES = 96 };

/* Parses a text whose top is an object. The caller releases *out with json_decref.
 * BR_EFORMAT, BR_ETOOBIG, BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_json_parse(json_t **out, br_str text, size_t bytes_max, const char *file,
                                     br_error *error);

/* Writes what `value` is, for messages: "a string "abc"", "0.5", "an array", "nothing" for NULL. */
const char *br_json_found(char found[BR_JSON_FOUND_BYTES], const json_t *value);

/* Fails with "<file>: <path><key>: found <value>, expected <expected>". */
BR_NODISCARD br_status br_json_refuse(const br_json *scope, br_status status, const char *key,
                                      const json_t *value, const char *expected);

bool br_json_has(const br_json *scope, const char *key);

/* BR_EINVAL: the key is absent. */
BR_NODISCARD br_status br_json_require(const br_json *scope, const char *key, const char *expected);

BR_NODISCARD br_status br_json_bool(const br_json *scope, const char *key, bool *value);

/* An integer in low..high. */
BR_NODISCARD br_status br_json_int(const br_json *scope, const char *key, int64_t low, int64_t high,
                                   int64_t *value);
BR_NODISCARD br_status br_json_int32(const br_json *scope, const char *key, int32_t low, int32_t high,
                                     int32_t *value);

/* A finite number in low..high, written as an integer or not. */
BR_NODISCARD br_status br_json_number(const br_json *scope, const char *key, double low, double high,
                                      double *value);

/* A string of 1..size - 1 bytes, copied and terminated. */
BR_NODISCARD br_status br_json_text(const br_json *scope, const char *key, char *value, size_t size);

/* Element `index` of `list`, the array at `key`, as a scope of its own; `path` holds its path. BR_EFORMAT: it
 * is no object. */
BR_NODISCARD br_status br_json_item(br_json *out, char path[BR_JSON_PATH_BYTES], const br_json *scope,
                                    const char *key, const json_t *list, size_t index);

/* The keys that an object may have. */
typedef struct br_json_keys {
    const char *const *known; /* NULL ends it */
    const json_t *optional; /* an array of names that may stand there though nobody reads them; may be NULL */
} br_json_keys;

/* BR_EINVAL: the object has another key, which the error names with the nearest known one. Keys that begin
 * with "x_" are free. */
BR_NODISCARD br_status br_json_known(const br_json *scope, const br_json_keys *keys);

/* Takes away every member whose value is null, at any depth: null means absent. */
void br_json_drop_nulls(json_t *value);

/* A view of a string, valid while the JSON value is. */
br_str br_json_view(const json_t *string);

#endif
