/* comm_id.h - how the unique id of a fleet's communicator gets from rank 0 to the others. Not for others than comm.c. */
#ifndef BESTROUTE_CUDA_COMM_ID_H
#define BESTROUTE_CUDA_COMM_ID_H

#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"

/* Rank 0: writes id[size] to `path`, whole or not at all, in place of what was there. BR_EIO. */
BR_NODISCARD br_status br_comm_id_publish(const char *path, const void *id, size_t size, br_error *error);

/* The others: waits for the file until `until_ns`. One older than timeout_ms is a dead meeting's, and is not looked at.
 * BR_ETIMEDOUT, BR_EIO. */
BR_NODISCARD br_status br_comm_id_await(const char *path, void *id, size_t size, int64_t timeout_ms,
                                        uint64_t until_ns, br_error *error);

/* Rank 0, when all have read it. */
void br_comm_id_withdraw(const char *path);

#endif
