/* test_job.c - what a job says of its times when it is finished, handed back, or queued again. */
#include "workers/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static int32_t done_count;

static void on_done(br_job *job)
{
    (void)job;
    done_count++;
}

/* Queued at 10, in a pass of 4 since 20. */
static br_job job_in_a_pass(void)
{
    return (br_job){.done = on_done, .queued_ns = 10, .started_ns = 20, .batch = 4};
}

static void test_a_finished_job_keeps_the_times_of_its_pass(void **state)
{
    (void)state;
    br_job job = job_in_a_pass();
    done_count = 0;
    job_finish(&job, BR_EDEVICE, 30);
    assert_int_equal(done_count, 1);
    assert_int_equal(job.status, BR_EDEVICE);
    assert_int_equal(job.queued_ns, 10);
    assert_int_equal(job.started_ns, 20);
    assert_int_equal(job.finished_ns, 30);
    assert_int_equal(job.batch, 4);
}

static void test_a_job_that_is_queued_again_waits_from_then_on(void **state)
{
    (void)state;
    br_job job = job_in_a_pass();
    done_count = 0;
    job_queue_again(&job, 30);
    assert_int_equal(done_count, 0);
    assert_true(job.retried);
    assert_int_equal(job.queued_ns, 30);
    assert_int_equal(job.started_ns, 0);
    assert_int_equal(job.batch, 0);
}

static void test_a_job_that_is_handed_back_was_in_no_pass(void **state)
{
    (void)state;
    br_job job = job_in_a_pass();
    done_count = 0;
    job_queue_again(&job, 30);
    job_hand_back(&job, BR_ETIMEDOUT, 40);
    assert_int_equal(done_count, 1);
    assert_int_equal(job.status, BR_ETIMEDOUT);
    assert_int_equal(job.started_ns, 0);
    assert_int_equal(job.finished_ns, 40);
    assert_int_equal(job.batch, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_finished_job_keeps_the_times_of_its_pass),
        cmocka_unit_test(test_a_job_that_is_queued_again_waits_from_then_on),
        cmocka_unit_test(test_a_job_that_is_handed_back_was_in_no_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
