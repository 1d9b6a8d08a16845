/*
 * pooled_attention.cu - the last layer's attention: one query per sequence
 *
 *   score[j]   = q . k_j + q . key[i - j] + k_j . query[i - j]      i = pool_index
 *   context[b] = sum_j softmax_j(score[j]) v_j                      per sequence and head
 *
 * Work      one block owns a sequence and a head. A row of D elements is read by D * sizeof(T) / 16 lanes;
 *           each such group takes every kGroups-th key with a softmax of its own, and the groups' results
 *           are joined at the end. Four keys a group are under way at once.
 * Shared    a maximum, a sum and D partial results per group.
 * Traffic   2 * D elements per token and head, and two position rows per token from L2. Bound by memory.
 * Numerics  in float throughout, rounded once, at the store.
 * Limits    D * sizeof(T) / 16 is a power of two up to 32; rows of whole 16 bytes. Other shapes go the slow way.
 * Checked   tests/test_op_pooled_attention.c against loops in double.
 */
#include "device.cuh"

namespace
{

constexpr int kThreads = 128;
constexpr int kAtOnce = 4;

template <typename T> struct pooled_params {
    const T *query; /* [B, C] */
    const T *kv;    /* [T, 2C] */
    const T *key_table;
    const T *query_table;
    const int *offsets;
    T *context;
    int width;
    int reach;
    int pool_index;
};

template <typename T, int D>
__global__ void __launch_bounds__(kThreads) pooled_attention_kernel(const pooled_params<T> a)
{
    constexpr int kPack = vec<T>::kCount;
    constexpr int kLanes = D / kPack;
    constexpr int kGroups = kThreads / kLanes;
    __shared__ float group_highest[kGroups];
    __shared__ float group_total[kGroups];
    __shared__ float group_sum[kGroups][D];

    const int seq = blockIdx.x;
    const int head = blockIdx.y;
    const int group = threadIdx.x / kLanes;
    const int column = threadIdx.x % kLanes * kPack;
    let_successor_start();
    wait_for_predecessor();
    const int first = a.offsets[seq];
    const int length = a.offsets[seq + 1] - first;
    if (length == 0) return;

    const size_t head_rows = static_cast<size_t>(head) * (2 * a.reach - 1) * D;
    const vec<T> q = load_vec(a.query + static_cast<size_t>(seq) * a.width + head * D + column);
    float highest = -INFINITY;
    float total = 0;
    float sum[kPack] = {};
    /* Every group takes as many turns, so that whole warps meet in the sums over lanes. */
    for (int start = 0; start < length; start += kGroups * kAtOnce) {
        vec<T> k[kAtOnce];
        vec<T> v[kAtOnce];
        vec<T> key[kAtOnce];
        vec<T> query[kAtOnce];
#pragma unroll
        for (int u = 0; u < kAtOnce; u++) {
            const int j =
                min(start + u * kGroups + group, length - 1); /* beyond the end: the last once more */
            const T *row = a.kv + static_cast<size_t>(first + j) * 2 * a.width + head * D + column;
            const size_t table_row =
                head_rows + static_cast<size_t>(a.pool_index - j + a.reach - 1) * D + column;
            k[u] = load_vec(row);
            v[u] = load_vec(row + a.width);
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
            if (start + u * kGroups + group >= length) continue;
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
    for (int i = 0; i < kPack; i++) group_sum[group][column + i] = sum[i];
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
    a.context[static_cast<size_t>(seq) * a.width + head * D + threadIdx.x] = narrow<T>(result / whole);
}

template <typename T, int D>
br_status launch_size(const br_pooled_attention_args *a, const br_position_tables *positions,
                      const br_queue *queue)
{
    pooled_params<T> params = {};
    params.query = static_cast<const T *>(a->query);
    params.kv = static_cast<const T *>(a->kv);
    params.offsets = a->offsets;
    params.context = static_cast<T *>(a->context);
    params.width = a->heads * a->head_size;
    params.reach = 1;
    params.pool_index = a->pool_index;
    if (positions != nullptr) {
        params.key_table = static_cast<const T *>(positions->key);
        params.query_table = static_cast<const T *>(positions->query);
        params.reach = positions->seq_tokens_max;
    }
    return launch(pooled_attention_kernel<T, D>, dim3(a->seqs, a->heads), kThreads, 0, queue, params);
}

} // namespace

br_status br_launch_pooled_attention(const br_pooled_attention_args *a, const br_position_tables *positions,
                                     br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0) return BR_OK;
    if (a->head_size != 32 && a->head_size != 64)
        return br_launch_pooled_attention_rows(a, positions, type, queue);
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        return a->head_size == 32 ? launch_size<T, 32>(a, positions, queue)
                                  : launch_size<T, 64>(a, positions, queue);
    });
}
