/* score_cache.c - see score_cache.h. */
#include "score_cache.h"
#include "core/thread.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { NONE = -1, BYTES_PER_BUCKET = 512 };

typedef struct entry {
    uint64_t hash;
    uint64_t bundle;
    int64_t next; /* offset of the next of its bucket; NONE */
    int32_t tokens;
    int32_t heads;
    int64_t bytes; /* of the whole entry; the next one begins after them */
} entry;

struct score_cache {
    pthread_mutex_t lock; /* guards all of it */
    char *ring;
    int64_t size;
    int64_t oldest; /* offset of the oldest entry */
    int64_t end;    /* where the next entry goes */
    int64_t wrap;   /* where the entries before the wrap end; `size` or less */
    int64_t count;
    int64_t *buckets;
    size_t bucket_count; /* a power of two */
};

uint64_t ids_hash(const int32_t *ids, int32_t tokens)
{
    return XXH3_64bits(ids, (size_t)tokens * sizeof *ids);
}

static entry *at(const score_cache *c, int64_t offset)
{
    return (entry *)(void *)(c->ring + offset);
}

static int32_t *ids_of(entry *e)
{
    return (int32_t *)(void *)(e + 1);
}

static float *quality_of(entry *e)
{
    return (float *)(void *)(ids_of(e) + e->tokens);
}

static int64_t *bucket_of(score_cache *c, uint64_t hash)
{
    return &c->buckets[hash & (c->bucket_count - 1)];
}

static void empty(score_cache *c)
{
    for (size_t i = 0; i < c->bucket_count; i++) c->buckets[i] = NONE;
    c->oldest = c->end = c->count = 0;
    c->wrap = c->size;
}

br_status score_cache_create(score_cache **out, size_t bytes)
{
    assert(bytes >= 4096);
    *out = NULL;
    score_cache *c = calloc(1, sizeof *c);
    if (c == NULL) return BR_ENOMEM;
    c->size = (int64_t)(bytes / sizeof(entry) * sizeof(entry));
    for (c->bucket_count = 1; c->bucket_count * BYTES_PER_BUCKET < bytes * 8;) c->bucket_count *= 2;
    c->bucket_count /= 8;
    if (c->bucket_count == 0) c->bucket_count = 1;
    c->ring = malloc((size_t)c->size);
    c->buckets = malloc(c->bucket_count * sizeof *c->buckets);
    if (c->ring == NULL || c->buckets == NULL) {
        free(c->ring);
        free(c->buckets);
        free(c);
        return BR_ENOMEM;
    }
    br_mutex_init(&c->lock);
    empty(c);
    *out = c;
    return BR_OK;
}

void score_cache_destroy(score_cache *cache)
{
    if (cache == NULL) return;
    br_mutex_destroy(&cache->lock);
    free(cache->ring);
    free(cache->buckets);
    free(cache);
}

void score_cache_clear(score_cache *cache)
{
    br_lock(&cache->lock);
    empty(cache);
    br_unlock(&cache->lock);
}

static entry *find(score_cache *c, uint64_t hash, uint64_t bundle, const int32_t *ids, int32_t tokens,
                   int32_t heads)
{
    for (int64_t offset = *bucket_of(c, hash); offset != NONE; offset = at(c, offset)->next) {
        entry *e = at(c, offset);
        if (e->hash == hash && e->bundle == bundle && e->tokens == tokens && e->heads == heads &&
            memcmp(ids_of(e), ids, (size_t)tokens * sizeof *ids) == 0)
            return e;
    }
    return NULL;
}

/* There is one. Lock held. */
static void drop_oldest(score_cache *c)
{
    const int64_t offset = c->oldest;
    const entry *e = at(c, offset);
    int64_t *link = bucket_of(c, e->hash);
    while (*link != offset) link = &at(c, *link)->next;
    *link = e->next;
    c->oldest += e->bytes;
    c->count--;
    if (c->oldest == c->wrap) {
        c->oldest = 0;
        c->wrap = c->size;
    }
    if (c->count == 0) c->oldest = c->end = 0;
}

/* Makes room for an entry at `end` by dropping old ones. Lock held. */
static void make_room(score_cache *c, int64_t bytes)
{
    if (c->end + bytes > c->size) {
        /* First drops what lies after `end`; then the ring continues at its beginning. */
        while (c->count > 0 && c->oldest >= c->end) drop_oldest(c);
        if (c->count > 0) c->wrap = c->end;
        c->end = 0;
        if (c->count == 0) c->oldest = 0;
    }
    while (c->count > 0 && c->oldest >= c->end && c->oldest < c->end + bytes) drop_oldest(c);
}

bool score_cache_get(score_cache *cache, uint64_t bundle, const int32_t *ids, int32_t tokens, float *quality,
                     int32_t heads)
{
    const uint64_t hash = ids_hash(ids, tokens);
    br_lock(&cache->lock);
    entry *e = find(cache, hash, bundle, ids, tokens, heads);
    if (e != NULL) memcpy(quality, quality_of(e), (size_t)heads * sizeof *quality);
    br_unlock(&cache->lock);
    return e != NULL;
}

void score_cache_put(score_cache *cache, uint64_t bundle, const int32_t *ids, int32_t tokens,
                     const float *quality, int32_t heads)
{
    const int64_t raw = (int64_t)sizeof(entry) + 4 * ((int64_t)tokens + heads);
    const int64_t unit = (int64_t)sizeof(entry);
    const int64_t bytes = (raw + unit - 1) / unit * unit;
    const uint64_t hash = ids_hash(ids, tokens);
    if (bytes > cache->size) return;
    br_lock(&cache->lock);
    if (find(cache, hash, bundle, ids, tokens, heads) == NULL) {
        make_room(cache, bytes);
        int64_t *bucket = bucket_of(cache, hash);
        entry *e = at(cache, cache->end);
        *e = (entry){.hash = hash,
                     .bundle = bundle,
                     .next = *bucket,
                     .tokens = tokens,
                     .heads = heads,
                     .bytes = bytes};
        memcpy(ids_of(e), ids, (size_t)tokens * sizeof *ids);
        memcpy(quality_of(e), quality, (size_t)heads * sizeof *quality);
        *bucket = cache->end;
        cache->end += bytes;
        cache->count++;
    }
    br_unlock(&cache->lock);
}
