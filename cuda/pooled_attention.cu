/*
 * pooled_attention.cu - the last layer's attention: one query per sequence, at pool_index of each
 *
 *   context[b] = sum_j softmax_j(score[j]) v_j                      per sequence and head
 *
 * Work      see attention_rows.cuh: a block, or a warp, owns one sequence and head.
 * Traffic   2 * D elements per token and head, and two position rows per token from L2. Bound by memory.
 * Limits    vectors: rows of whole 16 bytes. Other heads: D + S floats fit 48 KiB of shared memory.
 * Checked   tests/engine/test_op_pooled_attention.c against loops in double.
 */
#include "attention_rows.cuh"

br_status br_launch_pooled_attention(const br_pooled_attention_args *a, const br_position_tables *positions,
                                     br_dtype type, const br_queue *queue)
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
        params.seqs = a->seqs;
        params.head_size = a->head_size;
        params.seq_tokens_max = a->seq_tokens_max;
        params.pool_index = a->pool_index;
        return launch_rows(params, positions, a->seqs, a->heads, queue);
    });
}
