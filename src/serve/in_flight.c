/* in_flight.c - see in_flight.h. */
#include "in_flight.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/thread.h"
#include "score_cache.h"

struct in_flight {
    pthread_mutex_t lock; /* guards the links of all queries in it */
    size_t bucket_count;  /* a power of two */
    query_state *buckets[];
};

br_status in_flight_create(in_flight **out, int64_t queue_max)
{
    size_t count = 64;
    while (count < (size_t)queue_max) count *= 2;
    *out = calloc(1, sizeof **out + count * sizeof(*out)->buckets[0]);
    if (*out == NULL) return BR_ENOMEM;
    (*out)->bucket_count = count;
    br_mutex_init(&(*out)->lock);
    return BR_OK;
}

void in_flight_destroy(in_flight *f)
{
    if (f == NULL) return;
    br_mutex_destroy(&f->lock);
    free(f);
}

static query_state **bucket_of(in_flight *f, uint64_t hash)
{
    return &f->buckets[hash & (f->bucket_count - 1)];
}

static bool may_follow(const query_state *q, const query_state *leader)
{
    const br_batch_item *a = &q->job.item;
    const br_batch_item *b = &leader->job.item;
    return q->hash == leader->hash && a->group == b->group && a->client == b->client &&
           a->tokens == b->tokens && b->deadline_ns <= a->deadline_ns &&
           memcmp(q->job.ids, leader->job.ids, (size_t)a->tokens * sizeof *q->job.ids) == 0;
}

bool in_flight_follow(in_flight *f, query_state *q)
{
    q->hash = ids_hash(q->job.ids, q->job.item.tokens);
    q->followers = NULL;
    br_lock(&f->lock);
    query_state **bucket = bucket_of(f, q->hash);
    query_state *leader = *bucket;
    while (leader != NULL && !may_follow(q, leader)) leader = leader->by_hash;
    if (leader != NULL) {
        q->next_follower = leader->followers;
        leader->followers = q;
    } else {
        q->by_hash = *bucket;
        *bucket = q;
    }
    br_unlock(&f->lock);
    return leader != NULL;
}

query_state *in_flight_end(in_flight *f, query_state *leader)
{
    br_lock(&f->lock);
    query_state **link = bucket_of(f, leader->hash);
    while (*link != NULL && *link != leader) link = &(*link)->by_hash;
    if (*link == leader) *link = leader->by_hash; /* otherwise it never led */
    query_state *followers = leader->followers;
    leader->followers = NULL;
    br_unlock(&f->lock);
    return followers;
}
