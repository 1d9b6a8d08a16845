/* child.c - see child.h. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bestroute/client.h"
#include "options.h"

enum { READY_S = 120 };

static _Noreturn void become(const child *c, const char *daemon, const char *bundle, const char *flags)
{
    char *argv[FLAGS_MAX + 1] = {(char *)(uintptr_t)daemon, (char *)"--bundle",
                                 (char *)(uintptr_t)bundle, (char *)"--listen",
                                 (char *)(uintptr_t)c->url, (char *)"--log-level=error"};
    int count = 6;
    /* The kernel ends the service when this process ends, even by a signal. */
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != c->parent) _exit(1);
    flags_split(argv, &count, strdup(flags));
    execv(daemon, argv);
    (void)fprintf(stderr, "%s: %s\n", daemon, strerror(errno));
    _exit(127);
}

static br_status wait_ready(child *c, br_error *error)
{
    br_client *client;
    const br_client_options options = {.url = c->url, .timeout_ms = 1000, .connect_ms = 100};
    br_status status = br_client_connect(&client, &options, error);
    if (status != BR_OK) return status;
    for (time_t until = time(NULL) + READY_S; (status = br_client_ping(client, error)) != BR_OK;) {
        int how;
        if (waitpid(c->pid, &how, WNOHANG) == c->pid) {
            c->pid = 0;
            status = br_fail(error, BR_EIO, "the service ended before it was ready; see its messages above");
            break;
        }
        if (time(NULL) > until) break;
        (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    br_client_close(client);
    return status;
}

br_status child_start(child *out, const char *daemon, const char *bundle, const char *flags, br_error *error)
{
    *out = (child){.parent = getpid(), .folder = "/tmp/bestroute-bench-XXXXXX"};
    if (mkdtemp(out->folder) == NULL)
        return br_fail(error, BR_EIO, "cannot make a scratch folder: %s", strerror(errno));
    (void)snprintf(out->url, sizeof out->url, "ipc://%s/service", out->folder);
    out->pid = fork();
    if (out->pid == 0) become(out, daemon, bundle, flags);
    br_status status = out->pid > 0 ? BR_OK : br_fail(error, BR_EIO, "cannot fork: %s", strerror(errno));
    if (status == BR_OK) status = wait_ready(out, error);
    if (status != BR_OK) child_stop(out);
    return status;
}

void child_stop(child *c)
{
    if (c->pid > 0) {
        (void)kill(c->pid, SIGTERM);
        (void)waitpid(c->pid, NULL, 0);
    }
    c->pid = 0;
    char path[96];
    (void)snprintf(path, sizeof path, "%s/service", c->folder);
    (void)unlink(path);
    if (c->folder[0] != '\0') (void)rmdir(c->folder);
    c->folder[0] = '\0';
}
