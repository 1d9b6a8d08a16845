/*
 * ranks.h - processes that load bundles together: when this one is called to load with the others, where it
 * meets them, and that all agree.
 *
 * Rank 0 calls whenever it loads; the others look for its call at intervals. All of it on the keeper's
 * thread.
 */
#ifndef BESTROUTE_SERVE_RANKS_H
#define BESTROUTE_SERVE_RANKS_H

#include "engine/comm.h"
#include "service.h"

/* When to ask whether rank 0 has called; UINT64_MAX: never. */
uint64_t ranks_next_ns(const br_server *server);

/* Whether rank 0 has called, with a call that this rank has not answered yet. */
BR_NODISCARD bool ranks_called(br_server *server, br_comm_call *call);

/* Meets the other ranks, with this rank's first accelerator. Devices in `without` are out, a bit each.
 * BR_ENOTSUP: there is none; statuses of br_comm_open. */
BR_NODISCARD br_status ranks_meet(br_server *server, br_comm **out, const char *folder, uint32_t without,
                                  br_error *error);

/* BR_OK when all ranks are ready; otherwise none of them switches. To be called with a failure, too: the
 * other ranks would wait for this one until their timeout. */
BR_NODISCARD br_status ranks_confirm(br_comm *ranks, br_status ready, br_error *error);

/* After the communicator is closed. */
void ranks_leave(br_server *server);

#endif
