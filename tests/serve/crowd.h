/*
 * crowd.h - clients that keep a service busy and look at every reply: each request is answered once, with the
 * qualities its prompts have.
 *
 * Each client has a window of requests in flight over a raw socket, which also receives replies that no
 * request waits for.
 */
#ifndef BESTROUTE_TESTS_SERVE_CROWD_H
#define BESTROUTE_TESTS_SERVE_CROWD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "support/service_fixture.h"

enum { CROWD_PROMPTS = 40, CROWD_CLIENTS = 4, CROWD_WINDOW = 8, CROWD_QUERIES = 2 };

typedef struct crowd crowd;

typedef struct crowd_client {
    crowd *all;
    pthread_t thread;
    nng_socket socket;
    uint32_t next; /* of request ids */
    struct {
        uint32_t id; /* 0: the place is free */
        int prompt;  /* the first of its CROWD_QUERIES */
    } sent[CROWD_WINDOW];
    int out; /* places taken */
} crowd_client;

struct crowd {
    float expected[CROWD_PROMPTS][BR_CANDIDATES_MAX];
    size_t qualities;
    crowd_client clients[CROWD_CLIENTS];
    atomic_bool pausing; /* nothing new is sent */
    atomic_bool leaving;

    atomic_int answered; /* requests */
    atomic_int out;      /* requests on the way */
    atomic_int internal; /* queries that a device failed twice with */
    atomic_int wrong;    /* replies with neither that nor the expected qualities */
    atomic_int lost;     /* requests without a reply */
    atomic_int strange;  /* replies that no request waits for */
};

/* Learns the right answer to every prompt from a sound service, and begins. */
void crowd_start(crowd *c, const service *s);

/* Waits for so many more answers. */
void crowd_wait(crowd *c, int answers);

/* Waits for every reply, ends, and fails the test if any was lost, wrong or strange. */
void crowd_stop(crowd *c);

#endif
