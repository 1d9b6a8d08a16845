/* ranks.c - see ranks.h. */
#include "ranks.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"

enum { LOOK_MS = 200 };

/* Where NCCL_COMM_ID takes the place of the file, ranks cannot be called: each has to be told to reload. */
static bool is_called(const br_server *server)
{
    const br_config *config = server->config;
    return config->ranks > 1 && config->rank > 0 && config->ranks_id[0] != '\0' &&
           getenv("NCCL_COMM_ID") == NULL;
}

uint64_t ranks_next_ns(const br_server *server)
{
    return is_called(server) ? server->ranks.look_ns : UINT64_MAX;
}

static void look(const br_server *server, br_comm_call *call)
{
    br_comm_look(call, server->config->ranks_id, server->config->ranks_timeout_ms);
}

bool ranks_called(br_server *server, br_comm_call *call)
{
    look(server, call);
    server->ranks.look_ns = br_clock_now_ns() + LOOK_MS * (uint64_t)BR_NS_PER_MS;
    return call->stamp != 0 && call->stamp != server->ranks.answered;
}

/* What the other ranks are to load: the folder, if it is not that of the current bundle; else "", which
 * stands for each rank's own. */
static const char *call_for(const br_server *server, const char *folder)
{
    return server->state.current != NULL && strcmp(folder, br_loaded_folder(server->state.current)) != 0
               ? folder
               : "";
}

br_status ranks_meet(br_server *server, br_comm **out, const char *folder, uint32_t without, br_error *error)
{
    const br_config *config = server->config;
    if (is_called(server)) {
        br_comm_call call;
        look(server, &call);
        server->ranks.answered = call.stamp;
    }
    for (int32_t i = 0; i < server->devices.count; i++) {
        const br_device *device = &server->devices.items[i];
        if (!br_device_is_accelerator(device) || (without >> i & 1) != 0) continue;
        const br_comm_options options = {
            .backends = &device->backend,
            .count = 1,
            .ranks = (int32_t)config->ranks,
            .rank = (int32_t)config->rank,
            .id_file = config->ranks_id,
            .folder = call_for(server, folder),
            .timeout_ms = config->ranks_timeout_ms,
        };
        return br_comm_open(out, &options, error);
    }
    return br_fail(error, BR_ENOTSUP, "ranks: this process has no CUDA device to meet the others with");
}

br_status ranks_confirm(br_comm *ranks, br_status ready, br_error *error)
{
    br_error why = {0};
    const uint64_t word = ready == BR_OK ? 1 : 0;
    const br_status agreed = br_comm_agree(ranks, &word, 1, &why);
    if (ready != BR_OK || agreed == BR_OK) return ready;
    return br_fail(error, agreed, "ranks: another rank could not load the bundle: %.400s", why.text);
}

/* If the call arrived while this rank was already waiting for the others, it has just answered it. */
void ranks_leave(br_server *server)
{
    br_comm_call call;
    if (!is_called(server) || server->ranks.answered != 0) return;
    look(server, &call);
    server->ranks.answered = call.stamp;
}
