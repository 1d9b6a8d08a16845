/*
 * tensor_names.h - the names of tensors, for each family of encoders and for the heads.
 *
 * A name is the bundle's prefix, the family's stem, then ".weight" or ".bias". The prefix is the name of the
 * encoder within the checkpoint's own module. No file declares it: it is the first known prefix under which
 * there is a word embedding. Names of heads have no prefix.
 */
#ifndef BESTROUTE_BUNDLE_TENSOR_NAMES_H
#define BESTROUTE_BUNDLE_TENSOR_NAMES_H

#include "bundle.h"

enum { BR_TENSOR_NAME_BYTES = 128 };

/* The modules of an encoder. Not every family has all of them. */
typedef enum br_module {
    BR_MODULE_WORDS,
    BR_MODULE_POSITIONS, /* absolute */
    BR_MODULE_TYPES,
    BR_MODULE_EMBEDDING_NORM,
    BR_MODULE_QUERY, /* this and the following are of a layer */
    BR_MODULE_KEY,
    BR_MODULE_VALUE,
    BR_MODULE_POSITION_KEY,
    BR_MODULE_POSITION_QUERY,
    BR_MODULE_ATTENTION_OUTPUT,
    BR_MODULE_ATTENTION_NORM,
    BR_MODULE_FFN_UP,
    BR_MODULE_FFN_DOWN,
    BR_MODULE_OUTPUT_NORM,
    BR_MODULE_RELATIVE,      /* of the encoder: rel_embeddings */
    BR_MODULE_RELATIVE_NORM, /* its LayerNorm */
    BR_MODULE_POOLER,        /* of the checkpoint */
} br_module;

enum { BR_MODULES = BR_MODULE_POOLER + 1 }; /* how many there are */

/* Writes the whole name of a module's tensor; `kind` is "weight" or "bias". `layer` is read for modules of a
 * layer alone. */
void br_tensor_name(char out[BR_TENSOR_NAME_BYTES], const br_bundle *bundle, br_module module, int32_t layer,
                    const char *kind);

/* The tensor of that name, or NULL. */
const br_tensor *br_module_tensor(const br_bundle *bundle, br_module module, int32_t layer, const char *kind);

/* Sets bundle->prefix to the first prefix of the list under which there is a word embedding, or to the first
 * of all. */
void br_bundle_find_prefix(br_bundle *bundle);

/* The module ("head_layer.1") of the one classifier for all candidates, [rows, C]. NULL for
 * BR_HEADS_BEST_ROUTE, which has one for each candidate. `*has_bias` is false for a table of vectors. */
const char *br_classifier_name(br_heads_kind kind, bool *has_bias);

/* Rows of that classifier. */
int32_t br_classifier_rows(const br_router *router);

#endif
