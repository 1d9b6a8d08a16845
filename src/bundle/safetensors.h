/*
 * safetensors.h - reads the table of contents of a safetensors file held in memory.
 *
 *   8 bytes little-endian header size | JSON header | tensor data
 *
 * Create checks the whole table: offsets inside the file, in order, without overlap or holes; sizes equal to
 * shape times element size without overflow; no duplicate names. Pure: it borrows the bytes and
 * never reads tensor data.
 *
 * Types: F32, F16 and BF16 are readable. A file may hold tensors of the other types of the format; bundle.c
 * refuses them only where it needs the tensor.
 */
#ifndef BESTROUTE_BUNDLE_SAFETENSORS_H
#define BESTROUTE_BUNDLE_SAFETENSORS_H

#include <stdint.h>

#include "bestroute/error.h"
#include "core/dtype.h"
#include "core/limits.h"
#include "core/memory.h"

typedef struct br_tensor {
    br_str name;        /* UTF-8, owned by the table */
    char type_name[16]; /* as written: "F32", "BF16", "I64", ... */
    br_dtype type;      /* meaningful when readable */
    bool readable;      /* the type is one of br_dtype */
    int32_t rank;
    int64_t shape[BR_TENSOR_RANK_MAX];
    const void *data; /* into the borrowed bytes; may be unaligned */
    size_t bytes;
} br_tensor;

typedef struct br_safetensors br_safetensors;

/* Borrows `bytes` until destroy. `file` names the file in errors.
 * BR_EFORMAT, BR_ETOOBIG, BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_safetensors_create(br_safetensors **out, const void *bytes, size_t size,
                                             const char *file, br_error *error);

/* Accepts NULL. */
void br_safetensors_destroy(br_safetensors *table);

size_t br_safetensors_count(const br_safetensors *table);
const br_tensor *br_safetensors_at(const br_safetensors *table, size_t index);

/* NULL when no tensor has that name. */
const br_tensor *br_safetensors_find(const br_safetensors *table, const char *name);

#endif
