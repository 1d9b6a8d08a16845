/* in_flight.c - see in_flight.h. */
#include "in_flight.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/thread.h"
#include "score_cache.h"

struct br_in_flight {
    pthread_mutex_t lock; /* guards the links of all queries in it */
    size_t bucket_count;  /* a power of two */
    br_query_state *buckets[];
};

br_status br_in_flight_create(br_in_flight **out, int64_t queue_max)
{
    size_t count = 64;
    while (count < (size_t)queue_max) count *= 2;
    *out = calloc(1, sizeof **out + count * sizeof(*out)->buckets[0]);
    if (*out == NULL) return BR_ENOMEM;
    (*out)->bucket_count = count;
    br_mutex_init(&(*out)->lock);
    return BR_OK;
}

void br_in_flight_destroy(br_in_flight *in_flight)
{
    if (in_flight == NULL) return;
    br_mutex_destroy(&in_flight->lock);
    free(in_flight);
}

static br_query_state **bucket_of(br_in_flight *s, uint64_t hash)
{
    return &s->buckets[hash & (s->bucket_count - 1)];
}

static bool may_follow(const br_query_state *q, const br_query_state *leader)
{
    const br_batch_item *a = &q->job.item;
    const br_batch_item *b = &leader->job.item;
    return q->hash == leader->hash && a->group == b->group && a->client == b->client &&
           a->tokens == b->tokens && b->deadline_ns <= a->deadline_ns &&
           memcmp(q->job.ids, leader->job.ids, (size_t)a->tokens * sizeof *q->job.ids) == 0;
}

bool br_in_flight_follow(br_in_flight *in_flight, br_query_state *q)
{
    q->hash = br_ids_hash(q->job.ids, q->job.item.tokens);
    q->followers = NULL;
    br_lock(&in_flight->lock);
    br_query_state **bucket = bucket_of(in_flight, q->hash);
    br_query_state *leader = *bucket;
    while (leader != NULL && !may_follow(q, leader)) leader = leader->by_hash;
    if (leader != NULL) {
        q->next_follower = leader->followers;
        leader->followers = q;
    } else {
        q->by_hash = *bucket;
        *bucket = q;
    }
    br_unlock(&in_flight->lock);
    return leader != NULL;
}

br_query_state *br_in_flight_end(br_in_flight *in_flight, br_query_state *leader)
{
    br_lock(&in_flight->lock);
    br_query_state **link = bucket_of(in_flight, leader->hash);
    while (*link != NULL && *link != leader) link = &(*link)->by_hash;
    if (*link == leader) *link = leader->by_hash; /* else a follower that was queued itself: it never led */
    br_query_state *followers = leader->followers;
    leader->followers = NULL;
    br_unlock(&in_flight->lock);
    return followers;
}
