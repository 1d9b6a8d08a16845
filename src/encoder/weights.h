/*
 * weights.h - the weights that weights.c makes and encoder.c runs on. For this folder alone.
 */
#ifndef BESTROUTE_ENCODER_WEIGHTS_H
#define BESTROUTE_ENCODER_WEIGHTS_H

#include "encoder.h"
#include "engine/backend.h"

/* gamma and beta, in the backend's memory. */
typedef struct layernorm_weights {
    float *gamma; /* [C] */
    float *beta;  /* [C] */
} layernorm_weights;

typedef struct layer_weights {
    br_matrix *qkv;              /* C -> 3C; NULL in the last layer, which has the two below */
    br_matrix *q;                /* C -> C */
    br_matrix *kv;               /* C -> 2C */
    br_matrix *attention_output; /* C -> C, accumulates */
    br_matrix *ffn_up;           /* C -> F, gelu */
    br_matrix *ffn_down;         /* F -> C, accumulates */
    br_positions *positions;     /* NULL: content only */
    layernorm_weights attention_norm;
    layernorm_weights output_norm;
} layer_weights;

struct br_encoder_weights {
    br_backend *backend; /* borrowed */
    br_model model;
    int32_t seq_tokens_max; /* max_tokens of the bundle: positions reach this far */
    int32_t heads_count;
    br_embedding *embedding;
    float *absolute_positions; /* [max_tokens, C], the row of token type 0 added; NULL: none */
    layernorm_weights embedding_norm;
    layer_weights *layers; /* [L] */
    float *head_weight;    /* [K, C] */
    float *head_bias;      /* [K] */
    br_activation head_activation;
    bool head_unit;
    float *pooler_weight; /* [C, C]; NULL: none */
    float *pooler_bias;   /* [C] */
    br_activation pooler_activation;
    int32_t pool_index; /* of the token in its sequence */
    size_t bytes;
};

#endif
