/*
 * loaded_weights.h - a bundle's weights on every device of a loaded bundle: read once, then handed from
 * device to device. For loaded.c alone.
 */
#ifndef BESTROUTE_WORKERS_LOADED_WEIGHTS_H
#define BESTROUTE_WORKERS_LOADED_WEIGHTS_H

#include "encoder/encoder.h"
#include "loaded.h"

/* weights[devices->count], NULL to begin with; those of devices that are out, or have no backend, stay NULL.
 * On failure the caller destroys those that were made. *handed_out: how many devices got their weights from
 * another one. Statuses of br_encoder_weights_create; of br_comm between ranks. */
BR_NODISCARD br_status loaded_weights_make(br_encoder_weights **weights, int32_t *handed_out,
                                           const br_loaded_options *options, const br_bundle *bundle,
                                           br_error *error);

#endif
