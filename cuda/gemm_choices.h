/*
 * gemm_choices.h - GEMM algorithms that were measured, remembered in a file.
 *
 * A line holds a device with its driver and cuBLASLt version, a shape, and the algorithm as hexadecimal
 * digits; lines of other devices and versions are kept and ignored. The file is only a memory: one that is
 * missing, cannot be written or holds nonsense costs time at load and nothing else.
 *
 * Thread-safe. Uses: error.  Used by: gemm, backend_cuda.
 */
#ifndef BESTROUTE_CUDA_GEMM_CHOICES_H
#define BESTROUTE_CUDA_GEMM_CHOICES_H

#include <stdbool.h>

#include <cublasLt.h>

#include "bestroute/error.h"

typedef struct br_gemm_choices br_gemm_choices;

enum { BR_GEMM_KEY_BYTES_MAX = 96 }; /* of a shape's name, which has no white space */

/* Reads the file where there is one. BR_ENOMEM. */
BR_NODISCARD br_status br_gemm_choices_create(br_gemm_choices **out, const char *file, const char *device,
                                              br_error *error);
void br_gemm_choices_destroy(br_gemm_choices *choices);

/* False: the shape was not measured on this device. */
bool br_gemm_choices_find(br_gemm_choices *choices, const char *shape, cublasLtMatmulAlgo_t *algo);

/* Remembers a measured choice, and adds it to the file where that can be written. */
void br_gemm_choices_add(br_gemm_choices *choices, const char *shape, const cublasLtMatmulAlgo_t *algo);

#endif
