/*
 * state.h - what the service is doing and with which bundle: the one lock that all its threads share.
 *
 *   LOADING --first bundle--> READY --drain, stop, or the last device lost--> DRAINING
 *      |                                                                         ^
 *      +--drain, stop------------------------------------------------------------+
 *
 * A pin holds the current bundle, and the admin's defaults beside it, for one call. A reload replaces the
 * bundle for later calls; the old one stays until its last pin is gone. It is then retired, and the keeper,
 * which waits on `changed`, frees it.
 *
 * The lock guards every field after it, and the fields of br_server that say so. While it is held no other
 * lock is taken and nothing is sent. keeper.c and recovery.c take it too; all other files call the functions
 * below, which any thread may call.
 */
#ifndef BESTROUTE_SERVE_STATE_H
#define BESTROUTE_SERVE_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/log.h"
#include "policy_defaults.h"
#include "workers/loaded.h"

typedef enum service_phase {
    PHASE_LOADING, /* no bundle yet */
    PHASE_READY,
    PHASE_DRAINING,
} service_phase;

typedef struct service_state {
    const br_log *log;
    uint64_t drain_timeout_ns;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* signalled when there is something for the keeper */
    service_phase phase;
    br_loaded *current; /* changed by the keeper's thread alone, which may read it without the lock */
    policy_defaults *defaults;
    int64_t calls_open;       /* calls admitted and not yet handed to nng */
    uint64_t drain_until_ns;  /* from PHASE_DRAINING on */
    bool stop_wanted;         /* drain, then leave br_server_run */
    bool stop_hurried;        /* leave without waiting any longer */
    bool device_lost;         /* the last one: br_server_run says so */
    atomic_bool stop_loading; /* read without the lock, by whoever reads a bundle's files */
    br_loaded *retired;       /* bundles without a pin; linked by br_loaded_link */
} service_state;

/* What a call holds from its admission to its reply. Zeroed: nothing. */
typedef struct bundle_pin {
    br_loaded *loaded;
    policy_defaults *defaults; /* may be NULL */
    bool counted;              /* among calls_open */
} bundle_pin;

/* Borrows the log. deinit: there is no bundle and no pin any more. */
void state_init(service_state *state, const br_log *log, int64_t drain_timeout_ms);
void state_deinit(service_state *state);

/* `counted`: a drain waits for the unpin. False when the service is not ready: *why says which, `out` is
 * unchanged. */
BR_NODISCARD bool state_pin(service_state *state, bundle_pin *out, bool counted, const char **why);
/* Accepts a zeroed pin. */
void state_unpin(service_state *state, const bundle_pin *pin);

/* The phase, and how many calls are open (NULL: not asked for). */
service_phase state_phase(service_state *state, int64_t *calls_open);

/* Answers `not_ready` from now on. At once: the keeper may be loading a bundle and come to it much later. */
void state_drain(service_state *state);
/* Drain, then end; the second time: end at once. A bundle that is being loaded is given up: the first one at
 * once, a later one the second time. */
void state_stop(service_state *state);
/* For the loss of the last device, which does not come back within the process: as state_stop, and
 * br_server_run returns BR_EDEVICE. */
void state_stop_without_device(service_state *state);
/* As state_stop, for a server that is being destroyed, whose keeper no longer runs. */
void state_close(service_state *state);
/* Waits until no call is open. After state_close. */
void state_wait_for_calls(service_state *state);

/* Makes it the current bundle and moves the caller's reference in. On the keeper's thread. */
void state_switch(service_state *state, br_loaded *loaded);

/* A reference to the defaults, for the caller to release; NULL: there are none. */
policy_defaults *state_defaults(service_state *state);
/* Replaces the defaults and moves the caller's reference in. False when `loaded` is no longer the current
 * bundle: then nothing is replaced, and the reference released. */
BR_NODISCARD bool state_set_defaults(service_state *state, const br_loaded *loaded,
                                     policy_defaults *defaults);

#endif
