/*
 * attention_rows.cuh - disentangled attention, one query at a time, for the two ops that need it
 *
 *   score[j]   = q_i . k_j + q_i . key[i - j] + k_j . query[i - j]
 *   context[i] = sum_j softmax_j(score[j]) v_j                      per sequence and head
 *
 * Two kernels:
 *   vectors  heads of 32 and 64. A block owns a query and a head. A row of D elements is read by
 *            D * sizeof(T) / 16 lanes; each such group takes every kGroups-th key with a softmax of its own,
 *            and the groups' results are joined at the end. A group works on four keys at once.
 *   any      other heads. A warp owns a query and a head: lanes share the keys,
 *            then the columns of the values.
 * Numerics  in float throughout, rounded once, at the store.
 */
#ifndef BESTROUTE_CUDA_ATTENTION_ROWS_CUH
#define BESTROUTE_CUDA_ATTENTION_ROWS_CUH

#include "device.cuh"

namespace
{

constexpr int kThreads = 128; /* of a block of vectors */
constexpr int kAtOnce = 4;
constexpr int kWarpsMax = 4; /* of a block of any heads */
constexpr size_t kSharedBytesMax = 48 << 10;

template <typename T> struct rows_params {
    const T *q;
    const T *k;
    const T *v;
    const T *key_table;   /* [H, 2 * reach - 1, D] or NULL */
    const T *query_table; /* likewise */
    const int *offsets;
    T *context;
    int q_stride;
    int kv_stride;
    int context_stride;
    int seqs;
    int head_size;
    int reach;
    int seq_tokens_max;
    int pool_index; /* of the one query per sequence; -1: every token is one */
};

/* The sequence that token `token` is in; seqs when it is in none. */
__device__ int sequence_of(const int *offsets, int seqs, int token)
{
    int low = 0;
    int high = seqs;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (offsets[middle + 1] > token)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* The place of a row of q. */
struct query_place {
    int first;  /* token of its sequence */
    int length; /* of its sequence; 0: the row is padding */
    int index;  /* within its sequence */
};

template <typename T> __device__ query_place find_query(const rows_params<T> &a, int row)
{
    const bool pooled = a.pool_index >= 0;
    const int seq = pooled ? row : sequence_of(a.offsets, a.seqs, row);
    query_place at = {};
    if (seq == a.seqs) return at;
    at.first = a.offsets[seq];
    at.length = a.offsets[seq + 1] - at.first;
    at.index = pooled ? a.pool_index : row - at.first;
    return at;
}

template <typename T, int D>
__global__ void __launch_bounds__(kThreads) attention_vectors_kernel(const rows_params<T> a)
{
    constexpr int kPack = vec<T>::kCount;
    constexpr int kLanes = D / kPack;
    constexpr int kGroups = kThreads / kLanes;
    __shared__ float group_highest[kGroups];
    __shared__ float group_total[kGroups];
    __shared__ __align__(16) float group_sum[kGroups][D];

    const int row = blockIdx.x; /* of q and context */
    const int head = blockIdx.y;
    const int group = threadIdx.x / kLanes;
    const int column = threadIdx.x % kLanes * kPack;
    let_successor_start();
    wait_for_predecessor();
    const query_place at = find_query(a, row);
    if (at.length == 0) return;

    const size_t head_rows = static_cast<size_t>(head) * (2 * a.reach - 1) * D;
    const vec<T> q = load_vec(a.q + static_cast<size_t>(row) * a.q_stride + head * D + column);
    float highest = -INFINITY;
    float total = 0;
    float sum[kPack] = {};
    /* Every group takes the same number of turns, so that whole warps take part in the sums over lanes. */
    for (int start = 0; start < at.length; start += kGroups * kAtOnce) {
        vec<T> k[kAtOnce];
        vec<T> v[kAtOnce];
        vec<T> key[kAtOnce];
        vec<T> query[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            const int j = min(start + u * kGroups + group,
                              at.length - 1); /* beyond the end the last key is read again */
            const size_t token = static_cast<size_t>(at.first + j) * a.kv_stride + head * D + column;
            const size_t table_row = head_rows + static_cast<size_t>(at.index - j + a.reach - 1) * D + column;
            k[u] = load_vec(a.k + token);
            v[u] = load_vec(a.v + token);
            key[u] = a.key_table != nullptr ? load_vec(a.key_table + table_row) : vec<T>{};
            query[u] = a.query_table != nullptr ? load_vec(a.query_table + table_row) : vec<T>{};
        }
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            float score = 0;
#pragma unroll
            for (int i = 0; i < kPack; i++) {
                const float ki = widen(k[u].at[i]);
                score += widen(q.at[i]) * (ki + widen(key[u].at[i])) + ki * widen(query[u].at[i]);
            }
            score = lane_sum<kLanes>(score);
            if (start + u * kGroups + group >= at.length) continue;
            const float most = fmaxf(highest, score);
            const float rise = expf(highest - most);
            const float weight = expf(score - most);
            highest = most;
            total = total * rise + weight;
#pragma unroll
            for (int i = 0; i < kPack; i++) sum[i] = sum[i] * rise + weight * widen(v[u].at[i]);
        }
    }

    if (column == 0) {
        group_highest[group] = highest;
        group_total[group] = total;
    }
#pragma unroll
    for (int i = 0; i < kPack; i += 4)
        *reinterpret_cast<float4 *>(&group_sum[group][column + i]) =
            make_float4(sum[i], sum[i + 1], sum[i + 2], sum[i + 3]);
    __syncthreads();
    if (threadIdx.x >= D) return;
    float most = -INFINITY;
#pragma unroll
    for (int g = 0; g < kGroups; g++) most = fmaxf(most, group_highest[g]);
    float whole = 0;
    float result = 0;
#pragma unroll
    for (int g = 0; g < kGroups; g++) {
        const float share = group_highest[g] == -INFINITY ? 0 : expf(group_highest[g] - most);
        whole += group_total[g] * share;
        result += group_sum[g][threadIdx.x] * share;
    }
    a.context[static_cast<size_t>(row) * a.context_stride + head * D + threadIdx.x] =
        narrow<T>(result / whole);
}

template <typename T>
__global__ void __launch_bounds__(kWarpsMax *kWarp) attention_any_kernel(const rows_params<T> a, int rows)
{
    extern __shared__ float scratch[];
    const int warp = threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    const int row = blockIdx.x * (blockDim.x / kWarp) + warp; /* of q and context */
    const int head = blockIdx.y;
    const int size = a.head_size;
    let_successor_start();
    wait_for_predecessor();
    if (row >= rows) return;
    const query_place at = find_query(a, row);
    if (at.length == 0) return;

    float *query = scratch + static_cast<size_t>(warp) * (size + a.seq_tokens_max);
    float *scores = query + size;
    for (int d = lane; d < size; d += kWarp)
        query[d] = widen(a.q[static_cast<size_t>(row) * a.q_stride + head * size + d]);
    __syncwarp();

    const size_t head_rows = static_cast<size_t>(head) * (2 * a.reach - 1) * size;
    float highest = -INFINITY;
    for (int j = lane; j < at.length; j += kWarp) {
        const T *k = a.k + static_cast<size_t>(at.first + j) * a.kv_stride + head * size;
        const size_t table_row = head_rows + static_cast<size_t>(at.index - j + a.reach - 1) * size;
        const T *key = a.key_table != nullptr ? a.key_table + table_row : nullptr;
        const T *position_query = a.query_table != nullptr ? a.query_table + table_row : nullptr;
        float score = 0;
        for (int d = 0; d < size; d++) {
            const float kd = widen(k[d]);
            score += query[d] * (key != nullptr ? kd + widen(key[d]) : kd);
            if (position_query != nullptr) score += kd * widen(position_query[d]);
        }
        scores[j] = score;
        highest = fmaxf(highest, score);
    }
    highest = warp_max(highest);
    float total = 0;
    for (int j = lane; j < at.length; j += kWarp) {
        const float weight = expf(scores[j] - highest);
        total += weight;
        scores[j] = weight;
    }
    total = warp_sum(total);
    __syncwarp();

    const T *v = a.v + static_cast<size_t>(at.first) * a.kv_stride + head * size;
    for (int d = lane; d < size; d += kWarp) {
        float sum = 0;
        for (int j = 0; j < at.length; j++)
            sum += scores[j] * widen(v[static_cast<size_t>(j) * a.kv_stride + d]);
        a.context[static_cast<size_t>(row) * a.context_stride + head * size + d] = narrow<T>(sum / total);
    }
}

/* `rows` queries: one per token, or with a pool_index one per sequence. */
template <typename T>
br_status launch_rows(rows_params<T> params, const br_position_tables *positions, int rows, int heads,
                      const br_queue *queue)
{
    params.reach = 1;
    params.context_stride = heads * params.head_size;
    if (positions != nullptr) {
        params.key_table = static_cast<const T *>(positions->key);
        params.query_table = static_cast<const T *>(positions->query);
        params.reach = positions->seq_tokens_max;
    }
    switch (params.head_size) {
    case 32:
        return launch(attention_vectors_kernel<T, 32>, dim3(rows, heads), kThreads, 0, queue, params);
    case 64:
        return launch(attention_vectors_kernel<T, 64>, dim3(rows, heads), kThreads, 0, queue, params);
    }
    const size_t warp_bytes = (static_cast<size_t>(params.head_size) + params.seq_tokens_max) * sizeof(float);
    if (warp_bytes > kSharedBytesMax) return BR_ENOTSUP;
    const size_t fitting = kSharedBytesMax / warp_bytes;
    const unsigned warps = fitting < kWarpsMax ? static_cast<unsigned>(fitting) : kWarpsMax;
    return launch(attention_any_kernel<T>, dim3(ceil_div(rows, warps), heads), warps * kWarp,
                  warps * warp_bytes, queue, params, rows);
}

} // namespace

#endif
