/*
 * model.h - the shape of a DeBERTa-v2/v3, BERT or DistilBERT encoder, read from config.json.
 *
 * Fields and defaults are those of Hugging Face's DebertaV2Config, BertConfig and DistilBertConfig. Features
 * that the engine does not support are refused, and the error names them: conv layers, position-biased input,
 * token types in DeBERTa, an embedding size other than the hidden size, any activation but gelu, another
 * model_type. Keys that BUNDLE.md does not list are ignored.
 */
#ifndef BESTROUTE_BUNDLE_MODEL_H
#define BESTROUTE_BUNDLE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "core/memory.h"

typedef enum br_family {
    BR_FAMILY_DEBERTA,    /* deberta-v2: relative positions */
    BR_FAMILY_BERT,       /* absolute positions and token types; every token has type 0 */
    BR_FAMILY_DISTILBERT, /* absolute positions */
} br_family;

enum { BR_FAMILIES = BR_FAMILY_DISTILBERT + 1 }; /* how many there are */

typedef struct br_model {
    br_family family;
    int32_t width;     /* C, hidden_size */
    int32_t layers;    /* L */
    int32_t heads;     /* H */
    int32_t head_size; /* D = C / H */
    int32_t ffn_width; /* F, intermediate_size */
    int32_t vocab;     /* V, rows of the word embedding */
    float layer_norm_epsilon;

    bool relative_attention;
    bool share_att_key; /* positions go through query_proj and key_proj */
    bool c2p; /* content-to-position term; it counts in the score's scale even without relative attention */
    bool p2c; /* position-to-content term */
    bool norm_rel_ebd; /* LayerNorm over the relative embeddings */

    /* All 0 without relative_attention. */
    int32_t position_buckets; /* 0: distances are not bucketed */
    int32_t max_positions;    /* max_relative_positions, or max_position_embeddings where that is < 1 */
    int32_t position_span;    /* rows of rel_embeddings / 2: buckets, or max_positions without them */

    /* 0 where there are none: absolute positions are added to the word embeddings. */
    int32_t absolute_positions; /* max_position_embeddings */
    int32_t token_types;        /* type_vocab_size */
} br_model;

/* Parses the JSON text of config.json; `file` names it in errors.
 * BR_EFORMAT: not the JSON or the types expected; BR_EINVAL: a value out of range;
 * BR_ENOTSUP: a feature that the engine lacks; BR_ETOOBIG: over a limit; BR_ENOMEM. */
BR_NODISCARD br_status br_model_parse(br_model *out, br_str json, const char *file, br_error *error);

/* The row of rel_embeddings, 0 .. 2 * position_span - 1, for query index minus key index
 * (Hugging Face's make_log_bucket_position, in its float32 steps, then the clamp). The model has
 * relative_attention, and the distance lies between -2^24 and 2^24. */
int32_t br_model_position_row(const br_model *model, int32_t distance);

#endif
