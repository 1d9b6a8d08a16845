/*
 * file.h - regular files, read by their bytes.
 *
 * Nothing is mapped: a file that is shortened or overwritten while it is read gives an error, never SIGBUS.
 * Opening does not wait, whatever the path names: a FIFO, a device, a socket or a folder is an error.
 * Not thread-safe.
 *
 * Errors begin with the path. Every function returns BR_EIO for what the system refuses.
 */
#ifndef BESTROUTE_CORE_FILE_H
#define BESTROUTE_CORE_FILE_H

#include <stddef.h>
#include <sys/stat.h>

#include "bestroute/error.h"

typedef struct br_file {
    int fd;
    const char *path; /* borrowed */
    size_t size;      /* when it was opened */
    struct stat was;  /* the same */
} br_file;

/* BR_EIO: missing, unreadable, or no regular file. On failure there is nothing to close. */
BR_NODISCARD br_status br_file_open(br_file *out, const char *path, br_error *error);
void br_file_close(br_file *file);

/* `size` bytes from `offset`. BR_EIO: the file ends before. */
BR_NODISCARD br_status br_file_read_at(const br_file *file, void *to, size_t offset, size_t size,
                                       br_error *error);

/* BR_EIO when the file has been written to, or has another size, since it was opened. */
BR_NODISCARD br_status br_file_check_unchanged(const br_file *file, br_error *error);

/* "a folder", "a pipe (FIFO)", ...: what the path names instead of a regular file. */
const char *br_file_kind(mode_t mode);

/* The whole file as a string of *size bytes, with a zero byte behind them; release with free(). NULL on
 * failure. BR_ETOOBIG: more than bytes_max. BR_EIO: also a file that is written to meanwhile. BR_ENOMEM. */
BR_NODISCARD br_status br_file_load(char **out, size_t *size, const char *path, size_t bytes_max,
                                    br_error *error);

/* The same without a limit but memory. */
BR_NODISCARD br_status br_file_read(char **out, size_t *size, const char *path, br_error *error);

#endif
