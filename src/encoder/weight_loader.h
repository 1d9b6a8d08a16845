/*
 * weight_loader.h - a bundle's tensors on their way to a backend: what the makers of weights share.
 */
#ifndef BESTROUTE_ENCODER_WEIGHT_LOADER_H
#define BESTROUTE_ENCODER_WEIGHT_LOADER_H

#include "bundle/bundle.h"
#include "positions.h"
#include "weights.h"

/* What loading needs at hand. */
typedef struct weight_loader {
    br_encoder_weights *w;
    br_backend *backend;
    const br_bundle *bundle;
    br_error *error;
    position_rows rows; /* empty where the model has no position terms */
    bool empty;         /* nothing is read: zeros stand for all values, and the backend writes none */
} weight_loader;

/* How many values it has. */
size_t loader_elements(const br_tensor *tensor);

/* Refuses a tensor's `count` values starting at element `first` by its name. BR_EINVAL. */
BR_NODISCARD br_status loader_check_finite(const weight_loader *l, const br_tensor *tensor,
                                           const float *values, size_t first, size_t count);

/* Widens a whole tensor, which has `count` elements, into out[count]. BR_EINVAL: not finite. */
BR_NODISCARD br_status loader_widen(const weight_loader *l, float *out, const br_tensor *tensor,
                                    size_t count);

/* BR_ENOMEM, with the error's text. */
BR_NODISCARD br_status loader_no_memory(const weight_loader *l, size_t floats);

/* source[count] in the backend's memory. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status loader_make_vector(const weight_loader *l, float **out, const float *source,
                                          size_t count);

/* head_weights.c: the heads and the pooler. Statuses of the above. */
BR_NODISCARD br_status head_weights_make(const weight_loader *l);

#endif
