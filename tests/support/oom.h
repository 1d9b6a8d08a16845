/*
 * oom.h - makes allocations fail on purpose.
 *
 * Test programs are linked with --wrap for the allocation functions, so calls
 * from our objects come here; calls inside libraries do not. Counts are atomic,
 * failing is for tests with one thread.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_OOM_H
#define BESTROUTE_TESTS_SUPPORT_OOM_H

#include <stddef.h>

/* The n-th allocation from now on (1 is the next) returns NULL, once; 0 lets all succeed. */
void br_oom_fail_at(size_t n);

/* Stops failing. Returns true when a failure was delivered since the last br_oom_fail_at. */
int br_oom_off(void);

/* Allocations made by our objects since the program started. */
size_t br_oom_count(void);

/*
 * Runs `body` (a block that tries to create something and destroys it again) with its 1st, 2nd, ...
 * allocation failing, until it gets by without a failure:
 *
 *   BR_OOM_SWEEP({ status = br_thing_create(&thing, ...); br_thing_destroy(thing); });
 */
#define BR_OOM_SWEEP(body)                                                                                   \
    do {                                                                                                     \
        for (size_t oom_n = 1; oom_n < 100000; oom_n++) {                                                    \
            br_oom_fail_at(oom_n);                                                                           \
            body if (!br_oom_off()) break;                                                                   \
        }                                                                                                    \
    } while (0)

#endif
