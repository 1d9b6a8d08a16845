/* test_backend.c - the names of engines, and errors for engines that are missing. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/engines.h"
#include "support/oom.h"

static void test_engines_have_the_names_of_the_command_line(void **state)
{
    (void)state;
    assert_string_equal(br_engine_name(BR_ENGINE_AUTO), "auto");
    assert_string_equal(br_engine_name(BR_ENGINE_REFERENCE), "reference");
    assert_string_equal(br_engine_name(BR_ENGINE_CPU), "cpu");
    assert_string_equal(br_engine_name(BR_ENGINE_CUDA), "cuda");
    assert_string_equal(BR_ENGINE_WORDS, "auto|reference|cpu|cuda");
}

static void test_an_open_backend_says_what_it_is(void **state)
{
    (void)state;
    static const struct {
        br_engine engine;
        br_precision asked;
        const char *name;
        br_precision precision;
    } cases[] = {
        {BR_ENGINE_REFERENCE, BR_PRECISION_AUTO, "reference", BR_PRECISION_F32},
        {BR_ENGINE_REFERENCE, BR_PRECISION_F32, "reference", BR_PRECISION_F32},
        {BR_ENGINE_REFERENCE, BR_PRECISION_BF16, "reference", BR_PRECISION_BF16},
        {BR_ENGINE_CPU, BR_PRECISION_F32, "cpu", BR_PRECISION_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_backend *backend = NULL;
        br_error error = {0};
        if (br_backend_open(&backend, cases[i].engine, cases[i].asked, 0, &error) != BR_OK)
            fail_msg("%s", error.text);
        assert_string_equal(backend->table->engine, cases[i].name);
        assert_int_equal(backend->precision, cases[i].precision);
        assert_int_equal(backend->activation, cases[i].precision == BR_PRECISION_F32 ? BR_F32 : BR_BF16);
        assert_int_equal(backend->residual, BR_F32);
        assert_true(strlen(backend->device) > 0);
        br_backend_close(backend);
    }
}

static void test_auto_never_stays_auto(void **state)
{
    (void)state;
    br_backend *backend = NULL;
    br_error error = {0};
    if (br_backend_open(&backend, BR_ENGINE_AUTO, BR_PRECISION_AUTO, 0, &error) != BR_OK)
        fail_msg("%s", error.text);
    assert_int_not_equal(backend->precision, BR_PRECISION_AUTO);
    br_backend_close(backend);
}

static void test_a_device_that_is_not_there_is_refused(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        br_backend *backend = NULL;
        br_error error = {0};
        assert_int_equal(br_backend_open(&backend, engines[i], BR_PRECISION_F32, 1, &error), BR_EINVAL);
        assert_null(backend);
        assert_non_null(strstr(error.text, "device 1"));
    }
}

static void test_a_build_without_cuda_says_so(void **state)
{
    (void)state;
    br_backend *backend = NULL;
    br_error error = {0};
    const br_status status = br_backend_open(&backend, BR_ENGINE_CUDA, BR_PRECISION_AUTO, 0, &error);
    if (status == BR_OK) {
        br_backend_close(backend);
        skip(); /* this build has it */
    }
    assert_true(status == BR_ENOTSUP || status == BR_EDEVICE);
    assert_null(backend);
    assert_non_null(strstr(error.text, "cuda"));
}

static void test_opening_survives_every_failing_allocation(void **state)
{
    (void)state;
    static const br_engine engines[] = {BR_ENGINE_REFERENCE, BR_ENGINE_CPU};
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        br_status status = BR_OK;
        BR_OOM_SWEEP({
            br_backend *backend = NULL;
            status = br_backend_open(&backend, engines[i], BR_PRECISION_F32, 0, NULL);
            assert_int_equal(backend == NULL, status != BR_OK);
            br_backend_close(backend);
        });
        assert_int_equal(status, BR_OK);
    }
}

static void test_cpus_are_served_by_one_stream_per_core_allowed(void **state)
{
    (void)state;
    cpu_set_t allowed;
    cpu_set_t one;
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    assert_int_equal(br_engine_streams(BR_ENGINE_CPU), CPU_COUNT(&allowed));
    assert_int_equal(br_engine_streams(BR_ENGINE_CUDA),
                     2); /* one computes while the batch of the other is packed and uploaded */

    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, &allowed)) continue;
        CPU_SET(core, &one);
        break;
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(br_engine_streams(BR_ENGINE_CPU), 1);
    assert_int_equal(br_engine_streams(BR_ENGINE_REFERENCE), 1);
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_have_the_names_of_the_command_line),
        cmocka_unit_test(test_an_open_backend_says_what_it_is),
        cmocka_unit_test(test_auto_never_stays_auto),
        cmocka_unit_test(test_a_device_that_is_not_there_is_refused),
        cmocka_unit_test(test_a_build_without_cuda_says_so),
        cmocka_unit_test(test_opening_survives_every_failing_allocation),
        cmocka_unit_test(test_cpus_are_served_by_one_stream_per_core_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
