/*
 * onednn.h - dense products on the CPU: y = x W^T + b, or y += x W^T + b.
 *
 * onednn.c is the one file that knows oneDNN and the difference between its
 * versions 2 and 3.
 *
 * Each batch has another number of rows, and oneDNN is slow where the number of rows is known only when the
 * product runs. So each shape is compiled for the row counts up to ONEDNN_ROWS_MAX when its first matrix is
 * made. More rows are computed in blocks of similar size, none of them small. Matrices of equal shape share
 * the compiled products. Weights are packed once, in one layout that serves all row counts.
 *
 * One thread at a time creates and destroys. Multiplying takes no lock: each thread has its own runner.
 */
#ifndef BESTROUTE_ENGINE_CPU_ONEDNN_H
#define BESTROUTE_ENGINE_CPU_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"

/* Compiling takes about 0.4 ms and 0.1 MB per row count and shape. Beyond 256 rows nothing is gained. */
enum {
    ONEDNN_ROWS_MAX = 256,
    ONEDNN_ROWS_EXACT = 128, /* up to here every row count is compiled, beyond it every 16th */
    ONEDNN_ROWS_STEP = 16,
};

typedef struct onednn onednn;                 /* the library's engine and what it compiled */
typedef struct onednn_weights onednn_weights; /* a packed W with its bias */
typedef struct onednn_runner onednn_runner;   /* one thread's execution */

typedef enum onednn_result {
    ONEDNN_STORE,      /* y = ...   of the type of x */
    ONEDNN_STORE_WIDE, /* y = ...   float32 */
    ONEDNN_ADD_WIDE,   /* y += ...  float32 */
} onednn_result;

typedef struct onednn_source {
    const float *weight; /* [outputs, inputs] */
    const float *bias;   /* [outputs] */
    int32_t outputs;
    int32_t inputs;
    onednn_result result;
} onednn_source;

/* `bf16`: W and x are bf16; otherwise float32. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status onednn_open(onednn **out, bool bf16, br_error *error);

/* Accepts NULL. Every matrix and runner must be gone. */
void onednn_close(onednn *dnn);

/* The implementation oneDNN chose for a typical matrix ("brg:avx512_core_bf16"). */
const char *onednn_implementation(const onednn *dnn);

/* True where that is one of its fast kernels, whose name begins with "brg". */
bool onednn_is_fast(const onednn *dnn);

/* Copies and packs. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status onednn_weights_create(onednn *dnn, onednn_weights **out, const onednn_source *source,
                                             br_error *error);
void onednn_weights_destroy(onednn *dnn, onednn_weights *weights);

/* Belongs to the calling thread, whose OpenMP team it sets to one. For the matrices that exist now it is
 * ready; for a later shape the first product allocates. BR_ENOMEM, BR_EDEVICE. */
BR_NODISCARD br_status onednn_runner_create(onednn_runner **out, onednn *dnn, br_error *error);
void onednn_runner_destroy(onednn_runner *runner);

/* The size of the next block when `rows` are left and a block has at most rows_max (1..ONEDNN_ROWS_MAX): a
 * compiled row count, chosen so that the last block is not much smaller than the others. */
int32_t onednn_block(int32_t rows, int32_t rows_max);

/* x [rows, inputs], y [rows, outputs]; rows as onednn_block gives them. BR_EDEVICE, BR_ENOMEM. */
BR_NODISCARD br_status onednn_multiply(onednn_runner *runner, const onednn_weights *weights, const void *x,
                                       void *y, int32_t rows);

#endif
