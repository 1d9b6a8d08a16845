/*
 * attention_schedule.cuh - which block of attention_band.cu computes which queries against which keys
 *
 * Sequences are cut into tiles of 16 queries.
 * A block finds its share of a head's tiles from the offsets alone:
 *
 *   prefixes   first token, first tile and first cost of each sequence
 *   share      the tiles of one block; all shares have about the same cost
 *   steps      the parts of a share, in order. A step computes up to kTiles tiles against up to kKeys keys:
 *              several whole sequences with all their keys, or tiles of one long sequence against one slice
 *              of its keys
 */
#ifndef BESTROUTE_CUDA_ATTENTION_SCHEDULE_CUH
#define BESTROUTE_CUDA_ATTENTION_SCHEDULE_CUH

#include "device.cuh"

namespace
{

constexpr int kTile = 16;

/* The cost of a query tile besides its key tiles, in key tiles. Costs decide how work is split. */
constexpr int kTileOverhead = 4;

/* Prefix sums over the sequences, in shared memory. */
struct prefixes {
    int *token; /* [seqs + 1] */
    int *tile;  /* [seqs + 1] */
    int *cost;  /* [seqs + 1] */
    int seqs;

    __device__ int length(int seq) const
    {
        return token[seq + 1] - token[seq];
    }
    __device__ int tile_cost(int seq) const
    {
        return (length(seq) + kTile - 1) / kTile + kTileOverhead;
    }

    /* The sequence `s` with first[s] <= value < first[s + 1]. */
    __device__ int find(const int *first, int value) const
    {
        int low = 0;
        int high = seqs;
        while (high - low > 1) {
            const int middle = (low + high) / 2;
            if (first[middle] <= value)
                low = middle;
            else
                high = middle;
        }
        return low;
    }

    /* The first tile of share `part` of `parts`: the tiles before it have part / parts of the whole cost. */
    __device__ int share_start(int part, int parts) const
    {
        if (part == parts) return tile[seqs];
        const int before = static_cast<int>(static_cast<int64_t>(cost[seqs]) * part / parts);
        const int seq = find(cost, before);
        const int each = tile_cost(seq);
        return min(tile[seq] + (before - cost[seq] + each - 1) / each, tile[seq + 1]);
    }
};

/* By one warp; the other warps see the sums after the next block-wide barrier. */
__device__ void make_prefixes(const prefixes &p, const int *offsets, int lane)
{
    int tiles = 0;
    int cost = 0;
    for (int first = 0; first <= p.seqs; first += kWarp) {
        const int seq = first + lane;
        const int start = offsets[min(seq, p.seqs)];
        const int length = offsets[min(seq + 1, p.seqs)] - start;
        const int own_tiles = (length + kTile - 1) / kTile;
        int tile_sum = own_tiles;
        int cost_sum = own_tiles * (own_tiles + kTileOverhead);
        const int own_cost = cost_sum;
#pragma unroll
        for (int step = 1; step < kWarp; step *= 2) {
            const int tile_before = __shfl_up_sync(kAllLanes, tile_sum, step);
            const int cost_before = __shfl_up_sync(kAllLanes, cost_sum, step);
            if (lane >= step) {
                tile_sum += tile_before;
                cost_sum += cost_before;
            }
        }
        if (seq <= p.seqs) {
            p.token[seq] = start;
            p.tile[seq] = tiles + tile_sum - own_tiles;
            p.cost[seq] = cost + cost_sum - own_cost;
        }
        tiles += __shfl_sync(kAllLanes, tile_sum, kWarp - 1);
        cost += __shfl_sync(kAllLanes, cost_sum, kWarp - 1);
    }
}

/* What a block computes between two barriers: up to kTiles query tiles against up to kKeys keys. */
struct step {
    int tile;  /* the first query tile; tiles follow one another */
    int tiles; /* 0: there is nothing more to do */
    int seq;   /* of the first tile */
    int token; /* the first key */
    int keys;
    int begin; /* index of the first key within its sequence; 0 for whole sequences */
    int shift; /* first query - first key in a long sequence, the centre of its distances; 0 for whole ones */
    bool last; /* no slice of the same sequence follows */
};

template <int kTiles, int kKeys> __device__ step first_step_at(const prefixes &p, int tile, int end)
{
    step s = {};
    s.tile = tile;
    if (tile >= end) return s;
    s.seq = p.find(p.tile, tile);
    s.token = p.token[s.seq];
    if (p.length(s.seq) > kKeys) {
        s.tiles = min(min(p.tile[s.seq + 1], end) - tile, kTiles);
        s.keys = kKeys;
        s.shift = (tile - p.tile[s.seq]) * kTile;
        return s;
    }
    /* As many whole sequences as there is room for their keys. */
    int seq = s.seq;
    const int tile_end = min(end, tile + kTiles);
    while (seq + 1 < p.seqs && p.tile[seq + 1] < tile_end && p.token[seq + 2] - s.token <= kKeys) seq++;
    s.tiles = min(p.tile[seq + 1], tile_end) - tile;
    s.keys = p.token[seq + 1] - s.token;
    s.last = true;
    return s;
}

template <int kTiles, int kKeys> __device__ step step_after(const prefixes &p, const step &s, int end)
{
    if (s.last) return first_step_at<kTiles, kKeys>(p, s.tile + s.tiles, end);
    step next = s;
    next.token += kKeys;
    next.begin += kKeys;
    next.shift -= kKeys;
    const int left = p.length(s.seq) - next.begin;
    next.keys = min(left, kKeys);
    next.last = left <= kKeys;
    return next;
}

} // namespace

#endif
