/*
 * test_malformed.c - 10,000 malformed messages against a running service, while another client is served.
 *
 * The messages go through a raw REQ socket, which shows every reply there is: each must get exactly one, a
 * well-formed one. The service is a process of its own (BESTROUTED), so a crash or a report of its sanitizer
 * is its exit status.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h> /* first: the next needs it */

#include <nng/protocol/reqrep0/req.h>

#include "malformed.h"
#include "protocol/reply.h"

enum {
    MESSAGES = 10000,
    WINDOW = 64, /* sent and not yet answered */
    TIMEOUT_MS = 20000,
    OTHER_CLIENT_MIN =
        10, /* requests that the other client must have had answered meanwhile; a busy machine is slow */
};

typedef struct fixture {
    char folder[64];
    char url[128];
    pid_t service;
    nng_socket raw;
    nng_socket other;
    pthread_t other_thread;
    atomic_bool stop;
    atomic_size_t served;
    atomic_size_t failed;
    /* By request: how many replies it got, and of which kind it was. */
    uint8_t replies[MESSAGES];
    uint8_t kind_of[MESSAGES];
    /* By kind: refused at the top level by code, and answered. */
    size_t counts[KINDS][BR_CODE_INTERNAL + 1];
    bool left; /* the other client and the service were seen off */
    br_arena arena;
} fixture;

static bool call_is_ok(nng_socket socket, const char *text)
{
    message request = message_from(text);
    uint8_t *bytes = NULL;
    size_t size = 0;
    int result = nng_send(socket, request.bytes, request.size, 0);
    if (result == 0) result = nng_recv(socket, (void *)&bytes, &size, NNG_FLAG_ALLOC);
    free(request.bytes);
    if (result != 0) return false;
    br_arena arena;
    br_arena_init(&arena);
    br_reply reply;
    bool good_reply = br_reply_decode(&reply, bytes, size, &arena, NULL) == BR_OK && reply.ok;
    for (size_t i = 0; good_reply && i < reply.result_count; i++)
        good_reply = reply.results[i].code == BR_CODE_NONE;
    br_arena_deinit(&arena);
    nng_free(bytes, size);
    return good_reply;
}

static void *be_served(void *data)
{
    fixture *f = data;
    while (!atomic_load(&f->stop)) {
        const bool good_reply =
            call_is_ok(f->other, "{'v':1,'op':'route','queries':[{'text':'What is 2 + 2?'}]}");
        (void)atomic_fetch_add(good_reply ? &f->served : &f->failed, 1);
    }
    return NULL;
}

static pid_t start_service(const char *url)
{
    char bundle[512];
    (void)snprintf(bundle, sizeof bundle, "%s/weights/tiny", getenv("BESTROUTE_SOURCE"));
    char text_limit[64];
    char message_limit[64];
    (void)snprintf(text_limit, sizeof text_limit, "--max-text-bytes=%d", MALFORMED_TEXT_BYTES_MAX);
    (void)snprintf(message_limit, sizeof message_limit, "--max-message-bytes=%d",
                   MALFORMED_MESSAGE_BYTES_MAX);
    const pid_t child = fork();
    if (child != 0) return child;
    (void)execl(getenv("BESTROUTED"), "bestrouted", "--bundle", bundle, "--listen", url, "--engine",
                "reference", "--workers", "1", "--log-level", "warn", text_limit, message_limit,
                (char *)NULL);
    _exit(127);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    *state = f;
    br_arena_init(&f->arena);
    (void)strcpy(f->folder, "/tmp/bestroute-malformed-XXXXXX");
    if (mkdtemp(f->folder) == NULL) return -1;
    (void)snprintf(f->url, sizeof f->url, "ipc://%s/socket", f->folder);
    f->service = start_service(f->url);
    if (f->service < 0) return -1;

    if (nng_req0_open_raw(&f->raw) != 0 || nng_req0_open(&f->other) != 0) return -1;
    nng_socket both[] = {f->raw, f->other};
    for (int i = 0; i < 2; i++) {
        (void)nng_socket_set_ms(both[i], NNG_OPT_RECVTIMEO, TIMEOUT_MS);
        (void)nng_socket_set_ms(both[i], NNG_OPT_SENDTIMEO, TIMEOUT_MS);
        (void)nng_socket_set_ms(both[i], NNG_OPT_RECONNMINT, 20);
        if (nng_dial(both[i], f->url, NULL, NNG_FLAG_NONBLOCK) != 0) return -1;
    }
    /* Never resend by itself: a reply that does not come must be seen. */
    (void)nng_socket_set_ms(f->other, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    for (int tries = 0; !call_is_ok(f->other, "{'v':1,'op':'ping'}"); tries++) {
        if (tries == 1000 || waitpid(f->service, NULL, WNOHANG) != 0) return -1;
        (void)usleep(20000);
    }
    return pthread_create(&f->other_thread, NULL, be_served, f);
}

static int tear_down(void **state)
{
    fixture *f = *state;
    atomic_store(&f->stop, true);
    (void)nng_close(f->raw);
    (void)nng_close(f->other);
    if (!f->left) { /* a failure came first */
        (void)pthread_join(f->other_thread, NULL);
        (void)kill(f->service, SIGKILL);
        (void)waitpid(f->service, NULL, 0);
    }
    br_arena_deinit(&f->arena);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/socket", f->folder);
    (void)unlink(path);
    (void)rmdir(f->folder);
    free(f);
    return 0;
}

static void send_message(fixture *f, size_t index)
{
    const kind which = (kind)(index % KINDS);
    f->kind_of[index] = (uint8_t)which;
    message m = malformed_make(which, index);
    nng_msg *out;
    assert_int_equal(nng_msg_alloc(&out, 0), 0);
    assert_int_equal(nng_msg_append(out, m.bytes, m.size), 0);
    assert_int_equal(nng_msg_header_append_u32(out, 0x80000000U | (uint32_t)index), 0);
    free(m.bytes);
    const int result = nng_sendmsg(f->raw, out, 0);
    if (result != 0) fail_msg("message %zu was not sent: %s", index, nng_strerror(result));
}

static void check_reply(fixture *f, size_t index, const void *bytes, size_t size)
{
    const kind which = (kind)f->kind_of[index];
    br_arena_reset(&f->arena, 1 << 20);
    br_reply reply;
    br_error error = {0};
    if (br_reply_decode(&reply, bytes, size, &f->arena, &error) != BR_OK) {
        fail_msg("message %zu (%s): no proper reply: %s", index, malformed_kinds[which].name, error.text);
    }
    f->counts[which][reply.ok ? BR_CODE_NONE : reply.code]++;
    bool expected = true;
    if (malformed_kinds[which].outcome == REFUSED) expected = !reply.ok;
    if (malformed_kinds[which].outcome == QUERY_REFUSED) {
        expected = reply.ok && reply.result_count == 2 && reply.results[0].code == BR_CODE_BAD_REQUEST &&
                   reply.results[0].message.size > 0 && reply.results[1].code == BR_CODE_NONE &&
                   br_str_equal(reply.id, BR_STR_LITERAL("\x05"));
    }
    if (!reply.ok) expected = expected && reply.message.size > 0 && reply.code != BR_CODE_INTERNAL;
    if (!expected) {
        fail_msg("message %zu (%s): %s: %.*s", index, malformed_kinds[which].name,
                 reply.ok ? "accepted" : br_code_name(reply.code), (int)reply.message.size,
                 reply.message.data);
    }
}

static void receive_reply(fixture *f, size_t sent)
{
    nng_msg *in;
    const int result = nng_recvmsg(f->raw, &in, 0);
    if (result != 0) fail_msg("after %zu messages: %s", sent, nng_strerror(result));
    uint32_t id;
    assert_int_equal(nng_msg_header_trim_u32(in, &id), 0);
    const size_t index = id & ~0x80000000U;
    assert_true(index < sent);
    assert_int_equal(f->replies[index], 0);
    f->replies[index]++;
    check_reply(f, index, nng_msg_body(in), nng_msg_len(in));
    nng_msg_free(in);
}

static void print_table(const fixture *f)
{
    print_message("%-22s %8s %11s %9s %11s %7s\n", "kind", "answered", "bad_request", "too_large",
                  "unsupported", "other");
    for (size_t k = 0; k < KINDS; k++) {
        const size_t *counts = f->counts[k];
        print_message("%-22s %8zu %11zu %9zu %11zu %7zu\n", malformed_kinds[k].name, counts[BR_CODE_NONE],
                      counts[BR_CODE_BAD_REQUEST], counts[BR_CODE_TOO_LARGE], counts[BR_CODE_UNSUPPORTED],
                      counts[BR_CODE_OVERLOADED] + counts[BR_CODE_DEADLINE] + counts[BR_CODE_NOT_READY] +
                          counts[BR_CODE_INFEASIBLE]);
    }
}

static void test_every_malformed_message_gets_one_reply_and_harms_nobody(void **state)
{
    fixture *f = *state;
    size_t received = 0;
    for (size_t sent = 0; sent < MESSAGES; sent++) {
        if (sent - received == WINDOW) {
            receive_reply(f, sent);
            received++;
        }
        send_message(f, sent);
    }
    for (; received < MESSAGES; received++) receive_reply(f, MESSAGES);

    /* No second reply to anything. */
    (void)nng_socket_set_ms(f->raw, NNG_OPT_RECVTIMEO, 200);
    nng_msg *extra;
    assert_int_equal(nng_recvmsg(f->raw, &extra, 0), NNG_ETIMEDOUT);

    atomic_store(&f->stop, true);
    assert_int_equal(pthread_join(f->other_thread, NULL), 0);
    int status;
    assert_int_equal(kill(f->service, SIGTERM), 0);
    assert_int_equal(waitpid(f->service, &status, 0), f->service);
    f->left = true;

    print_table(f);
    print_message("%d messages, %zu replies; the other client: %zu answered, %zu failed\n", MESSAGES,
                  received, atomic_load(&f->served), atomic_load(&f->failed));
    assert_int_equal(atomic_load(&f->failed), 0);
    assert_true(atomic_load(&f->served) >= OTHER_CLIENT_MIN);
    /* The service drained and left, with no report of a sanitizer. */
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    if (getenv("BESTROUTED") == NULL || getenv("BESTROUTE_SOURCE") == NULL) {
        (void)printf("skipped: BESTROUTED and BESTROUTE_SOURCE name no service\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_malformed_message_gets_one_reply_and_harms_nobody, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
