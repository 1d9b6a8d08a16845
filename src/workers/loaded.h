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
 * Counted: the service holds one reference while the replica is current, and each
 * call one from admission to its reply, so every reply comes from one bundle. The
 * count is atomic; who drops the last reference sees to closing and destroying.
 *
 * A device whose backend is NULL has no encoder and answers BR_NOOP_QUALITY for
 * everything: that measures the service alone.
 *
 * Uses: bundle, comm, devices, encoder, packing.  Used by: worker, server.
 */
#ifndef BESTROUTE_WORKERS_LOADED_H
#define BESTROUTE_WORKERS_LOADED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bundle/bundle.h"
#include "engine/comm.h"
#include "devices.h"
#include "encoder/packing.h"

#define BR_NOOP_QUALITY 0.5f

typedef struct br_replica br_replica;

typedef struct br_replica_options {
    const char *folder;        /* copied */
    const br_devices *devices; /* borrowed; tokens_max, once decided, at least the bundle's max_tokens */
    uint32_t without;          /* a bit for each device that is out: it gets no weights */
    br_comm *fleet;            /* what the first accelerator's weights come through; NULL: alone */
    int32_t seqs_max;          /* per batch, 1..BR_BATCH_SEQS_MAX */
} br_replica_options;

/* Opens and checks the bundle, makes the weights and unmaps the files. Holds one reference for the caller.
 * Statuses of br_bundle_open and br_encoder_weights_create; BR_EINVAL: a tokens_max is below max_tokens.
 * On failure *out is NULL. */
BR_NODISCARD br_status br_replica_create(br_replica **out, const br_replica_options *options,
                                         br_error *error);

/* Accepts NULL. Every worker's encoder must be closed. */
void br_replica_destroy(br_replica *replica);

void br_replica_retain(br_replica *replica);

/* True when that was the last reference: the caller then closes and destroys, or hands that to who may. */
BR_NODISCARD bool br_replica_release(br_replica *replica);

/* A link for whoever dropped the last reference. */
br_replica **br_replica_link(br_replica *replica);

/* Makes the worker's encoder and tries it: probe prompts alone and together must give qualities that
 * are finite, in [0, 1] and equal within the precision's tolerance. On failure nothing is left open.
 * BR_EDEVICE: the probe failed; statuses of br_encoder_create. */
BR_NODISCARD br_status br_replica_open(br_replica *replica, int32_t worker, br_error *error);
void br_replica_close(br_replica *replica, int32_t worker); /* accepts one that is not open */

/* The device's weights alone; its workers' encoders are closed. Restoring reads the folder again: BR_EINVAL when
 * it holds another bundle by now; statuses of br_replica_create. */
void br_replica_drop(br_replica *replica, int32_t device);
BR_NODISCARD br_status br_replica_restore(br_replica *replica, int32_t device, br_error *error);

/* One pass on the worker's encoder, which must be open. quality: [B, head_count]. BR_EDEVICE. */
BR_NODISCARD br_status br_replica_run(br_replica *replica, int32_t worker, const br_packing *batch,
                                      float *quality);

/* Whether the device has weights of it; on one that has none no encoder is open. For whoever drops and restores. */
bool br_replica_is_on(const br_replica *replica, int32_t device);

const br_bundle *br_replica_bundle(const br_replica *replica);
const char *br_replica_folder(const br_replica *replica);

/* Devices whose weights came from another device, not from the files. */
int32_t br_replica_handed_out(const br_replica *replica);

/* Device memory: of one copy of the weights, and of all open encoders together. */
size_t br_replica_weights_bytes(const br_replica *replica);
size_t br_replica_encoders_bytes(const br_replica *replica);

#endif
