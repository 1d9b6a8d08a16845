/*
 * msgpack.h - a cursor over msgpack bytes, a packer, and the words of the protocol.
 *
 * Reading goes straight over the message: nothing is built, strings are views.
 * A reader that has failed stays failed, so a sequence of reads is checked once
 * at its end. Writing goes through a small buffer to a callback; a packer whose
 * sink refused stays failed too.
 *
 * Pure and bounded: every length is checked against the bytes that are left and
 * nesting against BR_NESTING_MAX. Fuzzed.
 */
#ifndef BESTROUTE_PROTOCOL_MSGPACK_H
#define BESTROUTE_PROTOCOL_MSGPACK_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/status.h"
#include "core/memory.h"

enum { BR_PROTOCOL_VERSION = 1 };

/* Error codes on the wire. */
#define BR_CODE_LIST(X)                                                                                      \
    X(BR_CODE_BAD_REQUEST, "bad_request")                                                                    \
    X(BR_CODE_TOO_LARGE, "too_large")                                                                        \
    X(BR_CODE_OVERLOADED, "overloaded")                                                                      \
    X(BR_CODE_DEADLINE, "deadline")                                                                          \
    X(BR_CODE_NOT_READY, "not_ready")                                                                        \
    X(BR_CODE_UNSUPPORTED, "unsupported")                                                                    \
    X(BR_CODE_INFEASIBLE, "infeasible")                                                                      \
    X(BR_CODE_INTERNAL, "internal")

typedef enum br_code {
    BR_CODE_NONE,
#define BR_CODE_ENUM(name, word) name,
    BR_CODE_LIST(BR_CODE_ENUM)
#undef BR_CODE_ENUM
} br_code;

/* "" for NONE. */
const char *br_code_name(br_code code);
/* BR_CODE_NONE when the word is no code. */
br_code br_code_parse(br_str word);

typedef enum br_wire_type {
    BR_WIRE_NIL,
    BR_WIRE_BOOL,
    BR_WIRE_UINT,  /* any integer >= 0, however it was encoded */
    BR_WIRE_INT,   /* any integer < 0 */
    BR_WIRE_FLOAT, /* float32 or float64 */
    BR_WIRE_STR,
    BR_WIRE_BIN,
    BR_WIRE_ARRAY,
    BR_WIRE_MAP,
    BR_WIRE_EXT,
} br_wire_type;

/* "nil", "bool", ... for messages. */
const char *br_wire_type_name(br_wire_type type);

/* One value, or the head of an array or map. */
typedef struct br_wire {
    br_wire_type type;
    union {
        bool boolean;
        uint64_t uint;
        int64_t sint;
        double real;
        br_str bytes;   /* STR, BIN, EXT */
        uint32_t count; /* ARRAY: elements; MAP: pairs. Never more than the bytes left could hold. */
    } as;
} br_wire;

typedef struct br_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;   /* truncated, a byte msgpack does not define, or nested too deeply */
    bool too_deep; /* the last of these */
} br_reader;

br_reader br_reader_make(const void *bytes, size_t size);

/* The next value or head. On failure: nil, and the reader has failed. */
br_wire br_read(br_reader *reader);

/* Skips one whole value. Fails beyond BR_NESTING_MAX levels. */
void br_skip(br_reader *reader);

/* Skips what follows a head that br_read returned: the elements of an array or map. */
void br_skip_body(br_reader *reader, br_wire head);

/* True when every byte was read and nothing failed. */
bool br_reader_done(const br_reader *reader);

/* Appends bytes somewhere; 0, or -1 when there is no room. The form of msgpack-c's write callback. */
typedef int (*br_write_fn)(void *sink, const char *bytes, size_t size);

/* Collects small pieces before it calls the sink. Nothing is complete before br_packer_finish. */
typedef struct br_packer {
    void *sink;
    br_write_fn write;
    bool failed;
    size_t used;
    char buffer[256];
} br_packer;

void br_packer_init(br_packer *packer, void *sink, br_write_fn write);

/* Hands the rest to the sink. 0, or -1 when the sink refused at any time. */
int br_packer_finish(br_packer *packer);

void br_pack_nil(br_packer *packer);
void br_pack_bool(br_packer *packer, bool value);
void br_pack_uint(br_packer *packer, uint64_t value);
void br_pack_real(br_packer *packer, double value); /* float64; nil when not finite */
void br_pack_str(br_packer *packer, br_str text);
void br_pack_word(br_packer *packer, const char *text);
void br_pack_array(br_packer *packer, size_t count);
void br_pack_map(br_packer *packer, size_t count);
void br_pack_raw(br_packer *packer, br_str bytes); /* bytes that are msgpack already */

#endif
