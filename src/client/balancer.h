/*
 * balancer.h - which endpoint a request goes to, and which endpoints are left out for now.
 *
 *                       connection lost, not_ready, silence, failures in a row
 *          ADMITTED ----------------------------------------------------------> EJECTED
 *             ^                                                                    |
 *             +----------------------- a ping is answered -------------------------+
 *
 * An endpoint is usable while it is connected and admitted. The next request goes to the usable endpoint with
 * the fewest requests outstanding; equals take turns. An endpoint that answered `overloaded` rests for the
 * time it named: other endpoints come first, and the refused request waits rather than go there again.
 *
 * Facts (a lost connection, not_ready) always eject. A mere suspicion (silence, failures in a row) does not
 * eject the last usable endpoint, and failures in a row never leave less than half of the endpoints usable:
 * when all are slow, the cause is not in one of them. A single endpoint is never ejected, for there is no
 * other.
 *
 * Pure: no socket, no thread, no clock; the caller passes the time in and holds the lock.
 *
 * Uses: the client's limits.  Used by: state and all that includes it.
 */
#ifndef BESTROUTE_CLIENT_BALANCER_H
#define BESTROUTE_CLIENT_BALANCER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/client.h"

#define BR_BALANCER_NONE SIZE_MAX
#define BR_BALANCER_NEVER UINT64_MAX

enum {
    BR_BALANCER_FAILURES_MAX = 3,    /* in a row eject */
    BR_BALANCER_BACKOFF_MS_MIN = 50, /* between pings of an ejected endpoint; doubles up to the maximum */
    BR_BALANCER_BACKOFF_MS_MAX = 2000,
    BR_BALANCER_HEDGE_BURST = 10, /* hedges that may be sent in a row */
};

/* How a request, or a ping, ended. */
typedef enum br_outcome {
    BR_OUTCOME_ANSWERED, /* any reply but the next two */
    BR_OUTCOME_OVERLOADED,
    BR_OUTCOME_NOT_READY,
    BR_OUTCOME_LOST,      /* the connection broke while it was outstanding */
    BR_OUTCOME_FAILED,    /* no reply in time, or bytes that are no reply */
    BR_OUTCOME_UNSENT,    /* it never left */
    BR_OUTCOME_ABANDONED, /* its answer is not wanted any more */
} br_outcome;

typedef struct br_balancer_member {
    bool connected;
    bool ejected;
    uint32_t connection; /* the number of the present or last one, from 1 */
    uint32_t failures;   /* in a row */
    uint32_t backoff_ms; /* until the ping after the next; 0: no ping was needed since the last answer */
    uint64_t ping_at_ns; /* while ejected */
    uint64_t silent_ns;  /* since when a reply is missing; BR_BALANCER_NEVER: none is */
    uint64_t rested_ns;  /* `overloaded` holds until then */
    uint32_t outstanding;
    uint64_t sent; /* = outstanding + answered + refused + failed + abandoned */
    uint64_t answered;
    uint64_t refused; /* overloaded, not_ready */
    uint64_t failed;
    uint64_t abandoned;
    uint64_t ejections;
} br_balancer_member;

typedef struct br_balancer {
    br_balancer_member members[BR_CLIENT_URLS_MAX];
    size_t count; /* at least 1 */
    size_t next;  /* whose turn it is among equals */
    uint64_t silence_ns;
    uint32_t hedge_percent;
    uint32_t hedge_credit; /* in hundredths of a hedge */
} br_balancer;

/* No endpoint is connected yet. */
void br_balancer_init(br_balancer *balancer, size_t count, uint64_t silence_ns, uint32_t hedge_percent);

/* BR_BALANCER_NONE: no endpoint is usable, or with `rested` none that is rested too. Never `avoid`. */
size_t br_balancer_choose(br_balancer *balancer, uint64_t now_ns, size_t avoid, bool rested);

/* When the first usable endpoint is rested; BR_BALANCER_NEVER: none is usable. */
uint64_t br_balancer_rested_at(const br_balancer *balancer);

/* A call begins: earns its share of a hedge. */
void br_balancer_earn_hedge(br_balancer *balancer);

/* Takes one hedge from the credit. False: the share of hedges among calls is used up. */
bool br_balancer_spend_hedge(br_balancer *balancer);

/* A request goes to `index`. */
void br_balancer_sent(br_balancer *balancer, size_t index, uint64_t now_ns);

/* A request to `index` ended. `connection` is the member's number when it was sent; retry_ms is that of an
 * `overloaded`. */
void br_balancer_ended(br_balancer *balancer, size_t index, br_outcome outcome, uint32_t connection,
                       uint64_t retry_ms, uint64_t now_ns);

void br_balancer_connected(br_balancer *balancer, size_t index, uint64_t now_ns);
void br_balancer_disconnected(br_balancer *balancer, size_t index, uint64_t now_ns);

/* When the endpoint is due for a ping: an ejected one after its backoff, any other after silence_ns without a
 * reply to what was sent to it, even where the call has given up since. BR_BALANCER_NEVER: it is not. */
uint64_t br_balancer_ping_at(const br_balancer *balancer, size_t index);

/* A ping ended. True: the connection is dead and should be dropped. */
bool br_balancer_pinged(br_balancer *balancer, size_t index, br_outcome outcome, uint64_t now_ns);

#endif
