/*
 * comm_id.h - how the unique id of a fleet's communicator gets from rank 0 to the others.
 * Not for others than comm.c.
 *
 * The file holds the id's bytes, then the name of the folder that all are to load, up to the end.
 */
#ifndef BESTROUTE_CUDA_COMM_ID_H
#define BESTROUTE_CUDA_COMM_ID_H

#include <stddef.h>
#include <stdint.h>

#include "engine/comm.h"

/* Rank 0: writes id[size] and the folder to `path`, whole or not at all,
 * in place of what was there. BR_EIO. */
BR_NODISCARD br_status comm_id_publish(const char *path, const void *id, size_t size, const char *folder,
                                       br_error *error);

/* The others: waits for the file until `until_ns`. One older than timeout_ms is a dead meeting's,
 * and is not looked at.
 * BR_ETIMEDOUT, BR_EIO. */
BR_NODISCARD br_status comm_id_await(const char *path, void *id, size_t size, int64_t timeout_ms,
                                     uint64_t until_ns, br_error *error);

/* The others: what is in the file now, without waiting; see br_comm_look. */
void comm_id_look(br_comm_call *out, const char *path, size_t size, int64_t timeout_ms);

/* Rank 0, when all have read it. */
void comm_id_withdraw(const char *path);

#endif
