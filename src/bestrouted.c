/* bestrouted.c - the service's main: reads the configuration, creates, waits for signals, destroys. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "bestroute/server.h"

extern char **environ;

enum { SIGNAL_WAKE = SIGUSR2 }; /* from main to its own signal thread; from elsewhere it means nothing */

typedef struct signals {
    sigset_t set;
    br_server *server;
    atomic_bool leaving;
} signals;

/* Signals become requests to the keeper, on a thread that may take locks. */
static void *watch_signals(void *argument)
{
    signals *s = argument;
    while (!atomic_load(&s->leaving)) {
        int signal = 0;
        if (sigwait(&s->set, &signal) != 0) continue;
        if (signal == SIGHUP) br_server_reload(s->server);
        if (signal == SIGTERM || signal == SIGINT) br_server_stop(s->server);
    }
    return NULL;
}

static int complain(const br_error *error)
{
    (void)fprintf(stderr, "bestrouted: %s\n", error->text);
    return 1;
}

static int serve(br_server *server, const sigset_t *set, br_error *error)
{
    if (br_server_listen(server, error) != BR_OK) return complain(error);
    signals s = {.set = *set, .server = server};
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch_signals, &s) != 0) {
        const br_status none = br_fail(error, BR_EINTERNAL, "cannot start the thread that watches signals");
        (void)none;
        return complain(error);
    }
    br_status status = br_server_load(server, error);
    if (status == BR_OK) {
        status = br_server_run(server);
        if (status != BR_OK) status = br_fail(error, status, "the engine's device was lost");
    }
    atomic_store(&s.leaving, true);
    (void)pthread_kill(thread, SIGNAL_WAKE);
    (void)pthread_join(thread, NULL);
    return status == BR_OK ? 0 : complain(error);
}

static int check(br_server *server, const br_config *config, br_error *error)
{
    if (br_server_load(server, error) != BR_OK) return complain(error);
    (void)printf("bestrouted: the configuration is valid and the bundle %s can be served\n", config->bundle);
    return 0;
}

static int start(const br_config *config)
{
    /* Before any thread exists, so that all of them inherit the mask and only the watcher sees signals. */
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGNAL_WAKE);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);

    const br_log log = {.stream = stderr, .level = (br_log_level)config->log_level};
    br_error error = {0};
    br_server *server;
    if (br_server_create(&server, config, &log, &error) != BR_OK) return complain(&error);
    const int code = config->check ? check(server, config, &error) : serve(server, &set, &error);
    if (br_server_stuck(server)) _exit(code); /* its threads would never be joined */
    br_server_destroy(server);
    return code;
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
