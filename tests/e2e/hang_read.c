/*
 * hang_read.c - a disk that hangs: preloaded, it makes pread wait for ever.
 */
#include <sys/types.h>
#include <unistd.h>

ssize_t pread(int fd, void *to, size_t size, off_t offset);

ssize_t pread(int fd, void *to, size_t size, off_t offset)
{
    (void)fd;
    (void)to;
    (void)size;
    (void)offset;
    for (;;) (void)pause();
}
