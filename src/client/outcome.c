/* outcome.c - see outcome.h. */
#include "outcome.h"

#include "answer.h"

enum { RETRY_MS_DEFAULT = 10 }; /* after an `overloaded` that does not say */

static br_status status_of_code(br_code code)
{
    switch (code) {
    case BR_CODE_TOO_LARGE:
        return BR_ETOOBIG;
    case BR_CODE_OVERLOADED:
        return BR_EBUSY;
    case BR_CODE_DEADLINE:
        return BR_ETIMEDOUT;
    case BR_CODE_NOT_READY:
        return BR_ENOTREADY;
    case BR_CODE_UNSUPPORTED:
        return BR_ENOTSUP;
    case BR_CODE_INFEASIBLE:
        return BR_EINFEASIBLE;
    case BR_CODE_BAD_REQUEST:
        return BR_EINVAL;
    case BR_CODE_INTERNAL:
    case BR_CODE_NONE:
        break;
    }
    return BR_EINTERNAL;
}

static br_status refusal_of(const br_reply *reply, br_error *error)
{
    const size_t size = reply->message.size;
    return br_fail(error, status_of_code(reply->code), "%s: %.*s", br_code_name(reply->code),
                   (int)(size < BR_ERROR_TEXT_BYTES ? size : BR_ERROR_TEXT_BYTES),
                   reply->message.data == NULL ? "" : reply->message.data);
}

static br_status take_reply(br_answer **answer, nng_msg *message, const br_request *request, br_arena *arena,
                            uint64_t *retry_ms, br_error *error)
{
    br_reply reply;
    const br_status status =
        br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), arena, error);
    if (status != BR_OK) return status;
    if (!reply.ok) {
        *retry_ms = reply.has_retry ? reply.retry_ms : RETRY_MS_DEFAULT;
        return refusal_of(&reply, error);
    }
    if (reply.result_count != request->query_count)
        return br_fail(error, BR_EFORMAT, "%zu results for %zu queries", reply.result_count,
                       request->query_count);
    if (request->op == BR_OP_INFO && reply.info == NULL)
        return br_fail(error, BR_EFORMAT, "the reply to info has no candidates");
    return br_client_make_answer(answer, &reply, error);
}

static br_outcome outcome_of_status(br_status status)
{
    switch (status) {
    case BR_EBUSY:
        return BR_OUTCOME_OVERLOADED;
    case BR_ENOTREADY:
        return BR_OUTCOME_NOT_READY;
    case BR_EFORMAT:
        return BR_OUTCOME_FAILED;
    default:
        return BR_OUTCOME_ANSWERED;
    }
}

static br_ending ending_without_reply(const br_flight *flight, br_error *error)
{
    const char *url = flight->endpoint->url;
    const char *why = nng_strerror(flight->failed);
    switch (flight->failed) {
    case NNG_ETIMEDOUT: /* only a send waits by nng's clock */
        return (br_ending){BR_OUTCOME_UNSENT, br_fail(error, BR_ETIMEDOUT, "%s took no message", url), 0};
    case NNG_ENOMEM:
        return (br_ending){BR_OUTCOME_ABANDONED, br_fail(error, BR_ENOMEM, "%s: %s", url, why), 0};
    default:
        return (br_ending){BR_OUTCOME_LOST,
                           br_fail(error, BR_EIO, "the connection to %s broke: %s", url, why), 0};
    }
}

br_ending br_outcome_of_call(const br_flight *flight, const br_request *request, br_arena *arena,
                             br_answer **answer, br_error *error)
{
    *answer = NULL;
    if (flight->failed != 0) return ending_without_reply(flight, error);
    br_ending ending = {0};
    ending.status = take_reply(answer, flight->reply, request, arena, &ending.retry_ms, error);
    ending.outcome = outcome_of_status(ending.status);
    return ending;
}

static br_outcome outcome_of_pong(nng_msg *message)
{
    br_arena arena;
    br_arena_init(&arena);
    br_reply reply;
    br_outcome outcome = BR_OUTCOME_FAILED;
    if (br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), &arena, NULL) == BR_OK)
        outcome = !reply.ok && reply.code == BR_CODE_NOT_READY ? BR_OUTCOME_NOT_READY : BR_OUTCOME_ANSWERED;
    br_arena_deinit(&arena);
    return outcome;
}

br_outcome br_outcome_of_ping(const br_flight *ping, bool is_done)
{
    if (!is_done) return BR_OUTCOME_FAILED;
    if (ping->failed == 0) return outcome_of_pong(ping->reply);
    if (ping->failed == NNG_ECONNRESET) return BR_OUTCOME_LOST;
    return ping->failed == NNG_ETIMEDOUT ? BR_OUTCOME_UNSENT : BR_OUTCOME_ABANDONED;
}
