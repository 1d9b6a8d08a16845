/* test_load.c - the parts of the load generator that send nothing: the histogram, the schedule and traces. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "bench/histogram.h"
#include "bench/schedule.h"
#include "bench/trace.h"

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

/* A file in a folder of its own; removed with forget. */
static char path[64];

static void make_path(void)
{
    static char folder[32];
    (void)strcpy(folder, "/tmp/bestroute-trace-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/trace", folder);
}

static void forget(void)
{
    (void)unlink(path);
    *strrchr(path, '/') = '\0';
    assert_int_equal(rmdir(path), 0);
}

static void test_what_was_recorded_is_read_back(void **state)
{
    (void)state;
    make_path();
    recorder *r;
    br_error error = {0};
    assert_int_equal(recorder_create(&r, 3, 2, 250, &error), BR_OK);
    recorder_sent(r, 5000000, 1, 0); /* not in order: threads overtake each other */
    recorder_sent(r, 2001999, 0, 2);
    recorder_sent(r, 7000000, 0, 1); /* never answered */
    recorder_sent(r, 9000000, 0, 2);
    recorder_answered(r, 0, 0, 10);
    recorder_answered(r, 0, 1, 11);
    recorder_answered(r, 2, 0, 30);
    recorder_answered(r, 2, 1, 31);
    size_t missing;
    assert_int_equal(recorder_write(r, path, &missing, &error), BR_OK);
    assert_int_equal(missing, 2);
    assert_int_equal(recorder_write(r, "/nowhere/trace", &missing, &error), BR_EIO);
    recorder_destroy(r);

    static const trace_arrival expected[] = {
        {0, 0, 30, 250},    {0, 0, 31, 250},    {2999, 1, 10, 250},
        {2999, 1, 11, 250}, {6999, 0, 30, 250}, {6999, 0, 31, 250},
    };
    trace t;
    assert_int_equal(trace_read(&t, path, &error), BR_OK);
    assert_int_equal(t.count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < t.count; i++) {
        assert_int_equal(t.arrivals[i].us, expected[i].us);
        assert_int_equal(t.arrivals[i].client, expected[i].client);
        assert_int_equal(t.arrivals[i].tokens, expected[i].tokens);
        assert_int_equal(t.arrivals[i].deadline_ms, expected[i].deadline_ms);
    }
    trace_deinit(&t);
    forget();
}

static void test_a_line_that_is_none_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *says; /* NULL: it is read */
    } cases[] = {
        {"1 0 5 0\n# note\n2 0 5 0\n", NULL},
        {"", NULL},
        {"1 0 5 0\n\n", "line 2"},
        {"1 0 5\n", "line 1"},
        {"1 0 5 0 9\n", "line 1"},
        {"2 0 5 0\n1 0 5 0\n", "line 2"},
        {"1 0 0 0\n", "line 1"},
        {"1 0 100000 0\n", "line 1"},
        {"x 0 5 0\n", "line 1"},
    };
    make_path();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *file = fopen(path, "w");
        (void)fputs(cases[i].text, file);
        (void)fclose(file);
        trace t;
        br_error error = {0};
        const br_status status = trace_read(&t, path, &error);
        assert_int_equal(status, cases[i].says == NULL ? BR_OK : BR_EFORMAT);
        if (cases[i].says != NULL) assert_non_null(strstr(error.text, cases[i].says));
        trace_deinit(&t);
    }
    forget();
    trace t;
    br_error error = {0};
    assert_int_equal(trace_read(&t, "/nowhere", &error), BR_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_is_known_to_a_thousandth),
        cmocka_unit_test(test_percentiles_are_those_of_the_sorted_values),
        cmocka_unit_test(test_a_constant_rate_keeps_its_distances),
        cmocka_unit_test(test_a_poisson_process_has_its_rate_its_spread_and_its_seed),
        cmocka_unit_test(test_what_was_recorded_is_read_back),
        cmocka_unit_test(test_a_line_that_is_none_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
