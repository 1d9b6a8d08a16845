/*
 * reply.h - reply messages, encoded for the service and decoded for clients.
 *
 * Encoding writes through a callback, straight into the outgoing message.
 * Decoding builds plain structs in an arena, with views into the message.
 * Unknown keys are ignored, so an older client can talk to a newer service.
 */
#ifndef BESTROUTE_PROTOCOL_REPLY_H
#define BESTROUTE_PROTOCOL_REPLY_H

#include "policy/router.h"
#include "request.h"

typedef struct br_timing {
    uint64_t tokenize_us;
    uint64_t queue_us;
    uint64_t compute_us;
    uint64_t total_us;
    uint64_t batch; /* queries that shared the encoder pass; the largest over the request's queries */
} br_timing;

/* One row of `explain`. */
typedef struct br_reply_candidate {
    br_str model;
    uint64_t n;
    double quality;
    double cost; /* NAN, on the wire nil: no price */
    bool allowed;
    br_str reason;
} br_reply_candidate;

typedef struct br_reply_result {
    br_code code; /* not NONE: only `message` is meaningful */
    br_str message;
    /* route */
    br_str model;
    uint64_t n;
    double quality;
    double cost; /* NAN: no price */
    bool met;
    double margin;
    /* route and score */
    uint64_t tokens;
    bool truncated;
    /* score: quality in the order of info's candidates; route with explain: the table */
    const double *qualities;
    size_t quality_count;
    const br_reply_candidate *candidates;
    size_t candidate_count;
} br_reply_result;

typedef struct br_info_model {
    br_str name;
    bool has_price;
    double input_price;
    double output_price;
    double avg_output_tokens; /* NaN: the bundle has none */
    bool input_per_sample;
} br_info_model;

typedef struct br_info {
    const br_reply_candidate *candidates; /* model and n alone */
    size_t candidate_count;
    uint64_t reference;
    const br_info_model *models;
    size_t model_count;
    br_policy_spec policy;
    br_measured_policy measured; /* `policy_table`; without rows the message has none */
    uint64_t max_queries;
    uint64_t max_tokens;
    uint64_t max_message_bytes;
    uint64_t max_text_bytes;
    br_str version;
    br_str engine;
    br_str precision;
    const br_str *devices;
    size_t device_count;
} br_info;

/* One number of the admin socket's `stats`. */
typedef struct br_stat {
    br_str name;
    bool is_real;
    uint64_t count; /* when !is_real */
    double real;    /* when is_real; not finite is written as nil */
} br_stat;

typedef struct br_reply {
    br_str id; /* the scalar's msgpack bytes; empty is written as nil */
    bool ok;
    br_code code; /* when !ok */
    br_str message;
    bool has_retry;
    uint64_t retry_ms;
    br_op op; /* which of the parts below an encoder writes; a decoder leaves it NONE */
    const br_reply_result *results;
    size_t result_count;
    bool has_bundle;
    br_str bundle_name;
    br_str bundle_hash;
    bool has_timing;
    br_timing timing;
    const br_info *info;
    const br_stat *stats; /* in the order given */
    size_t stat_count;
} br_reply;

/* -1 as the sink says, else 0. Floats are written as float64; NAN and infinities as nil. Messages of
 * errors quote outside bytes: what is not UTF-8 in them is written as '?'. */
int br_reply_encode(const br_reply *reply, void *sink, br_write_fn write);

/* BR_EFORMAT: not a reply of version 1. BR_ENOMEM. Views point into `message` and `arena`. An error code
 * that this version does not know is read as `internal`. */
BR_NODISCARD br_status br_reply_decode(br_reply *out, const void *message, size_t size, br_arena *arena,
                                       br_error *error);

#endif
