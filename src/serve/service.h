/*
 * service.h - what the files of the running service share: the server and its calls.
 *
 *   sockets.c     listeners, TLS, permissions
 *   monitor.c     metrics and probes
 *   ipc_guard.c       ipc listeners that go on accepting
 *   call.c        one context: receive, decode, hand on, send
 *   scoring.c     route and score: admit, prepare, tokenise, collect
 *   in_flight.c     identical prompts in flight
 *   answer.c      policies and the results of a finished call
 *   info.c        info, and the words of the reply that never change
 *   admin.c       the operations of the admin socket
 *   reload.c      bundles: load, try, switch, retire
 *   ranks.c       ranks: called, meeting, agreeing
 *   recovery.c      devices that failed: tried again, taken in again
 *   pass_watch.c  passes that do not end
 *   server.c      life and death, and the keeper
 *
 * A call's way, and who owns it:
 *
 *   RECEIVING (nng) -> WORKING: callback -> tokeniser thread -> batcher -> worker -> ANSWERING: callback -> SENDING (nng)
 *
 * Policies are applied and replies packed in nng's callback, as requests are unpacked there: workers go on to their
 * next pass, and a send from nng's own threads wakes no others, where one from a worker wakes two.
 *
 * Locks: `state_lock` guards the fields under it. While it is held no other lock is taken and nothing is sent. The
 * workers, their watch of deadlines, the tokenizer queue, the prompts in flight, the score cache, the pass watch and the ipc guard have a lock
 * each, which no other file sees: none is held across a call into this code, nor while another is taken.
 */
#ifndef BESTROUTE_SERVE_SERVICE_H
#define BESTROUTE_SERVE_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <nng/nng.h>

#include "http.h"
#include "ipc_guard.h"
#include "policy/policy.h"
#include "protocol/reply.h"
#include "score_cache.h"
#include "server.h"
#include "tokenizer_queue.h"
#include "workers/worker.h"

enum {
    SPARE_CONTEXTS = 64,        /* beyond queue_max, so that a refusal always finds a context */
    ADMIN_CONTEXTS = 8,         /* a reload occupies one for its whole time */
    MESSAGE_SLACK = 1 << 20,    /* a message this much over the limit still gets `too_large` */
    ARENA_KEEP_BYTES = 1 << 18, /* per context, between calls */
};

/* Policy overrides of the admin's set_defaults: immutable, counted, owning its strings. */
typedef struct br_defaults {
    atomic_int references;
    br_policy_spec policy;
    br_arena arena;
} br_defaults;

typedef struct br_call br_call;
typedef struct br_in_flight br_in_flight;
typedef struct br_pass_watch br_pass_watch;

typedef struct br_query_state {
    br_job job; /* first: workers hand this back */
    br_call *call;
    const br_query *query;
    br_query_error error;    /* code NONE: it was or will be scored */
    const br_policy *policy; /* route */
    br_prompt prompt;
    uint64_t tokenize_ns;

    /* in_flight.c's. */
    uint64_t hash; /* of the ids */
    struct br_query_state *by_hash;
    struct br_query_state *followers;
    struct br_query_state *next_follower;
} br_query_state;

struct br_call {
    tokenizer_queue_entry entry; /* first: the tokenizer queue hands this back */
    br_server *server;
    bool admin;
    enum { CALL_STOPPED, CALL_RECEIVING, CALL_WORKING, CALL_ANSWERING, CALL_SENDING } state;
    nng_ctx ctx;
    bool ctx_open;
    nng_aio *aio;
    nng_msg *message; /* the request while WORKING */
    br_arena arena;   /* reset for each request */
    br_request request;
    uint64_t client; /* the connection it came over */
    uint64_t arrival_ns;
    uint64_t deadline_ns; /* UINT64_MAX: none */

    /* route and score, from admission on. */
    br_loaded *loaded;
    br_defaults *defaults; /* may be NULL */
    br_policy policy;
    br_query_state *queries;
    atomic_int remaining; /* queries not yet finished; who brings it to 0 answers */

    br_call *next; /* reloads that wait for the keeper */
};

typedef enum br_phase {
    PHASE_LOADING, /* no bundle yet */
    PHASE_READY,
    PHASE_DRAINING,
} br_phase;

struct br_server {
    const br_config *config;
    const br_log *log;
    br_metrics metrics;
    br_devices devices; /* fitted to the first bundle */
    br_in_flight *in_flight;
    br_score_cache *cache; /* NULL: none */
    tokenizer_queue *tokenizer_queue;
    br_workers *workers;  /* made with the first bundle, before the phase is READY */
    br_pass_watch *watch; /* of their passes; NULL: none */

    http *monitor; /* NULL: none */
    nng_socket data;
    nng_socket admin;
    bool data_open;
    bool admin_open;
    ipc_guard *ipc_guard; /* of the ipc listeners */
    nng_listener listeners[BR_LISTENERS_MAX];
    const char *urls
        [BR_LISTENERS_MAX]; /* an ipc listener's, whose nng_listener the ipc guard holds; NULL for others */
    int32_t listener_count;
    br_call **calls; /* of both sockets */
    int32_t call_count;

    atomic_int_fast64_t admitted;        /* queries admitted and not yet scored */
    _Atomic uint64_t overload_logged_ns; /* when an overload was last logged */
    _Atomic uint64_t overloads_unlogged; /* refused since then */

    pthread_mutex_t state_lock;
    pthread_cond_t state_changed; /* on CLOCK_MONOTONIC */
    br_phase phase;
    br_loaded *current;
    br_defaults *defaults;
    struct {
        uint64_t due_ns;  /* when the device is tried again; 0: it is in */
        uint64_t wait_ms; /* before that */
    } recoveries[BR_DEVICES_MAX];
    int64_t calls_open; /* calls admitted and not yet handed to nng */
    bool stop_wanted;   /* drain, then leave br_server_run */
    bool device_lost;
    bool hurry; /* leave without waiting any longer */
    bool reload_wanted;
    uint64_t drain_until_ns; /* while draining, and running */
    br_call *reloads;        /* admin calls that wait for a reload, oldest first */
    br_loaded *retired;      /* nobody uses them any more; linked by br_loaded_link */

    /* The keeper's alone. */
    int32_t loaded_count; /* bundles that exist */
    br_loaded *kept;      /* retired ones of which a stuck worker has something; linked by br_loaded_link */
    struct {
        uint64_t look_ns;  /* when to look for a call next */
        uint64_t answered; /* the last call that was, or 0 */
    } ranks;
};

/* sockets.c */
BR_NODISCARD br_status br_sockets_open(br_server *server, br_error *error);
void br_sockets_close(br_server *server);

/* monitor.c. Statuses of http_open; close accepts that nothing is open. */
BR_NODISCARD br_status br_monitor_open(br_server *server, const char *url, br_error *error);
void br_monitor_close(br_server *server);

/* server.c: a worker's device failed. The context is the server. */
void br_server_lose_device(void *context, int32_t device, bool last);

/* recovery.c. Due: a device to try now, or -1; next: when to ask again. Both with the state lock held. */
void br_recovery_later(br_server *server, int32_t device);
int32_t br_recovery_due(br_server *server);
uint64_t br_recovery_next_ns(const br_server *server);
void br_recovery_try(br_server *server, int32_t device);

/* pass_watch.c: looks at the workers' passes, so that one which takes longer than timeout_ms, at least 1, is given up.
 * Borrows the workers. BR_ENOMEM, BR_EINTERNAL. destroy accepts NULL. */
BR_NODISCARD br_status br_pass_watch_create(br_pass_watch **out, br_workers *workers, int64_t timeout_ms);
void br_pass_watch_destroy(br_pass_watch *watch);

/* call.c: the request is answered and the call waits for the next one; it must not be touched afterwards. */
BR_NODISCARD br_status br_call_create(br_call **out, br_server *server, nng_socket socket, bool admin);
void br_call_destroy(br_call *call); /* accepts NULL; the socket is closed */
void br_call_start(br_call *call);
void br_call_answer(br_call *call); /* every query is finished: nng's threads go on with br_answer_finish */
void br_call_reply(br_call *call, const br_reply *reply);
void br_call_refuse(br_call *call, br_code code, const char *text);
void br_call_refuse_overload(br_call *call, uint64_t retry_ms, const char *text);

/* scoring.c */
void br_scoring_admit(br_call *call);
extern const tokenizer_queue_work br_scoring_work;
/* The policy that a request starts from: the bundle's, then the admin's. */
br_policy_spec br_scoring_base_policy(const br_loaded *loaded, const br_defaults *defaults);

/* in_flight.c. follow: false when the tokenised query is to be queued, and leads; true when its leader finishes it.
 * end: the leader's queries that followed it, linked by next_follower; none of anyone who never led. */
BR_NODISCARD br_status br_in_flight_create(br_in_flight **out, int64_t queue_max);
void br_in_flight_destroy(br_in_flight *in_flight); /* accepts NULL */
BR_NODISCARD bool br_in_flight_follow(br_in_flight *in_flight, br_query_state *q);
BR_NODISCARD br_query_state *br_in_flight_end(br_in_flight *in_flight, br_query_state *leader);

/* answer.c: every query of the call is finished. In the call's callback. */
void br_answer_finish(br_call *call);

/* info.c */
void br_info_answer(br_call *call);
void br_ping_answer(br_call *call);

/* admin.c */
void br_admin_handle(br_call *call);
void br_defaults_release(br_defaults *defaults);

/* reload.c */
BR_NODISCARD br_status br_reload(br_server *server, const char *folder, br_error *error);
/* Closes and destroys, on the keeper's thread. False when a stuck worker has something of it: that stays, and the
 * loaded bundle is kept. Accepts NULL. */
bool br_reload_collect(br_server *server, br_loaded *loaded);
/* The encoders of the device's workers, on their threads. */
BR_NODISCARD br_status br_reload_open_device(br_server *server, br_loaded *loaded, int32_t device,
                                             br_error *error);
/* False when some stay open, because their worker is stuck. */
BR_NODISCARD bool br_reload_close_device(br_server *server, br_loaded *loaded, int32_t device);

/* ranks.c. next: when to ask whether rank 0 has called. called: it has, and this call is not answered yet. */
uint64_t br_ranks_next_ns(const br_server *server);
BR_NODISCARD bool br_ranks_called(br_server *server, br_comm_call *call);
/* meet: statuses of br_comm_open. confirm: BR_OK when all ranks are ready, or none switches. leave: when the
 * communicator is closed. */
BR_NODISCARD br_status br_ranks_meet(br_server *server, br_comm **out, const char *folder, uint32_t without,
                                     br_error *error);
BR_NODISCARD br_status br_ranks_confirm(br_comm *ranks, br_status ready, br_error *error);
void br_ranks_leave(br_server *server);

/* server.c */
BR_NODISCARD bool br_server_pin(br_server *server, br_loaded **loaded, br_defaults **defaults, bool count,
                                const char **why);
void br_server_unpin(br_server *server, br_loaded *loaded, br_defaults *defaults, bool counted);
void br_server_ask_reload(br_server *server, br_call *call);

#endif
