/*
 * score_cache.h - qualities of prompts scored before: exact token ids -> qualities, of one bundle at a time.
 *
 * A ring of bytes that is taken once and never grows: what is put overwrites what was put first. Ids are
 * compared, never trusted to a hash. Any thread may call anything; one mutex, held for a copy.
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

typedef struct br_score_cache br_score_cache;

/* At most `bytes` of entries, 4096 or more, and an index of an eighth of that. BR_ENOMEM. */
BR_NODISCARD br_status br_score_cache_create(br_score_cache **out, size_t bytes);
void br_score_cache_destroy(br_score_cache *cache); /* accepts NULL */

/* `bundle`: a number that stands for the bundle's hash. quality[heads] is written when true. */
BR_NODISCARD bool br_score_cache_get(br_score_cache *cache, uint64_t bundle, const int32_t *ids,
                                     int32_t tokens, float *quality, int32_t heads);

/* Nothing is kept of what is larger than the whole cache, or there already. */
void br_score_cache_put(br_score_cache *cache, uint64_t bundle, const int32_t *ids, int32_t tokens,
                        const float *quality, int32_t heads);

void br_score_cache_clear(br_score_cache *cache);

/* The hash of a prompt's ids. */
uint64_t br_ids_hash(const int32_t *ids, int32_t tokens);

#endif
