/*
 * attention_band.cu - disentangled self-attention over packed sequences, on tensor cores
 *
 *   score[i, j] = q_i . k_j + q_i . key[i - j] + k_j . query[i - j]
 *   context[i]  = sum_j softmax_j(score[i, j]) v_j                  per sequence and head
 *
 * A position term depends on i - j alone: over a 16 x 16 tile of scores it takes 31 values of the distance,
 * a band of the product with the position table. Each band is multiplied as a small dense tile and skewed
 * into place through shared memory; neither it nor the scores ever reach global memory.
 *
 *          keys j0 .. j0+15                      distances  i0-j0-15 .. i0-j0+15
 *        +----------------+                     +----------------------------------+
 *   i0   | scores         |   q . key[d]        |  row i holds scores (i, i - d)   |  "key band": a ring of
 *   ..   | 16 x 16        |   k . query[d]      |  row d holds scores (d + j, j)   |  32 columns a row, half
 *   i0+15|                |                     +----------------------------------+  of it new at each tile
 *        +----------------+
 *
 * Work      a warp owns a tile of 16 queries; kTiles warps make a block, which shares keys, values and
 *           position rows. Blocks of a head split that head's tiles evenly by cost (keys + a constant) and
 *           walk over theirs: several short sequences at once, or a long one in slices of kKeys keys.
 * Shared    a ring of 2 * kKeys position rows per table, which sequences of up to kKeys tokens load once;
 *           keys and values, double buffered by cp.async; 4 KiB a warp for the bands.
 *           All rows are swizzled so that ldmatrix meets no bank conflict; see key_band_at for the bands.
 * Traffic   4 * D elements per token and head, and the position rows once per block from L2.
 * Numerics  scores, softmax and sums in float; online softmax; the exponentials are rounded to T to weigh
 *           the values, and summed unrounded; the result is rounded once.
 * Order     keys 0, 1 | 4, 5 | 8, 9 | ... of a tile are columns 0 .. 7 of the first mma, keys
 *           2, 3 | 6, 7 | ... of the second, so that lane t of a quad holds the four neighbours 4t .. 4t+3.
 * Limits    16-bit types, D of 32 or 64; rows and strides of whole 16 bytes; T * 3C < 2^31.
 * Checked   tests/engine/test_op_attention.c against loops in double.
 */
#include "attention_schedule.cuh"
#include "mma.cuh"

namespace
{

constexpr float kLog2E = 1.4426950408889634f;

struct attention_params {
    const void *q;
    const void *k;
    const void *v;
    const void *key_table;
    const void *query_table;
    const int *offsets;
    void *context;
    int q_stride;
    int kv_stride;
    int context_stride;
    int seqs;
    int reach;    /* S of the tables */
    int resident; /* position rows -resident + 1 .. resident serve every sequence of up to kKeys tokens */
};

/* Sizes and places that follow from the template arguments. */
template <typename T, int D, int kTiles> struct layout {
    static constexpr int kKeys = kTile * kTiles;
    static constexpr int kRing = 2 * kKeys;
    static constexpr int kRowBytes = D * 2;
    static constexpr int kChunks = D / 8;
    static constexpr int kThreads = kTiles * kWarp;
    static constexpr int kRingBytes = kRing * kRowBytes;
    static constexpr int kStageBytes = 2 * kKeys * kRowBytes; /* keys, then values */
    static constexpr int kBandBytes = 2 * kTile * 32 * 4;     /* key band, then query band */
    static constexpr int kKeyRing = 0;
    static constexpr int kQueryRing = kKeyRing + kRingBytes;
    static constexpr int kStages = kQueryRing + kRingBytes;
    static constexpr int kBands = kStages + 2 * kStageBytes;
    static constexpr int kPrefixes = kBands + kTiles * kBandBytes;

    /* Then three arrays of seqs + 1: first token, first tile and first cost of each sequence. */
    static size_t shared_bytes(int seqs)
    {
        return kPrefixes + 3 * sizeof(int) * (static_cast<size_t>(seqs) + 1);
    }
};

/* Byte offset of 16-byte chunk `chunk` in row `row` of a matrix of rows of kRowBytes. Straight: eight
 * neighbouring rows meet no conflict. Paired: rows 0, 1, 4, 5, 8, 9, 12, 13 from any start do not. */
template <int kRowBytes> __device__ inline uint32_t straight(int row, int chunk)
{
    const int turn = kRowBytes == 128 ? row & 7 : row >> 1 & 3;
    return static_cast<uint32_t>(row * kRowBytes + (chunk ^ turn) * 16);
}
template <int kRowBytes> __device__ inline uint32_t paired(int row, int chunk)
{
    const int turn = kRowBytes == 128 ? (row & 1) | (row >> 1 & 6) : row >> 2 & 3;
    return static_cast<uint32_t>(row * kRowBytes + (chunk ^ turn) * 16);
}

/* The order of a tile's 16 keys (or distances) as columns: column n of mma `half`. */
__device__ inline int in_order(int n, int half)
{
    return 4 * (n >> 1) + (n & 1) + 2 * half;
}

/*
 * Where a warp's two bands keep score (i, j): 32 floats a row, turned by a number that depends on the row.
 *   key band     written down its diagonals, a scalar a lane; read as four neighbouring keys
 *   query band   written along both, read as scalars
 * The turns make the 32 lanes of each of these accesses meet 32 different banks.
 */
__device__ inline int key_band_at(int i, int j)
{
    const int turn = 16 * (i & 1) + 12 * (i >> 2 & 1);
    return i * 32 + ((j + turn) & 31);
}
__device__ inline int query_band_at(int i, int j)
{
    const int turn = (i & 3) + 16 * (i >> 2 & 1);
    return i * 32 + ((j + turn) & 31);
}

/* Position rows of one head in the two rings; row d lies at d & (kRing - 1). */
template <typename T, int D, int kTiles> struct position_rings {
    using L = layout<T, D, kTiles>;
    const T *key;   /* the head's rows; NULL: no such term */
    const T *query; /* likewise */
    uint32_t base;
    int reach;
    int loaded; /* the centre of the loaded distances */

    /* Enqueues the copy of distances first .. first + count - 1. Distances beyond the tables, which only
     * tiles across the end of a sequence need, repeat the outermost row. */
    __device__ void copy(int first, int count) const
    {
        for (int index = threadIdx.x; index < count * L::kChunks; index += L::kThreads) {
            const int distance = first + index / L::kChunks;
            const int chunk = index % L::kChunks;
            const int slot = distance & (L::kRing - 1);
            const int row = min(max(distance + reach - 1, 0), 2 * reach - 2);
            const size_t from = static_cast<size_t>(row) * D + chunk * 8;
            if (key != nullptr)
                copy_async(base + L::kKeyRing + paired<L::kRowBytes>(slot, chunk), key + from);
            if (query != nullptr)
                copy_async(base + L::kQueryRing + straight<L::kRowBytes>(slot, chunk), query + from);
        }
    }

    /* Enqueues the distances of the first step: around 0, at most `resident` rows to each side. */
    __device__ void start_at(int shift, int resident)
    {
        const int side = shift == 0 ? resident : L::kKeys;
        copy(shift - side + 1, 2 * side);
        loaded = shift;
    }

    /* Enqueues those distances of a step around `shift` that are not loaded. Earlier copies have arrived. */
    __device__ void move_to(int shift)
    {
        if (shift == loaded) return;
        const bool slides = shift == loaded - L::kKeys;
        copy(shift - L::kKeys + 1, slides ? L::kKeys : L::kRing);
        loaded = shift;
    }
};

/* Enqueues the copy of a step's keys and values. */
template <typename T, int D, int kTiles>
__device__ void copy_keys(const attention_params &a, const step &s, int head, uint32_t stage)
{
    using L = layout<T, D, kTiles>;
    for (int index = threadIdx.x; index < s.keys * L::kChunks; index += L::kThreads) {
        const int row = index / L::kChunks;
        const int chunk = index % L::kChunks;
        const size_t from = static_cast<size_t>(s.token + row) * a.kv_stride + head * D + chunk * 8;
        const uint32_t to = stage + paired<L::kRowBytes>(row, chunk);
        copy_async(to, static_cast<const T *>(a.k) + from);
        copy_async(to + L::kKeys * L::kRowBytes, static_cast<const T *>(a.v) + from);
    }
}

/* One warp's tile of 16 queries, and its sums over the keys so far. */
template <typename T, int D, int kTiles> struct query_tile {
    using L = layout<T, D, kTiles>;
    static constexpr int kSteps = D / kTile; /* mma steps over the head */

    fragment_a q[kSteps];
    fragment_a position_query[kSteps]; /* rows of distances i0 - j0 - 15 .. i0 - j0 of the latest key tile */
    float sum[2 * kSteps][4];          /* exponentials times values; D / 8 n-tiles */
    float highest[2];                  /* of rows g and g + 8 */
    float total[2];                    /* this lane's part */
    int seq;
    int token;  /* of the first query */
    int query;  /* its index within the sequence, a multiple of 16 */
    int length; /* of the sequence */

    __device__ void begin(const attention_params &a, const prefixes &p, int tile, int first_seq, int head,
                          float *band, int lane)
    {
        seq = first_seq;
        while (p.tile[seq + 1] <= tile) seq++;
        length = p.length(seq);
        query = (tile - p.tile[seq]) * kTile;
        token = p.token[seq] + query;
        for (int n = 0; n < 2 * kSteps; n++)
            for (int e = 0; e < 4; e++) sum[n][e] = 0;
        for (int h = 0; h < 2; h++) {
            highest[h] = -INFINITY;
            total[h] = 0;
        }
        /* Through the warp's bands into fragments; rows beyond the end repeat the last one. */
        const uint32_t rows = shared_address(band);
        for (int index = lane; index < kTile * L::kChunks; index += kWarp) {
            const int row = index / L::kChunks;
            const int chunk = index % L::kChunks;
            const size_t from =
                static_cast<size_t>(token + min(row, length - query - 1)) * a.q_stride + head * D + chunk * 8;
            copy_async(rows + straight<L::kRowBytes>(row, chunk), static_cast<const T *>(a.q) + from);
        }
    }

    __device__ void take_queries(const float *band, int lane)
    {
        const uint32_t rows = shared_address(band);
#pragma unroll
        for (int k = 0; k < kSteps; k++)
            load_matrices(q[k].r, rows + straight<L::kRowBytes>(lane % 16, 2 * k + lane / 16));
        __syncwarp();
    }

    /* q . key[d] for d = first .. first + 15, into the columns i - d of the ring. */
    __device__ void key_band(float *band, uint32_t ring, int first, int lane) const
    {
        float c[2][4] = {};
        const int slot = (first + in_order(lane % 8, lane / 16)) & (L::kRing - 1);
#pragma unroll
        for (int k = 0; k < kSteps; k++) {
            fragment_b2 b;
            load_matrices(b.r, ring + paired<L::kRowBytes>(slot, 2 * k + lane / 8 % 2));
            mma<T>(c[0], q[k], b.r[0], b.r[1]);
            mma<T>(c[1], q[k], b.r[2], b.r[3]);
        }
        const int g = lane / 4;
        const int key = query - first - lane % 4 * 4; /* i - d of row 0, element 0 */
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int row = g + e / 2 % 2 * 8;
            const int within = e / 4 * 2 + e % 2;
            band[key_band_at(row, key + row - within)] = c[e / 4][e % 4];
        }
    }

    /* Fragments of the rows query[d], d = first .. first + 15. */
    __device__ void take_position_queries(uint32_t ring, int first, int lane)
    {
        const int slot = (first + lane % 16) & (L::kRing - 1);
#pragma unroll
        for (int k = 0; k < kSteps; k++)
            load_matrices(position_query[k].r, ring + straight<L::kRowBytes>(slot, 2 * k + lane / 16));
    }

    /* query[d] . k for the 16 distances of position_query,
     * the first of them `above` - 15 more than i0 - j0. */
    __device__ void query_band(float *band, const fragment_b2 (&k)[kSteps], int above, int lane) const
    {
        float c[2][4] = {};
#pragma unroll
        for (int s = 0; s < kSteps; s++) {
            mma<T>(c[0], position_query[s], k[s].r[0], k[s].r[1]);
            mma<T>(c[1], position_query[s], k[s].r[2], k[s].r[3]);
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int column = lane % 4 * 4 + e / 4 * 2 + e % 2;
            const int row = above - 15 + lane / 4 + e / 2 % 2 * 8 + column; /* i = d + j */
            if (row >= 0 && row < kTile) band[query_band_at(row, column)] = c[e / 4][e % 4];
        }
    }

    /* Reads the position terms of a tile's scores from the two bands. */
    __device__ void position_scores(float (&s)[2][4], const float *keys, const float *queries, int key,
                                    int lane) const
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int row = lane / 4 + h * 8;
            float4 from_key = {};
            if (keys != nullptr)
                from_key = *reinterpret_cast<const float4 *>(keys + key_band_at(row, key + lane % 4 * 4));
            const float values[4] = {from_key.x, from_key.y, from_key.z, from_key.w};
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float from_query =
                    queries != nullptr ? queries[query_band_at(row, lane % 4 * 4 + e)] : 0;
                s[e / 2][h * 2 + e % 2] = values[e] + from_query;
            }
        }
    }

    /* Turns scores into exponentials. Where a row's maximum rises, its earlier sums are rescaled. */
    __device__ void exponentials(float (&s)[2][4])
    {
        float rise[2];
        bool rises = false;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = fmaxf(fmaxf(s[0][2 * h], s[0][2 * h + 1]), fmaxf(s[1][2 * h], s[1][2 * h + 1]));
            most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
            most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
            most = fmaxf(most, highest[h]);
            rises |= most > highest[h];
            rise[h] = exp2f((highest[h] - most) * kLog2E);
            highest[h] = most;
        }
        if (__any_sync(kAllLanes, rises)) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                total[h] *= rise[h];
#pragma unroll
                for (int n = 0; n < 2 * kSteps; n++) {
                    sum[n][2 * h] *= rise[h];
                    sum[n][2 * h + 1] *= rise[h];
                }
            }
        }
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int h = e / 2 % 2;
            float &x = s[e / 4][e % 4];
            x = exp2f((x - highest[h]) * kLog2E);
            total[h] += x;
        }
    }

    /* One tile of 16 keys: index `key` within the sequence, row `row` of the stage, `left` of them exist. */
    __device__ void attend(uint32_t base, uint32_t stage, float *bands, bool with_key, bool with_query,
                           int key, int row, int left, int lane)
    {
        float *const keys = with_key ? bands : nullptr;
        float *const queries = with_query ? bands + kTile * 32 : nullptr;
        /* Rows beyond the sequence's end repeat its last row: they may hold another sequence, or be
         * unwritten. */
        const int own_row = row + min(in_order(lane % 8, lane / 16), left - 1);
        fragment_b2 k[kSteps];
#pragma unroll
        for (int s = 0; s < kSteps; s++)
            load_matrices(k[s].r, stage + paired<L::kRowBytes>(own_row, 2 * s + lane / 8 % 2));

        const int distance = query - key;
        if (with_query) {
            if (key == 0) take_position_queries(base + L::kQueryRing, distance + 1, lane);
            query_band(queries, k, kTile, lane);
            take_position_queries(base + L::kQueryRing, distance - 15, lane);
            query_band(queries, k, 0, lane);
        }
        if (with_key) {
            if (key == 0) key_band(keys, base + L::kKeyRing, distance + 1, lane);
            key_band(keys, base + L::kKeyRing, distance - 15, lane);
        }
        __syncwarp();
        float s[2][4];
        position_scores(s, keys, queries, key, lane);
        __syncwarp(); /* the bands may be written again */
#pragma unroll
        for (int i = 0; i < kSteps; i++) {
            mma<T>(s[0], q[i], k[i].r[0], k[i].r[1]);
            mma<T>(s[1], q[i], k[i].r[2], k[i].r[3]);
        }
        if (left < kTile) {
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (lane % 4 * 4 + e / 4 * 2 + e % 2 >= left) s[e / 4][e % 4] = -INFINITY;
        }
        exponentials(s);

        fragment_a weights;
        weights.r[0] = pack_two<T>(s[0][0], s[0][1]);
        weights.r[1] = pack_two<T>(s[0][2], s[0][3]);
        weights.r[2] = pack_two<T>(s[1][0], s[1][1]);
        weights.r[3] = pack_two<T>(s[1][2], s[1][3]);
        const uint32_t values = stage + L::kKeys * L::kRowBytes;
        const int value_row = row + min(in_order(lane % 8, lane / 8 % 2), left - 1);
#pragma unroll
        for (int i = 0; i < kSteps; i++) {
            fragment_b2 v;
            load_matrices_transposed(v.r, values + paired<L::kRowBytes>(value_row, 2 * i + lane / 16));
            mma<T>(sum[2 * i], weights, v.r[0], v.r[1]);
            mma<T>(sum[2 * i + 1], weights, v.r[2], v.r[3]);
        }
    }

    /* Divides and stores, through the warp's bands, 16 bytes a lane. */
    __device__ void end(const attention_params &a, int head, float *band, int lane) const
    {
        unsigned char *const rows = reinterpret_cast<unsigned char *>(band);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float scale = 1.0f / lane_sum<4>(total[h]);
            const int row = lane / 4 + h * 8;
#pragma unroll
            for (int n = 0; n < 2 * kSteps; n++)
                *reinterpret_cast<uint32_t *>(rows + straight<L::kRowBytes>(row, n) + lane % 4 * 4) =
                    pack_two<T>(sum[n][2 * h] * scale, sum[n][2 * h + 1] * scale);
        }
        __syncwarp();
        for (int index = lane; index < kTile * L::kChunks; index += kWarp) {
            const int row = index / L::kChunks;
            const int chunk = index % L::kChunks;
            if (query + row >= length) continue;
            T *to =
                static_cast<T *>(a.context) + static_cast<size_t>(token + row) * a.context_stride + head * D;
            store_vec(to + chunk * 8,
                      load_vec(reinterpret_cast<const T *>(rows + straight<L::kRowBytes>(row, chunk))));
        }
        __syncwarp();
    }
};

template <typename T, int D, int kTiles>
__global__ void __launch_bounds__(kTiles *kWarp, 1) attention_band_kernel(const attention_params a)
{
    using L = layout<T, D, kTiles>;
    extern __shared__ __align__(128) unsigned char shared[];
    const uint32_t base = shared_address(shared);
    const int lane = threadIdx.x % kWarp;
    const int warp = threadIdx.x / kWarp;
    const int head = blockIdx.y;
    const int rows = 2 * a.reach - 1;

    /* No kernel writes ids, offsets and weights: they are read while the previous kernel ends. */
    let_successor_start();
    int *const sums = reinterpret_cast<int *>(shared + L::kPrefixes);
    const prefixes p = {sums, sums + a.seqs + 1, sums + 2 * (a.seqs + 1), a.seqs};
    if (warp == 0) make_prefixes(p, a.offsets, lane);
    const size_t head_rows = static_cast<size_t>(head) * rows * D;
    const T *const key_table = static_cast<const T *>(a.key_table);
    const T *const query_table = static_cast<const T *>(a.query_table);
    position_rings<T, D, kTiles> rings = {key_table != nullptr ? key_table + head_rows : nullptr,
                                          query_table != nullptr ? query_table + head_rows : nullptr, base,
                                          a.reach, 0};
    __syncthreads();
    const int end = p.share_start(blockIdx.x + 1, gridDim.x);
    step now = first_step_at<kTiles, L::kKeys>(p, p.share_start(blockIdx.x, gridDim.x), end);
    if (now.tiles > 0) rings.start_at(now.shift, a.resident);
    wait_for_predecessor(); /* also in a block without work: no kernel may end before the previous one */
    if (now.tiles == 0) return;

    uint32_t stage = base + L::kStages;
    uint32_t other_stage = stage + L::kStageBytes;
    float *const bands = reinterpret_cast<float *>(shared + L::kBands + warp * L::kBandBytes);
    query_tile<T, D, kTiles> tile;
    copy_keys<T, D, kTiles>(a, now, head, stage);
    for (;;) {
        const bool mine = warp < now.tiles;
        const bool first = now.begin == 0;
        if (mine && first) tile.begin(a, p, now.tile + warp, now.seq, head, bands, lane);
        rings.move_to(now.shift);
        copies_commit();
        const step next = step_after<kTiles, L::kKeys>(p, now, end);
        if (next.tiles > 0) copy_keys<T, D, kTiles>(a, next, head, other_stage);
        copies_commit();
        copies_wait<1>(); /* all but the next step's keys */
        __syncthreads();
        if (mine) {
            if (first) tile.take_queries(bands, lane);
            const int row =
                p.token[tile.seq] + now.begin - now.token; /* of the stage, where the sequence starts */
            const int keys = min(tile.length - now.begin, L::kKeys);
            for (int key = 0; key < keys; key += kTile)
                tile.attend(base, stage, bands, key_table != nullptr, query_table != nullptr, now.begin + key,
                            row + key, keys - key, lane);
            if (now.last) tile.end(a, head, bands, lane);
        }
        if (next.tiles == 0) break;
        __syncthreads(); /* the stage and the rings may be filled again */
        const uint32_t freed = stage;
        stage = other_stage;
        other_stage = freed;
        now = next;
    }
}

constexpr int kTilesSmall = 4; /* sequences of up to 64 tokens stay whole */
constexpr int kTilesLarge = 8; /* up to 128 */

template <typename T, int D, int kTiles>
br_status launch_tiles(const br_attention_args *args, attention_params &params, const br_queue *queue)
{
    using L = layout<T, D, kTiles>;
    const size_t shared_bytes = L::shared_bytes(args->seqs);
    int blocks_per_multiprocessor = 0;
    const auto kernel = attention_band_kernel<T, D, kTiles>;
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_per_multiprocessor, kernel, L::kThreads,
                                                      shared_bytes) != cudaSuccess ||
        blocks_per_multiprocessor < 1)
        return BR_EDEVICE;
    const int longest = ceil_div(args->seq_tokens_max, kTile) * kTile;
    params.resident = longest < L::kKeys ? longest : L::kKeys;

    /* At most as many blocks as run together, and as there can be groups of tiles. */
    const int fitting = blocks_per_multiprocessor * queue->multiprocessors / args->heads;
    const int groups = ceil_div(args->tokens / kTile + args->seqs, kTiles);
    const int blocks = fitting < 1 ? 1 : fitting < groups ? fitting : groups;
    return launch(kernel, dim3(blocks, args->heads), L::kThreads, shared_bytes, queue, params);
}

template <typename T, int D>
br_status launch_size(const br_attention_args *args, attention_params &params, const br_queue *queue)
{
    const bool large = args->seq_tokens_max > layout<T, D, kTilesSmall>::kKeys &&
                       layout<T, D, kTilesLarge>::shared_bytes(args->seqs) <= queue->shared_bytes_max;
    return large ? launch_tiles<T, D, kTilesLarge>(args, params, queue)
                 : launch_tiles<T, D, kTilesSmall>(args, params, queue);
}

template <typename T>
br_status launch_type(const br_attention_args *args, attention_params &params, const br_queue *queue)
{
    switch (args->head_size) {
    case 32:
        return launch_size<T, 32>(args, params, queue);
    case 64:
        return launch_size<T, 64>(args, params, queue);
    }
    return BR_ENOTSUP;
}

template <typename T, int D, int kTiles> br_status prepare_tiles(const br_queue *queue)
{
    const size_t most = layout<T, D, kTiles>::shared_bytes(BR_BATCH_SEQS_MAX);
    if (layout<T, D, kTiles>::shared_bytes(0) > queue->shared_bytes_max) return BR_OK;
    return allow_shared_bytes(attention_band_kernel<T, D, kTiles>,
                              most < queue->shared_bytes_max ? most : queue->shared_bytes_max);
}

template <typename T> br_status prepare_type(const br_queue *queue)
{
    br_status status = prepare_tiles<T, 32, kTilesSmall>(queue);
    if (status == BR_OK) status = prepare_tiles<T, 32, kTilesLarge>(queue);
    if (status == BR_OK) status = prepare_tiles<T, 64, kTilesSmall>(queue);
    return status == BR_OK ? prepare_tiles<T, 64, kTilesLarge>(queue) : status;
}

bool aligned(const void *pointer)
{
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

} // namespace

bool br_attention_band_fits(const br_attention_args *a, br_dtype type, const br_queue *queue)
{
    const bool size = a->head_size == 32 || a->head_size == 64;
    const bool rows = a->q_stride % 8 == 0 && a->kv_stride % 8 == 0 && aligned(a->q) && aligned(a->k) &&
                      aligned(a->v) && aligned(a->context);
    return type != BR_F32 && size && rows &&
           layout<half, 64, kTilesSmall>::shared_bytes(a->seqs) <= queue->shared_bytes_max;
}

br_status br_attention_band_prepare(const br_queue *queue)
{
    const br_status status = prepare_type<half>(queue);
    return status == BR_OK ? prepare_type<bf16>(queue) : status;
}

br_status br_launch_attention_band(const br_attention_args *a, const br_position_tables *positions,
                                   br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0 || a->tokens == 0) return BR_OK;
    attention_params params = {};
    params.q = a->q;
    params.k = a->k;
    params.v = a->v;
    params.offsets = a->offsets;
    params.context = a->context;
    params.q_stride = a->q_stride;
    params.kv_stride = a->kv_stride;
    params.context_stride = a->heads * a->head_size;
    params.seqs = a->seqs;
    params.reach = 1;
    if (positions != nullptr) {
        params.key_table = positions->key;
        params.query_table = positions->query;
        params.reach = positions->seq_tokens_max;
    }
    switch (type) {
    case BR_F16:
        return launch_type<half>(a, params, queue);
    case BR_BF16:
        return launch_type<bf16>(a, params, queue);
    case BR_F32:
        break;
    }
    return BR_ENOTSUP;
}
