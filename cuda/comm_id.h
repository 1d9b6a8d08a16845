/*
 * comm_id.h - the file that brings the unique id of a fleet's communicator from rank 0 to the others. For
 * comm.c alone.
 *
 * The file holds the id's bytes, then, up to its end, the name of the folder that all ranks load.
 */
#ifndef BESTROUTE_CUDA_COMM_ID_H
#define BESTROUTE_CUDA_COMM_ID_H

#include <stddef.h>
#include <stdint.h>

#include "engine/comm.h"

/* Rank 0: writes id[size] and the folder to `path`, and replaces an old file. Others never see a part of it.
 * BR_EIO. */
BR_NODISCARD br_status comm_id_publish(const char *path, const void *id, size_t size, const char *folder,
                                       br_error *error);

/* The others: waits for the file until `until_ns`. A file older than timeout_ms was left by a dead process
 * and is ignored. BR_ETIMEDOUT, BR_EIO. */
BR_NODISCARD br_status comm_id_await(const char *path, void *id, size_t size, int64_t timeout_ms,
                                     uint64_t until_ns, br_error *error);

/* The others: reads the file without waiting; see br_comm_look. */
void comm_id_look(br_comm_call *out, const char *path, size_t size, int64_t timeout_ms);

/* Rank 0, when all have joined: removes the file. */
void comm_id_withdraw(const char *path);

#endif
