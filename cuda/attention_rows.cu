/*
 * attention_rows.cu - disentangled self-attention, one query at a time: any head size, any type
 *
 *   score[j]   = q_i . k_j + q_i . key[i - j] + k_j . query[i - j]
 *   context[i] = sum_j softmax_j(score[j]) v_j                      per sequence and head
 *
 * What the band kernel cannot do: float32, which is the exact mode, and heads other than 32 and 64.
 *
 * Work      one warp owns a query and a head: lanes share the keys, then the columns of the values.
 * Shared    the query and one score per key, in float, for each warp.
 * Traffic   every key, value and position row once per query, from L1 and L2: exact, not fast.
 * Numerics  scores, softmax and sums in float; the exponentials are rounded to T to weigh the values,
 *           and summed unrounded; the result is rounded once.
 * Limits    D + S floats fit 48 KiB of shared memory.
 * Checked   tests/test_op_attention.c, tests/test_op_pooled_attention.c against loops in double.
 */
#include "device.cuh"

namespace
{

constexpr int kWarpsMax = 4;
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

template <typename T>
__global__ void __launch_bounds__(kWarpsMax *kWarp) attention_rows_kernel(const rows_params<T> a, int rows)
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
    const bool pooled = a.pool_index >= 0;
    const int seq = pooled ? row : sequence_of(a.offsets, a.seqs, row);
    if (seq == a.seqs) return;
    const int first = a.offsets[seq];
    const int length = a.offsets[seq + 1] - first;
    const int index = pooled ? a.pool_index : row - first;
    if (length == 0) return;

    float *query = scratch + static_cast<size_t>(warp) * (size + a.seq_tokens_max);
    float *scores = query + size;
    for (int d = lane; d < size; d += kWarp)
        query[d] = widen(a.q[static_cast<size_t>(row) * a.q_stride + head * size + d]);
    __syncwarp();

    const size_t head_rows = static_cast<size_t>(head) * (2 * a.reach - 1) * size;
    float highest = -INFINITY;
    for (int j = lane; j < length; j += kWarp) {
        const T *k = a.k + static_cast<size_t>(first + j) * a.kv_stride + head * size;
        const size_t table_row = head_rows + static_cast<size_t>(index - j + a.reach - 1) * size;
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
    for (int j = lane; j < length; j += kWarp) {
        const float weight = expf(scores[j] - highest);
        total += weight;
        scores[j] = widen(narrow<T>(weight));
    }
    total = warp_sum(total);
    __syncwarp();

    const T *v = a.v + static_cast<size_t>(first) * a.kv_stride + head * size;
    for (int d = lane; d < size; d += kWarp) {
        float sum = 0;
        for (int j = 0; j < length; j++)
            sum += scores[j] * widen(v[static_cast<size_t>(j) * a.kv_stride + d]);
        a.context[static_cast<size_t>(row) * a.context_stride + head * size + d] = narrow<T>(sum / total);
    }
}

template <typename T>
br_status launch_rows(rows_params<T> &params, const br_position_tables *positions, int rows, int heads,
                      const br_queue *queue)
{
    params.reach = 1;
    if (positions != nullptr) {
        params.key_table = static_cast<const T *>(positions->key);
        params.query_table = static_cast<const T *>(positions->query);
        params.reach = positions->seq_tokens_max;
    }
    const size_t warp_bytes = (static_cast<size_t>(params.head_size) + params.seq_tokens_max) * sizeof(float);
    if (warp_bytes > kSharedBytesMax) return BR_ENOTSUP;
    const size_t fitting = kSharedBytesMax / warp_bytes;
    const unsigned warps = fitting < kWarpsMax ? static_cast<unsigned>(fitting) : kWarpsMax;
    return launch(attention_rows_kernel<T>, dim3(ceil_div(rows, warps), heads), warps * kWarp,
                  warps * warp_bytes, queue, params, rows);
}

} // namespace

br_status br_launch_attention_rows(const br_attention_args *a, const br_position_tables *positions,
                                   br_dtype type, const br_queue *queue)
{
    if (a->seqs == 0 || a->tokens == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        rows_params<T> params = {};
        params.q = static_cast<const T *>(a->q);
        params.k = static_cast<const T *>(a->k);
        params.v = static_cast<const T *>(a->v);
        params.offsets = a->offsets;
        params.context = static_cast<T *>(a->context);
        params.q_stride = a->q_stride;
        params.kv_stride = a->kv_stride;
        params.context_stride = a->heads * a->head_size;
        params.seqs = a->seqs;
        params.head_size = a->head_size;
        params.seq_tokens_max = a->seq_tokens_max;
        params.pool_index = -1;
        return launch_rows(params, positions, a->tokens, a->heads, queue);
    });
}

br_status br_launch_pooled_attention_rows(const br_pooled_attention_args *a,
                                          const br_position_tables *positions, br_dtype type,
                                          const br_queue *queue)
{
    if (a->seqs == 0) return BR_OK;
    return with_type(type, [&](auto element) {
        using T = decltype(element);
        const int width = a->heads * a->head_size;
        rows_params<T> params = {};
        params.q = static_cast<const T *>(a->query);
        params.k = static_cast<const T *>(a->kv);
        params.v = params.k + width;
        params.offsets = a->offsets;
        params.context = static_cast<T *>(a->context);
        params.q_stride = width;
        params.kv_stride = 2 * width;
        params.context_stride = width;
        params.seqs = a->seqs;
        params.head_size = a->head_size;
        params.seq_tokens_max = a->seq_tokens_max;
        params.pool_index = a->pool_index;
        return launch_rows(params, positions, a->seqs, a->heads, queue);
    });
}
