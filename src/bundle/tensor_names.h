/*
 * tensor_names.h - what each family of encoders calls its tensors, and what the heads are called.
 *
 * A name is the bundle's prefix, the family's stem, ".weight" or ".bias". The
 * prefix is what the checkpoint's own module calls its encoder; it is found,
 * not declared: the first of the known ones whose word embedding is there.
 * Heads have whole names.
 */
#ifndef BESTROUTE_BUNDLE_TENSOR_NAMES_H
#define BESTROUTE_BUNDLE_TENSOR_NAMES_H

#include "bundle.h"

enum { BR_TENSOR_NAME_BYTES = 128 };

/* The modules that every family has, and the two that some have. */
typedef enum br_module {
    BR_MODULE_WORDS,
    BR_MODULE_POSITIONS, /* absolute */
    BR_MODULE_TYPES,
    BR_MODULE_EMBEDDING_NORM,
    BR_MODULE_QUERY, /* from here on of a layer */
    BR_MODULE_KEY,
    BR_MODULE_VALUE,
    BR_MODULE_POSITION_KEY,
    BR_MODULE_POSITION_QUERY,
    BR_MODULE_ATTENTION_OUTPUT,
    BR_MODULE_ATTENTION_NORM,
    BR_MODULE_FFN_UP,
    BR_MODULE_FFN_DOWN,
    BR_MODULE_OUTPUT_NORM,
    BR_MODULE_RELATIVE,      /* of the encoder again: rel_embeddings */
    BR_MODULE_RELATIVE_NORM, /* its LayerNorm */
    BR_MODULE_POOLER,        /* of the checkpoint */
} br_module;

enum { BR_MODULES = BR_MODULE_POOLER + 1 }; /* how many there are */

/* Writes the whole name of `module`'s tensor `kind`, "weight" or "bias";
 * `layer` counts for modules of a layer. */
void br_tensor_name(char out[BR_TENSOR_NAME_BYTES], const br_bundle *bundle, br_module module, int32_t layer,
                    const char *kind);

/* The tensor of that name, or NULL. */
const br_tensor *br_module_tensor(const br_bundle *bundle, br_module module, int32_t layer, const char *kind);

/* Sets bundle->prefix from what the weights hold; the first of the list where none fits. */
void br_bundle_find_prefix(br_bundle *bundle);

/* The classifier's module ("head_layer.1"), [rows, C], for kinds with one for all candidates. With
 * BR_HEADS_BEST_ROUTE NULL: there is one for each. `*has_bias` is false for a table of vectors. */
const char *br_classifier_name(br_heads_kind kind, bool *has_bias);

/* Rows of that classifier. */
int32_t br_classifier_rows(const br_router *router);

#endif
