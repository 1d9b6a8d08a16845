/* file.c - see file.h. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"

const char *br_file_kind(mode_t mode)
{
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe (FIFO)";
    if (S_ISSOCK(mode)) return "a socket";
    if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
    return "something else";
}

br_status br_file_open(br_file *out, const char *path, br_error *error)
{
    *out = (br_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), .path = path};
    if (out->fd < 0) return br_fail(error, BR_EIO, "%s: cannot open: %s", path, strerror(errno));
    br_status status = BR_OK;
    if (fstat(out->fd, &out->was) != 0)
        status = br_fail(error, BR_EIO, "%s: cannot stat: %s", path, strerror(errno));
    else if (!S_ISREG(out->was.st_mode))
        status = br_fail(error, BR_EIO, "%s: found %s, expected a regular file", path,
                         br_file_kind(out->was.st_mode));
    if (status != BR_OK) {
        br_file_close(out);
        return status;
    }
    out->size = (size_t)out->was.st_size;
    return BR_OK;
}

void br_file_close(br_file *file)
{
    if (file->fd >= 0) (void)close(file->fd);
    file->fd = -1;
}

br_status br_file_read_at(const br_file *file, void *to, size_t offset, size_t size, br_error *error)
{
    size_t at = 0;
    while (at < size) {
        const ssize_t count = pread(file->fd, (char *)to + at, size - at, (off_t)(offset + at));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return br_fail(error, BR_EIO, "%s: cannot read: %s", file->path, strerror(errno));
        if (count == 0)
            return br_fail(error, BR_EIO, "%s: found %zu bytes, expected %zu: it shrank while it was read",
                           file->path, offset + at, file->size);
        at += (size_t)count;
    }
    return BR_OK;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

br_status br_file_check_unchanged(const br_file *file, br_error *error)
{
    struct stat now;
    if (fstat(file->fd, &now) != 0)
        return br_fail(error, BR_EIO, "%s: cannot stat: %s", file->path, strerror(errno));
    if (now.st_size == file->was.st_size && same_time(&now.st_mtim, &file->was.st_mtim)) return BR_OK;
    return br_fail(error, BR_EIO, "%s: it was written to while it was read", file->path);
}

static br_status load(char **out, const br_file *file, size_t bytes_max, br_error *error)
{
    if (file->size > bytes_max)
        return br_fail(error, BR_ETOOBIG, "%s: found %zu bytes, expected at most %zu", file->path, file->size,
                       bytes_max);
    char *bytes = malloc(file->size + 1);
    if (bytes == NULL) return br_no_memory(error, "%s", file->path);
    br_status status = br_file_read_at(file, bytes, 0, file->size, error);
    if (status == BR_OK) status = br_file_check_unchanged(file, error);
    if (status != BR_OK) {
        free(bytes);
        return status;
    }
    bytes[file->size] = '\0';
    *out = bytes;
    return BR_OK;
}

br_status br_file_load(char **out, size_t *size, const char *path, size_t bytes_max, br_error *error)
{
    *out = NULL;
    *size = 0;
    br_file file;
    br_status status = br_file_open(&file, path, error);
    if (status != BR_OK) return status;
    status = load(out, &file, bytes_max, error);
    if (status == BR_OK) *size = file.size;
    br_file_close(&file);
    return status;
}

br_status br_file_read(char **out, size_t *size, const char *path, br_error *error)
{
    return br_file_load(out, size, path, SIZE_MAX - 1, error);
}
