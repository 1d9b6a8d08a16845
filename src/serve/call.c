/* call.c - see call.h. */
#include "call.h"

#include <assert.h>
#include <stdlib.h>

enum { ARENA_KEEP_BYTES = 1 << 18 }; /* between requests */

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

void br_call_receive(br_call *call)
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
        br_call_receive(call);
        return;
    }
    call->state = CALL_SENDING;
    nng_aio_set_msg(call->aio, message);
    nng_ctx_send(call->ctx, call->aio); /* from here on the call's callback may run on another thread */
}

void br_call_reply(br_call *call, const br_reply *reply)
{
    service_state *state = &call->server->state;
    const bundle_pin pin = call->pin;
    call->pin = (bundle_pin){0};
    send(call, encode(reply));
    state_unpin(state, &pin); /* after sending: a drain that waits for this call closes its socket */
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

bool br_call_pin(br_call *call, bool counted)
{
    const char *why = "";
    const bool pinned = state_pin(&call->server->state, &call->pin, counted, &why);
    if (!pinned) br_call_refuse(call, BR_CODE_NOT_READY, why);
    return pinned;
}

void br_call_answer(br_call *call)
{
    call->state = CALL_ANSWERING;
    /* Always true: the aio of a call that is in flight is never stopped. */
    if (nng_aio_begin(call->aio)) nng_aio_finish(call->aio, 0);
}

br_status br_call_create(br_call **out, br_server *server, nng_socket socket, bool admin,
                         void (*on_event)(void *call))
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
