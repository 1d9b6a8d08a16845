/* test_devices.c - the list of devices: what is accepted, what is refused, how many workers each device
 * gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/devices.h"

static br_status open_with(br_devices *out, br_engine engine, const char *list, int32_t workers,
                           br_error *error)
{
    const br_devices_options options = {
        .engine = engine, .list = list, .source = "the test", .workers = workers, .gemm_cache = ""};
    return br_devices_open(out, &options, error);
}

static void test_workers_follow_one_another_device_by_device(void **state)
{
    (void)state;
    br_devices devices;
    br_error error = {0};
    if (open_with(&devices, BR_ENGINE_REFERENCE, "cpu,cpu,cpu", 2, &error) != BR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(devices.count, 3);
    assert_int_equal(devices.worker_count, 6);
    for (int32_t i = 0; i < 6; i++) assert_int_equal(devices.device_of[i], i / 2);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(devices.items[i].first_worker, 2 * i);
        assert_false(br_device_is_accelerator(&devices.items[i]));
        for (int32_t k = 0; k < i; k++)
            assert_ptr_not_equal(devices.items[i].backend, devices.items[k].backend);
    }
    br_devices_close(&devices);
    assert_int_equal(devices.count, 0);
}

static void test_cores_are_shared_and_each_device_gets_one_at_least(void **state)
{
    (void)state;
    br_devices one;
    br_devices many;
    br_error error = {0};
    if (open_with(&one, BR_ENGINE_CPU, "auto", 0, &error) != BR_OK) fail_msg("%s", error.text);
    if (open_with(&many, BR_ENGINE_CPU, "cpu,cpu,cpu,cpu", 0, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(one.count, 1);
    assert_true(many.worker_count <= (one.worker_count > 4 ? one.worker_count : 4));
    for (int32_t i = 0; i < 4; i++) assert_true(many.items[i].workers >= 1);
    br_devices_close(&one);
    br_devices_close(&many);
}

static void test_a_wrong_list_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        br_devices_options options;
        const char *says;
    } cases[] = {
        {{.engine = BR_ENGINE_REFERENCE, .list = "0"}, "only the devices of engine cuda have numbers"},
        {{.engine = BR_ENGINE_CPU, .list = "cpu,"}, "expected auto"},
        {{.engine = BR_ENGINE_CPU, .list = ""}, "expected auto"},
        {{.engine = BR_ENGINE_CPU, .list = "gpu"}, "found \"gpu\""},
        {{.engine = BR_ENGINE_CPU, .list = "cpu,-1"}, "found \"-1\""},
        {{.engine = BR_ENGINE_CPU, .list = "auto,cpu"}, "found \"auto\""},
        {{.noop = true, .list = "cpu"}, "engine noop"},
        {{.engine = BR_ENGINE_REFERENCE,
          .list = "cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu,cpu"},
         "more than 16"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_devices devices;
        br_error error = {0};
        br_devices_options options = cases[i].options;
        options.source = "the test";
        options.workers = 1;
        options.gemm_cache = "";
        if (br_devices_open(&devices, &options, &error) != BR_EINVAL)
            fail_msg("\"%s\" was taken", options.list);
        if (strstr(error.text, cases[i].says) == NULL) fail_msg("\"%s\": %s", options.list, error.text);
        assert_non_null(strstr(error.text, "devices (from the test)"));
        assert_int_equal(devices.count, 0);
    }
}

static void test_workers_of_all_devices_together_are_bounded(void **state)
{
    (void)state;
    br_devices devices;
    br_error error = {0};
    assert_int_equal(open_with(&devices, BR_ENGINE_REFERENCE, "cpu,cpu", 33, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "workers: more than 64"));
    assert_int_equal(open_with(&devices, BR_ENGINE_REFERENCE, "cpu,cpu", 32, &error), BR_OK);
    br_devices_close(&devices);
}

static void test_budgets_are_the_devices_own_unless_one_is_asked_for(void **state)
{
    (void)state;
    br_devices devices;
    br_error error = {0};
    assert_int_equal(open_with(&devices, BR_ENGINE_REFERENCE, "cpu,cpu", 1, &error), BR_OK);
    devices.items[1].backend->batch_tokens = 2816;
    assert_int_equal(br_devices_tokens_max(&devices), 0);
    br_devices_fit(&devices, 0, 600);
    assert_int_equal(devices.items[0].tokens_max, 600); /* 512 of its own do not hold the longest prompt */
    assert_int_equal(devices.items[1].tokens_max, 2816);
    assert_int_equal(br_devices_tokens_max(&devices), 2816);
    assert_int_equal(br_devices_tokens_min(&devices), 600);
    br_devices_fit(&devices, 1000, 600);
    assert_int_equal(br_devices_tokens_min(&devices), 1000);
    assert_int_equal(br_devices_tokens_max(&devices), 1000);
    br_devices_fit(&devices, 100, 600); /* a prompt of 600 goes alone */
    assert_int_equal(devices.items[1].tokens_wanted, 100);
    assert_int_equal(devices.items[1].tokens_max, 600);
    br_devices_close(&devices);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_follow_one_another_device_by_device),
        cmocka_unit_test(test_cores_are_shared_and_each_device_gets_one_at_least),
        cmocka_unit_test(test_a_wrong_list_is_refused_by_name),
        cmocka_unit_test(test_workers_of_all_devices_together_are_bounded),
        cmocka_unit_test(test_budgets_are_the_devices_own_unless_one_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
