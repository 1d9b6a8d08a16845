/*
 * service_fixture.h - a service inside the test's own process, and a peer that talks to it.
 *
 * The service runs the tiny bundle on the reference engine, with one worker, listening on
 * inproc:// and whatever the test adds. A gate can hold its workers still, so that
 * queues fill without any timing. A peer sends requests made by br_request_encode
 * and decodes replies by br_reply_decode: both are tested on their own.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_SERVICE_FIXTURE_H
#define BESTROUTE_TESTS_SUPPORT_SERVICE_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <nng/nng.h>

#include "protocol/reply.h"
#include "serve/config.h"
#include "serve/server.h"
#include "workers/devices.h"
#include "workers/metrics.h"

enum { SERVICE_FLAGS_MAX = 16, SERVICE_WAIT_MS = 60000 };

typedef struct service {
    br_config config;
    br_log log;
    FILE *log_stream; /* what the service logs, in log_text after service_stop */
    char *log_text;
    size_t log_size;
    br_server *server;
    pthread_t keeper;
    bool running;
    br_status ran;  /* what br_server_run returned, once joined */
    char url[64];   /* inproc */
    char admin[64]; /* inproc */
    char bundle[512];
} service;

/* $BESTROUTE_SOURCE/weights/tiny; skips the test aloud where the variable is not set. */
const char *service_tiny_bundle(void);

/* Creates and listens; `flags` end with NULL, may be NULL, and win over the fixture's. */
void service_listen(service *s, const char *const *flags);
/* service_listen, then loads and runs the keeper on a thread. */
void service_start(service *s, const char *const *flags);
/* Loads and runs what service_listen made. */
void service_load(service *s);
/* Stops, waits for the keeper, destroys. */
void service_stop(service *s);
/* Waits for a keeper that was told to stop by other means. */
void service_join(service *s);

/* Waits until so many tokenised queries wait for a worker. */
void service_wait_for_waiting(service *s, int32_t count);

/* A counter of its metrics: now, and waited for until it is `value` or more. */
uint64_t service_counted(const service *s, br_counter counter);
void service_wait_counted(const service *s, br_counter counter, uint64_t value);

/* Loads the bundle's folder again, and waits until that has succeeded. */
void service_reload(service *s);

/* The faults of a device. They show where a device's errors are reported: at the wait for a pass. */
typedef struct service_fault {
    atomic_int streams;  /* of its encoders that are open */
    atomic_int waits;    /* so many there were */
    atomic_int failures; /* so many of the next ones fail */
    atomic_int slow_ms;  /* they take so much longer */
    atomic_bool hangs;   /* they do not return while this is set */
} service_fault;
extern service_fault service_faults[BR_DEVICES_MAX];

/* Between service_listen and service_load: from now on the device has the faults set above,
 * none to begin with. */
void service_plant_faults(service *s, int32_t device);

/* Holds worker 0 between two batches until gate_open. */
typedef struct gate {
    service *service;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held;
    bool released;
} gate;
void gate_close(gate *g, service *s);
void gate_open(gate *g);

typedef struct peer {
    nng_socket socket;
} peer;
void peer_open(peer *p, const char *url);
void peer_close(peer *p);

/* A reply and what it points into. Zero it before the first use; release with answer_free. */
typedef struct peer_answer {
    br_reply reply;
    br_op op;
    nng_msg *message;
    br_arena arena;
} peer_answer;
void answer_free(peer_answer *a);

/* Sends and waits for the reply, SERVICE_WAIT_MS at most. */
void peer_ask(peer *p, peer_answer *a, const br_request *request);
/* The same with bytes of the test's own. */
void peer_ask_bytes(peer *p, peer_answer *a, const void *bytes, size_t size);

/* One request on its way. */
typedef struct pending {
    nng_ctx ctx;
    nng_aio *aio;
} pending;
void pending_send(pending *w, peer *p, const br_request *request);
void pending_wait(pending *w, peer_answer *a);

/* A query with that text and nothing else. */
br_query text_query(const char *text);

/* Copies the tiny bundle into a fresh folder with `from` replaced by `to` in router.json. */
void bundle_copy(char *folder, size_t size, const char *from, const char *to);
void folder_remove(const char *folder);

#endif
