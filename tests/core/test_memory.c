/* test_memory.c - aligned arrays and the arena of core/memory.h. */
#include "core/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/oom.h"

static void test_arrays_are_aligned_and_overflow_is_refused(void **state)
{
    (void)state;
    void *memory = br_alloc_array(3, 5);
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % BR_ALIGNMENT, 0);
    free(memory);

    memory = br_alloc_array(0, 8);
    assert_non_null(memory);
    free(memory);

    assert_null(br_alloc_array(SIZE_MAX / 2, 3));
    assert_null(br_alloc_array(SIZE_MAX, 1));
}

static void test_arena_pieces_are_zeroed_aligned_and_apart(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    unsigned char *pieces[200];
    for (size_t i = 0; i < 200; i++) {
        pieces[i] = br_arena_array(&arena, i, 7);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t k = 0; k < i * 7; k++) assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)i, i * 7);
    }
    for (size_t i = 0; i < 200; i++) {
        for (size_t k = 0; k < i * 7; k++) assert_int_equal(pieces[i][k], (unsigned char)i);
    }
    br_arena_deinit(&arena);
}

static void test_arena_refuses_sizes_that_overflow(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    assert_null(br_arena_array(&arena, SIZE_MAX, 2));
    assert_null(br_arena_array(&arena, SIZE_MAX - 8, 1));
    br_arena_deinit(&arena);
}

static void use_much(br_arena *arena)
{
    for (size_t i = 0; i < 100; i++) assert_non_null(br_arena_array(arena, 1000, 1));
}

static void test_a_warm_arena_allocates_nothing(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    use_much(&arena);
    br_arena_reset(&arena, 1 << 20);

    const size_t before = br_oom_count();
    for (int round = 0; round < 10; round++) {
        use_much(&arena);
        br_arena_reset(&arena, 1 << 20);
    }
    assert_int_equal(br_oom_count(), before);
    br_arena_deinit(&arena);
}

static void test_a_reset_lets_go_of_more_than_it_may_keep(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    use_much(&arena);
    br_arena_reset(&arena, 1000);
    assert_null(arena.blocks);
    br_arena_deinit(&arena);
}

static void test_an_arena_out_of_memory_stays_usable(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    br_oom_fail_at(1);
    assert_null(br_arena_array(&arena, 10, 10));
    assert_true(br_oom_off());
    assert_non_null(br_arena_array(&arena, 10, 10));
    br_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arrays_are_aligned_and_overflow_is_refused),
        cmocka_unit_test(test_arena_pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(test_arena_refuses_sizes_that_overflow),
        cmocka_unit_test(test_a_warm_arena_allocates_nothing),
        cmocka_unit_test(test_a_reset_lets_go_of_more_than_it_may_keep),
        cmocka_unit_test(test_an_arena_out_of_memory_stays_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
