/*
 * request.h - a request message, decoded for the service and encoded for clients.
 *
 * Decoding builds no tree: it notes where the known keys of a map stand, then
 * reads their values into arrays of an arena. Strings stay views into the
 * message, which must outlive the request. A fault of the request as a whole is
 * its code and error. A fault inside one query (its text, its tokens, its own
 * policy) is that query's error, and the other queries are answered.
 * The order of the keys does not change which fault is reported: first bytes that
 * are not msgpack, then keys given twice, then the version, then the op, then a
 * misspelt key, then the rest. A key whose value is nil is absent.
 *
 * Types, finiteness and UTF-8 are checked here. Ranges of policies and names of
 * models are checked later, against the bundle that will score the request.
 * Fuzzed.
 */
#ifndef BESTROUTE_PROTOCOL_REQUEST_H
#define BESTROUTE_PROTOCOL_REQUEST_H

#include "bestroute/error.h"
#include "core/limits.h"
#include "msgpack.h"
#include "policy/spec.h"

typedef enum br_op {
    BR_OP_NONE,
    BR_OP_ROUTE,
    BR_OP_SCORE,
    BR_OP_INFO,
    BR_OP_PING,
    /* The admin socket's. */
    BR_OP_RELOAD,
    BR_OP_DRAIN,
    BR_OP_SHUTDOWN,
    BR_OP_SET_DEFAULTS,
    BR_OP_STATS,
} br_op;

const char *br_op_name(br_op op);

/* `prompt_tokens` or `output_tokens`: one number, or a number for some models. */
typedef struct br_count_entry {
    br_str model;
    uint64_t count;
} br_count_entry;

typedef struct br_counts {
    enum { BR_COUNTS_NONE, BR_COUNTS_ALL, BR_COUNTS_BY_MODEL } form;
    uint64_t all;
    const br_count_entry *entries;
    size_t entry_count;
} br_counts;

/* Why one query cannot be answered; code NONE when it can. `text` is a literal or lives in the arena. */
typedef struct br_query_error {
    br_code code;
    const char *text;
} br_query_error;

typedef struct br_query {
    br_query_error error;
    bool has_text;
    br_str text;            /* valid UTF-8 */
    const uint32_t *tokens; /* when !has_text */
    size_t token_count;
    br_counts prompt_tokens;
    br_counts output_tokens;
    double max_cost;       /* >= 0; INFINITY when absent */
    br_policy_spec policy; /* overrides, never of kind pool; has == 0 when absent, and for score */
} br_query;

typedef struct br_request {
    br_op op;
    br_str id; /* the scalar's own msgpack bytes, echoed as they are; empty when absent */
    bool has_deadline;
    uint64_t deadline_ms;
    bool explain;
    br_policy_spec policy; /* route, set_defaults: overrides of the server's defaults; has == 0 otherwise */
    br_query *queries;
    size_t query_count;
    br_str bundle; /* admin reload: the folder; empty when absent */
} br_request;

typedef struct br_request_limits {
    size_t queries_max;
    size_t text_bytes_max; /* of one query; its `tokens` may be as many: each stands for a byte or more */
    size_t message_bytes_max;
    bool admin; /* true: only the admin socket's ops are known; false: only the data socket's */
} br_request_limits;

/* Decodes one message. The error text names the key: "queries[3].policy.threshold: expected a number,
 * found str". out->id is found even where the rest is wrong, but stays empty where the bytes are not one
 * msgpack value, because then nothing in them can be trusted.
 *   BR_CODE_NONE          the request is well-formed (single queries may still carry errors)
 *   BR_CODE_BAD_REQUEST   malformed, a known key of the wrong type or repeated, a misspelt key, a value out
 *                         of range
 *   BR_CODE_TOO_LARGE     over a limit
 *   BR_CODE_UNSUPPORTED   version or op
 *   BR_CODE_INTERNAL      the arena is out of memory
 */
br_code br_request_decode(br_request *out, const void *message, size_t size, const br_request_limits *limits,
                          br_arena *arena, br_error *error);

/* Writes the message of `request`, whose op is not NONE; errors in queries are ignored.
 * -1 as the sink says, else 0. */
int br_request_encode(const br_request *request, void *sink, br_write_fn write);

#endif
