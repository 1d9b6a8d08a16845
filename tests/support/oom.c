/* oom.c - the wrapped allocation functions of oom.h. */
#include "oom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_size_t total;
static atomic_size_t countdown; /* 0: no failure planned */
static atomic_int delivered;

static int fails(void)
{
    atomic_fetch_add(&total, 1);
    size_t left = atomic_load(&countdown);
    if (left == 0) return 0;
    atomic_store(&countdown, left - 1);
    if (left > 1) return 0;
    atomic_store(&delivered, 1);
    return 1;
}

void br_oom_fail_at(size_t n)
{
    atomic_store(&delivered, 0);
    atomic_store(&countdown, n);
}

int br_oom_off(void)
{
    atomic_store(&countdown, 0);
    return atomic_load(&delivered);
}

size_t br_oom_count(void)
{
    return atomic_load(&total);
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    return fails() ? ENOMEM : __real_posix_memalign(out, alignment, size);
}
