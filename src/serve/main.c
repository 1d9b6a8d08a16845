/* main.c - the service's main: reads the configuration, creates, waits for signals, destroys. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "core/thread.h"
#include "server.h"

extern char **environ;

enum {
    SIGNAL_WAKE = SIGUSR2, /* from main to the thread that watches signals; from elsewhere it is ignored */
    TIDY_S = 5,
};

/* SERVING -> TIDYING: everything is answered and the server is being destroyed -> DONE */
typedef enum phase { SERVING, TIDYING, DONE } phase;

typedef struct signals {
    sigset_t set;
    br_server *server;
    pthread_t thread;

    /* Guards the phase. Held while the server is told of a signal, so that the server is not destroyed
     * meanwhile. */
    pthread_mutex_t lock;
    phase phase;
    int code; /* of the process, from TIDYING on */
} signals;

static phase phase_of(signals *s)
{
    br_lock(&s->lock);
    const phase now = s->phase;
    br_unlock(&s->lock);
    return now;
}

static void watch_serving(signals *s)
{
    int signal = 0;
    if (sigwait(&s->set, &signal) != 0) return;
    br_lock(&s->lock);
    if (s->phase == SERVING && signal == SIGHUP) br_server_reload(s->server);
    if (s->phase == SERVING && (signal == SIGTERM || signal == SIGINT)) br_server_stop(s->server);
    br_unlock(&s->lock);
}

/* Tidying only frees memory. Ends the process when that takes longer than TIDY_S, or at a second signal: nng
 * 1.5 may wait for ever when it closes a connection in the middle of a message (nanomsg/nng issue 1636). */
static void watch_tidying(const signals *s)
{
    const struct timespec patience = {.tv_sec = TIDY_S};
    const int signal = sigtimedwait(&s->set, NULL, &patience);
    if (signal != SIGHUP && signal != SIGNAL_WAKE) _exit(s->code);
}

/* Signals become requests to the keeper, on a thread that may take locks. */
static void *watch_signals(void *argument)
{
    signals *s = argument;
    phase now;
    while ((now = phase_of(s)) != DONE) {
        if (now == SERVING)
            watch_serving(s);
        else
            watch_tidying(s);
    }
    return NULL;
}

static void enter(signals *s, phase next)
{
    br_lock(&s->lock);
    s->phase = next;
    br_unlock(&s->lock);
    (void)pthread_kill(s->thread, SIGNAL_WAKE);
}

static int complain(const br_error *error)
{
    (void)fprintf(stderr, "bestrouted: %s\n", error->text);
    return 1;
}

/* Destroys the server. */
static int serve(br_server *server, const sigset_t *set, br_error *error)
{
    signals s = {.set = *set, .server = server, .lock = PTHREAD_MUTEX_INITIALIZER};
    br_status status = br_server_listen(server, error);
    if (status == BR_OK && !br_thread_start(&s.thread, watch_signals, &s))
        status = br_fail(error, BR_EINTERNAL, "cannot start the thread that watches signals");
    if (status != BR_OK) {
        br_server_destroy(server);
        return complain(error);
    }
    status = br_server_load(server, error);
    if (status == BR_OK) {
        status = br_server_run(server);
        if (status != BR_OK) status = br_fail(error, status, "the engine's device was lost");
    }
    s.code = status == BR_OK ? 0 : complain(error);
    if (br_server_stuck(server)) _exit(s.code); /* its threads would never be joined */
    enter(&s, TIDYING);
    br_server_destroy(server);
    enter(&s, DONE);
    br_thread_join(s.thread);
    return s.code;
}

/* Destroys the server. */
static int check(br_server *server, const br_config *config, br_error *error)
{
    const br_status status = br_server_load(server, error);
    br_server_destroy(server);
    if (status != BR_OK) return complain(error);
    (void)printf("bestrouted: the configuration is valid and the bundle %s can be served\n", config->bundle);
    return 0;
}

static int start(const br_config *config)
{
    /* Before any thread exists: all of them inherit the mask, and only the thread that watches signals sees
     * any. */
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGNAL_WAKE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* the reader of the log may go away */

    const br_log log = {.stream = stderr, .level = (br_log_level)config->log_level};
    br_error error = {0};
    br_server *server;
    if (br_server_create(&server, config, &log, &error) != BR_OK) return complain(&error);
    return config->check ? check(server, config, &error) : serve(server, &set, &error);
}

int main(int argc, char **argv)
{
    br_config config;
    br_error error = {0};
    int code = 0;
    if (br_config_load(&config, argc, argv, environ, &error) != BR_OK)
        code = complain(&error);
    else if (config.help)
        br_config_print_help(stdout);
    else if (config.version)
        (void)printf("bestrouted %s\n", br_server_version());
    else
        code = start(&config);
    br_config_deinit(&config);
    return code;
}
