/* pass_watch.c - see pass_watch.h. */
#include "pass_watch.h"

#include <stdlib.h>

#include "core/alarm.h"
#include "core/clock.h"

struct br_pass_watch {
    br_workers *workers;
    uint64_t interval_ns;
    br_alarm *alarm;
};

/* A whole interval lies between two looks, however long the process was stopped. */
static uint64_t look(void *context)
{
    br_pass_watch *watch = context;
    br_workers_look(watch->workers);
    return br_clock_now_ns() + watch->interval_ns;
}

br_status br_pass_watch_create(br_pass_watch **out, br_workers *workers, int64_t timeout_ms)
{
    *out = NULL;
    br_pass_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) return BR_ENOMEM;
    watch->workers = workers;
    watch->interval_ns = (uint64_t)timeout_ms * (uint64_t)BR_NS_PER_MS / BR_WORKERS_LOOKS;
    const br_status status =
        br_alarm_create(&watch->alarm, look, watch, br_clock_now_ns() + watch->interval_ns);
    if (status != BR_OK) {
        free(watch);
        return status;
    }
    *out = watch;
    return BR_OK;
}

void br_pass_watch_destroy(br_pass_watch *watch)
{
    if (watch == NULL) return;
    br_alarm_destroy(watch->alarm);
    free(watch);
}
