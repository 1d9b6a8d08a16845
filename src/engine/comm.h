/*
 * comm.h - copies weights between devices, and lets processes agree on what they load: a small door to NCCL.
 *
 * Two uses of one communicator:
 *   local   ranks == 1: the devices of this process; device 0 holds the weights that the others receive
 *   fleet   ranks > 1:  one device of each of `ranks` processes; rank 0 holds the weights
 *
 * The ranks of a fleet meet to load a bundle together. They find each other by NCCL's unique id. Rank 0
 * writes it to a file that all can read, with the name of the folder that it is about to load, and removes
 * the file once all ranks have joined. A new file therefore calls the other ranks to a meeting. Where the
 * variable NCCL_COMM_ID is set, NCCL makes the same id in every process from it.
 *
 * A communicator serves one meeting and is then closed. Between meetings nothing waits on any device, so a
 * process that died is noticed only at the next meeting.
 *
 * Every call ends within timeout_ms, even if another rank has died. One thread at a time. After a failure
 * only close may be called.
 *
 * NCCL is loaded by the first open. Where the build or the machine lacks it, open fails with BR_ENOTSUP.
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
    int32_t count;               /* 1..BR_DEVICES_MAX; 1 in a fleet */
    int32_t ranks;               /* processes; 1: local */
    int32_t rank;                /* 0..ranks - 1 */
    const char *id_file;         /* where rank 0 puts the unique id; borrowed; read in a fleet alone */
    const char *folder;          /* that all ranks load, "": each its own; borrowed; read in a fleet alone */
    int64_t timeout_ms;
} br_comm_options;

/* Waits until all ranks have joined. BR_ENOTSUP: no NCCL. BR_ETIMEDOUT: a rank did not join.
 * BR_EIO: the id's file cannot be read or written. BR_EDEVICE, BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_comm_open(br_comm **out, const br_comm_options *options, br_error *error);

/* A meeting that rank 0 has called, and that not all ranks have joined yet. */
enum { BR_COMM_FOLDER_BYTES = 4096 };
typedef struct br_comm_call {
    uint64_t stamp;                    /* tells one call from the next; 0: there is none */
    char folder[BR_COMM_FOLDER_BYTES]; /* "": each its own */
} br_comm_call;

/* Looks into id_file. A call older than timeout_ms was left by a dead process and is ignored. */
void br_comm_look(br_comm_call *out, const char *id_file, int64_t timeout_ms);

/* Succeeds on every rank if all ranks pass the same words[count], else on none of them.
 * BR_EINVAL: the words differ. BR_ETIMEDOUT, BR_EDEVICE. */
BR_NODISCARD br_status br_comm_agree(br_comm *comm, const uint64_t *words, int32_t count, br_error *error);

/* Copies the memory that one list names into that of the others, piece by piece. Local: lists[d] is of the
 * communicator's device d, and lists[0] is copied. Fleet: lists[0] is of this rank, and rank 0's is copied.
 * All lists have the same number of pieces, of the same sizes: br_comm_agree can establish this.
 * BR_ETIMEDOUT, BR_EDEVICE. */
BR_NODISCARD br_status br_comm_broadcast(br_comm *comm, const br_pieces *const *lists, br_error *error);

int32_t br_comm_rank(const br_comm *comm);

/* Accepts NULL. */
void br_comm_close(br_comm *comm);

#endif
