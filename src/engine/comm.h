/*
 * comm.h - devices that hand each other weights, and processes that agree: NCCL behind a small door.
 *
 * Two uses of one communicator:
 *   local   ranks == 1: the devices of this process; device 0 has what the others get
 *   fleet   ranks > 1:  one device of each of `ranks` processes; rank 0 has what the others get
 *
 * Ranks find each other by NCCL's unique id: rank 0 writes it to a file that all can read, and
 * removes the file once all have come; or, where NCCL_COMM_ID is set, NCCL makes the same id in all of them
 * from that. The file also says what rank 0 is about to load: to the others it is a call to meet.
 * A communicator serves one meeting, and is closed: between meetings nothing waits on any device, and a
 * process that died is missed only at the next one.
 *
 * Every call ends within timeout_ms, whatever becomes of the others. One thread at a time. After a failure
 * nothing but close may follow.
 *
 * NCCL is loaded when first asked for, and is not needed otherwise. Where the build or the machine lacks it,
 * open fails with BR_ENOTSUP.
 *
 * Uses: backend.  Used by: loaded, server.
 */
#ifndef BESTROUTE_ENGINE_COMM_H
#define BESTROUTE_ENGINE_COMM_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"

enum { BR_COMM_WORDS_MAX = 16 };

typedef struct br_comm br_comm;

typedef struct br_comm_options {
    br_backend *const *backends; /* [count], of engine cuda, all different; borrowed until close */
    int32_t count;               /* 1..BR_DEVICES_MAX; 1 between ranks */
    int32_t ranks;               /* processes; 1: local */
    int32_t rank;                /* 0..ranks - 1 */
    const char *id_file;         /* where rank 0 puts the unique id; borrowed; between ranks alone */
    const char *folder; /* that all are to load, "" for each its own; borrowed; between ranks alone */
    int64_t timeout_ms;
} br_comm_options;

/* Waits until all ranks have come. BR_ENOTSUP: no NCCL. BR_ETIMEDOUT: somebody did not come.
 * BR_EIO: the id's file.
 * BR_EDEVICE, BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_comm_open(br_comm **out, const br_comm_options *options, br_error *error);

/* A meeting that rank 0 has called and that is not complete yet. */
enum { BR_COMM_FOLDER_BYTES = 4096 };
typedef struct br_comm_call {
    uint64_t stamp;                    /* tells one call from the next; 0: there is none */
    char folder[BR_COMM_FOLDER_BYTES]; /* "": each its own */
} br_comm_call;

/* Looks into id_file. A call older than timeout_ms is a dead process's, and counts as none. */
void br_comm_look(br_comm_call *out, const char *id_file, int64_t timeout_ms);

/* Succeeds on every rank when all gave the same words[count], on none otherwise. BR_EINVAL: they differ.
 * BR_ETIMEDOUT, BR_EDEVICE. */
BR_NODISCARD br_status br_comm_agree(br_comm *comm, const uint64_t *words, int32_t count, br_error *error);

/* Fills the memory of all lists from the first's: lists[d] is of the communicator's device d, between ranks
 * of this rank and filled from rank 0's. Lists are alike in length and sizes:
 * see br_comm_agree. BR_ETIMEDOUT, BR_EDEVICE. */
BR_NODISCARD br_status br_comm_broadcast(br_comm *comm, const br_pieces *const *lists, br_error *error);

int32_t br_comm_rank(const br_comm *comm);

/* Accepts NULL. */
void br_comm_close(br_comm *comm);

#endif
