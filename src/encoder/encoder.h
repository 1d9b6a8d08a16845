/*
 * encoder.h - the forward pass: packed prompts in, qualities out.
 *
 * Written once over the ops of engine/backend.h. Two objects:
 *
 *   br_encoder_weights   a bundle's weights on one backend: folded, scaled, projected,
 *                        packed. Immutable, shared by the encoders of that backend.
 *   br_encoder           one stream with its workspace, for one thread.
 *
 * Some algebra is exact, and is done once, when the weights are made:
 *   1/sqrt(D * terms) folded into the query projection and the position queries
 *   position keys and queries projected once, one row per distance
 *   the two rows of a head folded: sigmoid(x . (w0 - w1) + b0 - b1)
 *   the vectors of cosine heads divided by their norms and the temperature
 *   the last layer computed for the pooled token alone (its keys and values for all)
 */
#ifndef BESTROUTE_ENCODER_ENCODER_H
#define BESTROUTE_ENCODER_ENCODER_H

#include "bundle/bundle.h"
#include "engine/backend.h"
#include "packing.h"

typedef struct br_encoder_weights br_encoder_weights;
typedef struct br_encoder br_encoder;

/* Borrows the backend for its life; the bundle only during the call.
 * BR_EINVAL: a weight is not finite (named in the error). BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status br_encoder_weights_create(br_encoder_weights **out, br_backend *backend,
                                                 const br_bundle *bundle, br_error *error);

/* The same on an accelerator, whose memory for weights is listed in `pieces`. With `empty` that memory is
 * allocated alike but not written: the caller fills it from the pieces of another device. */
BR_NODISCARD br_status br_encoder_weights_collect(br_encoder_weights **out, br_backend *backend,
                                                  const br_bundle *bundle, br_pieces *pieces, bool empty,
                                                  br_error *error);
void br_encoder_weights_destroy(br_encoder_weights *weights);

typedef struct br_encoder_options {
    int32_t tokens_max; /* per batch, max_tokens of the bundle .. BR_BATCH_TOKENS_MAX */
    int32_t seqs_max;   /* per batch, 1..BR_BATCH_SEQS_MAX */
    bool all_tokens;    /* compute the last layer for every token: br_encoder_hidden then works */
} br_encoder_options;

/* Allocates all memory that br_encoder_run uses. Call it on the thread that will run the encoder.
 * Borrows the weights. BR_EINVAL, BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status br_encoder_create(br_encoder **out, const br_encoder_weights *weights,
                                         const br_encoder_options *options, br_error *error);
void br_encoder_destroy(br_encoder *encoder);

/* One pass. `batch` holds 1..seqs_max sequences of 3..max_tokens ids each (2 where the first token is
 * pooled); ids are below V. This is asserted: prompts are checked where they enter. quality: [B, K] float32,
 * row-major, K = router.head_count; it may hold values that are not finite, which policies refuse.
 * BR_EDEVICE: no value in `quality` has a meaning. */
BR_NODISCARD br_status br_encoder_run(br_encoder *encoder, const br_packing *batch, float *quality);

/* The last hidden states of the latest run, [T, C] float32. Needs all_tokens. */
BR_NODISCARD br_status br_encoder_hidden(br_encoder *encoder, float *hidden);

/* Bytes of device memory held. */
size_t br_encoder_weights_bytes(const br_encoder_weights *weights);
size_t br_encoder_bytes(const br_encoder *encoder);

#endif
