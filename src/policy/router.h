/*
 * router.h - candidates, prices and the default policy, read from router.json (BUNDLE.md).
 *
 * A candidate is a pair (model, n): sample n responses from that model and keep
 * the best. Costs are USD in double. Decisions are taken in policy.h.
 */
#ifndef BESTROUTE_POLICY_ROUTER_H
#define BESTROUTE_POLICY_ROUTER_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "core/limits.h"
#include "core/memory.h"
#include "spec.h"

typedef struct br_priced_model {
    char name[BR_NAME_BYTES_MAX + 1];
    bool has_price;           /* both prices are written; 0 counts as written */
    double input_price;       /* USD per token */
    double output_price;      /* USD per token */
    double avg_output_tokens; /* per sample; NaN where the file gives none */
    bool input_per_sample;    /* the prompt is billed once per sample */
} br_priced_model;

typedef struct br_candidate {
    int32_t model; /* index into models */
    int32_t n;     /* 1..BR_SAMPLES_MAX */
    int32_t head;  /* index into the encoder's qualities, or -1 where the quality is 1: see br_heads_rule */
    float scale;   /* calibration: quality = sigmoid(scale * z + bias), z the log odds; > 0, 1 where absent */
    float bias;    /* 0 where absent */
} br_candidate;

/* How qualities are computed from the pooled hidden state: "heads" of router.json (docs/HEADS.md). */
typedef enum br_heads_kind {
    BR_HEADS_BEST_ROUTE,     /* one 2-way classifier per candidate but the reference */
    BR_HEADS_HYBRID_LLM,     /* one 2-way classifier: the small model against the reference */
    BR_HEADS_N_LABEL,        /* one sigmoid per candidate, the reference's unused */
    BR_HEADS_N_CLASS,        /* softmax over the candidates, the reference's last */
    BR_HEADS_ZOOTER,         /* softmax over the candidates */
    BR_HEADS_ROUTER_DC,      /* softmax of cosines with one vector per candidate */
    BR_HEADS_ROUTE_LLM_BERT, /* 3-way classifier: strong wins, tie, weak wins */
} br_heads_kind;

enum { BR_HEADS_KINDS = BR_HEADS_ROUTE_LLM_BERT + 1 }; /* how many there are */

/* What a kind asks of router.json. */
typedef struct br_heads_rule {
    const char *name;
    bool reference_scored; /* the reference has a head too; elsewhere its quality is 1 */
    int32_t candidates;    /* how many there must be with the reference; 0: any number */
    int32_t outputs;       /* of the classifier; 0: one per head */
    bool first_token;      /* pooled there unless router.json says otherwise */
    bool has_temperature;
    bool own_sigmoids; /* each quality is the sigmoid of its own logit: it may bring a calibration */
} br_heads_rule;

const br_heads_rule *br_heads_rule_of(br_heads_kind kind);

/* The layer between the pooled hidden state and the classifier: "pooler". */
typedef enum br_pooler {
    BR_POOLER_NONE,
    BR_POOLER_TANH, /* tanh(W x + b): BERT's */
    BR_POOLER_GELU, /* DeBERTa's */
    BR_POOLER_RELU, /* DistilBERT's */
} br_pooler;

/* What one threshold gave on the prompts that the bundle was calibrated on. */
typedef struct br_policy_row {
    double threshold;       /* [0, 1] */
    double reference_share; /* [0, 1] of the prompts */
    double mean_cost;       /* USD per prompt, >= 0 */
    double quality;         /* [0, 1] */
} br_policy_row;

/* Of `bestroute calibrate`, for people: no decision looks at it. */
typedef struct br_measured_policy {
    const br_policy_row *rows; /* thresholds rise; in the router's arena */
    size_t row_count;          /* 1..BR_POLICY_TABLE_ROWS_MAX; 0: there is no table */
    uint64_t prompts;          /* it was measured on */
} br_measured_policy;

typedef struct br_router {
    char name[BR_NAME_BYTES_MAX + 1];
    char source_prefix[BR_NAME_BYTES_MAX + 1];
    int32_t max_tokens; /* BR_SEQ_TOKENS_MIN..BR_SEQ_TOKENS_MAX */
    br_heads_kind heads;
    br_pooler pooler;
    bool pool_first;    /* the token pooled is [CLS] and there is no source prefix; else the prefix is */
    bool cased;         /* vocab.txt's pieces keep their case; spm.model says so itself */
    bool truncate_left; /* a long prompt loses its beginning */
    double temperature; /* > 0, of BR_HEADS_ROUTER_DC */
    int32_t model_count;
    br_priced_model models[BR_MODELS_MAX];
    int32_t candidate_count;
    br_candidate candidates[BR_CANDIDATES_MAX];
    int32_t reference;           /* index into candidates */
    int32_t head_count;          /* qualities of the encoder: highest head + 1, or the kind's outputs */
    br_policy_spec policy;       /* the defaults; its lists point into `arena` */
    br_measured_policy measured; /* "policy_table" */
    br_arena arena;
} br_router;

/* Parses the JSON text of router.json.
 *
 * Refuses: another format, an unknown kind of heads, pool, pooler or truncation, duplicate candidates, an
 * unknown model, no reference or two, nothing but the reference, a head used twice, given to the reference or
 * missing there against the kind's rule, another number of candidates than the kind's, a calibration where
 * the head is not a sigmoid of its own, non-finite or negative prices, prices other than 0 and outside 1e-9
 * to 1e-3 USD per token unless "allow_unusual_prices" is true, one price
 * without the other, an invalid default policy, an invalid policy_table, unknown keys at any level.
 *
 * Allows: heads that no candidate uses (it was taken off the list; the weights still hold them); unknown keys
 * that begin with "x_" or that the list "optional" names, so that an older service can load a newer bundle; a
 * priced model without avg_output_tokens (see br_candidate_cost). A member whose value is null is absent.
 * Whether the default policy is complete is checked in policy.h, because a request may bring what it lacks.
 *
 * Absent: source_prefix is "<|source|>"; heads is best_route; policy is threshold 0.5, or where the reference
 * is scored tolerance 0 (the highest quality).
 *
 * BR_EFORMAT, BR_EINVAL, BR_ENOTSUP, BR_ETOOBIG, BR_ENOMEM. Release with br_router_deinit, which also accepts
 * a router whose parse failed. */
BR_NODISCARD br_status br_router_parse(br_router *out, br_str json, const char *file, br_error *error);
void br_router_deinit(br_router *router);

/* Index into models, or -1. */
int32_t br_router_find_model(const br_router *router, br_str name);

/* The name most like one that is no model's; the first model's where none is near. */
const char *br_router_nearest_model(const br_router *router, br_str name);

#endif
