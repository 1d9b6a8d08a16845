/*
 * loaded.h - a bundle made ready to run: opened, its weights on every device, one encoder per worker.
 *
 *   create      open the bundle, make the weights               any thread
 *   open        this worker's encoder, tried on a probe         each worker's own thread
 *   run         one encoder pass                                each worker's own thread
 *   close       this worker's encoder                           each worker's own thread
 *   drop        a device's weights, its encoders closed         as create
 *   restore     a device's weights, dropped or never made       as create
 *   destroy     the rest                                        any thread, all encoders closed
 *
 * Counted: the service holds one reference while the loaded bundle is current, and each call one from
 * admission to its reply, so every reply comes from one bundle. The count is atomic. The caller that drops
 * the last reference closes and destroys.
 *
 * A device whose backend is NULL has no encoder and answers BR_NOOP_QUALITY for everything: that measures the
 * service alone.
 *
 * Uses: bundle, comm, devices, encoder, packing.  Used by: workers, and the service.
 */
#ifndef BESTROUTE_WORKERS_LOADED_H
#define BESTROUTE_WORKERS_LOADED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bundle/bundle.h"
#include "devices.h"
#include "encoder/packing.h"
#include "engine/comm.h"

#define BR_NOOP_QUALITY 0.5f

typedef struct br_loaded br_loaded;

typedef struct br_loaded_options {
    const char *folder;        /* copied */
    const br_devices *devices; /* borrowed; tokens_max, once decided, at least the bundle's max_tokens */
    uint32_t without;          /* a bit for each device that is out: it gets no weights */
    br_comm *ranks;            /* the ranks that the first accelerator gets its weights with; NULL: none */
    int32_t seqs_max;          /* per batch, 1..BR_BATCH_SEQS_MAX */
    const atomic_bool *stop;   /* borrowed; while it is true files are not read; NULL: always read */
} br_loaded_options;

/* Opens and checks the bundle, makes the weights and frees what was read. Holds one reference for the caller.
 * Statuses of br_bundle_open and br_encoder_weights_create; BR_EINVAL: a tokens_max is below max_tokens;
 * BR_ECLOSED: *stop was true.
 * On failure *out is NULL. */
BR_NODISCARD br_status br_loaded_create(br_loaded **out, const br_loaded_options *options, br_error *error);

/* Accepts NULL. Every worker's encoder must be closed. */
void br_loaded_destroy(br_loaded *loaded);

void br_loaded_retain(br_loaded *loaded);

/* True when that was the last reference: the caller then closes and destroys, or hands the bundle to a thread
 * that may. */
BR_NODISCARD bool br_loaded_release(br_loaded *loaded);

/* A link for lists of bundles without a reference. */
br_loaded **br_loaded_link(br_loaded *loaded);

/* Makes the worker's encoder and tries it: probe prompts alone and together must give qualities that
 * are finite, in [0, 1] and equal within the precision's tolerance. On failure nothing is left open.
 * BR_EDEVICE: the probe failed; statuses of br_encoder_create. */
BR_NODISCARD br_status br_loaded_open(br_loaded *loaded, int32_t worker, br_error *error);
void br_loaded_close(br_loaded *loaded, int32_t worker); /* accepts one that is not open */

/* The device's weights alone; its workers' encoders are closed. Restoring reads the folder again: BR_EINVAL
 * when it holds another bundle by now; statuses of br_loaded_create. */
void br_loaded_drop(br_loaded *loaded, int32_t device);
BR_NODISCARD br_status br_loaded_restore(br_loaded *loaded, int32_t device, br_error *error);

/* One pass on the worker's encoder, which must be open. quality: [B, head_count]. BR_EDEVICE. */
BR_NODISCARD br_status br_loaded_run(br_loaded *loaded, int32_t worker, const br_packing *batch,
                                     float *quality);

/* Whether the device has weights of the bundle; if not, no encoder is open on it. For the thread that drops
 * and restores. */
bool br_loaded_is_on(const br_loaded *loaded, int32_t device);

const br_bundle *br_loaded_bundle(const br_loaded *loaded);
const char *br_loaded_folder(const br_loaded *loaded);

/* Devices whose weights came from another device, not from the files. */
int32_t br_loaded_handed_out(const br_loaded *loaded);

/* Device memory: of one copy of the weights, and of all open encoders together. */
size_t br_loaded_weights_bytes(const br_loaded *loaded);
size_t br_loaded_encoders_bytes(const br_loaded *loaded);

#endif
