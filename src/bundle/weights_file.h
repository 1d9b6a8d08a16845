/*
 * weights_file.h - model.safetensors: its table first, then its bytes, hashed as they are read.
 *
 *   open    reserves memory of the file's size, reads the header into it, checks the table
 *   keep    marks a tensor whose bytes are wanted
 *   read    every byte of the file once, in its order: into the hash, and those of kept tensors into memory
 *
 * What is hashed is what is loaded: the file is never mapped, and its size and time are compared at the end.
 * Only pages of kept tensors take memory; others are hashed through a small buffer. For bundle.c alone.
 */
#ifndef BESTROUTE_BUNDLE_WEIGHTS_FILE_H
#define BESTROUTE_BUNDLE_WEIGHTS_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/file.h"
#include "safetensors.h"

typedef struct weights_file {
    br_file file;
    unsigned char *memory; /* as large as the file; weights_file_close unmaps it unless the bundle took it */
    size_t header_bytes;   /* read already */
    br_safetensors *tensors; /* likewise */
    bool *kept;              /* by the tensor's index */
} weights_file;

/* Adds bytes to a hash; false: it failed. */
typedef bool (*weights_file_hash)(void *hash, const void *bytes, size_t size);

/* `out` is zeroed. BR_EIO, BR_ENOMEM, statuses of br_safetensors_create. close is safe afterwards. */
BR_NODISCARD br_status weights_file_open(weights_file *out, const char *path, br_error *error);
void weights_file_close(weights_file *w); /* accepts a zeroed one */

void weights_file_keep(weights_file *w, const br_tensor *tensor);

/* `stop`: may be NULL; looked at before every piece. BR_ECLOSED: it was set. BR_EIO: the file changed
 * meanwhile. BR_ENOMEM: also when the hash failed. */
BR_NODISCARD br_status weights_file_read(weights_file *w, weights_file_hash add, void *hash,
                                         const atomic_bool *stop, br_error *error);

/* Gives back what weights_file_open reserved. Accepts NULL. */
void weights_file_free(void *memory, size_t bytes);

#endif
