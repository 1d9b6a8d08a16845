/* fleet_fixture.c - see fleet_fixture.h. */
#include "fleet_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#include "core/clock.h"

const br_client_query fleet_query = {.text = "four", .text_bytes = 4};
const br_client_call fleet_call = {.queries = &fleet_query, .query_count = 1};

double fleet_ms_since(uint64_t start_ns)
{
    return (double)(br_clock_now_ns() - start_ns) / BR_NS_PER_MS;
}

void fleet_pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * BR_NS_PER_MS}, NULL);
}

br_client_endpoint fleet_endpoint(const fleet *f, size_t index)
{
    br_client_endpoint all[FLEET_FAKES_MAX];
    assert_int_equal(br_client_stats(f->client, NULL, all, FLEET_FAKES_MAX), f->count);
    assert_string_equal(all[index].url, f->fakes[index].url);
    assert_int_equal(all[index].sent, all[index].outstanding + all[index].answered + all[index].refused +
                                          all[index].failed + all[index].abandoned);
    return all[index];
}

br_client_totals fleet_totals(const fleet *f)
{
    br_client_totals all;
    (void)br_client_stats(f->client, &all, NULL, 0);
    return all;
}

bool fleet_is_connected(const fleet *f, size_t index)
{
    return fleet_endpoint(f, index).connected;
}

bool fleet_is_usable(const fleet *f, size_t index)
{
    return fleet_endpoint(f, index).connected && !fleet_endpoint(f, index).ejected;
}

bool fleet_is_ejected(const fleet *f, size_t index)
{
    return fleet_endpoint(f, index).ejected;
}

bool fleet_is_asked(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].requests) > atomic_load(&f->fakes[index].pings);
}

bool fleet_is_pinged(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].pings) > 0;
}

void fleet_wait_until(fleet_condition *holds, const fleet *f, size_t index)
{
    const uint64_t start_ns = br_clock_now_ns();
    while (!holds(f, index)) {
        if (fleet_ms_since(start_ns) > FLEET_PATIENCE_MS) fail_msg("endpoint %zu: not in time", index);
        fleet_pause_ms(2);
    }
}

void fleet_start(fleet *f, br_client_options options)
{
    const char *urls[FLEET_FAKES_MAX];
    for (size_t i = 0; i < f->count; i++) {
        f->fakes[i].is_fleet = true;
        fake_start(&f->fakes[i]);
        urls[i] = f->fakes[i].url;
    }
    options.urls = urls;
    options.url_count = f->count;
    if (options.timeout_ms == 0) options.timeout_ms = FLEET_PATIENCE_MS;
    br_error error = {0};
    assert_int_equal(br_client_connect(&f->client, &options, &error), BR_OK);
    for (size_t i = 0; i < f->count; i++) fleet_wait_until(fleet_is_connected, f, i);
}

void fleet_stop(fleet *f)
{
    br_client_close(f->client);
    for (size_t i = 0; i < f->count; i++) fake_stop(&f->fakes[i]);
}

int fleet_asked(const fleet *f, size_t index)
{
    return atomic_load(&f->fakes[index].requests) - atomic_load(&f->fakes[index].pings);
}

int fleet_asked_in_all(const fleet *f)
{
    int sum = 0;
    for (size_t i = 0; i < f->count; i++) sum += fleet_asked(f, i);
    return sum;
}

br_status fleet_route(const fleet *f, br_error *error)
{
    br_answer *answer;
    const br_status status = br_client_route(f->client, &answer, &fleet_call, error);
    if (status == BR_OK) assert_int_equal(answer->results[0].n, fleet_query.text_bytes);
    assert_true((status == BR_OK) == (answer != NULL));
    br_answer_free(answer);
    return status;
}

void fleet_route_well(const fleet *f, int times)
{
    for (int i = 0; i < times; i++) {
        br_error error = {0};
        if (fleet_route(f, &error) != BR_OK) fail_msg("call %d: %s", i, error.text);
        assert_string_equal(error.text, "");
    }
}

static void *route_aside(void *context)
{
    aside *a = context;
    a->status = fleet_route(a->fleet, &a->error);
    return NULL;
}

void fleet_begin_aside(aside *a, const fleet *f)
{
    *a = (aside){.fleet = f};
    assert_int_equal(pthread_create(&a->thread, NULL, route_aside, a), 0);
}

br_status fleet_end_aside(aside *a)
{
    pthread_join(a->thread, NULL);
    return a->status;
}
