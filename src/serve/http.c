/*
 * http.c - see http.h.
 *
 *   reading -> writing -> leaving -> free          any state -> free: its time is up, or the client is gone
 *
 * Leaving waits for the client to hang up first: closing at once could discard an answer that the client has
 * not read.
 */
#include "http.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nng/nng.h>

#include "core/clock.h"
#include "core/memory.h"
#include "core/thread.h"

enum { BACKLOG = 64, REST_MS = 100 /* after accepting failed */ };

typedef struct connection {
    enum { FREE, READING, WRITING, LEAVING } state;
    int fd;
    uint64_t until_ns;
    char request[HTTP_REQUEST_BYTES_MAX];
    size_t request_size;
    char *answer; /* owned while WRITING */
    size_t answer_size;
    size_t sent;
} connection;

struct http {
    http_answer_fn answer;
    void *context;
    uint64_t patience_ns;
    int listener;
    int stop; /* an eventfd */
    pthread_t thread;
    http_page page;
    uint64_t rest_until_ns; /* accepts nothing before */
    connection connections[HTTP_CONNECTIONS_MAX];
};

static void hang_up(connection *c)
{
    (void)close(c->fd);
    free(c->answer);
    c->answer = NULL;
    c->state = FREE;
}

static void step_writing(connection *c)
{
    const ssize_t size = send(c->fd, c->answer + c->sent, c->answer_size - c->sent, MSG_NOSIGNAL);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) {
        hang_up(c);
        return;
    }
    c->sent += (size_t)size;
    if (c->sent < c->answer_size) return;
    c->state = LEAVING;
    (void)shutdown(c->fd, SHUT_WR);
}

static void respond(http *server, connection *c, int status, const http_request *request)
{
    http_page *page = &server->page;
    http_page_clear(page);
    http_begin(page, status == 200 ? 404 : status, "text/plain");
    if (status == 200) server->answer(server->context, request->path, page);
    c->sent = 0;
    c->answer = http_page_compose(page, status == 200 && request->head, &c->answer_size);
    if (c->answer == NULL) {
        hang_up(c);
        return;
    }
    c->state = WRITING;
    step_writing(c);
}

static void step_reading(http *server, connection *c)
{
    const ssize_t size = recv(c->fd, c->request + c->request_size, sizeof c->request - c->request_size, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
        hang_up(c);
        return;
    }
    c->request_size += (size_t)size;
    http_request request = {0};
    const int status = http_parse(&request, (br_str){c->request, c->request_size});
    if (status != 0) respond(server, c, status, &request);
}

static void step_leaving(connection *c)
{
    char rest[1024];
    const ssize_t size = recv(c->fd, rest, sizeof rest, 0);
    if (size > 0 || (size < 0 && (errno == EAGAIN || errno == EINTR))) return;
    hang_up(c);
}

static void step(http *server, connection *c)
{
    switch (c->state) {
    case READING:
        step_reading(server, c);
        return;
    case WRITING:
        step_writing(c);
        return;
    case LEAVING:
        step_leaving(c);
        return;
    case FREE:
        return;
    }
}

/* A free one, or else the oldest, which makes room. */
static connection *make_room(http *server)
{
    connection *oldest = &server->connections[0];
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        connection *c = &server->connections[i];
        if (c->state == FREE) return c;
        if (c->until_ns < oldest->until_ns) oldest = c;
    }
    hang_up(oldest);
    return oldest;
}

static void take_connection(http *server, uint64_t now_ns)
{
    const int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        /* Perhaps no descriptors are left; trying again at once would fail again. */
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            server->rest_until_ns = now_ns + REST_MS * (uint64_t)BR_NS_PER_MS;
        return;
    }
    connection *c = make_room(server);
    c->state = READING;
    c->fd = fd;
    c->until_ns = now_ns + server->patience_ns;
    c->request_size = 0;
    step_reading(server, c); /* the request is usually there already */
}

/* Closes connections that have taken too long. Returns the milliseconds until the next one is too late, or
 * until connections are accepted again; -1: never. */
static int end_late(http *server, uint64_t now_ns)
{
    uint64_t next_ns = server->rest_until_ns > now_ns ? server->rest_until_ns : UINT64_MAX;
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
        connection *c = &server->connections[i];
        if (c->state != FREE && c->until_ns <= now_ns) hang_up(c);
        if (c->state != FREE && c->until_ns < next_ns) next_ns = c->until_ns;
    }
    return next_ns == UINT64_MAX ? -1 : (int)((next_ns - now_ns) / BR_NS_PER_MS) + 1;
}

static void *serve(void *argument)
{
    http *server = argument;
    for (;;) {
        const int wait_ms = end_late(server, br_clock_now_ns());
        const bool resting = server->rest_until_ns > br_clock_now_ns();
        struct pollfd fds[2 + HTTP_CONNECTIONS_MAX] = {
            {.fd = server->stop, .events = POLLIN},
            {.fd = resting ? -1 : server->listener, .events = POLLIN},
        };
        for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
            const connection *c = &server->connections[i];
            fds[2 + i] = (struct pollfd){.fd = c->state == FREE ? -1 : c->fd,
                                         .events = c->state == WRITING ? POLLOUT : POLLIN};
        }
        (void)poll(fds, 2 + HTTP_CONNECTIONS_MAX, wait_ms);
        if (fds[0].revents != 0) return NULL;
        for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
            if (fds[2 + i].revents != 0) step(server, &server->connections[i]);
        if (fds[1].revents != 0) take_connection(server, br_clock_now_ns());
    }
}

static int listen_on(const struct addrinfo *address)
{
    const int fd = socket(address->ai_family, address->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
    const int failed = errno;
    (void)close(fd);
    errno = failed;
    return -1;
}

static br_status open_listener(http *server, const char *url, br_error *error)
{
    nng_url *parts;
    const int wrong = nng_url_parse(&parts, url);
    if (wrong != 0) return br_fail(error, BR_EIO, "cannot serve \"%.300s\": %s", url, nng_strerror(wrong));
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    const bool any = *parts->u_hostname == '\0' || strcmp(parts->u_hostname, "*") == 0;
    const int unknown = getaddrinfo(any ? NULL : parts->u_hostname, parts->u_port, &hints, &addresses);
    nng_url_free(parts);
    if (unknown != 0)
        return br_fail(error, BR_EIO, "cannot serve \"%.300s\": %s", url, gai_strerror(unknown));
    server->listener = listen_on(addresses);
    freeaddrinfo(addresses);
    if (server->listener >= 0) return BR_OK;
    return br_fail(error, BR_EIO, "cannot serve \"%.300s\": %s", url, strerror(errno));
}

br_status http_open(http **out, const char *url, uint32_t patience_ms, http_answer_fn answer, void *context,
                    br_error *error)
{
    *out = NULL;
    http *server = calloc(1, sizeof *server);
    if (server == NULL) return br_no_memory(error, "the HTTP server");
    server->answer = answer;
    server->context = context;
    server->patience_ns = patience_ms * (uint64_t)BR_NS_PER_MS;
    server->stop = -1;
    server->listener = -1;
    br_status status = open_listener(server, url, error);
    if (status == BR_OK) {
        server->stop = eventfd(0, EFD_CLOEXEC);
        if (server->stop < 0 || !br_thread_start(&server->thread, serve, server))
            status = br_fail(error, BR_EINTERNAL, "cannot serve \"%.300s\": no thread", url);
    }
    if (status == BR_OK) {
        *out = server;
        return BR_OK;
    }
    if (server->listener >= 0) (void)close(server->listener);
    if (server->stop >= 0) (void)close(server->stop);
    free(server);
    return status;
}

void http_close(http *server)
{
    if (server == NULL) return;
    (void)eventfd_write(server->stop, 1);
    br_thread_join(server->thread);
    for (int i = 0; i < HTTP_CONNECTIONS_MAX; i++)
        if (server->connections[i].state != FREE) hang_up(&server->connections[i]);
    (void)close(server->listener);
    (void)close(server->stop);
    http_page_deinit(&server->page);
    free(server);
}
