/* main.c - the service's main: reads the configuration, creates, waits for signals, destroys. */
#include <errno.h>
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
    HURRY_S = 2,
};

/* STARTING: there is no server yet -> SERVING -> TIDYING: everything is answered and the server is being
 * destroyed -> DONE */
typedef enum phase { STARTING, SERVING, TIDYING, DONE } phase;

typedef struct signals {
    sigset_t set;
    pthread_t thread;

    /* Guards what follows. Held while the server is told of a signal, so that it is not destroyed
     * meanwhile. */
    pthread_mutex_t lock;
    br_server *server; /* from SERVING on */
    phase phase;
    int code;    /* of the process, from TIDYING on */
    int stops;   /* SIGTERM and SIGINT that came */
    int told;    /* of them, the server was told of so many */
    bool reload; /* SIGHUP came, and the server was not told yet */
} signals;

/* What came before there was a server is told as soon as there is one. Lock held. */
static void tell_server(signals *s)
{
    if (s->phase != SERVING) return;
    for (; s->told < s->stops; s->told++) br_server_stop(s->server);
    if (s->reload) br_server_reload(s->server);
    s->reload = false;
}

/* How long the process may go on without a further signal; 0: for ever. Lock held.
 * Tidying only frees memory, but nng 1.5 may wait for ever when it closes a connection in the middle of a
 * message (nanomsg/nng issue 1636). After a second signal anything else may hang too: a device, for example,
 * while a bundle is opened. */
static time_t patience_s(const signals *s)
{
    if (s->stops > 1) return HURRY_S;
    return s->phase == TIDYING ? TIDY_S : 0;
}

/* Waits for one signal; ends the process when it comes too late. False: the watch is over. */
static bool watch(signals *s)
{
    br_lock(&s->lock);
    const struct timespec patience = {.tv_sec = patience_s(s)};
    const bool over = s->phase == DONE;
    br_unlock(&s->lock);
    if (over) return false;

    const int signal =
        patience.tv_sec > 0 ? sigtimedwait(&s->set, NULL, &patience) : sigwaitinfo(&s->set, NULL);
    const bool too_late = signal < 0 && errno == EAGAIN;
    br_lock(&s->lock);
    const bool stop = signal == SIGTERM || signal == SIGINT;
    if (too_late || (stop && (s->phase == TIDYING || s->stops > 1))) _exit(s->code);
    if (stop) s->stops++;
    if (signal == SIGHUP) s->reload = true;
    tell_server(s);
    br_unlock(&s->lock);
    return true;
}

/* Signals become requests to the keeper, on a thread that may take locks. */
static void *watch_signals(void *argument)
{
    while (watch(argument)) {
    }
    return NULL;
}

static void enter(signals *s, phase next)
{
    br_lock(&s->lock);
    s->phase = next;
    tell_server(s);
    br_unlock(&s->lock);
    (void)pthread_kill(s->thread, SIGNAL_WAKE);
}

static int complain(const br_error *error)
{
    (void)fprintf(stderr, "bestrouted: %s\n", error->text);
    return 1;
}

/* BR_EDEVICE: it stopped by itself. */
static br_status serve(br_server *server, br_error *error)
{
    br_status status = br_server_listen(server, error);
    if (status == BR_OK) status = br_server_load(server, error);
    if (status != BR_OK && status != BR_ECLOSED) return status;
    status = br_server_run(server); /* told to stop while it was loading, it stops here */
    return status == BR_OK ? status : br_fail(error, status, "the engine's device was lost");
}

/* Creates the server and destroys it. */
static int serve_until_told(signals *s, const br_config *config, const br_log *log)
{
    br_error error = {0};
    br_server *server;
    if (br_server_create(&server, config, log, &error) != BR_OK) return complain(&error);
    s->server = server;
    enter(s, SERVING);
    const br_status status = serve(server, &error);
    s->code = status == BR_OK ? 0 : complain(&error);
    if (br_server_stuck(server)) _exit(s->code); /* its threads would never be joined */
    enter(s, TIDYING);
    br_server_destroy(server);
    return s->code;
}

static int start(const sigset_t *set, const br_config *config, const br_log *log)
{
    signals s = {.set = *set, .lock = PTHREAD_MUTEX_INITIALIZER};
    br_error error = {0};
    if (!br_thread_start(&s.thread, watch_signals, &s)) {
        (void)!br_fail(&error, BR_EINTERNAL, "cannot start the thread that watches signals");
        return complain(&error);
    }
    const int code = serve_until_told(&s, config, log);
    enter(&s, DONE);
    br_thread_join(s.thread);
    return code;
}

static int check(const br_config *config, const br_log *log)
{
    br_error error = {0};
    br_server *server;
    if (br_server_create(&server, config, log, &error) != BR_OK) return complain(&error);
    br_status status = br_server_check(server, &error);
    if (status == BR_OK) status = br_server_load(server, &error);
    br_server_destroy(server);
    if (status != BR_OK) return complain(&error);
    (void)printf("bestrouted: the configuration is valid and the bundle %s can be served\n", config->bundle);
    return 0;
}

static int run(const sigset_t *set, const br_config *config)
{
    const br_log log = {.stream = stderr, .level = (br_log_level)config->log_level};
    if (!config->check) return start(set, config, &log);
    (void)pthread_sigmask(SIG_UNBLOCK, set, NULL); /* nobody watches for them */
    return check(config, &log);
}

int main(int argc, char **argv)
{
    /* Before anything else: a signal that comes now waits for the thread that watches. All threads inherit
     * the mask, and no other one sees a signal. */
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGNAL_WAKE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN); /* the reader of the log may go away */

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
        code = run(&set, &config);
    br_config_deinit(&config);
    return code;
}
