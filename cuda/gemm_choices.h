/*
 * gemm_choices.h - a file that keeps which GEMM algorithms were measured to be the fastest.
 *
 * A line holds a device with its driver and cuBLASLt version, a shape, and the algorithm as hexadecimal
 * digits; lines of other devices and versions are kept and ignored. If the file is missing, cannot be written
 * or holds anything else, loading takes longer, since the algorithms are measured again; nothing else
 * changes.
 *
 * Thread-safe. Uses: error.  Used by: gemm, backend_cuda.
 */
#ifndef BESTROUTE_CUDA_GEMM_CHOICES_H
#define BESTROUTE_CUDA_GEMM_CHOICES_H

#include <stdbool.h>

#include <cublasLt.h>

#include "bestroute/error.h"

typedef struct gemm_choices gemm_choices;

enum { GEMM_KEY_BYTES_MAX = 96 }; /* of a shape's name, which has no white space */

/* Reads the file if it exists. BR_ENOMEM. */
BR_NODISCARD br_status gemm_choices_create(gemm_choices **out, const char *file, const char *device,
                                           br_error *error);
void gemm_choices_destroy(gemm_choices *choices);

/* False: the shape was not measured on this device. */
bool gemm_choices_find(gemm_choices *choices, const char *shape, cublasLtMatmulAlgo_t *algo);

/* Keeps a measured choice, and adds it to the file if that can be written. */
void gemm_choices_add(gemm_choices *choices, const char *shape, const cublasLtMatmulAlgo_t *algo);

#endif
