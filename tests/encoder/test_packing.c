/* test_packing.c - prompts laid end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "encoder/packing.h"
#include "support/oom.h"

static const int32_t ids[] = {1, 9, 17, 2, 1, 9, 4, 6, 5, 2};

static void test_sequences_lie_end_to_end_between_offsets(void **state)
{
    (void)state;
    br_packing p;
    assert_int_equal(br_packing_init(&p, 10, 3), BR_OK);
    assert_int_equal(p.seqs, 0);
    assert_int_equal(p.tokens, 0);
    assert_int_equal(p.offsets[0], 0);

    assert_true(br_packing_add(&p, ids, 4));
    assert_true(br_packing_add(&p, ids + 4, 6));
    assert_int_equal(p.seqs, 2);
    assert_int_equal(p.tokens, 10);
    assert_int_equal(p.offsets[1], 4);
    assert_int_equal(p.offsets[2], 10);
    assert_memory_equal(p.ids, ids, sizeof ids);
    br_packing_deinit(&p);
}

static void test_what_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t tokens_max;
        int32_t seqs_max;
        int32_t lengths[4]; /* 0 ends the list; the last one must not fit */
        int32_t seqs;
    } cases[] = {
        {"one token too long at once", 3, 4, {4}, 0}, {"one token too many", 7, 4, {4, 4}, 1},
        {"full to the token", 8, 4, {4, 4, 1}, 2},    {"one sequence too many", 10, 2, {1, 1, 1}, 2},
        {"a single sequence", 10, 1, {10, 1}, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_packing p;
        assert_int_equal(br_packing_init(&p, cases[i].tokens_max, cases[i].seqs_max), BR_OK);
        int32_t tokens = 0;
        int32_t added = 0;
        for (int32_t k = 0; k < 4 && cases[i].lengths[k] > 0; k++) {
            if (!br_packing_add(&p, ids, cases[i].lengths[k])) break;
            tokens += cases[i].lengths[k];
            added++;
        }
        if (added != cases[i].seqs) fail_msg("%s: %d sequences were taken", cases[i].name, (int)added);
        assert_int_equal(p.seqs, added);
        assert_int_equal(p.tokens, tokens);
        assert_int_equal(p.offsets[p.seqs], tokens);
        br_packing_deinit(&p);
    }
}

static void test_clearing_makes_room_again(void **state)
{
    (void)state;
    br_packing p;
    assert_int_equal(br_packing_init(&p, 4, 1), BR_OK);
    for (int round = 0; round < 3; round++) {
        assert_true(br_packing_add(&p, ids + round, 4));
        assert_false(br_packing_add(&p, ids, 1));
        assert_int_equal(p.ids[0], ids[round]);
        br_packing_clear(&p);
        assert_int_equal(p.seqs, 0);
        assert_int_equal(p.tokens, 0);
    }
    br_packing_deinit(&p);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_packing p;
        status = br_packing_init(&p, 100, 10);
        failures += status == BR_ENOMEM;
        br_packing_deinit(&p);
    });
    assert_int_equal(status, BR_OK);
    assert_int_equal(failures, 2);
}

static void test_deinit_accepts_zeroed_and_released_packings(void **state)
{
    (void)state;
    br_packing p = {0};
    br_packing_deinit(&p);
    assert_int_equal(br_packing_init(&p, 1, 1), BR_OK);
    br_packing_deinit(&p);
    br_packing_deinit(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences_lie_end_to_end_between_offsets),
        cmocka_unit_test(test_what_does_not_fit_changes_nothing),
        cmocka_unit_test(test_clearing_makes_room_again),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_deinit_accepts_zeroed_and_released_packings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
