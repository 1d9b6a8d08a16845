/* test_ipc_guard.c - ipc listeners go on accepting, whatever peers do during the handshake. */
#include "serve/ipc_guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>

#include <cmocka.h>

#include "support/oom.h"

/* nng never frees what is queued in a listener that no longer accepts: some kilobytes each time. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libnng.so";
}

enum { ANSWER_MS = 10000, LEAVERS = 50 };

typedef struct fixture {
    ipc_guard *ipc_guard;
    nng_socket socket;
    char path[96];
    char url[104];
} fixture;

static int set_up(void **state)
{
    static fixture f;
    br_error error = {0};
    (void)snprintf(f.path, sizeof f.path, "/tmp/bestroute-guard-%d.ipc", (int)getpid());
    (void)snprintf(f.url, sizeof f.url, "ipc://%s", f.path);
    assert_int_equal(nng_rep0_open(&f.socket), 0);
    assert_int_equal(ipc_guard_create(&f.ipc_guard, NULL, &error), BR_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    ipc_guard_stop(f->ipc_guard);
    (void)nng_close(f->socket);
    ipc_guard_destroy(f->ipc_guard);
    return 0;
}

/* Connects, sends the first bytes of a handshake, and leaves. */
static void connect_and_leave(const fixture *f, size_t bytes)
{
    static const char header[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, f->path, strlen(f->path) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        (void)!send(fd, header, bytes, MSG_NOSIGNAL);
    (void)close(fd);
}

/* A message sent over a new connection is answered. */
static void assert_answers(const fixture *f)
{
    nng_socket asker;
    nng_msg *message;
    assert_int_equal(nng_req0_open(&asker), 0);
    assert_int_equal(nng_socket_set_ms(asker, NNG_OPT_RECVTIMEO, ANSWER_MS), 0);
    assert_int_equal(nng_socket_set_ms(f->socket, NNG_OPT_RECVTIMEO, ANSWER_MS), 0);
    assert_int_equal(nng_socket_set_ms(asker, NNG_OPT_RECONNMINT, 10), 0);
    assert_int_equal(nng_dial(asker, f->url, NULL, NNG_FLAG_NONBLOCK), 0);
    assert_int_equal(nng_send(asker, "question", 8, 0), 0);
    assert_int_equal(nng_recvmsg(f->socket, &message, 0), 0);
    assert_int_equal(nng_sendmsg(f->socket, message, 0), 0);
    assert_int_equal(nng_recvmsg(asker, &message, 0), 0);
    assert_int_equal(nng_msg_len(message), 8);
    nng_msg_free(message);
    (void)nng_close(asker);
}

static void test_peers_that_leave_during_the_handshake_do_not_end_the_listener(void **state)
{
    const fixture *f = *state;
    br_error error = {0};
    assert_int_equal(ipc_guard_listen(f->ipc_guard, f->socket, f->url, 0, "listen", &error), BR_OK);
    assert_answers(f);
    for (int i = 0; i < LEAVERS; i++) connect_and_leave(f, (size_t)(i % 9));
    assert_answers(f);
    for (int i = 0; i < LEAVERS; i++) connect_and_leave(f, 0);
    assert_answers(f);
}

static void test_the_permissions_hold_for_a_listener_opened_again(void **state)
{
    const fixture *f = *state;
    br_error error = {0};
    struct stat found;
    assert_int_equal(ipc_guard_listen(f->ipc_guard, f->socket, f->url, 0600, "admin", &error), BR_OK);
    for (int i = 0; i < LEAVERS; i++) connect_and_leave(f, 0);
    assert_answers(f);
    assert_int_equal(stat(f->path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
}

static void test_a_url_that_cannot_be_listened_on_is_named(void **state)
{
    const fixture *f = *state;
    br_error error = {0};
    assert_int_equal(
        ipc_guard_listen(f->ipc_guard, f->socket, "ipc:///no/such/folder/x", 0, "listen", &error), BR_EIO);
    assert_non_null(strstr(error.text, "listen: cannot listen on \"ipc:///no/such/folder/x\""));

    char url[300] = "ipc:///tmp/";
    memset(url + strlen(url), 'x', sizeof url - 1 - strlen(url));
    url[sizeof url - 1] = '\0';
    assert_int_equal(ipc_guard_listen(f->ipc_guard, f->socket, url, 0, "listen", &error), BR_ETOOBIG);
}

static void test_creation_survives_every_failing_allocation(void **state)
{
    (void)state;
    br_status status = BR_ENOMEM;
    BR_OOM_SWEEP({
        ipc_guard *g;
        status = ipc_guard_create(&g, NULL, NULL);
        ipc_guard_destroy(g);
    });
    assert_int_equal(status, BR_OK);
    ipc_guard_stop(NULL);
    ipc_guard_destroy(NULL);
}

/* Whatever is no socket stays as it is. */
static void test_what_is_no_socket_is_refused_and_kept(void **state)
{
    fixture *f = *state;
    for (int kind = 0; kind < 3; kind++) {
        if (kind == 0) assert_int_equal(mknod(f->path, S_IFREG | 0600, 0), 0);
        if (kind == 1) assert_int_equal(mkfifo(f->path, 0600), 0);
        if (kind == 2) assert_int_equal(mkdir(f->path, 0700), 0);
        struct stat before;
        struct stat after;
        assert_int_equal(stat(f->path, &before), 0);
        br_error error = {0};
        assert_int_equal(ipc_guard_listen(f->ipc_guard, f->socket, f->url, 0, "listen", &error), BR_EIO);
        static const char *const says[] = {"names a regular file", "names a pipe", "names a folder"};
        assert_non_null(strstr(error.text, says[kind]));
        assert_int_equal(stat(f->path, &after), 0);
        assert_true(before.st_ino == after.st_ino);
        assert_int_equal(remove(f->path), 0);
    }
}

/* A socket, listening when `backlog` is not negative. */
static int make_socket(const fixture *f, int backlog)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, f->path, strlen(f->path) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (backlog >= 0) assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void test_a_socket_that_somebody_serves_is_refused(void **state)
{
    fixture *f = *state;
    const int fd = make_socket(f, 4);
    br_error error = {0};
    assert_int_equal(ipc_guard_listen(f->ipc_guard, f->socket, f->url, 0, "admin", &error), BR_EIO);
    assert_non_null(strstr(error.text, "admin: "));
    assert_non_null(strstr(error.text, "another process serves this socket"));
    assert_int_equal(access(f->path, F_OK), 0);
    (void)close(fd);
    assert_int_equal(unlink(f->path), 0);
}

static void test_a_socket_that_nobody_serves_is_taken_over(void **state)
{
    fixture *f = *state;
    (void)close(make_socket(f, 4));
    assert_int_equal(access(f->path, F_OK), 0);
    br_error error = {0};
    if (ipc_guard_listen(f->ipc_guard, f->socket, f->url, 0, "listen", &error) != BR_OK)
        fail_msg("%s", error.text);
    assert_answers(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_no_socket_is_refused_and_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_that_somebody_serves_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_socket_that_nobody_serves_is_taken_over, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_peers_that_leave_during_the_handshake_do_not_end_the_listener,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_permissions_hold_for_a_listener_opened_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_url_that_cannot_be_listened_on_is_named, set_up, tear_down),
        cmocka_unit_test(test_creation_survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
