/*
 * batcher.c - a binary heap of waiting queries, and a pile of expired ones behind it.
 *
 *   slots   [ heap, the next query at 0 | expired, in no order | free ]
 *             0 .. heap_count             .. count                .. queue_max
 *
 * A query that leaves the heap frees the slot right behind it, so an expired
 * one moves to the pile in place and no second array is needed.
 */
#include "bestroute/batcher.h"

#include <assert.h>
#include <stdlib.h>

struct br_batcher {
    br_batcher_options options;
    uint64_t arrivals;
    int64_t tokens; /* of all `count` */
    int32_t heap_count;
    int32_t count;
    br_batch_item *slots[];
};

br_status br_batcher_create(br_batcher **out, const br_batcher_options *options)
{
    *out = NULL;
    if (options->tokens_max < 1 || options->tokens_max > BR_BATCH_TOKENS_MAX) return BR_EINVAL;
    if (options->seqs_max < 1 || options->seqs_max > BR_BATCH_SEQS_MAX) return BR_EINVAL;
    if (options->queue_max < 1 || options->queue_max > BR_QUEUE_QUERIES_MAX) return BR_EINVAL;

    br_batcher *b = calloc(1, sizeof *b + (size_t)options->queue_max * sizeof b->slots[0]);
    if (b == NULL) return BR_ENOMEM;
    b->options = *options;
    *out = b;
    return BR_OK;
}

void br_batcher_destroy(br_batcher *batcher)
{
    assert(batcher == NULL || batcher->count == 0);
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

/* Adds to the heap: up from its last slot. */
static void heap_add(br_batcher *b, br_batch_item *item)
{
    int32_t slot = b->heap_count++;
    while (slot > 0) {
        const int32_t parent = (slot - 1) / 2;
        if (!precedes(item, b->slots[parent])) break;
        b->slots[slot] = b->slots[parent];
        slot = parent;
    }
    b->slots[slot] = item;
}

/* Takes the first off the heap: its last one sinks from the top. */
static br_batch_item *heap_remove_first(br_batcher *b)
{
    br_batch_item *first = b->slots[0];
    const int32_t count = --b->heap_count;
    br_batch_item *last = b->slots[count];
    int32_t slot = 0;
    while (2 * slot + 1 < count) {
        int32_t child = 2 * slot + 1;
        if (child + 1 < count && precedes(b->slots[child + 1], b->slots[child])) child++;
        if (!precedes(b->slots[child], last)) break;
        b->slots[slot] = b->slots[child];
        slot = child;
    }
    if (count > 0) b->slots[slot] = last;
    return first;
}

/* Puts an item into the heap; the pile makes room by moving one of its own to its end. */
static void insert(br_batcher *b, br_batch_item *item)
{
    b->slots[b->count] = b->slots[b->heap_count];
    b->count++;
    b->tokens += item->tokens;
    heap_add(b, item);
}

/* Takes the first off the heap and closes the gap between heap and pile. */
static br_batch_item *remove_first(br_batcher *b)
{
    br_batch_item *first = heap_remove_first(b);
    b->count--;
    b->slots[b->heap_count] = b->slots[b->count];
    b->tokens -= first->tokens;
    return first;
}

br_status br_batcher_push(br_batcher *batcher, br_batch_item *item)
{
    assert(item->tokens >= 1);
    assert(item->tokens <= batcher->options.tokens_max);
    if (batcher->count == batcher->options.queue_max) return BR_EBUSY;
    item->arrival = batcher->arrivals++;
    insert(batcher, item);
    return BR_OK;
}

/* Moves what has expired from the heap to the pile behind it. The earliest deadlines are on top. */
static void pile_expired(br_batcher *b, uint64_t now_ns)
{
    while (b->heap_count > 0 && is_expired(b->slots[0], now_ns)) {
        br_batch_item *item = heap_remove_first(b);
        b->slots[b->heap_count] = item;
    }
}

int32_t br_batcher_take(br_batcher *batcher, br_batch_item **items, int32_t tokens_max, uint64_t now_ns)
{
    assert(tokens_max >= 1);
    assert(tokens_max <= batcher->options.tokens_max);
    pile_expired(batcher, now_ns);

    br_batch_item *skipped[BR_BATCH_SKIPS_MAX];
    int32_t skipped_count = 0;
    int32_t taken = 0;
    int32_t room = tokens_max;
    while (batcher->heap_count > 0 && taken < batcher->options.seqs_max && room > 0 &&
           skipped_count < BR_BATCH_SKIPS_MAX) {
        br_batch_item *item = remove_first(batcher);
        if (item->tokens <= room && (taken == 0 || item->group == items[0]->group)) {
            items[taken++] = item;
            room -= item->tokens;
        } else {
            skipped[skipped_count++] = item;
        }
    }
    /* With their old arrival they find their old place. */
    for (int32_t i = 0; i < skipped_count; i++) insert(batcher, skipped[i]);
    return taken;
}

br_batch_item *br_batcher_expire(br_batcher *batcher, uint64_t now_ns)
{
    if (batcher->count > batcher->heap_count) {
        br_batch_item *item = batcher->slots[--batcher->count];
        batcher->tokens -= item->tokens;
        return item;
    }
    if (batcher->heap_count == 0 || !is_expired(batcher->slots[0], now_ns)) return NULL;
    return remove_first(batcher);
}

int32_t br_batcher_queries(const br_batcher *batcher)
{
    return batcher->count;
}

int64_t br_batcher_tokens(const br_batcher *batcher)
{
    return batcher->tokens;
}
