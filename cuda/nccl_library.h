/*
 * nccl_library.h - NCCL's functions, looked up in libnccl.so.2 when they are first needed: a program that
 * does not need them also runs where the library is not installed. For comm.c alone.
 */
#ifndef BESTROUTE_CUDA_NCCL_LIBRARY_H
#define BESTROUTE_CUDA_NCCL_LIBRARY_H

#include <nccl.h>

#include "bestroute/error.h"

#define NCCL_LIST(X)                                                                                         \
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

typedef struct nccl_functions {
#define NCCL_FIELD(name) __typeof__(&(name)) name;
    NCCL_LIST(NCCL_FIELD)
#undef NCCL_FIELD
    void *library;
} nccl_functions;

/* BR_ENOTSUP: there is no such library, or it lacks a function. */
BR_NODISCARD br_status nccl_load(nccl_functions *out, br_error *error);
void nccl_unload(nccl_functions *nccl);

#endif
