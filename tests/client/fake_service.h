/*
 * fake_service.h - a scripted service for tests of clients.
 *
 * It reads real requests and writes real replies with the project's own encoder, or whatever else its script
 * says: refusals, bytes that are no reply, silence, a connection that closes. Answers are made up: candidates
 * (small, 2) and (large, 1), n of a result is the size of its text, and the text "bad" is infeasible.
 */
#ifndef BESTROUTE_TESTS_CLIENT_FAKE_SERVICE_H
#define BESTROUTE_TESTS_CLIENT_FAKE_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include <nng/nng.h>

#include "protocol/reply.h"

enum { FAKE_REPLY_BYTES_MAX = 1 << 16, FAKE_WORKERS = 4 };

typedef struct fake_reply {
    char bytes[FAKE_REPLY_BYTES_MAX];
    size_t used;
} fake_reply;

typedef struct fake fake;

typedef struct fake_worker {
    fake *owner;
    pthread_t thread;
    nng_ctx context;
    nng_aio *aio;
} fake_worker;

struct fake {
    /* The script. Set it before the first call; only what is atomic may change later. */
    br_code refusal;     /* not NONE: answered at the top level */
    atomic_int refusals; /* that many times; -1: always */
    uint64_t retry_ms;   /* of an overloaded refusal */
    const char *bytes;   /* not NULL: sent instead of a reply */
    size_t byte_count;
    size_t extra_results; /* more than there were queries */
    atomic_bool silent;
    uint32_t delay_ms;
    atomic_int closes; /* connections closed instead of an answer; -1: always */
    bool is_fleet;     /* pings come from a pinger: answered at once, not as the script says */
    /* What it saw. */
    atomic_int requests; /* all */
    atomic_int pings;    /* of them */
    atomic_uint_least64_t last_deadline_ms;
    char last_bundle[64];
    br_policy_spec last_policy;

    nng_socket socket;
    fake_worker workers[FAKE_WORKERS];
    pthread_mutex_t mutex; /* guards last_bundle and last_policy */
    char url[128];
};

/* Fills in the url, unless the script has one, and serves on FAKE_WORKERS threads. */
void fake_start(fake *f);
void fake_stop(fake *f);

/* The reply of success to `request`. */
void fake_answer(const fake *f, fake_reply *to, const br_request *request, br_arena *arena);

#endif
