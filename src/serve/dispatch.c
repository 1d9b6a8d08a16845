/* dispatch.c - see dispatch.h. */
#include "dispatch.h"

#include "admin.h"
#include "answer.h"
#include "call.h"
#include "core/clock.h"
#include "info.h"
#include "scoring.h"

static void hand_on(br_call *call)
{
    switch (call->request.op) {
    case BR_OP_PING:
        info_answer_ping(call);
        return;
    case BR_OP_INFO:
        info_answer(call);
        return;
    case BR_OP_ROUTE:
    case BR_OP_SCORE:
        scoring_admit(call);
        return;
    case BR_OP_RELOAD:
    case BR_OP_DRAIN:
    case BR_OP_SHUTDOWN:
    case BR_OP_SET_DEFAULTS:
    case BR_OP_STATS:
        admin_answer(call);
        return;
    case BR_OP_NONE:
        break;
    }
    br_call_refuse(call, BR_CODE_UNSUPPORTED, "op: not known here");
}

static void handle(br_call *call)
{
    const br_config *config = call->server->config;
    call->arrival_ns = br_clock_now_ns();
    call->client = (uint64_t)nng_pipe_id(nng_msg_get_pipe(call->message));
    if (!call->admin) br_metrics_add(&call->server->metrics, BR_COUNTER_requests, 1);
    const br_request_limits limits = {
        .queries_max = (size_t)config->max_queries,
        .text_bytes_max = (size_t)config->max_text_bytes,
        .message_bytes_max = (size_t)config->max_message_bytes,
        .admin = call->admin,
    };
    br_error error = {0};
    const br_code code = br_request_decode(&call->request, nng_msg_body(call->message),
                                           nng_msg_len(call->message), &limits, &call->arena, &error);
    if (code != BR_CODE_NONE) {
        br_call_refuse(call, code, error.text);
        return;
    }
    call->deadline_ns = UINT64_MAX;
    const uint64_t ms_max = (UINT64_MAX - call->arrival_ns) / BR_NS_PER_MS;
    if (call->request.has_deadline && call->request.deadline_ms < ms_max)
        call->deadline_ns = call->arrival_ns + call->request.deadline_ms * BR_NS_PER_MS;
    hand_on(call);
}

void dispatch_event(void *argument)
{
    br_call *call = argument;
    const int result = nng_aio_result(call->aio);
    if (call->state == CALL_SENDING && result != 0) nng_msg_free(nng_aio_get_msg(call->aio));
    if (result == NNG_ECLOSED || result == NNG_ECANCELED) {
        call->state = CALL_STOPPED;
        return;
    }
    if (call->state == CALL_ANSWERING) {
        call->state = CALL_WORKING;
        answer_finish(call);
        return;
    }
    if (call->state == CALL_SENDING || result != 0) {
        br_call_receive(call);
        return;
    }
    call->state = CALL_WORKING;
    call->message = nng_aio_get_msg(call->aio);
    nng_aio_set_msg(call->aio, NULL);
    handle(call);
}
