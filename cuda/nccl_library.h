/*
 * nccl_library.h - NCCL's functions, looked up in libnccl.so.2 when they are first needed, so that a program
 * which never needs them runs where the library is not installed. Not for others than comm.c.
 */
#ifndef BESTROUTE_CUDA_NCCL_LIBRARY_H
#define BESTROUTE_CUDA_NCCL_LIBRARY_H

#include <nccl.h>

#include "bestroute/error.h"

#define BR_NCCL_LIST(X)                                                                                      \
    X(ncclGetUniqueId)                                                                                       \
    X(ncclCommInitRankConfig)                                                                                \
    X(ncclCommGetAsyncError)                                                                                 \
    X(ncclCommFinalize)                                                                                      \
    X(ncclCommDestroy)                                                                                       \
    X(ncclCommAbort)                                                                                         \
    X(ncclBroadcast)                                                                                         \
    X(ncclAllReduce)                                                                                         \
    X(ncclGroupStart)                                                                                        \
    X(ncclGroupEnd)                                                                                          \
    X(ncclGetErrorString)

typedef struct br_nccl {
#define BR_NCCL_FIELD(name) __typeof__(&(name)) name;
    BR_NCCL_LIST(BR_NCCL_FIELD)
#undef BR_NCCL_FIELD
    void *library;
} br_nccl;

/* BR_ENOTSUP: there is no such library, or it lacks a function. */
BR_NODISCARD br_status br_nccl_load(br_nccl *out, br_error *error);
void br_nccl_unload(br_nccl *nccl);

#endif
