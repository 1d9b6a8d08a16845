/*
 * few_threads.c - a system that gives few threads: preloaded, it refuses pthread_create while THREADS_MAX
 * threads that it started are running.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

typedef struct start {
    void *(*run)(void *);
    void *context;
} start;

static atomic_int running;

static void end(void *unused)
{
    (void)unused;
    atomic_fetch_sub(&running, 1);
}

static void *run_counted(void *argument)
{
    const start s = *(start *)argument;
    free(argument);
    void *result;
    pthread_cleanup_push(end, NULL);
    result = s.run(s.context);
    pthread_cleanup_pop(1);
    return result;
}

int pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *context)
{
    create real;
    void *found = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&real, &found, sizeof real);
    const char *most = getenv("THREADS_MAX");
    if (most == NULL) return real(out, attributes, run, context);
    if (atomic_fetch_add(&running, 1) < atoi(most)) {
        start *s = malloc(sizeof *s);
        if (s != NULL) {
            *s = (start){.run = run, .context = context};
            if (real(out, attributes, run_counted, s) == 0) return 0;
            free(s);
        }
    }
    atomic_fetch_sub(&running, 1);
    return EAGAIN;
}
