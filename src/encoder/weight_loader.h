/*
 * weight_loader.h - reads a bundle's tensors and copies them to a backend: for weights.c and head_weights.c.
 */
#ifndef BESTROUTE_ENCODER_WEIGHT_LOADER_H
#define BESTROUTE_ENCODER_WEIGHT_LOADER_H

#include "bundle/bundle.h"
#include "positions.h"
#include "weights.h"

/* The arguments that all functions of loading need. */
typedef struct weight_loader {
    br_encoder_weights *w;
    br_backend *backend;
    const br_bundle *bundle;
    br_error *error;
    position_rows rows; /* empty where the model has no position terms */
    bool empty;         /* no tensor is read: all values are zero, and the backend does not write them */
} weight_loader;

/* The number of its elements. */
size_t loader_elements(const br_tensor *tensor);

/* `values` are `count` elements of the tensor, from element `first` on. BR_EINVAL: one is not finite; the
 * error names the tensor and the element. */
BR_NODISCARD br_status loader_check_finite(const weight_loader *l, const br_tensor *tensor,
                                           const float *values, size_t first, size_t count);

/* Widens a whole tensor, which has `count` elements, into out[count]. BR_EINVAL: not finite. */
BR_NODISCARD br_status loader_widen(const weight_loader *l, float *out, const br_tensor *tensor,
                                    size_t count);

/* Fills the error and returns BR_ENOMEM. */
BR_NODISCARD br_status loader_no_memory(const weight_loader *l, size_t floats);

/* source[count] in the backend's memory. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status loader_make_vector(const weight_loader *l, float **out, const float *source,
                                          size_t count);

/* In head_weights.c: the heads and the pooler. Statuses of the functions above. */
BR_NODISCARD br_status head_weights_make(const weight_loader *l);

#endif
