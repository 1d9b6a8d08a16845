/* ipc_guard.c - see ipc_guard.h. */
#include "ipc_guard.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/alarm.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/limits.h"
#include "core/memory.h"
#include "core/thread.h"

enum {
    WATCHED_MAX = BR_LISTENERS_MAX + 1, /* the data socket's and the admin's */
    PERIOD_MS = 400,                    /* between rounds */
    PATIENCE_MS = 2000,                 /* for one connection to be reported */
    POLL_MS = 50,                       /* between looks at `stopping` */
};

typedef struct watched {
    nng_socket socket;
    nng_listener listener;
    char url[sizeof((struct sockaddr_un *)NULL)->sun_path + 8];
    int mode;
    bool connected; /* a connection was reported since the last try began */
} watched;

struct ipc_guard {
    const br_log *log;
    br_alarm *rounds;

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t news;  /* a connection was reported, or it is time to stop */
    bool stopping;
    watched all[WATCHED_MAX];
    int32_t count;
};

/* nng's: a connection is complete. */
static void on_connection(nng_pipe pipe, nng_pipe_ev event, void *argument)
{
    ipc_guard *g = argument;
    (void)event;
    const int id = nng_listener_id(nng_pipe_listener(pipe));
    br_lock(&g->lock);
    for (int32_t i = 0; i < g->count; i++) {
        if (nng_listener_id(g->all[i].listener) == id) g->all[i].connected = true;
    }
    br_cond_signal(&g->news);
    br_unlock(&g->lock);
}

static uint64_t patience_ends_ns(void)
{
    return br_clock_now_ns() + PATIENCE_MS * (uint64_t)BR_NS_PER_MS;
}

static const char *path_of(const char *url)
{
    return url + strlen("ipc://");
}

/* Connects to whoever listens there, without waiting; 0, or errno. */
static int try_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return errno;
    const int failed = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    (void)close(fd);
    return failed;
}

/* Whether nng may take the path. It removes what lies there and refuses connections, and takes a regular file
 * for a socket that nobody serves. */
static br_status check_path(const char *url, const char *option, br_error *error)
{
    struct stat info;
    if (stat(path_of(url), &info) != 0) return BR_OK; /* nothing there, or nng says why not */
    if (!S_ISSOCK(info.st_mode))
        return br_fail(error, BR_EIO, "%s: \"%.200s\" names %s, expected a socket or nothing", option, url,
                       S_ISREG(info.st_mode) ? "a regular file" : br_file_kind(info.st_mode));
    const int failed = try_connect(path_of(url));
    if (failed != 0 && failed != EAGAIN) return BR_OK;
    return br_fail(error, BR_EIO, "%s: cannot listen on \"%.200s\": another process serves this socket",
                   option, url);
}

static br_status open_listener(watched *w, int *result)
{
    nng_listener listener;
    *result = nng_listener_create(&listener, w->socket, w->url);
    if (*result != 0) return BR_EIO;
    if (w->mode != 0) *result = nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, w->mode);
    if (*result == 0) *result = nng_listener_start(listener, 0);
    if (*result != 0) {
        (void)nng_listener_close(listener);
        return BR_EIO;
    }
    w->listener = listener;
    return BR_OK;
}

/* Connects as a client and waits for the service's header. Returns the descriptor; -1 when the header did not
 * come. */
static int greet(ipc_guard *g, const char *path)
{
    static const char header[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0}; /* REQ, version 0 */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) goto fail;
    if (send(fd, header, sizeof header, MSG_NOSIGNAL) != (ssize_t)sizeof header) goto fail;

    const uint64_t until_ns = patience_ends_ns();
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    while (poll(&wait, 1, POLL_MS) == 0) {
        br_lock(&g->lock);
        const bool stopping = g->stopping;
        br_unlock(&g->lock);
        if (stopping || br_clock_now_ns() >= until_ns) goto fail;
    }
    return fd;

fail:
    (void)close(fd);
    return -1;
}

/* True when the listener accepts a connection; also when it is time to stop. Without the lock. */
static bool accepts(ipc_guard *g, watched *w)
{
    br_lock(&g->lock);
    w->connected = false;
    br_unlock(&g->lock);
    const int fd = greet(g, path_of(w->url));
    const uint64_t until_ns = patience_ends_ns();
    br_lock(&g->lock);
    while (fd >= 0 && !w->connected && !g->stopping && br_clock_now_ns() < until_ns)
        br_cond_wait_until(&g->news, &g->lock, until_ns);
    const bool good = w->connected || g->stopping;
    br_unlock(&g->lock);
    if (fd >= 0) (void)close(fd);
    return good;
}

static void recover(ipc_guard *g, watched *w)
{
    (void)nng_listener_close(w->listener);
    watched fresh = *w;
    int result = 0;
    br_error why = {0};
    const br_status status = check_path(w->url, "listen", &why);
    if (status != BR_OK || open_listener(&fresh, &result) != BR_OK) {
        /* The next round finds it closed and tries again. */
        BR_LOG(g->log, BR_LOG_ERROR, "listener_lost", BR_STR("url", w->url),
               BR_STR("reason", status != BR_OK ? why.text : nng_strerror(result)));
        return;
    }
    br_lock(&g->lock);
    w->listener = fresh.listener;
    br_unlock(&g->lock);
    BR_LOG(g->log, BR_LOG_WARN, "listener_reopened", BR_STR("url", w->url),
           BR_STR("reason", "it no longer accepted connections"));
}

/* The alarm's: tries every listener, and opens again what no longer accepts. */
static uint64_t make_round(void *context)
{
    ipc_guard *g = context;
    br_lock(&g->lock);
    const int32_t count = g->count;
    br_unlock(&g->lock);
    for (int32_t i = 0; i < count; i++)
        if (!accepts(g, &g->all[i])) recover(g, &g->all[i]);
    return br_clock_now_ns() + PERIOD_MS * (uint64_t)BR_NS_PER_MS;
}

br_status ipc_guard_create(ipc_guard **out, const br_log *log, br_error *error)
{
    *out = NULL;
    ipc_guard *g = calloc(1, sizeof *g);
    if (g == NULL) return br_no_memory(error, "the ipc guard");
    g->log = log;
    br_mutex_init(&g->lock);
    br_cond_init(&g->news);
    const br_status status = br_alarm_create(&g->rounds, make_round, g, 0);
    if (status != BR_OK) {
        ipc_guard_destroy(g);
        return br_fail(error, status, "cannot start the thread that watches ipc listeners");
    }
    *out = g;
    return BR_OK;
}

void ipc_guard_stop(ipc_guard *g)
{
    if (g == NULL) return;
    br_lock(&g->lock);
    g->stopping = true; /* also ends the round under way */
    br_cond_signal(&g->news);
    br_unlock(&g->lock);
    br_alarm_stop(g->rounds);
}

void ipc_guard_destroy(ipc_guard *g)
{
    if (g == NULL) return;
    ipc_guard_stop(g);
    br_alarm_destroy(g->rounds);
    br_cond_destroy(&g->news);
    br_mutex_destroy(&g->lock);
    free(g);
}

br_status ipc_guard_listen(ipc_guard *g, nng_socket socket, const char *url, int mode, const char *option,
                           br_error *error)
{
    if (strlen(url) >= sizeof g->all->url)
        return br_fail(error, BR_ETOOBIG, "%s: \"%.200s\" is too long for an ipc address", option, url);
    if (g->count == WATCHED_MAX)
        return br_fail(error, BR_ETOOBIG, "%s: more than %d ipc addresses", option, (int)WATCHED_MAX);
    const br_status status = check_path(url, option, error);
    if (status != BR_OK) return status;
    watched fresh = {.socket = socket, .mode = mode};
    memcpy(fresh.url, url, strlen(url) + 1);
    int result = nng_pipe_notify(socket, NNG_PIPE_EV_ADD_POST, on_connection, g);
    if (result == 0 && open_listener(&fresh, &result) == BR_OK) {
        br_lock(&g->lock);
        g->all[g->count++] = fresh;
        br_unlock(&g->lock);
        return BR_OK;
    }
    return br_fail(error, result == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "%s: cannot listen on \"%s\": %s",
                   option, url, nng_strerror(result));
}
