/* comm_none.c - comm.h where the build has no NCCL. */
#include <stddef.h>

#include "comm.h"

br_status br_comm_open(br_comm **out, const br_comm_options *options, br_error *error)
{
    (void)options;
    *out = NULL;
    return br_fail(error, BR_ENOTSUP, "this program was built without NCCL");
}

void br_comm_look(br_comm_call *out, const char *id_file, int64_t timeout_ms)
{
    (void)id_file;
    (void)timeout_ms;
    *out = (br_comm_call){0};
}

/* Since open fails, this and the following functions are never called. */
br_status br_comm_agree(br_comm *comm, const uint64_t *words, int32_t count, br_error *error)
{
    (void)comm;
    (void)words;
    (void)count;
    return br_fail(error, BR_ENOTSUP, "this program was built without NCCL");
}

br_status br_comm_broadcast(br_comm *comm, const br_pieces *const *lists, br_error *error)
{
    (void)comm;
    (void)lists;
    return br_fail(error, BR_ENOTSUP, "this program was built without NCCL");
}

int32_t br_comm_rank(const br_comm *comm)
{
    (void)comm;
    return 0;
}

void br_comm_close(br_comm *comm)
{
    (void)comm;
}
