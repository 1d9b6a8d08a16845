/*
 * fields.h - what request.c and reply.c share: the known keys of a map, and policies.
 *
 * A map is read in two steps. br_fields_read goes over it once and notes where
 * the value of each known key starts; it refuses repeated keys, and skips or
 * refuses unknown ones as its caller says. The typed reads then take the values in the order the code
 * wants, whatever order they were sent in. What a typed read refuses it names
 * with its place: "queries[3].policy.threshold: expected a number, found str".
 *
 * An absent key is no error: the typed reads leave *out alone. A key whose value is nil is absent.
 *
 * Used by: request, reply.
 */
#ifndef BESTROUTE_PROTOCOL_FIELDS_H
#define BESTROUTE_PROTOCOL_FIELDS_H

#include "bestroute/error.h"
#include "msgpack.h"
#include "policy/spec.h"

enum { BR_FIELDS_MAX = 16 };

/* The key of a list of known ones, for initialisers. */
#define BR_KEY(word)                                                                                         \
    {                                                                                                        \
        (word), sizeof(word) - 1                                                                             \
    }

/* Where a map stands in the message. NULL stands for the message itself. */
typedef struct br_place {
    const struct br_place *outer;
    const char *name;
    int64_t index; /* in the array of that name; -1 when it is no array */
} br_place;

/* What is done about a key that the map does not know. One that begins with "x_" is the sender's own and
 * always skipped. */
typedef enum br_unknown_keys {
    BR_UNKNOWN_SKIPPED,      /* replies: a newer service may say more */
    BR_UNKNOWN_NEAR_REFUSED, /* one at most BR_NEAR_KEY_EDITS from a known key is a fault */
    BR_UNKNOWN_REFUSED,
} br_unknown_keys;

enum { BR_NEAR_KEY_EDITS = 2 };

typedef struct br_fields {
    const br_str *keys;
    const uint8_t *values[BR_FIELDS_MAX]; /* by key; NULL when absent */
    const uint8_t *end;                   /* of the message */
    const br_place *place;
    br_error *error;
    br_str unknown;      /* the first unknown key that is a fault */
    const char *nearest; /* the known key that is most like it; NULL: there is no such fault */
} br_fields;

/* Reads one map of `key_count` known keys.
 * BR_EFORMAT: the bytes are not msgpack, or nested too deeply. BR_EINVAL: not a map, a key that is no
 * string, a known key repeated, an unknown key with BR_UNKNOWN_REFUSED; `out` holds the keys that were
 * found. */
BR_NODISCARD br_status br_fields_read(br_fields *out, br_reader *reader, const br_str *keys, size_t key_count,
                                      br_unknown_keys unknown, const br_place *place, br_error *error);

/* BR_EINVAL: the map, read with BR_UNKNOWN_NEAR_REFUSED, has such a key. For callers that report other faults
 * before it. */
BR_NODISCARD br_status br_fields_unknown(const br_fields *fields);

bool br_field_present(const br_fields *fields, size_t key);

/* A reader at the value of a key that is present. What br_fields_read went over is well-formed. */
br_reader br_field_reader(const br_fields *fields, size_t key);

/* Fills the error with the key's place before the text, and returns `status`. */
BR_NODISCARD br_status br_field_fail(const br_fields *fields, size_t key, br_status status,
                                     const char *format, ...) __attribute__((format(printf, 4, 5)));
BR_NODISCARD br_status br_field_no_memory(const br_fields *fields, size_t key);

/* "expected `what`, found str". BR_EINVAL. */
BR_NODISCARD br_status br_field_expected(const br_fields *fields, size_t key, const char *what,
                                         br_wire found);

/* BR_EINVAL: another type; for reals also NaN and infinities. */
BR_NODISCARD br_status br_field_bool(const br_fields *fields, size_t key, bool *out);
BR_NODISCARD br_status br_field_uint(const br_fields *fields, size_t key, uint64_t *out);
BR_NODISCARD br_status br_field_real(const br_fields *fields, size_t key, double *out);
BR_NODISCARD br_status br_field_str(const br_fields *fields, size_t key, br_str *out);

/* Positions *out at the first element of an array and sets *count. The key is present.
 * BR_EINVAL: not an array. */
BR_NODISCARD br_status br_field_array(const br_fields *fields, size_t key, br_reader *out, uint32_t *count);

/* An array of strings, at most count_max of them; *out and *count stay as they are when the key is absent.
 * BR_EINVAL, BR_ENOMEM. */
BR_NODISCARD br_status br_field_strs(const br_fields *fields, size_t key, size_t count_max, br_arena *arena,
                                     const br_str **out, size_t *count);

/* The policy map at `reader`. `outer` is the place of the map that holds it. Of a request unknown keys are
 * refused and the kind is settled (br_policy_spec_settle); of a reply the map is taken as it is.
 * BR_EFORMAT, BR_EINVAL, BR_ENOMEM. On failure *out writes no field. */
BR_NODISCARD br_status br_policy_read(br_policy_spec *out, br_reader *reader, bool of_request,
                                      const br_place *outer, br_arena *arena, br_error *error);

/* A map of the fields that `policy` writes. */
void br_policy_pack(br_packer *packer, const br_policy_spec *policy);

#endif
