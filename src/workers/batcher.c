/*
 * batcher.c - a queue for each client, served in turns.
 *
 *   clients in use   active[ ... active_count)   each a pairing heap of its queries, the next at its root
 *   expired          a list, in no order
 *
 * A pairing heap lives in the queries themselves: `child` is the first query below, `sibling` the next
 * beside. Adding is one comparison, removing the root joins its children in pairs: O(log n) amortised.
 */
#include "batcher.h"

#include <assert.h>
#include <stdlib.h>

enum {
    LOOK_MAX = 64,         /* clients compared for one query; more take turns to be compared */
    TURNS = 8,             /* a client's turn is the largest batch divided by this */
    CONTENDED_TAKES = 128, /* that keep passes short after a small client was served beside a flood */
};

typedef struct client {
    uint64_t id;
    br_batch_item *first; /* root of its heap; NULL: unused */
    int64_t credit;       /* tokens left of its turn; may be overdrawn by one query */
    int64_t tokens;       /* waiting */
    int64_t pushed;       /* tokens since it came */
    bool fresh;           /* in its first turn since it came: some of its credit is left */
    int32_t position;     /* in active */
    int32_t next;         /* in its bucket or in the list of unused ones; -1: none */
    int32_t next_emptied; /* of those a take has emptied; -1: none */
} client;

struct br_batcher {
    br_batcher_options options;
    uint64_t arrivals;
    int64_t tokens; /* of all `count` */
    int32_t count;
    br_batch_item *expired;
    int64_t turn_tokens;
    int64_t favour;       /* tokens that fresh clients may yet be served ahead of the others */
    int64_t flood_tokens; /* of clients with more than a turn waiting */
    int32_t contended;    /* takes left to keep short */
    client *clients;      /* [queue_max] */
    int32_t *active;      /* [queue_max]: clients with queries */
    int32_t active_count;
    int32_t cursor;   /* of the first client to be compared */
    int32_t *buckets; /* [bucket_count]: clients in use by their id */
    int32_t bucket_count;
    int32_t unused; /* first of the list of clients without queries */
};

br_status br_batcher_create(br_batcher **out, const br_batcher_options *options)
{
    *out = NULL;
    if (options->tokens_max < 1 || options->tokens_max > BR_BATCH_TOKENS_MAX) return BR_EINVAL;
    if (options->seqs_max < 1 || options->seqs_max > BR_BATCH_SEQS_MAX) return BR_EINVAL;
    if (options->queue_max < 1 || options->queue_max > BR_QUEUE_QUERIES_MAX) return BR_EINVAL;

    const size_t most = (size_t)options->queue_max;
    br_batcher *b = calloc(1, sizeof *b);
    if (b == NULL) return BR_ENOMEM;
    b->options = *options;
    b->turn_tokens = (options->tokens_max + TURNS - 1) / TURNS;
    b->favour = options->tokens_max;
    for (b->bucket_count = 1; b->bucket_count < options->queue_max;) b->bucket_count *= 2;
    b->clients = calloc(most, sizeof *b->clients);
    b->active = calloc(most, sizeof *b->active);
    b->buckets = calloc((size_t)b->bucket_count, sizeof *b->buckets);
    if (b->clients == NULL || b->active == NULL || b->buckets == NULL) {
        br_batcher_destroy(b);
        return BR_ENOMEM;
    }
    for (int32_t i = 0; i < options->queue_max; i++)
        b->clients[i].next = i + 1 < options->queue_max ? i + 1 : -1;
    for (int32_t i = 0; i < b->bucket_count; i++) b->buckets[i] = -1;
    *out = b;
    return BR_OK;
}

void br_batcher_destroy(br_batcher *batcher)
{
    if (batcher == NULL) return;
    assert(batcher->count == 0);
    free(batcher->clients);
    free(batcher->active);
    free(batcher->buckets);
    free(batcher);
}

static bool precedes(const br_batch_item *a, const br_batch_item *b)
{
    if (a->deadline_ns != b->deadline_ns) return a->deadline_ns < b->deadline_ns;
    return a->arrival < b->arrival;
}

static bool is_expired(const br_batch_item *item, uint64_t now_ns)
{
    return item->deadline_ns <= now_ns && item->deadline_ns != UINT64_MAX;
}

/* The heap of two roots without siblings; either may be NULL. */
static br_batch_item *join(br_batch_item *a, br_batch_item *b)
{
    if (a == NULL) return b;
    if (b == NULL) return a;
    br_batch_item *above = precedes(b, a) ? b : a;
    br_batch_item *below = above == a ? b : a;
    below->sibling = above->child;
    above->child = below;
    return above;
}

/* The heap without its root: neighbours are joined in pairs, then the pairs from the last to the first. */
static br_batch_item *join_children(br_batch_item *root)
{
    br_batch_item *pairs = NULL;
    br_batch_item *left = root->child;
    while (left != NULL) {
        br_batch_item *a = left;
        br_batch_item *b = a->sibling;
        left = b != NULL ? b->sibling : NULL;
        a->sibling = NULL;
        if (b != NULL) b->sibling = NULL;
        br_batch_item *pair = join(a, b);
        pair->sibling = pairs;
        pairs = pair;
    }
    br_batch_item *whole = NULL;
    while (pairs != NULL) {
        br_batch_item *next = pairs->sibling;
        pairs->sibling = NULL;
        whole = join(whole, pairs);
        pairs = next;
    }
    root->child = NULL;
    return whole;
}

static int32_t *bucket_of(br_batcher *b, uint64_t id)
{
    const uint64_t mixed = id * UINT64_C(0x9e3779b97f4a7c15);
    return &b->buckets[(mixed >> 32) & (uint64_t)(b->bucket_count - 1)];
}

/* The client with that id; a new one, if it had no query waiting. There is always room: each client has a
 * query. */
static client *client_of(br_batcher *b, uint64_t id)
{
    int32_t *bucket = bucket_of(b, id);
    for (int32_t i = *bucket; i >= 0; i = b->clients[i].next)
        if (b->clients[i].id == id) return &b->clients[i];
    const int32_t index = b->unused;
    assert(index >= 0);
    client *c = &b->clients[index];
    b->unused = c->next;
    *c = (client){.id = id, .credit = b->turn_tokens, .fresh = true, .next = *bucket};
    *bucket = index;
    return c;
}

static void activate(br_batcher *b, client *c)
{
    c->position = b->active_count;
    b->active[b->active_count++] = (int32_t)(c - b->clients);
}

static void deactivate(br_batcher *b, client *c)
{
    const int32_t last = b->active[--b->active_count];
    b->active[c->position] = last;
    b->clients[last].position = c->position;
}

/* A client that is not active. */
static void forget(br_batcher *b, client *c)
{
    const int32_t index = (int32_t)(c - b->clients);
    int32_t *link = bucket_of(b, c->id);
    while (*link != index) link = &b->clients[*link].next;
    *link = c->next;
    c->next = b->unused;
    b->unused = index;
}

static void count(br_batcher *b, client *c, int32_t queries, int32_t tokens)
{
    if (c->tokens > b->turn_tokens) b->flood_tokens -= c->tokens;
    c->tokens += tokens;
    if (c->tokens > b->turn_tokens) b->flood_tokens += c->tokens;
    b->count += queries;
    b->tokens += tokens;
}

static client *insert(br_batcher *b, br_batch_item *item)
{
    client *c = client_of(b, item->client);
    if (c->first == NULL) activate(b, c);
    item->child = NULL;
    item->sibling = NULL;
    c->first = join(c->first, item);
    count(b, c, 1, item->tokens);
    return c;
}

/* A client that has no more is not active, but not yet forgotten. */
static br_batch_item *remove_first(br_batcher *b, client *c)
{
    br_batch_item *item = c->first;
    c->first = join_children(item);
    count(b, c, -1, -item->tokens);
    if (c->first == NULL) deactivate(b, c);
    return item;
}

br_status br_batcher_push(br_batcher *batcher, br_batch_item *item)
{
    assert(item->tokens >= 1);
    assert(item->tokens <= batcher->options.tokens_max);
    item->arrival = batcher->arrivals;
    const br_status status = br_batcher_put_back(batcher, item);
    if (status == BR_OK) batcher->arrivals++;
    return status;
}

br_status br_batcher_put_back(br_batcher *batcher, br_batch_item *item)
{
    if (batcher->count == batcher->options.queue_max) return BR_EBUSY;
    insert(batcher, item)->pushed += item->tokens;
    return BR_OK;
}

static client *better(client *a, client *b)
{
    return a == NULL || precedes(b->first, a->first) ? b : a;
}

/* Of the active ones, from the cursor on. */
static int32_t compared_count(const br_batcher *b)
{
    return b->active_count < LOOK_MAX ? b->active_count : LOOK_MAX;
}

static client *compared(const br_batcher *b, int32_t i)
{
    return &b->clients[b->active[(b->cursor + i) % b->active_count]];
}

/* Whose turn it is, of the clients compared: a fresh one, while those are in favour or there are no others;
 * then, of those whose turn is not used up, the one with the first query. NULL: all have used theirs up.
 * *favoured: it goes ahead of others. */
static client *choose(const br_batcher *b, bool *favoured)
{
    client *fresh = NULL;
    client *other = NULL;
    int32_t others = 0;
    for (int32_t i = 0; i < compared_count(b); i++) {
        client *c = compared(b, i);
        if (c->fresh) {
            fresh = better(fresh, c);
        } else {
            others++;
            if (c->credit > 0) other = better(other, c);
        }
    }
    const bool takes_fresh = fresh != NULL && (b->favour > 0 || others == 0);
    *favoured = takes_fresh && others > 0;
    return takes_fresh ? fresh : other;
}

/* All of the clients compared have used their turn up: each begins another, and the next ones are
 * compared. */
static void begin_turns(br_batcher *b)
{
    const int32_t count = compared_count(b);
    for (int32_t i = 0; i < count; i++)
        if (!compared(b, i)->fresh) compared(b, i)->credit += b->turn_tokens;
    b->cursor = (b->cursor + count) % b->active_count;
}

/* Moves expired queries to their list. The earliest deadlines are at the roots. */
static void pile_expired(br_batcher *b, uint64_t now_ns)
{
    for (int32_t i = b->active_count - 1; i >= 0; i--) {
        client *c = &b->clients[b->active[i]];
        while (c->first != NULL && is_expired(c->first, now_ns)) {
            br_batch_item *item = remove_first(b, c);
            item->sibling = b->expired;
            b->expired = item;
            b->count++; /* it still waits to be handed back */
            b->tokens += item->tokens;
        }
        if (c->first == NULL) forget(b, c);
    }
}

/* The taker's share of the waiting tokens; while contended, of those of clients that do not flood. */
static int32_t share_of(const br_batcher *b, int32_t tokens_max, int32_t sharers)
{
    if (sharers == 0) return tokens_max;
    const int64_t waiting = b->contended > 0 ? b->tokens - b->flood_tokens : b->tokens;
    const int64_t share = waiting / sharers;
    if (share < 1) return 1;
    return share < tokens_max ? (int32_t)share : tokens_max;
}

/* The client's next query is taken. True if it was all that a small client had. Fresh clients among
 * themselves use up no favour, or it would be gone when the first flood comes. */
static bool charge(br_batcher *b, client *c, bool favoured)
{
    const int32_t tokens = c->first->tokens;
    c->credit -= tokens;
    if (favoured) b->favour -= tokens;
    if (!c->fresh) b->favour += TURNS * tokens;
    if (b->favour > b->options.tokens_max) b->favour = b->options.tokens_max;
    c->fresh = c->fresh && c->credit > 0;
    return c->tokens == tokens && c->pushed <= b->turn_tokens;
}

/* A batch that is being put together. */
typedef struct batch {
    br_batch_item **items;
    int32_t count;
    int32_t room; /* tokens that may still be taken */
    br_batch_item *skipped[BR_BATCH_SKIPS_MAX];
    int32_t skipped_count;
    int32_t emptied;   /* first of the clients that have no more, linked by next_emptied; -1: none */
    bool small_served; /* all that a small client had is in it */
} batch;

static bool has_room(const br_batcher *b, const batch *t)
{
    return t->count < b->options.seqs_max && t->room > 0 && t->skipped_count < BR_BATCH_SKIPS_MAX;
}

/* The client's next query goes into the batch, or is skipped. */
static void take_from(br_batcher *b, batch *t, client *c, bool favoured)
{
    const bool fits = t->count == 0 || (c->first->tokens <= t->room && c->first->group == t->items[0]->group);
    if (fits && charge(b, c, favoured)) t->small_served = true;
    br_batch_item *item = remove_first(b, c);
    if (c->first == NULL) {
        c->next_emptied = t->emptied;
        t->emptied = (int32_t)(c - b->clients);
    }
    if (fits) {
        t->items[t->count++] = item;
        t->room -= item->tokens;
    } else {
        t->skipped[t->skipped_count++] = item;
    }
}

/* With their old arrival, skipped queries find their old place; and their client, of which they were the
 * last, is still as it was. Then clients that have no more are forgotten. */
static void put_skipped_back(br_batcher *b, batch *t)
{
    for (int32_t i = 0; i < t->skipped_count; i++) (void)insert(b, t->skipped[i]);
    while (t->emptied >= 0) {
        client *c = &b->clients[t->emptied];
        t->emptied = c->next_emptied;
        if (c->first == NULL) forget(b, c);
    }
}

int32_t br_batcher_take(br_batcher *batcher, br_batch_item **items, int32_t tokens_max, int32_t sharers,
                        uint64_t now_ns)
{
    assert(tokens_max >= 1);
    assert(sharers >= 0);
    pile_expired(batcher, now_ns);

    batch t = {.items = items, .room = share_of(batcher, tokens_max, sharers), .emptied = -1};
    while (has_room(batcher, &t) && batcher->active_count > 0) {
        bool favoured;
        client *c = choose(batcher, &favoured);
        if (c != NULL)
            take_from(batcher, &t, c, favoured);
        else
            begin_turns(batcher);
    }
    put_skipped_back(batcher, &t);
    if (t.small_served && batcher->flood_tokens > 0)
        batcher->contended = CONTENDED_TAKES;
    else if (batcher->contended > 0)
        batcher->contended--;
    return t.count;
}

br_batch_item *br_batcher_expire(br_batcher *batcher, uint64_t now_ns)
{
    if (batcher->expired == NULL) pile_expired(batcher, now_ns);
    br_batch_item *item = batcher->expired;
    if (item == NULL) return NULL;
    batcher->expired = item->sibling;
    batcher->count--;
    batcher->tokens -= item->tokens;
    return item;
}

uint64_t br_batcher_deadline_ns(const br_batcher *batcher)
{
    if (batcher->expired != NULL) return 0;
    uint64_t earliest_ns = UINT64_MAX;
    for (int32_t i = 0; i < batcher->active_count; i++) {
        const br_batch_item *first = batcher->clients[batcher->active[i]].first;
        if (first->deadline_ns < earliest_ns) earliest_ns = first->deadline_ns;
    }
    return earliest_ns;
}

int32_t br_batcher_queries(const br_batcher *batcher)
{
    return batcher->count;
}

int64_t br_batcher_tokens(const br_batcher *batcher)
{
    return batcher->tokens;
}
