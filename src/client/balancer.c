/* balancer.c - the choice among endpoints, ejection and readmission. */
#include "balancer.h"

#include <assert.h>
#include <string.h>

#include "core/clock.h"

void br_pool_init(br_pool *pool, size_t count, uint64_t silence_ns, uint32_t hedge_percent)
{
    assert(count >= 1);
    assert(count <= BR_CLIENT_URLS_MAX);
    memset(pool, 0, sizeof *pool);
    pool->count = count;
    pool->silence_ns = silence_ns;
    pool->hedge_percent = hedge_percent;
    pool->hedge_credit = 100 * BR_POOL_HEDGE_BURST;
    for (size_t i = 0; i < count; i++) pool->members[i].silent_ns = BR_POOL_NEVER;
}

static bool is_usable(const br_pool_member *member)
{
    return member->connected && !member->ejected;
}

static size_t usable_others(const br_pool *pool, size_t index)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->count; i++) count += i != index && is_usable(&pool->members[i]);
    return count;
}

static size_t least_outstanding(const br_pool *pool, uint64_t now_ns, size_t avoid, bool rested)
{
    size_t best = BR_POOL_NONE;
    for (size_t step = 0; step < pool->count; step++) {
        const size_t i = (pool->next + step) % pool->count;
        const br_pool_member *member = &pool->members[i];
        if (i == avoid || !is_usable(member)) continue;
        if (rested && member->rested_ns > now_ns) continue;
        if (best == BR_POOL_NONE || member->outstanding < pool->members[best].outstanding) best = i;
    }
    return best;
}

size_t br_pool_choose(br_pool *pool, uint64_t now_ns, size_t avoid, bool rested)
{
    size_t index = least_outstanding(pool, now_ns, avoid, true);
    if (index == BR_POOL_NONE && !rested) index = least_outstanding(pool, now_ns, avoid, false);
    if (index != BR_POOL_NONE) pool->next = (index + 1) % pool->count;
    return index;
}

uint64_t br_pool_rested_at(const br_pool *pool)
{
    uint64_t first = BR_POOL_NEVER;
    for (size_t i = 0; i < pool->count; i++) {
        const br_pool_member *member = &pool->members[i];
        if (is_usable(member) && member->rested_ns < first) first = member->rested_ns;
    }
    return first;
}

void br_pool_earn_hedge(br_pool *pool)
{
    const uint32_t most = 100 * BR_POOL_HEDGE_BURST;
    pool->hedge_credit += pool->hedge_percent;
    if (pool->hedge_credit > most) pool->hedge_credit = most;
}

bool br_pool_spend_hedge(br_pool *pool)
{
    if (pool->hedge_credit < 100) return false;
    pool->hedge_credit -= 100;
    return true;
}

/* The next ping waits for twice as long, until an answered request shows that all is well. */
static void put_off_ping(br_pool_member *member, uint64_t now_ns)
{
    member->ping_at_ns = now_ns + (uint64_t)member->backoff_ms * BR_NS_PER_MS;
    const uint32_t doubled = 2 * member->backoff_ms;
    member->backoff_ms = doubled < BR_POOL_BACKOFF_MS_MIN   ? BR_POOL_BACKOFF_MS_MIN
                         : doubled > BR_POOL_BACKOFF_MS_MAX ? BR_POOL_BACKOFF_MS_MAX
                                                            : doubled;
}

static void eject(br_pool *pool, br_pool_member *member, uint64_t now_ns)
{
    if (pool->count == 1 || member->ejected) return;
    member->ejected = true;
    member->ejections++;
    put_off_ping(member, now_ns);
}

/* What ends here no longer counts as connected, unless a new connection has come up since. */
static void lose(br_pool *pool, br_pool_member *member, uint32_t connection, uint64_t now_ns)
{
    if (connection != member->connection) return;
    member->connected = false;
    eject(pool, member, now_ns);
}

static void fail(br_pool *pool, size_t index, uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
    member->failures++;
    if (member->failures >= BR_POOL_FAILURES_MAX && usable_others(pool, index) >= (pool->count + 1) / 2)
        eject(pool, member, now_ns);
}

/* A request that was abandoned says nothing, so it does not end a silence. */
static void hear(br_pool_member *member, uint64_t now_ns)
{
    member->silent_ns = member->outstanding > 0 ? now_ns : BR_POOL_NEVER;
}

void br_pool_sent(br_pool *pool, size_t index, uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
    if (member->silent_ns == BR_POOL_NEVER) member->silent_ns = now_ns;
    member->outstanding++;
    member->sent++;
}

void br_pool_ended(br_pool *pool, size_t index, br_outcome outcome, uint32_t connection, uint64_t retry_ms,
                   uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
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
        eject(pool, member, now_ns);
        return;
    case BR_OUTCOME_LOST:
        member->failed++;
        lose(pool, member, connection, now_ns);
        return;
    case BR_OUTCOME_FAILED:
        member->failed++;
        fail(pool, index, now_ns);
        return;
    case BR_OUTCOME_UNSENT:
        member->sent--;
        return;
    case BR_OUTCOME_ABANDONED:
        member->abandoned++;
        return;
    }
}

void br_pool_connected(br_pool *pool, size_t index, uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
    member->connected = true;
    member->connection++;
    hear(member, now_ns);
}

void br_pool_disconnected(br_pool *pool, size_t index, uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
    lose(pool, member, member->connection, now_ns);
}

uint64_t br_pool_ping_at(const br_pool *pool, size_t index)
{
    const br_pool_member *member = &pool->members[index];
    if (pool->count == 1 || !member->connected) return BR_POOL_NEVER;
    if (member->ejected) return member->ping_at_ns;
    return member->silent_ns == BR_POOL_NEVER ? BR_POOL_NEVER : member->silent_ns + pool->silence_ns;
}

bool br_pool_pinged(br_pool *pool, size_t index, br_outcome outcome, uint64_t now_ns)
{
    br_pool_member *member = &pool->members[index];
    switch (outcome) {
    case BR_OUTCOME_ANSWERED:
    case BR_OUTCOME_OVERLOADED: /* alive */
        hear(member, now_ns);
        /* Pings alone do not clear an endpoint of suspicion: the next failure ejects it again. */
        if (member->failures >= BR_POOL_FAILURES_MAX) member->failures = BR_POOL_FAILURES_MAX - 1;
        if (member->connected) member->ejected = false;
        return false;
    case BR_OUTCOME_NOT_READY:
        hear(member, now_ns);
        break;
    case BR_OUTCOME_FAILED:
    case BR_OUTCOME_UNSENT:
        if (!member->ejected && usable_others(pool, index) == 0) {
            member->silent_ns = now_ns; /* the next ping after another silence */
            return false;
        }
        break;
    case BR_OUTCOME_LOST:
        break;
    case BR_OUTCOME_ABANDONED: /* the ping never began */
        member->silent_ns = now_ns;
        if (member->ejected) put_off_ping(member, now_ns);
        return false;
    }
    if (member->ejected) {
        put_off_ping(member, now_ns);
    } else {
        eject(pool, member, now_ns);
    }
    return outcome == BR_OUTCOME_FAILED || outcome == BR_OUTCOME_UNSENT;
}
