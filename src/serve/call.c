/* call.c - one context of a socket: receives, decodes, hands on, sends. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "service.h"

/* Appends to the outgoing message. */
static int append(void *context, const char *bytes, size_t size)
{
    nng_msg *message = context;
    const size_t capacity = nng_msg_capacity(message);
    const size_t wanted = nng_msg_len(message) + size;
    /* Doubling: nng's own append grows to the exact size each time. */
    if (wanted > capacity && nng_msg_reserve(message, wanted > 2 * capacity ? wanted : 2 * capacity) != 0)
        return -1;
    return nng_msg_append(message, bytes, size) == 0 ? 0 : -1;
}

static nng_msg *encode(const br_reply *reply)
{
    enum { BASE_BYTES = 512, RESULT_BYTES = 192, ROW_BYTES = 96 };
    size_t expected = BASE_BYTES + reply->result_count * RESULT_BYTES + reply->stat_count * ROW_BYTES;
    for (size_t i = 0; i < reply->result_count; i++) {
        expected += reply->results[i].candidate_count * ROW_BYTES;
        expected += reply->results[i].quality_count * (1 + sizeof(double));
    }
    nng_msg *message;
    if (nng_msg_alloc(&message, 0) != 0) return NULL;
    if (nng_msg_reserve(message, expected) == 0 && br_reply_encode(reply, message, append) == 0)
        return message;
    nng_msg_free(message);
    return NULL;
}

static void receive(br_call *call)
{
    br_arena_reset(&call->arena, ARENA_KEEP_BYTES);
    call->state = CALL_RECEIVING;
    nng_ctx_recv(call->ctx, call->aio);
}

static void send(br_call *call, nng_msg *message)
{
    assert(call->state == CALL_WORKING);
    if (message == NULL)
        BR_LOG(call->server->log, BR_LOG_ERROR, "reply_failed", BR_STR("reason", "out of memory"));
    nng_msg_free(call->message);
    call->message = NULL;
    if (message == NULL) {
        receive(call);
        return;
    }
    call->state = CALL_SENDING;
    nng_aio_set_msg(call->aio, message);
    nng_ctx_send(call->ctx, call->aio); /* the call may be in its callback on another thread from here on */
}

void br_call_reply(br_call *call, const br_reply *reply)
{
    send(call, encode(reply));
}

static void refuse(br_call *call, br_code code, const char *text, bool has_retry, uint64_t retry_ms)
{
    if (!call->admin) br_metrics_refused(&call->server->metrics, code);
    const br_reply reply = {
        .id = call->request.id,
        .code = code,
        .message = br_str_from(text),
        .has_retry = has_retry,
        .retry_ms = retry_ms,
    };
    br_call_reply(call, &reply);
}

void br_call_refuse(br_call *call, br_code code, const char *text)
{
    refuse(call, code, text, false, 0);
}

void br_call_refuse_overload(br_call *call, uint64_t retry_ms, const char *text)
{
    refuse(call, BR_CODE_OVERLOADED, text, true, retry_ms);
}

void br_call_answer(br_call *call)
{
    call->state = CALL_ANSWERING;
    /* Always: nobody stops the aio of a call that is in flight. */
    if (nng_aio_begin(call->aio)) nng_aio_finish(call->aio, 0);
}

static void dispatch(br_call *call)
{
    switch (call->request.op) {
    case BR_OP_PING:
        br_ping_answer(call);
        return;
    case BR_OP_INFO:
        br_info_answer(call);
        return;
    case BR_OP_ROUTE:
    case BR_OP_SCORE:
        br_scoring_admit(call);
        return;
    case BR_OP_RELOAD:
    case BR_OP_DRAIN:
    case BR_OP_SHUTDOWN:
    case BR_OP_SET_DEFAULTS:
    case BR_OP_STATS:
        br_admin_handle(call);
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
    dispatch(call);
}

static void on_event(void *argument)
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
        br_answer_finish(call);
        return;
    }
    if (call->state == CALL_SENDING || result != 0) {
        receive(call);
        return;
    }
    call->state = CALL_WORKING;
    call->message = nng_aio_get_msg(call->aio);
    nng_aio_set_msg(call->aio, NULL);
    handle(call);
}

br_status br_call_create(br_call **out, br_server *server, nng_socket socket, bool admin)
{
    *out = NULL;
    br_call *call = calloc(1, sizeof *call);
    if (call == NULL) return BR_ENOMEM;
    call->server = server;
    call->admin = admin;
    br_arena_init(&call->arena);
    if (nng_aio_alloc(&call->aio, on_event, call) != 0) goto fail;
    if (nng_ctx_open(&call->ctx, socket) != 0) goto fail;
    call->ctx_open = true;
    *out = call;
    return BR_OK;

fail:
    br_call_destroy(call);
    return BR_ENOMEM;
}

void br_call_destroy(br_call *call)
{
    if (call == NULL) return;
    if (call->ctx_open) (void)nng_ctx_close(call->ctx);
    if (call->aio != NULL) nng_aio_free(call->aio); /* waits for its callback */
    assert(call->message == NULL);
    br_arena_deinit(&call->arena);
    free(call);
}

void br_call_start(br_call *call)
{
    receive(call);
}
