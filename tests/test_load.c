/* test_load.c - the parts of the load generator that are pure: the histogram and the schedule. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "histogram.h"
#include "schedule.h"

static void test_every_value_is_known_to_a_thousandth(void **state)
{
    (void)state;
    static const uint64_t values[] = {0,    1,         2047,       2048,       2049,       4095,      4096,
                                      4097, 123456789, UINT64_MAX, 1000000000, 1ULL << 40, 1ULL << 63};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        histogram h;
        assert_true(histogram_init(&h));
        histogram_add(&h, values[i]);
        histogram_add(&h, UINT64_MAX); /* so that the largest does not hide the bucket */
        const uint64_t found = histogram_percentile(&h, 0.5);
        assert_true(found >= values[i]);
        assert_true(found - values[i] <= values[i] / 1000 + (values[i] < 2048 ? 0 : 1));
        assert_true(histogram_percentile(&h, 1) == UINT64_MAX);
        histogram_deinit(&h);
    }
}

static void test_percentiles_are_those_of_the_sorted_values(void **state)
{
    (void)state;
    histogram h;
    assert_true(histogram_init(&h));
    assert_true(histogram_percentile(&h, 0.5) == 0);
    for (uint64_t i = 1; i <= 1000; i++) histogram_add(&h, i);
    assert_true(histogram_percentile(&h, 0) == 1);
    assert_true(histogram_percentile(&h, 0.001) == 1);
    assert_true(histogram_percentile(&h, 0.5) == 500);
    assert_true(histogram_percentile(&h, 0.999) == 999);
    assert_true(histogram_percentile(&h, 1) == 1000);
    assert_true(histogram_mean(&h) == 500.5);
    histogram_deinit(&h);
    histogram_deinit(&h);
}

static void test_a_constant_rate_keeps_its_distances(void **state)
{
    (void)state;
    schedule s;
    schedule_init(&s, 1000, false, 7);
    for (uint64_t i = 0; i < 100; i++) assert_true(schedule_next(&s) == i * 1000000);
}

static void test_a_poisson_process_has_its_rate_its_spread_and_its_seed(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    schedule s;
    schedule same;
    schedule other;
    schedule_init(&s, 2000, true, 7);
    schedule_init(&same, 2000, true, 7);
    schedule_init(&other, 2000, true, 8);
    double sum = 0;
    double squares = 0;
    bool differs = false;
    uint64_t before = schedule_next(&s);
    (void)schedule_next(&same);
    (void)schedule_next(&other);
    for (int i = 0; i < COUNT; i++) {
        const uint64_t at = schedule_next(&s);
        assert_true(at == schedule_next(&same));
        differs = differs || at != schedule_next(&other);
        assert_true(at >= before);
        const double gap = (double)(at - before) / 1e9;
        sum += gap;
        squares += gap * gap;
        before = at;
    }
    const double mean = sum / COUNT;
    const double deviation = sqrt(squares / COUNT - mean * mean);
    assert_true(fabs(mean * 2000 - 1) < 0.02);
    assert_true(fabs(deviation * 2000 - 1) < 0.03); /* exponential: as large as the mean */
    assert_true(differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_is_known_to_a_thousandth),
        cmocka_unit_test(test_percentiles_are_those_of_the_sorted_values),
        cmocka_unit_test(test_a_constant_rate_keeps_its_distances),
        cmocka_unit_test(test_a_poisson_process_has_its_rate_its_spread_and_its_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
