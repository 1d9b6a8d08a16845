/*
 * call.h - one context of a socket: it receives a request, carries it to its reply, sends that, and receives
 * again.
 *
 *   RECEIVING --> WORKING --------------------------------------> ANSWERING --> SENDING --> RECEIVING
 *   nng           nng's callback, tokenizer thread, then worker   callback      nng
 *
 * A call that is WORKING belongs to the thread that works on it. Policies are applied and replies packed in
 * nng's callback (ANSWERING), as requests are unpacked there. So workers go on to their next pass; and a send
 * from one of nng's threads wakes no other thread, while a send from a worker wakes two.
 *
 * A call owns its pin: replying gives it back.
 */
#ifndef BESTROUTE_SERVE_CALL_H
#define BESTROUTE_SERVE_CALL_H

#include <stdatomic.h>
#include <stdbool.h>

#include <nng/nng.h>

#include "policy/policy.h"
#include "protocol/reply.h"
#include "protocol/request.h"
#include "service.h"
#include "state.h"
#include "tokenizer_queue.h"
#include "workers/workers.h"

typedef struct br_call br_call;

/* One query of a call, from admission on. */
typedef struct query_state {
    br_job job; /* first: workers hand this back */
    br_call *call;
    const br_query *query;
    int32_t *ids;            /* what job.ids points to, for the tokenizer to write */
    br_query_error error;    /* code NONE: the query was or will be scored */
    const br_policy *policy; /* route */
    br_prompt prompt;
    uint64_t tokenize_ns;

    /* in_flight.c's. */
    uint64_t hash; /* of the ids */
    struct query_state *by_hash;
    struct query_state *followers;
    struct query_state *next_follower;
} query_state;

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
    bundle_pin pin;       /* from admission to the reply; zeroed otherwise */

    /* route and score, from admission on. */
    br_policy policy;
    query_state *queries;
    atomic_int remaining; /* queries not yet finished; the thread that brings it to 0 answers */

    br_call *next; /* in the list of calls that wait for the keeper */
};

/* `on_event`: nng's callback, with the call as its argument. BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_call_create(br_call **out, br_server *server, nng_socket socket, bool admin,
                                      void (*on_event)(void *call));
void br_call_destroy(br_call *call); /* accepts NULL; the socket is closed */

/* Waits for the next request. */
void br_call_receive(br_call *call);

/* Pins the current bundle for the call; `counted`: a drain waits for the reply. False when there is none to
 * pin: then the call is refused already. */
BR_NODISCARD bool br_call_pin(br_call *call, bool counted);

/* Every query is finished: the callback goes on, on one of nng's threads. */
void br_call_answer(br_call *call);

/* The request is answered and the call waits for the next one; it must not be touched afterwards. */
void br_call_reply(br_call *call, const br_reply *reply);
void br_call_refuse(br_call *call, br_code code, const char *text);
void br_call_refuse_overload(br_call *call, uint64_t retry_ms, const char *text);

#endif
