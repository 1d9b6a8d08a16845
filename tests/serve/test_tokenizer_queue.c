/* test_tokenizer_queue.c - every part of every entry is worked on once, by any thread. */
#include "serve/tokenizer_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/oom.h"

enum { ENTRIES = 30 };

typedef struct parcel {
    tokenizer_queue_entry entry; /* first */
    int32_t parts;
    atomic_int prepared;
    atomic_int runs;
    atomic_int done[100];
    atomic_int left;
} parcel;

static int32_t prepare_parcel(tokenizer_queue_entry *entry)
{
    parcel *p = (parcel *)entry;
    atomic_fetch_add(&p->prepared, 1);
    return p->parts;
}

static void run_parcel(tokenizer_queue_entry *entry, int32_t first, int32_t count)
{
    parcel *p = (parcel *)entry;
    assert_in_range(count, 1, TOKENIZER_RUN);
    for (int32_t i = first; i < first + count; i++) atomic_fetch_add(&p->done[i], 1);
    atomic_fetch_add(&p->runs, 1);
    atomic_fetch_sub(&p->left, count);
}

static void test_the_queue_works_on_each_part_once(void **state)
{
    (void)state;
    static parcel parcels[ENTRIES];
    static const int32_t sizes[] = {1, TOKENIZER_RUN - 1, TOKENIZER_RUN, TOKENIZER_RUN + 1, 100, 0};
    const tokenizer_queue_work work_of = {.prepare = prepare_parcel, .run = run_parcel};
    for (int32_t threads = 1; threads <= 3; threads++) {
        memset(parcels, 0, sizeof parcels);
        tokenizer_queue *s;
        assert_int_equal(tokenizer_queue_create(&s, threads, &work_of), BR_OK);
        for (int i = 0; i < ENTRIES; i++) {
            parcels[i].parts = sizes[i % 6];
            atomic_store(&parcels[i].left, parcels[i].parts);
            tokenizer_queue_add(s, &parcels[i].entry);
            tokenizer_queue_wake(s);
        }
        tokenizer_queue_destroy(s); /* works through what is queued */
        for (int i = 0; i < ENTRIES; i++) {
            assert_int_equal(atomic_load(&parcels[i].prepared), 1);
            assert_int_equal(atomic_load(&parcels[i].left), 0);
            for (int k = 0; k < 100; k++)
                assert_int_equal(atomic_load(&parcels[i].done[k]), k < parcels[i].parts);
            assert_int_equal(atomic_load(&parcels[i].runs),
                             (parcels[i].parts + TOKENIZER_RUN - 1) / TOKENIZER_RUN);
        }
    }
    tokenizer_queue_destroy(NULL);
}

static void test_a_helper_steps_through_what_nobody_was_woken_for(void **state)
{
    (void)state;
    static parcel p;
    const tokenizer_queue_work work_of = {.prepare = prepare_parcel, .run = run_parcel};
    memset(&p, 0, sizeof p);
    p.parts = TOKENIZER_RUN;
    atomic_store(&p.left, p.parts);
    tokenizer_queue *s;
    assert_int_equal(tokenizer_queue_create(&s, 1, &work_of), BR_OK);
    assert_false(tokenizer_queue_help(s));
    tokenizer_queue_add(s, &p.entry);
    while (tokenizer_queue_help(s)) {
    }
    tokenizer_queue_destroy(s);
    assert_int_equal(atomic_load(&p.left), 0);
    assert_int_equal(atomic_load(&p.runs), 1);
}

static void test_creation_survives_every_failing_allocation(void **state)
{
    (void)state;
    br_status status = BR_EINTERNAL;
    const tokenizer_queue_work work_of = {.prepare = prepare_parcel, .run = run_parcel};
    BR_OOM_SWEEP({
        tokenizer_queue *s;
        status = tokenizer_queue_create(&s, 2, &work_of);
        tokenizer_queue_destroy(s);
    });
    assert_int_equal(status, BR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_queue_works_on_each_part_once),
        cmocka_unit_test(test_a_helper_steps_through_what_nobody_was_woken_for),
        cmocka_unit_test(test_creation_survives_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
