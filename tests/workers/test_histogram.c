/* test_histogram.c - values land in the bucket of the first bound that is not below them. */
#include "workers/histogram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const br_scale scales[] = {BR_SCALE_TIME, BR_SCALE_QUERIES, BR_SCALE_TOKENS};
enum { SCALES = sizeof scales / sizeof *scales };

static void test_bounds_ascend_and_no_step_is_wider_than_two_and_a_half(void **state)
{
    (void)state;
    for (size_t s = 0; s < SCALES; s++) {
        int32_t count;
        const uint64_t *bounds = br_scale_bounds(scales[s], &count);
        assert_in_range(count, 2, BR_HISTOGRAM_BOUNDS_MAX);
        for (int32_t i = 1; i < count; i++) {
            assert_true(bounds[i] > bounds[i - 1]);
            assert_true(2 * bounds[i] <= 5 * bounds[i - 1]);
        }
    }
}

static void test_a_bound_belongs_to_the_bucket_below_it(void **state)
{
    (void)state;
    for (size_t s = 0; s < SCALES; s++) {
        int32_t count;
        const uint64_t *bounds = br_scale_bounds(scales[s], &count);
        br_histogram h;
        br_histogram_init(&h, scales[s]);
        for (int32_t i = 0; i < count; i++) {
            br_histogram_add(&h, bounds[i]);
            assert_int_equal(br_histogram_count(&h, i), i == 0 ? 1 : 2);
            br_histogram_add(&h, bounds[i] + 1);
            assert_int_equal(br_histogram_count(&h, i + 1), 1);
        }
    }
}

static void test_zero_the_largest_and_the_sum(void **state)
{
    (void)state;
    int32_t count;
    (void)br_scale_bounds(BR_SCALE_QUERIES, &count);
    br_histogram h;
    br_histogram_init(&h, BR_SCALE_QUERIES);
    assert_int_equal(br_histogram_sum(&h), 0);
    br_histogram_add(&h, 0);
    br_histogram_add(&h, 5);
    br_histogram_add(&h, 1u << 31);
    assert_int_equal(br_histogram_count(&h, 0), 1);
    assert_int_equal(br_histogram_count(&h, 3), 1);
    assert_int_equal(br_histogram_count(&h, count), 1);
    assert_int_equal(br_histogram_sum(&h), 5 + (1u << 31));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds_ascend_and_no_step_is_wider_than_two_and_a_half),
        cmocka_unit_test(test_a_bound_belongs_to_the_bucket_below_it),
        cmocka_unit_test(test_zero_the_largest_and_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
