/* balancer.c - the choice among endpoints, ejection and readmission. */
#include "balancer.h"

#include <assert.h>
#include <string.h>

#include "core/clock.h"

void br_balancer_init(br_balancer *balancer, size_t count, uint64_t silence_ns, uint32_t hedge_percent)
{
    assert(count >= 1);
    assert(count <= BR_CLIENT_URLS_MAX);
    memset(balancer, 0, sizeof *balancer);
    balancer->count = count;
    balancer->silence_ns = silence_ns;
    balancer->hedge_percent = hedge_percent;
    balancer->hedge_credit = 100 * BR_BALANCER_HEDGE_BURST;
    for (size_t i = 0; i < count; i++) balancer->members[i].silent_ns = BR_BALANCER_NEVER;
}

static bool is_usable(const br_balancer_member *member)
{
    return member->connected && !member->ejected;
}

static size_t usable_others(const br_balancer *balancer, size_t index)
{
    size_t count = 0;
    for (size_t i = 0; i < balancer->count; i++) count += i != index && is_usable(&balancer->members[i]);
    return count;
}

static size_t least_outstanding(const br_balancer *balancer, uint64_t now_ns, size_t avoid, bool rested)
{
    size_t best = BR_BALANCER_NONE;
    for (size_t step = 0; step < balancer->count; step++) {
        const size_t i = (balancer->next + step) % balancer->count;
        const br_balancer_member *member = &balancer->members[i];
        if (i == avoid || !is_usable(member)) continue;
        if (rested && member->rested_ns > now_ns) continue;
        if (best == BR_BALANCER_NONE || member->outstanding < balancer->members[best].outstanding) best = i;
    }
    return best;
}

size_t br_balancer_choose(br_balancer *balancer, uint64_t now_ns, size_t avoid, bool rested)
{
    size_t index = least_outstanding(balancer, now_ns, avoid, true);
    if (index == BR_BALANCER_NONE && !rested) index = least_outstanding(balancer, now_ns, avoid, false);
    if (index != BR_BALANCER_NONE) balancer->next = (index + 1) % balancer->count;
    return index;
}

uint64_t br_balancer_rested_at(const br_balancer *balancer)
{
    uint64_t first = BR_BALANCER_NEVER;
    for (size_t i = 0; i < balancer->count; i++) {
        const br_balancer_member *member = &balancer->members[i];
        if (is_usable(member) && member->rested_ns < first) first = member->rested_ns;
    }
    return first;
}

void br_balancer_earn_hedge(br_balancer *balancer)
{
    const uint32_t most = 100 * BR_BALANCER_HEDGE_BURST;
    balancer->hedge_credit += balancer->hedge_percent;
    if (balancer->hedge_credit > most) balancer->hedge_credit = most;
}

bool br_balancer_spend_hedge(br_balancer *balancer)
{
    if (balancer->hedge_credit < 100) return false;
    balancer->hedge_credit -= 100;
    return true;
}

/* Each further ping waits twice as long, until an answered request shows that all is well. */
static void put_off_ping(br_balancer_member *member, uint64_t now_ns)
{
    member->ping_at_ns = now_ns + (uint64_t)member->backoff_ms * BR_NS_PER_MS;
    const uint32_t doubled = 2 * member->backoff_ms;
    member->backoff_ms = doubled < BR_BALANCER_BACKOFF_MS_MIN   ? BR_BALANCER_BACKOFF_MS_MIN
                         : doubled > BR_BALANCER_BACKOFF_MS_MAX ? BR_BALANCER_BACKOFF_MS_MAX
                                                                : doubled;
}

static void eject(br_balancer *balancer, br_balancer_member *member, uint64_t now_ns)
{
    if (balancer->count == 1 || member->ejected) return;
    member->ejected = true;
    member->ejections++;
    put_off_ping(member, now_ns);
}

/* The connection of that number is gone. Nothing changes where a newer one has come up since. */
static void lose(br_balancer *balancer, br_balancer_member *member, uint32_t connection, uint64_t now_ns)
{
    if (connection != member->connection) return;
    member->connected = false;
    eject(balancer, member, now_ns);
}

static void fail(br_balancer *balancer, size_t index, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    member->failures++;
    if (member->failures >= BR_BALANCER_FAILURES_MAX &&
        usable_others(balancer, index) >= (balancer->count + 1) / 2)
        eject(balancer, member, now_ns);
}

/* The endpoint answered something: a silence begins anew, or there is none. (A request that was abandoned
 * says nothing and does not come here.) */
static void hear(br_balancer_member *member, uint64_t now_ns)
{
    member->silent_ns = member->outstanding > 0 ? now_ns : BR_BALANCER_NEVER;
}

void br_balancer_sent(br_balancer *balancer, size_t index, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    if (member->silent_ns == BR_BALANCER_NEVER) member->silent_ns = now_ns;
    member->outstanding++;
    member->sent++;
}

void br_balancer_ended(br_balancer *balancer, size_t index, br_outcome outcome, uint32_t connection,
                       uint64_t retry_ms, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    assert(member->outstanding > 0);
    member->outstanding--;
    switch (outcome) {
    case BR_OUTCOME_ANSWERED:
        member->answered++;
        hear(member, now_ns);
        member->failures = member->backoff_ms = 0;
        return;
    case BR_OUTCOME_OVERLOADED:
        member->refused++;
        hear(member, now_ns);
        member->failures = 0;
        member->rested_ns = now_ns + (retry_ms < INT32_MAX ? retry_ms : INT32_MAX) * BR_NS_PER_MS;
        return;
    case BR_OUTCOME_NOT_READY:
        member->refused++;
        hear(member, now_ns);
        eject(balancer, member, now_ns);
        return;
    case BR_OUTCOME_LOST:
        member->failed++;
        lose(balancer, member, connection, now_ns);
        return;
    case BR_OUTCOME_FAILED:
        member->failed++;
        fail(balancer, index, now_ns);
        return;
    case BR_OUTCOME_UNSENT:
        member->sent--;
        return;
    case BR_OUTCOME_ABANDONED:
        member->abandoned++;
        return;
    }
}

void br_balancer_connected(br_balancer *balancer, size_t index, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    member->connected = true;
    member->connection++;
    hear(member, now_ns);
}

void br_balancer_disconnected(br_balancer *balancer, size_t index, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    lose(balancer, member, member->connection, now_ns);
}

uint64_t br_balancer_ping_at(const br_balancer *balancer, size_t index)
{
    const br_balancer_member *member = &balancer->members[index];
    if (balancer->count == 1 || !member->connected) return BR_BALANCER_NEVER;
    if (member->ejected) return member->ping_at_ns;
    return member->silent_ns == BR_BALANCER_NEVER ? BR_BALANCER_NEVER
                                                  : member->silent_ns + balancer->silence_ns;
}

/* A ping was answered: the endpoint is alive. */
static void readmit(br_balancer_member *member, uint64_t now_ns)
{
    hear(member, now_ns);
    /* Pings alone do not clear an endpoint of suspicion: the next failure ejects it again. */
    if (member->failures >= BR_BALANCER_FAILURES_MAX) member->failures = BR_BALANCER_FAILURES_MAX - 1;
    if (member->connected) member->ejected = false;
}

/* A ping shows that the endpoint is of no use now: it is ejected, or stays so for longer. */
static void keep_out(br_balancer *balancer, br_balancer_member *member, uint64_t now_ns)
{
    if (member->ejected) {
        put_off_ping(member, now_ns);
    } else {
        eject(balancer, member, now_ns);
    }
}

bool br_balancer_pinged(br_balancer *balancer, size_t index, br_outcome outcome, uint64_t now_ns)
{
    br_balancer_member *member = &balancer->members[index];
    switch (outcome) {
    case BR_OUTCOME_ANSWERED:
    case BR_OUTCOME_OVERLOADED:
        readmit(member, now_ns);
        return false;
    case BR_OUTCOME_NOT_READY:
        hear(member, now_ns);
        keep_out(balancer, member, now_ns);
        return false;
    case BR_OUTCOME_LOST:
        keep_out(balancer, member, now_ns);
        return false;
    case BR_OUTCOME_FAILED:
    case BR_OUTCOME_UNSENT:
        if (member->ejected || usable_others(balancer, index) > 0) {
            keep_out(balancer, member, now_ns);
            return true;
        }
        member->silent_ns = now_ns; /* the last usable one stays, and is pinged after another silence */
        return false;
    case BR_OUTCOME_ABANDONED: /* the ping never began */
        member->silent_ns = now_ns;
        if (member->ejected) put_off_ping(member, now_ns);
        return false;
    }
    return false;
}
