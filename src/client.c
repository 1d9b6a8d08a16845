/*
 * client.c - one socket, a pool of contexts, and the way of a call.
 *
 *   call -> request -> [ send -> receive ] -> reply -> answer
 *                          ^         |
 *                          |         +-- overloaded: sleep retry_ms, again
 *                          +------------ connection lost: again, BREAKS_MAX times
 *
 * nng never resends by itself (its resend time is infinite), so a long computation is asked for once. With that
 * setting a lost connection ends a receive with NNG_ECONNRESET at once, and the resend is decided here.
 */
#include "bestroute/client.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <nng/supplemental/util/platform.h>

#include "bestroute/clock.h"
#include "bestroute/limits.h"
#include "client_message.h"

enum {
    TIMEOUT_MS_DEFAULT = 30000,
    RECONNECT_MS_MIN = 20,
    RECONNECT_MS_MAX = 500,
    BREAKS_MAX = 3,           /* sends of one request that a lost connection may cost */
    KEEP_BYTES_MAX = 1 << 20, /* an idle slot's arena */
    RETRY_MS_DEFAULT = 10,    /* after an `overloaded` that does not say */
};

/* What one call works with. Idle ones form a list; a slot whose call failed is destroyed, for its context may
 * still wait for a reply that nobody wants. */
typedef struct slot {
    struct slot *next;
    nng_ctx context;
    nng_aio *aio;
    br_arena arena;
} slot;

struct br_client {
    nng_socket socket;
    bool socket_open;
    char *url; /* for errors */
    uint32_t timeout_ms;
    uint32_t connect_ms;
    uint32_t retries;
    atomic_int connections; /* that are up: 0 or 1 */
    pthread_mutex_t mutex;  /* guards idle */
    slot *idle;
};

static void slot_destroy(slot *s)
{
    if (s == NULL) return;
    if (nng_ctx_id(s->context) > 0) nng_ctx_close(s->context);
    nng_aio_free(s->aio);
    br_arena_deinit(&s->arena);
    free(s);
}

static br_status slot_create(slot **out, nng_socket socket, br_error *error)
{
    slot *s = calloc(1, sizeof *s);
    if (s == NULL) return br_fail(error, BR_ENOMEM, "out of memory for a call");
    br_arena_init(&s->arena);

    int failed = nng_aio_alloc(&s->aio, NULL, NULL);
    if (failed == 0) failed = nng_ctx_open(&s->context, socket);
    if (failed != 0) {
        slot_destroy(s);
        return br_fail(error, BR_ENOMEM, "a call's context: %s", nng_strerror(failed));
    }
    *out = s;
    return BR_OK;
}

static br_status slot_take(slot **out, br_client *client, br_error *error)
{
    pthread_mutex_lock(&client->mutex);
    slot *s = client->idle;
    if (s != NULL) client->idle = s->next;
    pthread_mutex_unlock(&client->mutex);

    if (s == NULL) return slot_create(out, client->socket, error);
    *out = s;
    return BR_OK;
}

static void slot_give_back(br_client *client, slot *s)
{
    br_arena_reset(&s->arena, KEEP_BYTES_MAX);
    pthread_mutex_lock(&client->mutex);
    s->next = client->idle;
    client->idle = s;
    pthread_mutex_unlock(&client->mutex);
}

static void count_connections(nng_pipe pipe, nng_pipe_ev event, void *context)
{
    (void)pipe;
    br_client *client = context;
    atomic_fetch_add(&client->connections, event == NNG_PIPE_EV_ADD_POST ? 1 : -1);
}

static br_status status_of_nng(int failed)
{
    switch (failed) {
    case NNG_ENOMEM:
        return BR_ENOMEM;
    case NNG_ENOTSUP:
        return BR_ENOTSUP;
    default:
        return BR_EINVAL;
    }
}

/* The certificate must be for this name; left to itself nng checks none when it is given a configuration. */
static int set_server_name(nng_tls_config *tls, const br_client_options *options)
{
    if (options->tls_name != NULL) return nng_tls_config_server_name(tls, options->tls_name);

    nng_url *url;
    int failed = nng_url_parse(&url, options->url);
    if (failed != 0) return failed;
    failed = nng_tls_config_server_name(tls, url->u_hostname);
    nng_url_free(url);
    return failed;
}

static br_status configure_tls(nng_dialer dialer, const br_client_options *options, br_error *error)
{
    if (options->tls_ca == NULL)
        return br_fail(error, BR_EINVAL, "%s: tls needs a file of authorities", options->url);

    nng_tls_config *tls;
    int failed = nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT);
    if (failed != 0) return br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));

    br_status status = BR_OK;
    failed = nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED);
    if (failed == 0) failed = set_server_name(tls, options);
    if (failed != 0) {
        status = br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));
        goto done;
    }
    failed = nng_tls_config_ca_file(tls, options->tls_ca);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file of authorities: %s", options->tls_ca,
                         nng_strerror(failed));
        goto done;
    }
    failed = options->tls_cert == NULL ? 0 : nng_tls_config_cert_key_file(tls, options->tls_cert, NULL);
    if (failed != 0) {
        status = br_fail(error, BR_EIO, "%s: not a PEM file with a certificate and its key: %s",
                         options->tls_cert, nng_strerror(failed));
        goto done;
    }
    failed = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls); /* takes a hold of its own */
    if (failed != 0) status = br_fail(error, status_of_nng(failed), "tls: %s", nng_strerror(failed));

done:
    nng_tls_config_free(tls);
    return status;
}

static bool is_tls(const char *url)
{
    return strncmp(url, "tls+", 4) == 0;
}

static br_status dial(br_client *client, const br_client_options *options, br_error *error)
{
    nng_dialer dialer;
    int failed = nng_dialer_create(&dialer, client->socket, options->url);
    if (failed != 0)
        return br_fail(error, status_of_nng(failed), "cannot use the url '%s': %s", options->url,
                       nng_strerror(failed));
    if (is_tls(options->url)) {
        const br_status status = configure_tls(dialer, options, error);
        if (status != BR_OK) return status;
    }
    failed = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    if (failed == 0) return BR_OK;
    return br_fail(error, status_of_nng(failed), "cannot dial '%s': %s", options->url, nng_strerror(failed));
}

static br_status open_socket(br_client *client, br_error *error)
{
    int failed = nng_req0_open(&client->socket);
    if (failed == 0) {
        client->socket_open = true;
        failed = nng_socket_set_ms(client->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    }
    if (failed == 0) failed = nng_socket_set_size(client->socket, NNG_OPT_RECVMAXSZ, BR_MESSAGE_BYTES_MAX);
    if (failed == 0) failed = nng_socket_set_ms(client->socket, NNG_OPT_RECONNMINT, RECONNECT_MS_MIN);
    if (failed == 0) failed = nng_socket_set_ms(client->socket, NNG_OPT_RECONNMAXT, RECONNECT_MS_MAX);
    if (failed == 0)
        failed = nng_pipe_notify(client->socket, NNG_PIPE_EV_ADD_POST, count_connections, client);
    if (failed == 0)
        failed = nng_pipe_notify(client->socket, NNG_PIPE_EV_REM_POST, count_connections, client);
    if (failed == 0) return BR_OK;
    return br_fail(error, status_of_nng(failed), "cannot open a socket: %s", nng_strerror(failed));
}

static br_status check_options(const br_client_options *options, br_error *error)
{
    if (options->url == NULL) return br_fail(error, BR_EINVAL, "there is no url");
    if (options->timeout_ms > INT32_MAX) return br_fail(error, BR_EINVAL, "timeout_ms is over %d", INT32_MAX);
    const bool has_tls = options->tls_ca != NULL || options->tls_cert != NULL || options->tls_name != NULL;
    if (has_tls && !is_tls(options->url))
        return br_fail(error, BR_EINVAL, "%s: tls options are for tls+tcp:// alone", options->url);
    return BR_OK;
}

br_status br_client_connect(br_client **out, const br_client_options *options, br_error *error)
{
    *out = NULL;
    br_status status = check_options(options, error);
    if (status != BR_OK) return status;

    br_client *client = calloc(1, sizeof *client);
    if (client == NULL) return br_fail(error, BR_ENOMEM, "out of memory for a client");
    pthread_mutex_init(&client->mutex, NULL); /* the default kind cannot fail on Linux */
    atomic_init(&client->connections, 0);
    client->timeout_ms = options->timeout_ms == 0 ? TIMEOUT_MS_DEFAULT : options->timeout_ms;
    client->connect_ms = options->connect_ms == 0 ? client->timeout_ms : options->connect_ms;
    client->retries = options->retries;

    const size_t url_bytes = strlen(options->url) + 1;
    client->url = malloc(url_bytes);
    if (client->url == NULL) {
        status = br_fail(error, BR_ENOMEM, "out of memory for a client");
        goto fail;
    }
    memcpy(client->url, options->url, url_bytes);

    status = open_socket(client, error);
    if (status != BR_OK) goto fail;
    status = dial(client, options, error);
    if (status != BR_OK) goto fail;
    *out = client;
    return BR_OK;

fail:
    br_client_close(client);
    return status;
}

void br_client_close(br_client *client)
{
    if (client == NULL) return;
    while (client->idle != NULL) {
        slot *s = client->idle;
        client->idle = s->next;
        slot_destroy(s);
    }
    if (client->socket_open) nng_close(client->socket); /* waits for count_connections */
    pthread_mutex_destroy(&client->mutex);
    free(client->url);
    free(client);
}

typedef struct cursor {
    char *at; /* NULL: only counts */
    size_t bytes;
} cursor;

static int write_bytes(void *sink, const char *bytes, size_t size)
{
    cursor *to = sink;
    if (to->at != NULL) memcpy(to->at + to->bytes, bytes, size);
    to->bytes += size;
    return 0;
}

/* Encodes twice: nng grows a message piece by piece at the cost of a copy each. */
static br_status pack(nng_msg **out, const br_request *request, br_error *error)
{
    cursor to = {0};
    int failed = br_request_encode(request, &to, write_bytes);
    assert(failed == 0);
    if (to.bytes > BR_MESSAGE_BYTES_MAX)
        return br_fail(error, BR_ETOOBIG, "too_large: the message has %zu bytes, at most %d are taken",
                       to.bytes, BR_MESSAGE_BYTES_MAX);

    failed = nng_msg_alloc(out, to.bytes);
    if (failed != 0) return br_fail(error, BR_ENOMEM, "out of memory for a message of %zu bytes", to.bytes);
    to = (cursor){.at = nng_msg_body(*out)};
    failed = br_request_encode(request, &to, write_bytes);
    assert(failed == 0);
    assert(to.bytes == nng_msg_len(*out));
    (void)failed;
    return BR_OK;
}

static uint64_t left_ms(uint64_t end_ns)
{
    const uint64_t now = br_clock_now_ns();
    return now >= end_ns ? 0 : (end_ns - now + BR_NS_PER_MS - 1) / BR_NS_PER_MS;
}

/* Moves `message`. Without a connection it gives up after connect_ms; with one, only at the end. */
static br_status send_message(br_client *client, slot *s, nng_msg *message, uint64_t end_ns, br_error *error)
{
    for (;;) {
        const uint64_t left = left_ms(end_ns);
        const uint64_t patience = left < client->connect_ms ? left : client->connect_ms;
        nng_aio_set_msg(s->aio, message);
        nng_aio_set_timeout(s->aio, (nng_duration)patience);
        nng_ctx_send(s->context, s->aio);
        nng_aio_wait(s->aio);
        const int failed = nng_aio_result(s->aio);
        if (failed == 0) return BR_OK;

        const bool connected = atomic_load(&client->connections) > 0;
        if (failed == NNG_ETIMEDOUT && connected && left_ms(end_ns) > 0) continue;
        nng_msg_free(message);
        if (failed == NNG_ETIMEDOUT && connected)
            return br_fail(error, BR_ETIMEDOUT, "%s took no message within %" PRIu32 " ms", client->url,
                           client->timeout_ms);
        if (failed == NNG_ETIMEDOUT)
            return br_fail(error, BR_EIO, "no connection to %s within %" PRIu64 " ms", client->url, patience);
        return br_fail(error, failed == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "sending to %s: %s", client->url,
                       nng_strerror(failed));
    }
}

/* On success *out is the caller's. *broke: the connection was lost, asking again may help. */
static br_status receive_message(br_client *client, slot *s, nng_msg **out, bool *broke, uint64_t end_ns,
                                 br_error *error)
{
    nng_aio_set_timeout(s->aio, (nng_duration)left_ms(end_ns));
    nng_ctx_recv(s->context, s->aio);
    nng_aio_wait(s->aio);
    const int failed = nng_aio_result(s->aio);
    if (failed == 0) {
        *out = nng_aio_get_msg(s->aio);
        nng_aio_set_msg(s->aio, NULL);
        return BR_OK;
    }
    *broke = failed == NNG_ECONNRESET;
    if (failed == NNG_ETIMEDOUT)
        return br_fail(error, BR_ETIMEDOUT, "no answer from %s within %" PRIu32 " ms", client->url,
                       client->timeout_ms);
    return br_fail(error, failed == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "the connection to %s broke: %s",
                   client->url, nng_strerror(failed));
}

static br_status exchange(br_client *client, slot *s, nng_msg **out, const br_request *request,
                          uint64_t end_ns, br_error *error)
{
    for (int breaks = 0;; breaks++) {
        nng_msg *message = NULL;
        br_status status = pack(&message, request, error);
        if (status != BR_OK) return status;
        status = send_message(client, s, message, end_ns, error);
        if (status != BR_OK) return status;

        bool broke = false;
        status = receive_message(client, s, out, &broke, end_ns, error);
        if (status == BR_OK) return BR_OK;
        if (!broke || breaks + 1 == BREAKS_MAX) return status;
    }
}

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

/* A reply to `request` that came in `message`. *retry_ms is set with BR_EBUSY. */
static br_status take_reply(br_answer **out, uint64_t *retry_ms, nng_msg *message, const br_request *request,
                            br_arena *arena, br_error *error)
{
    br_reply reply;
    br_status status = br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), arena, error);
    if (status != BR_OK) return status;
    if (!reply.ok) {
        *retry_ms = reply.has_retry ? reply.retry_ms : RETRY_MS_DEFAULT;
        return br_fail(
            error, status_of_code(reply.code), "%s: %.*s", br_code_name(reply.code),
            (int)(reply.message.size < BR_ERROR_TEXT_BYTES ? reply.message.size : BR_ERROR_TEXT_BYTES),
            reply.message.data == NULL ? "" : reply.message.data);
    }
    if (reply.result_count != request->query_count)
        return br_fail(error, BR_EFORMAT, "%zu results for %zu queries", reply.result_count,
                       request->query_count);
    if (request->op == BR_OP_INFO && reply.info == NULL)
        return br_fail(error, BR_EFORMAT, "the reply to info has no candidates");
    return br_client_make_answer(out, &reply, error);
}

/* The service counts a deadline from a request's arrival; asked again, it gets what is left of it. */
static bool shorten_deadline(br_request *request, uint64_t deadline_ms, uint64_t start_ns, uint64_t later_ms)
{
    if (!request->has_deadline) return true;
    const uint64_t spent_ms = (br_clock_now_ns() - start_ns) / BR_NS_PER_MS + later_ms;
    if (spent_ms >= deadline_ms) return false;
    request->deadline_ms = deadline_ms - spent_ms;
    return true;
}

static br_status call_in_slot(br_client *client, slot *s, br_answer **out, br_request *request,
                              br_error *error)
{
    const uint64_t start_ns = br_clock_now_ns();
    const uint64_t end_ns = start_ns + (uint64_t)client->timeout_ms * BR_NS_PER_MS;
    const uint64_t deadline_ms = request->deadline_ms;

    for (uint32_t retry = 0;; retry++) {
        nng_msg *message = NULL;
        br_status status = exchange(client, s, &message, request, end_ns, error);
        if (status != BR_OK) return status;

        uint64_t retry_ms = 0;
        status = take_reply(out, &retry_ms, message, request, &s->arena, error);
        nng_msg_free(message);
        if (status != BR_EBUSY || retry == client->retries) return status;
        if (retry_ms >= left_ms(end_ns)) return status;
        if (!shorten_deadline(request, deadline_ms, start_ns, retry_ms)) return status;
        nng_msleep((nng_duration)retry_ms);
    }
}

static br_status call_service(br_client *client, br_answer **out, br_op op, const br_client_call *call,
                              const char *folder, br_error *error)
{
    *out = NULL;
    slot *s = NULL;
    br_status status = slot_take(&s, client, error);
    if (status != BR_OK) return status;

    br_request request;
    status = br_client_make_request(&request, op, call, &s->arena, error);
    if (status == BR_OK && folder != NULL) request.bundle = br_str_from(folder);
    if (status == BR_OK) status = call_in_slot(client, s, out, &request, error);

    if (status == BR_OK) {
        if (error != NULL) *error = (br_error){0}; /* of an attempt that was made good */
        slot_give_back(client, s);
    } else {
        slot_destroy(s);
    }
    return status;
}

br_status br_client_route(br_client *client, br_answer **out, const br_client_call *call, br_error *error)
{
    assert(call != NULL);
    return call_service(client, out, BR_OP_ROUTE, call, NULL, error);
}

br_status br_client_score(br_client *client, br_answer **out, const br_client_call *call, br_error *error)
{
    assert(call != NULL);
    return call_service(client, out, BR_OP_SCORE, call, NULL, error);
}

br_status br_client_info(br_client *client, br_answer **out, br_error *error)
{
    return call_service(client, out, BR_OP_INFO, NULL, NULL, error);
}

br_status br_client_ping(br_client *client, br_error *error)
{
    br_answer *answer;
    const br_status status = call_service(client, &answer, BR_OP_PING, NULL, NULL, error);
    br_answer_free(answer);
    return status;
}

br_status br_client_reload(br_client *client, br_answer **out, const char *folder, br_error *error)
{
    br_answer *answer;
    const br_status status = call_service(client, &answer, BR_OP_RELOAD, NULL, folder, error);
    if (out != NULL) {
        *out = answer;
    } else {
        br_answer_free(answer);
    }
    return status;
}
