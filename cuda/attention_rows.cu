/*
 * attention_rows.cu - disentangled self-attention where attention_band.cu has no kernel
 *
 * That is float32, which is the exact mode, and heads other than 32 and 64.
 *
 * Work      see attention_rows.cuh: a block, or a warp, owns one query of one head.
 * Traffic   every key, value and position row once per query, from L1 and L2: exact, not fast.
 * Limits    vectors: rows of whole 16 bytes. Other heads: D + S floats fit 48 KiB of shared memory.
 * Checked   tests/engine/test_op_attention.c against loops in double.
 */
#include "attention_rows.cuh"

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
        params.seqs = a->seqs;
        params.head_size = a->head_size;
        params.seq_tokens_max = a->seq_tokens_max;
        params.pool_index = -1;
        return launch_rows(params, positions, a->tokens, a->heads, queue);
    });
}
