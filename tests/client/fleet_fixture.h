/*
 * fleet_fixture.h - several scripted services and a client over them.
 *
 * Zero it, set `count` and the scripts, then start. Endpoint 0 has the first turn. The functions assert with
 * cmocka. Counts of what a service was asked leave out pings.
 */
#ifndef BESTROUTE_TESTS_CLIENT_FLEET_FIXTURE_H
#define BESTROUTE_TESTS_CLIENT_FLEET_FIXTURE_H

#include "bestroute/client.h"
#include "fake_service.h"

enum {
    FLEET_FAKES_MAX = 4,
    FLEET_PATIENCE_MS = 150000, /* for what must happen, on a busy machine */
};

typedef struct fleet {
    fake fakes[FLEET_FAKES_MAX];
    size_t count;
    br_client *client;
} fleet;

/* One query, answered with n = 4. */
extern const br_client_query fleet_query;
extern const br_client_call fleet_call;

/* Starts the services and waits until the client is connected to all of them. The urls are filled in, and a
 * timeout_ms of 0 becomes FLEET_PATIENCE_MS. */
void fleet_start(fleet *f, br_client_options options);
void fleet_stop(fleet *f);

double fleet_ms_since(uint64_t start_ns);
void fleet_pause_ms(long ms);

/* Checks that the counters add up. */
br_client_endpoint fleet_endpoint(const fleet *f, size_t index);
br_client_totals fleet_totals(const fleet *f);

int fleet_asked(const fleet *f, size_t index);
int fleet_asked_in_all(const fleet *f);

typedef bool fleet_condition(const fleet *f, size_t index);
fleet_condition fleet_is_connected;
fleet_condition fleet_is_usable; /* connected, not ejected */
fleet_condition fleet_is_ejected;
fleet_condition fleet_is_asked;
fleet_condition fleet_is_pinged;
void fleet_wait_until(fleet_condition *holds, const fleet *f, size_t index);

/* One call of fleet_call; a right answer is checked. */
br_status fleet_route(const fleet *f, br_error *error);
/* Each of so many calls has to succeed. */
void fleet_route_well(const fleet *f, int times);

/* A call on a thread of its own. */
typedef struct aside {
    const fleet *fleet;
    pthread_t thread;
    br_status status;
    br_error error;
} aside;

void fleet_begin_aside(aside *a, const fleet *f);
br_status fleet_end_aside(aside *a);

#endif
