/*
 * router.h - candidates, prices and the default policy, read from router.json (BUNDLE.md).
 *
 * A candidate is a pair (model, n): sample n responses from that model and keep
 * the best. Costs are USD in double. Decisions are taken in policy.h.
 */
#ifndef BESTROUTE_ROUTER_H
#define BESTROUTE_ROUTER_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "bestroute/limits.h"
#include "bestroute/memory.h"
#include "bestroute/policy_spec.h"

typedef struct br_priced_model {
    char name[BR_NAME_BYTES_MAX + 1];
    bool has_price;           /* both prices are written; 0 counts as written */
    double input_price;       /* USD per token */
    double output_price;      /* USD per token */
    double avg_output_tokens; /* per sample; 0 where the file gives none */
    bool input_per_sample;    /* the prompt is billed once per sample */
} br_priced_model;

typedef struct br_candidate {
    int32_t model; /* index into models */
    int32_t n;     /* 1..BR_SAMPLES_MAX */
    int32_t head;  /* k of single_heads.k, or -1 for the reference */
    float scale;   /* calibration: quality = sigmoid(scale * (z0 - z1) + bias); > 0, 1 where none is given */
    float bias;    /* 0 where none is given */
} br_candidate;

typedef struct br_router {
    char name[BR_NAME_BYTES_MAX + 1];
    char source_prefix[BR_NAME_BYTES_MAX + 1];
    int32_t max_tokens; /* BR_SEQ_TOKENS_MIN..BR_SEQ_TOKENS_MAX */
    int32_t model_count;
    br_priced_model models[BR_MODELS_MAX];
    int32_t candidate_count;
    br_candidate candidates[BR_CANDIDATES_MAX];
    int32_t reference;  /* index into candidates */
    int32_t head_count; /* highest head + 1 */
    br_policy policy;   /* the defaults; its lists point into `arena` */
    br_arena arena;
} br_router;

/* Parses the JSON text of router.json. Refuses: another format or pool, duplicate candidates, an unknown
 * model, no reference or two, nothing but the reference, a head used twice or given to the reference,
 * non-finite or negative prices, one price without the other, an invalid default policy. Heads may be left out
 * (a candidate taken off the list), the weights hold them all the same. Unknown keys are ignored, as in messages: an
 * older service can load a newer bundle. A candidate's `calibration` {scale, bias} belongs to its head. Absent: source_prefix is "<|source|>", policy is threshold 0.5.
 * Whether the default policy is complete is for policy.h to say: a request may bring what it lacks.
 * BR_EFORMAT, BR_EINVAL, BR_ENOTSUP, BR_ETOOBIG, BR_ENOMEM.
 * Release with br_router_deinit, which also accepts a router whose parse failed. */
BR_NODISCARD br_status br_router_parse(br_router *out, br_str json, const char *file, br_error *error);
void br_router_deinit(br_router *router);

/* Index into models, or -1. */
int32_t br_router_find_model(const br_router *router, br_str name);

#endif
