/* plot.c - see plot.h. */
#include "plot.h"

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM "bestroute-plot"

enum { PATH_BYTES = 4096 };

extern char **environ;

static br_status not_installed(br_error *error)
{
    return br_fail(error, BR_EINVAL,
                   "--plot needs the program " PROGRAM ", which is not on the PATH: install it with "
                   "`pip install ./python` or `pipx install ./python` in the source tree of bestroute");
}

static bool is_in(const char *folder, size_t length)
{
    char path[PATH_BYTES];
    const int bytes = snprintf(path, sizeof path, "%.*s/" PROGRAM, (int)length, folder);
    return bytes < (int)sizeof path && access(path, X_OK) == 0;
}

br_status br_plot_check(br_error *error)
{
    const char *folder = getenv("PATH");
    while (folder != NULL && *folder != '\0') {
        const size_t length = strcspn(folder, ":");
        if (length > 0 && length < PATH_BYTES && is_in(folder, length)) return BR_OK;
        folder += length + (folder[length] == ':');
    }
    return not_installed(error);
}

/* The report in a file without a name, to be read from its beginning. A pipe would need a second thread, or
 * end in SIGPIPE where the program does not read it. */
static br_status write_report(FILE **out, const json_t *report, br_error *error)
{
    FILE *file = tmpfile();
    *out = file;
    if (file == NULL) return br_fail(error, BR_EIO, "--plot: no temporary file: %s", strerror(errno));
    if (json_dumpf(report, file, JSON_COMPACT) == 0 && fflush(file) == 0 && fseek(file, 0, SEEK_SET) == 0)
        return BR_OK;
    return br_fail(error, BR_EIO, "--plot: the temporary file cannot be written: %s", strerror(errno));
}

/* Starts the program with `input` as its standard input. */
static br_status start(pid_t *pid, int input, const char *stem, br_error *error)
{
    /* posix_spawn takes strings that it could write to, and writes to none. */
    char *const argv[] = {(char *)PROGRAM, (char *)"--", (char *)"-", (char *)(uintptr_t)stem, NULL};
    posix_spawn_file_actions_t actions;
    int reason = posix_spawn_file_actions_init(&actions);
    if (reason == 0) {
        reason = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
        if (reason == 0) reason = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        if (reason == 0) reason = posix_spawnp(pid, PROGRAM, &actions, NULL, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    if (reason == ENOENT) return not_installed(error);
    return reason == 0 ? BR_OK : br_fail(error, BR_EIO, PROGRAM " cannot be started: %s", strerror(reason));
}

static br_status wait_for(pid_t pid, br_error *error)
{
    int how;
    while (waitpid(pid, &how, 0) < 0)
        if (errno != EINTR)
            return br_fail(error, BR_EIO, PROGRAM " cannot be waited for: %s", strerror(errno));
    if (WIFSIGNALED(how))
        return br_fail(error, BR_EIO, PROGRAM " was ended by signal %d (%s)", WTERMSIG(how),
                       strsignal(WTERMSIG(how)));
    if (WEXITSTATUS(how) == 0) return BR_OK;
    return br_fail(error, BR_EIO, PROGRAM " failed with exit status %d; it says why above", WEXITSTATUS(how));
}

br_status br_plot_draw(const json_t *report, const char *stem, br_error *error)
{
    FILE *file;
    pid_t pid;
    br_status status = write_report(&file, report, error);
    if (status == BR_OK) status = start(&pid, fileno(file), stem, error);
    if (status == BR_OK) status = wait_for(pid, error);
    if (file != NULL) (void)fclose(file);
    return status;
}
