/* comm_id.c - see comm_id.h. */
#include "comm_id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"

enum { POLL_MS = 10 };

br_status comm_id_publish(const char *path, const void *id, size_t size, const char *folder, br_error *error)
{
    char part[4096];
    const int length = snprintf(part, sizeof part, "%s.%d", path, (int)getpid());
    if (length < 0 || (size_t)length >= sizeof part)
        return br_fail(error, BR_EIO, "ranks_id: the name is too long");
    const int file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0)
        return br_fail(error, BR_EIO, "ranks_id: cannot write \"%.400s\": %s", part, strerror(errno));
    const size_t folder_size = strlen(folder);
    bool good = write(file, id, size) == (ssize_t)size;
    good = good && write(file, folder, folder_size) == (ssize_t)folder_size;
    good = close(file) == 0 && good;
    good = good && rename(part, path) == 0;
    if (good) return BR_OK;
    const br_status status =
        br_fail(error, BR_EIO, "ranks_id: cannot write \"%.400s\": %s", path, strerror(errno));
    (void)unlink(part);
    return status;
}

void comm_id_withdraw(const char *path)
{
    (void)unlink(path);
}

/* Opens the file. -1: there is none, or it is too old. */
static int open_fresh(const char *path, int64_t timeout_ms, struct stat *is)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return -1;
    if (fstat(file, is) == 0 && (int64_t)(time(NULL) - is->st_mtime) * 1000 <= timeout_ms + 1000) return file;
    (void)close(file);
    return -1;
}

/* True: there was a complete file that is not too old. */
static bool read_once(const char *path, void *id, size_t size, int64_t timeout_ms)
{
    struct stat is;
    const int file = open_fresh(path, timeout_ms, &is);
    if (file < 0) return false;
    const bool whole = read(file, id, size) == (ssize_t)size;
    (void)close(file);
    return whole;
}

void comm_id_look(br_comm_call *out, const char *path, size_t size, int64_t timeout_ms)
{
    *out = (br_comm_call){0};
    struct stat is;
    const int file = open_fresh(path, timeout_ms, &is);
    if (file < 0) return;
    const ssize_t got = pread(file, out->folder, sizeof out->folder, (off_t)size);
    (void)close(file);
    if (got < 0 || (size_t)got == sizeof out->folder) return;
    /* A new file replaces the old one, so that its inode or its time differs. */
    out->stamp = (uint64_t)is.st_ino ^ ((uint64_t)is.st_mtim.tv_sec << 30 | (uint64_t)is.st_mtim.tv_nsec);
}

br_status comm_id_await(const char *path, void *id, size_t size, int64_t timeout_ms, uint64_t until_ns,
                        br_error *error)
{
    while (!read_once(path, id, size, timeout_ms)) {
        if (br_clock_now_ns() >= until_ns)
            return br_fail(error, BR_ETIMEDOUT, "ranks: rank 0 wrote no id to \"%.400s\" within %d ms", path,
                           (int)timeout_ms);
        (void)nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    return BR_OK;
}
