/*
 * service.h - the running service, as the files of this folder share it.
 *
 * docs/ARCHITECTURE.md has the map of the folder, in its order: a file calls only files above it in that
 * table. Two paths lead upwards at run time. nng calls dispatch_event, which sockets.c gave to every call.
 * And an idle worker calls scoring_feed, which reload.c gave to the workers: so it tokenises the queries that
 * it then scores.
 *
 * Locks: the state's (see state.h), and one each in the workers, the tokenizer queue, the prompts in flight,
 * the score cache, the ipc guard and every alarm, which no other file sees. None is held across a call into
 * another file of this folder, nor while another is taken.
 */
#ifndef BESTROUTE_SERVE_SERVICE_H
#define BESTROUTE_SERVE_SERVICE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <nng/nng.h>

#include "config.h"
#include "server.h"
#include "state.h"
#include "workers/devices.h"
#include "workers/metrics.h"

struct br_call;
struct in_flight;
struct score_cache;
struct br_workers;
struct http;
struct ipc_guard;
struct tokenizer_queue;

struct br_server {
    const br_config *config;
    const br_log *log;
    br_metrics metrics;
    br_devices devices; /* fitted to the first bundle */
    service_state state;

    struct in_flight *in_flight;
    struct score_cache *cache; /* NULL: none */
    struct tokenizer_queue *tokenizer_queue;
    struct br_workers *workers; /* made with the first bundle, before the phase is READY */

    struct http *monitor; /* NULL: none */
    nng_socket data;
    nng_socket admin;
    bool data_open;
    bool admin_open;
    struct ipc_guard *ipc_guard; /* of the ipc listeners */
    nng_listener listeners[BR_LISTENERS_MAX];
    /* An ipc listener's, whose nng_listener the ipc guard holds; NULL for others. */
    const char *urls[BR_LISTENERS_MAX];
    int32_t listener_count;
    struct br_call **calls; /* of both sockets */
    int32_t call_count;

    atomic_int_fast64_t admitted;        /* queries admitted and not yet scored */
    _Atomic uint64_t overload_logged_ns; /* when an overload was last logged */
    _Atomic uint64_t overloads_unlogged; /* refused since then */

    /* Guarded by the state's lock. */
    struct {
        uint64_t due_ns;  /* when the device is tried again; 0: it is in */
        uint64_t wait_ms; /* before that */
    } recoveries[BR_DEVICES_MAX];
    bool reload_wanted;      /* by a signal */
    struct br_call *reloads; /* admin calls that wait for a reload, oldest first */

    /* The keeper's thread alone. */
    int32_t loaded_count; /* bundles that exist */
    br_loaded *kept; /* retired bundles of which a stuck worker has an encoder; linked by br_loaded_link */
    struct {
        uint64_t look_ns;  /* when to look for a call of rank 0 next */
        uint64_t answered; /* the stamp of the last call that was answered, or 0 */
    } ranks;
};

#endif
