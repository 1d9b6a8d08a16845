/* test_http.c - the monitors' HTTP server: requests in any pieces, and clients that are slow or too many. */
#include "serve/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/oom.h"

enum { LARGE = 4 << 20, LONG_MS = 600000 };

typedef struct fixture {
    http *server;
    char url[64];
    uint16_t port;
} fixture;

static void answer(void *context, br_str path, http_page *page)
{
    (void)context;
    if (br_str_equal(path, BR_STR_LITERAL("/hello"))) {
        http_begin(page, 200, "text/plain");
        http_print(page, "hello %s\n", "world");
    } else if (br_str_equal(path, BR_STR_LITERAL("/busy"))) {
        http_begin(page, 503, "text/plain");
    } else if (br_str_equal(path, BR_STR_LITERAL("/large"))) {
        http_begin(page, 200, "text/plain");
        for (int i = 0; i < LARGE / 16; i++) http_print(page, "%015d\n", i);
    }
}

/* A port that was free a moment ago. */
static uint16_t find_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

static void serve(fixture *f, uint32_t patience_ms)
{
    br_error error = {0};
    f->port = find_port();
    (void)snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d", f->port);
    assert_int_equal(http_open(&f->server, f->url, patience_ms, answer, NULL, &error), BR_OK);
}

static int dial(const fixture *f)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* All that comes until the server hangs up. */
static size_t read_all(int fd, char *out, size_t room)
{
    size_t size = 0;
    for (ssize_t more; (more = recv(fd, out + size, room - 1 - size, 0)) > 0;) size += (size_t)more;
    out[size] = '\0';
    return size;
}

static void expect_answer(const fixture *f, const char *request, const char *expected)
{
    char text[4096];
    const int fd = dial(f);
    say(fd, request);
    (void)read_all(fd, text, sizeof text);
    (void)close(fd);
    if (strncmp(text, expected, strlen(expected)) != 0)
        fail_msg("%s\nwas answered\n%s\nnot\n%s", request, text, expected);
}

#define HELLO                                                                                                \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\nConnection: close\r\n\r\n"         \
    "hello world\n"

static void test_requests_are_read_or_refused_by_their_fault(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status;
        const char *path;
        bool head;
    } cases[] = {
        {"", 0, "", false},
        {"GET /a HTTP/1.1\r\n", 0, "", false},
        {"GET /a HTTP/1.1\r\nHost: x\r\n\r", 0, "", false},
        {"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 200, "/a", false},
        {"GET / HTTP/1.0\r\n\r\nmore", 200, "/", false},
        {"GET /a?b=c HTTP/1.1\r\n\r\n", 200, "/a", false},
        {"HEAD /a HTTP/1.1\r\n\r\n", 200, "/a", true},
        {"POST /a HTTP/1.1\r\n\r\n", 405, "", false},
        {"get /a HTTP/1.1\r\n\r\n", 405, "", false},
        {"GET a HTTP/1.1\r\n\r\n", 400, "", false},
        {"GET /a\r\n\r\n", 400, "", false},
        {"GET /a HTTP/2.0\r\n\r\n", 400, "", false},
        {"GET /a b HTTP/1.1\r\n\r\n", 400, "", false},
        {"GET  /a HTTP/1.1\r\n\r\n", 400, "", false},
        {"GET\r\n\r\n", 400, "", false},
        {"\r\n\r\n", 400, "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        http_request request = {0};
        const int status = http_parse(&request, br_str_from(cases[i].bytes));
        if (status != cases[i].status) fail_msg("\"%s\": %d", cases[i].bytes, status);
        assert_true(br_str_equal(request.path, br_str_from(cases[i].path)));
        assert_int_equal(request.head, cases[i].head);
    }
    char endless[HTTP_REQUEST_BYTES_MAX];
    memset(endless, 'x', sizeof endless);
    http_request request = {0};
    assert_int_equal(http_parse(&request, (br_str){endless, sizeof endless - 1}), 0);
    assert_int_equal(http_parse(&request, (br_str){endless, sizeof endless}), 431);
}

static void test_pages_come_with_their_status_length_and_type(void **state)
{
    (void)state;
    fixture f;
    serve(&f, LONG_MS);
    expect_answer(&f, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", HELLO);
    expect_answer(&f, "GET /hello?x HTTP/1.0\r\n\r\n", HELLO);
    expect_answer(&f, "GET /nowhere HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found\r\n");
    expect_answer(&f, "GET /busy HTTP/1.1\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\n");
    expect_answer(&f, "PUT /hello HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n");
    expect_answer(&f, "nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n");
    char text[4096];
    const int fd = dial(&f);
    say(fd, "HEAD /hello HTTP/1.1\r\n\r\n");
    assert_int_equal(read_all(fd, text, sizeof text), strlen(HELLO) - 12);
    (void)close(fd);
    http_close(f.server);
}

static void test_a_request_may_come_byte_by_byte(void **state)
{
    (void)state;
    fixture f;
    serve(&f, LONG_MS);
    char text[4096];
    const int fd = dial(&f);
    for (const char *at = "GET /hello HTTP/1.1\r\n\r\n"; *at != '\0'; at++) {
        say(fd, (const char[]){*at, '\0'});
        expect_answer(&f, "GET /hello HTTP/1.1\r\n\r\n", HELLO); /* others are served meanwhile */
    }
    (void)read_all(fd, text, sizeof text);
    assert_string_equal(text, HELLO);
    (void)close(fd);
    http_close(f.server);
}

static void test_a_slow_reader_gets_all_of_a_large_page(void **state)
{
    (void)state;
    fixture f;
    serve(&f, LONG_MS);
    char *text = malloc(LARGE + 4096);
    assert_non_null(text);
    const int fd = dial(&f);
    say(fd, "GET /large HTTP/1.1\r\n\r\n");
    expect_answer(&f, "GET /hello HTTP/1.1\r\n\r\n", HELLO); /* the page is larger than the kernel takes */
    const size_t size = read_all(fd, text, LARGE + 4096);
    assert_true(size > LARGE);
    assert_string_equal(text + size - 16, "000000000262143\n");
    (void)close(fd);
    free(text);
    http_close(f.server);
}

static void test_the_oldest_of_too_many_makes_room(void **state)
{
    (void)state;
    enum { MANY = 3 * HTTP_CONNECTIONS_MAX };
    fixture f;
    serve(&f, LONG_MS);
    int fds[MANY];
    for (int i = 0; i < MANY; i++) {
        fds[i] = dial(&f);
        say(fds[i], "GET /hel");
        /* A client that is prompt is served, whatever other clients do. */
        expect_answer(&f, "GET /hello HTTP/1.1\r\n\r\n", HELLO);
    }
    char text[4096];
    for (int i = 0; i < MANY; i++) {
        /* The last connections are still open and answered; the first ones were closed. */
        const bool kept = i >= MANY - HTTP_CONNECTIONS_MAX + 1;
        (void)send(fds[i], "lo HTTP/1.1\r\n\r\n", 15, MSG_NOSIGNAL);
        (void)read_all(fds[i], text, sizeof text);
        assert_string_equal(text, kept ? HELLO : "");
        (void)close(fds[i]);
    }
    http_close(f.server);
}

static void test_a_connection_ends_when_its_time_is_up(void **state)
{
    (void)state;
    fixture f;
    serve(&f, 50);
    char text[64];
    const int fd = dial(&f);
    say(fd, "GET /hel");
    assert_int_equal(read_all(fd, text, sizeof text), 0); /* returns */
    (void)close(fd);
    http_close(f.server);
}

static void test_what_cannot_be_served_is_named(void **state)
{
    (void)state;
    fixture f;
    serve(&f, LONG_MS);
    http *second;
    br_error error = {0};
    assert_int_equal(http_open(&second, f.url, LONG_MS, answer, NULL, &error), BR_EIO);
    assert_null(second);
    assert_non_null(strstr(error.text, f.url));
    assert_int_equal(http_open(&second, "http://no.such.host.invalid:1", LONG_MS, answer, NULL, &error),
                     BR_EIO);
    assert_int_equal(http_open(&second, "nonsense", LONG_MS, answer, NULL, &error), BR_EIO);
    BR_OOM_SWEEP({
        if (http_open(&second, f.url, LONG_MS, answer, NULL, &error) == BR_OK) fail();
        assert_null(second);
    });
    http_close(f.server);
    http_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_are_read_or_refused_by_their_fault),
        cmocka_unit_test(test_pages_come_with_their_status_length_and_type),
        cmocka_unit_test(test_a_request_may_come_byte_by_byte),
        cmocka_unit_test(test_a_slow_reader_gets_all_of_a_large_page),
        cmocka_unit_test(test_the_oldest_of_too_many_makes_room),
        cmocka_unit_test(test_a_connection_ends_when_its_time_is_up),
        cmocka_unit_test(test_what_cannot_be_served_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
