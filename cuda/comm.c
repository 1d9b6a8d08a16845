/*
 * comm.c - see engine/comm.h: NCCL communicators that never wait beyond a deadline.
 *
 * Communicators are non-blocking: every call returns at once, and `settle` polls them, then the streams,
 * until the deadline. A communicator that is late or has failed is aborted, which ends its kernels on the
 * devices.
 */
#include "engine/comm.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm_id.h"
#include "core/clock.h"
#include "core/limits.h"
#include "core/memory.h"
#include "nccl_library.h"
#include "runtime.h"

enum { ROOT = 0, POLL_US = 200 };

typedef struct member {
    br_backend *backend;
    ncclComm_t comm;
    cudaStream_t stream;
    uint64_t *words; /* device, [2 * BR_COMM_WORDS_MAX] */
} member;

struct br_comm {
    nccl_functions nccl;
    int32_t ranks;
    int32_t rank;
    int64_t timeout_ms;
    member members[BR_DEVICES_MAX];
    int32_t count;
    bool broken;
};

static br_status fail_nccl(br_comm *c, br_error *error, ncclResult_t code, const char *what)
{
    c->broken = true;
    return br_fail(error, BR_EDEVICE, "NCCL: %s: %s", what, c->nccl.ncclGetErrorString(code));
}

static br_status fail_cuda(br_comm *c, br_error *error, cudaError_t code, const char *what)
{
    c->broken = true;
    return cuda_fail(error, code, what);
}

static br_status fail_late(br_comm *c, br_error *error, const char *what)
{
    c->broken = true;
    return br_fail(error, BR_ETIMEDOUT,
                   "NCCL: %s: not all %" PRId32 " ranks were ready within %" PRId64 " ms", what, c->ranks,
                   c->timeout_ms);
}

static bool is_underway(ncclResult_t code)
{
    return code == ncclSuccess || code == ncclInProgress;
}

/* Asks for the state of one member: *done when its communicator is idle and its stream is empty. */
static br_status look(br_comm *c, const member *m, bool *done, const char *what, br_error *error)
{
    *done = false;
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = c->nccl.ncclCommGetAsyncError(m->comm, &state);
    if (asked != ncclSuccess) return fail_nccl(c, error, asked, what);
    if (state == ncclInProgress) return BR_OK;
    if (state != ncclSuccess) return fail_nccl(c, error, state, what);
    const cudaError_t code = cudaStreamQuery(m->stream);
    if (code != cudaSuccess && code != cudaErrorNotReady) return fail_cuda(c, error, code, what);
    *done = code == cudaSuccess;
    return BR_OK;
}

/* Waits until all members are done. */
static br_status settle(br_comm *c, uint64_t until_ns, const char *what, br_error *error)
{
    for (int32_t i = 0; i < c->count;) {
        bool done;
        const br_status status = look(c, &c->members[i], &done, what, error);
        if (status != BR_OK) return status;
        if (done)
            i++;
        else if (br_clock_now_ns() >= until_ns)
            return fail_late(c, error, what);
        else
            (void)nanosleep(&(struct timespec){.tv_nsec = POLL_US * 1000L}, NULL);
    }
    return BR_OK;
}

/* Ends a group whose last call returned `code`. Returns `code` if that is a failure, else the result of the
 * end. */
static ncclResult_t end_group(br_comm *c, ncclResult_t code)
{
    const ncclResult_t ended = c->nccl.ncclGroupEnd();
    return is_underway(code) ? ended : code;
}

static uint64_t deadline(const br_comm *c)
{
    return br_clock_now_ns() + (uint64_t)c->timeout_ms * (uint64_t)BR_NS_PER_MS;
}

static br_status prepare_members(br_comm *c, const br_comm_options *o, br_error *error)
{
    for (int32_t i = 0; i < o->count; i++) {
        member *m = &c->members[i];
        m->backend = o->backends[i];
        c->count = i + 1;
        cudaError_t code = cuda_use_device(m->backend);
        if (code == cudaSuccess) code = cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking);
        if (code == cudaSuccess)
            code = cudaMalloc((void **)&m->words, 2 * BR_COMM_WORDS_MAX * sizeof *m->words);
        if (code != cudaSuccess) return fail_cuda(c, error, code, "preparing a communicator");
    }
    return BR_OK;
}

/* Makes or awaits the id of this meeting. *published: this is rank 0, which has to remove the file later. */
static br_status find_id(br_comm *c, const br_comm_options *o, ncclUniqueId *id, bool *published,
                         uint64_t until_ns, br_error *error)
{
    const bool from_environment = getenv("NCCL_COMM_ID") != NULL;
    *published = false;
    if (c->rank > 0 && !from_environment)
        return comm_id_await(o->id_file, id, sizeof *id, o->timeout_ms, until_ns, error);
    const ncclResult_t code = c->nccl.ncclGetUniqueId(id);
    if (code != ncclSuccess) return fail_nccl(c, error, code, "making a unique id");
    if (c->ranks == 1 || from_environment) return BR_OK;
    const br_status status = comm_id_publish(o->id_file, id, sizeof *id, o->folder, error);
    *published = status == BR_OK;
    return status;
}

static br_status join(br_comm *c, const ncclUniqueId *id, uint64_t until_ns, br_error *error)
{
    const int total = c->ranks > 1 ? c->ranks : c->count;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t code = c->nccl.ncclGroupStart();
    for (int32_t i = 0; i < c->count && is_underway(code); i++) {
        const cudaError_t used = cuda_use_device(c->members[i].backend);
        if (used != cudaSuccess) {
            (void)c->nccl.ncclGroupEnd();
            return fail_cuda(c, error, used, "joining a communicator");
        }
        code = c->nccl.ncclCommInitRankConfig(&c->members[i].comm, total, *id, c->rank + i, &config);
    }
    code = end_group(c, code);
    if (!is_underway(code)) return fail_nccl(c, error, code, "joining");
    return settle(c, until_ns, "joining", error);
}

br_status br_comm_open(br_comm **out, const br_comm_options *options, br_error *error)
{
    assert(options->count >= 1);
    assert(options->count <= BR_DEVICES_MAX);
    assert(options->ranks == 1 || options->count == 1);
    *out = NULL;
    br_comm *c = calloc(1, sizeof *c);
    if (c == NULL) return br_no_memory(error, "a communicator");
    c->ranks = options->ranks;
    c->rank = options->rank;
    c->timeout_ms = options->timeout_ms;
    const uint64_t until_ns = deadline(c);

    ncclUniqueId id;
    bool published = false;
    br_status status = nccl_load(&c->nccl, error);
    if (status == BR_OK) status = prepare_members(c, options, error);
    if (status == BR_OK) status = find_id(c, options, &id, &published, until_ns, error);
    if (status == BR_OK) status = join(c, &id, until_ns, error);
    if (published) comm_id_withdraw(options->id_file);
    if (status == BR_OK)
        *out = c;
    else
        br_comm_close(c);
    return status;
}

/* Waits for the end of all work, which NCCL demands before a non-blocking communicator is destroyed. After a
 * failure here the communicator is aborted instead. */
static void finalize(br_comm *c)
{
    br_error unread = {0};
    for (int32_t i = 0; i < c->count; i++) {
        if (c->broken || c->members[i].comm == NULL) return;
        (void)cuda_use_device(c->members[i].backend);
        c->broken = !is_underway(c->nccl.ncclCommFinalize(c->members[i].comm));
    }
    const br_status left = c->broken ? BR_EDEVICE : settle(c, deadline(c), "leaving", &unread);
    assert(left == BR_OK || c->broken);
    (void)left;
}

void br_comm_close(br_comm *comm)
{
    if (comm == NULL) return;
    finalize(comm);
    for (int32_t i = 0; i < comm->count; i++) {
        member *m = &comm->members[i];
        (void)cuda_use_device(m->backend);
        if (m->comm != NULL && comm->broken) (void)comm->nccl.ncclCommAbort(m->comm);
        if (m->comm != NULL && !comm->broken) (void)comm->nccl.ncclCommDestroy(m->comm);
        if (m->words != NULL) (void)cudaFree(m->words);
        if (m->stream != NULL) (void)cudaStreamDestroy(m->stream);
    }
    nccl_unload(&comm->nccl);
    free(comm);
}

void br_comm_look(br_comm_call *out, const char *id_file, int64_t timeout_ms)
{
    comm_id_look(out, id_file, sizeof(ncclUniqueId), timeout_ms);
}

int32_t br_comm_rank(const br_comm *comm)
{
    return comm->rank;
}

static br_status put_words(br_comm *c, const uint64_t *both, size_t bytes, br_error *error)
{
    for (int32_t i = 0; i < c->count; i++) {
        cudaError_t code = cuda_use_device(c->members[i].backend);
        if (code == cudaSuccess) code = cudaMemcpy(c->members[i].words, both, bytes, cudaMemcpyHostToDevice);
        if (code == cudaSuccess) code = cudaStreamSynchronize(NULL);
        if (code != cudaSuccess) return fail_cuda(c, error, code, "agreeing");
    }
    return BR_OK;
}

static br_status reduce_words(br_comm *c, size_t count, br_error *error)
{
    ncclResult_t code = c->nccl.ncclGroupStart();
    for (int32_t i = 0; i < c->count && is_underway(code); i++) {
        const member *m = &c->members[i];
        code = c->nccl.ncclAllReduce(m->words, m->words, count, ncclUint64, ncclMax, m->comm, m->stream);
    }
    code = end_group(c, code);
    if (!is_underway(code)) return fail_nccl(c, error, code, "agreeing");
    return settle(c, deadline(c), "agreeing", error);
}

/* All words are equal if the largest word is the complement of the largest complement. */
br_status br_comm_agree(br_comm *comm, const uint64_t *words, int32_t count, br_error *error)
{
    assert(count >= 1);
    assert(count <= BR_COMM_WORDS_MAX);
    uint64_t both[2 * BR_COMM_WORDS_MAX];
    for (int32_t i = 0; i < count; i++) {
        both[2 * i] = words[i];
        both[2 * i + 1] = ~words[i];
    }
    const size_t bytes = 2 * (size_t)count * sizeof *both;
    br_status status = put_words(comm, both, bytes, error);
    if (status == BR_OK) status = reduce_words(comm, 2 * (size_t)count, error);
    if (status != BR_OK) return status;
    (void)cuda_use_device(comm->members[0].backend);
    const cudaError_t code = cudaMemcpy(both, comm->members[0].words, bytes, cudaMemcpyDeviceToHost);
    if (code != cudaSuccess) return fail_cuda(comm, error, code, "agreeing");
    for (int32_t i = 0; i < count; i++)
        if (both[2 * i] != ~both[2 * i + 1]) return br_fail(error, BR_EINVAL, "the ranks do not agree");
    return BR_OK;
}

static ncclResult_t broadcast_piece(br_comm *c, const br_pieces *const *lists, int32_t piece)
{
    ncclResult_t code = c->nccl.ncclGroupStart();
    for (int32_t i = 0; i < c->count && is_underway(code); i++) {
        const br_piece *p = &lists[i]->items[piece];
        const member *m = &c->members[i];
        code = c->nccl.ncclBroadcast(p->memory, p->memory, p->bytes, ncclUint8, ROOT, m->comm, m->stream);
    }
    return end_group(c, code);
}

br_status br_comm_broadcast(br_comm *comm, const br_pieces *const *lists, br_error *error)
{
    const uint64_t until_ns = deadline(comm);
    br_status status = BR_OK;
    for (int32_t piece = 0; piece < lists[0]->count && status == BR_OK; piece++) {
        const ncclResult_t code = broadcast_piece(comm, lists, piece);
        if (!is_underway(code)) return fail_nccl(comm, error, code, "copying weights");
        /* A non-blocking communicator takes the next call only after it has finished this one. */
        if (code == ncclInProgress) status = settle(comm, until_ns, "copying weights", error);
    }
    return status == BR_OK ? settle(comm, until_ns, "copying weights", error) : status;
}
