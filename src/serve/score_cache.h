/*
 * score_cache.h - qualities of prompts scored before: exact token ids -> qualities, of one bundle at a time.
 *
 * A ring of bytes that is allocated once and never grows: new entries overwrite the oldest. Ids are compared,
 * never trusted to a hash. Any thread may call anything; one mutex, held for a copy.
 *
 *   ring     | entry | entry | entry |  free  |        an entry: its header, ids, qualities
 *              oldest          newest
 *   buckets  by hash -> entry -> entry ...             links by offset
 */
#ifndef BESTROUTE_SERVE_SCORE_CACHE_H
#define BESTROUTE_SERVE_SCORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/status.h"

typedef struct score_cache score_cache;

/* Takes `bytes` for entries, 4096 or more, and an eighth of that for the index. BR_ENOMEM. */
BR_NODISCARD br_status score_cache_create(score_cache **out, size_t bytes);
void score_cache_destroy(score_cache *cache); /* accepts NULL */

/* `bundle`: a number that stands for the bundle's hash. quality[heads] is written when true. */
BR_NODISCARD bool score_cache_get(score_cache *cache, uint64_t bundle, const int32_t *ids, int32_t tokens,
                                  float *quality, int32_t heads);

/* Keeps no entry that is larger than the whole cache, or that is there already. */
void score_cache_put(score_cache *cache, uint64_t bundle, const int32_t *ids, int32_t tokens,
                     const float *quality, int32_t heads);

void score_cache_clear(score_cache *cache);

/* The hash of a prompt's ids. */
uint64_t ids_hash(const int32_t *ids, int32_t tokens);

#endif
