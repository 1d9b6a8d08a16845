/* test_op_pooled_attention.c - attention for one query per sequence, on every engine. */
#include "op_cases.h"

#include <stdlib.h>

enum { SEQS = 12 };

typedef struct pooled_case {
    const char *name;
    int32_t lengths[SEQS]; /* 0 ends the list */
    int32_t heads;
    int32_t head_size;
    int32_t reach; /* S of the position tables */
    bool c2p;
    bool p2c;
    int32_t pool_index;
    float scale; /* of q and k: how far the attention is from uniform */
} pooled_case;

static const pooled_case cases[] = {
    {"no sequences", {0}, 2, 16, 8, true, true, 1, 1},
    {"the shortest prompt", {3}, 3, 16, 8, true, true, 1, 1},
    {"content alone", {5, 17, 3}, 3, 16, 32, false, false, 1, 1},
    {"content to position alone", {5, 17, 3}, 3, 16, 32, true, false, 1, 1},
    {"position to content alone", {5, 17, 3}, 3, 16, 32, false, true, 1, 1},
    {"the first token", {5, 17, 3}, 3, 16, 32, true, true, 0, 1},
    {"the third token", {5, 17, 3}, 3, 16, 32, true, true, 2, 1},
    {"the tables' full reach", {32, 31}, 2, 32, 32, true, true, 1, 1},
    {"heads of 64 around a tile", {15, 16, 17, 63, 64, 65}, 2, 64, 128, true, true, 1, 0.7F},
    {"an odd head", {7, 21}, 3, 5, 40, true, true, 1, 1},
    {"very mixed lengths", {3, 200, 4, 129, 7, 64, 3}, 2, 32, 200, true, true, 1, 1},
    {"long", {511, 512}, 1, 64, 512, true, true, 1, 0.7F},
    {"the real shape", {128, 127, 33}, 12, 64, 128, true, true, 1, 0.6F},
    {"scores far beyond exp's range", {12, 40}, 2, 64, 40, true, true, 1, 6},
};

static int32_t make_offsets(int32_t *offsets, const pooled_case *c, int32_t *longest)
{
    int32_t seqs = 0;
    *longest = 0;
    offsets[0] = 0;
    for (; seqs < SEQS && c->lengths[seqs] > 0; seqs++) {
        offsets[seqs + 1] = offsets[seqs] + c->lengths[seqs];
        if (c->lengths[seqs] > *longest) *longest = c->lengths[seqs];
    }
    return seqs;
}

static void run_case(op_device *device, const pooled_case *c)
{
    const br_dtype type = device->backend->activation;
    const size_t width = (size_t)c->heads * (size_t)c->head_size;
    int32_t offsets[SEQS + 1];
    int32_t longest;
    const int32_t seqs = make_offsets(offsets, c, &longest);
    const size_t kv_count = (size_t)offsets[seqs] * 2 * width;
    const size_t count = (size_t)seqs * width;
    const size_t table = (2 * (size_t)c->reach - 1) * width;
    float *q = op_values(count, 1, c->scale, 0, type);
    float *kv = op_values(kv_count, 2, c->scale, 0, type);
    float *key = c->c2p ? op_values(table, 4, c->scale, 0.1F, type) : NULL;
    float *query = c->p2c ? op_values(table, 5, c->scale, -0.1F, type) : NULL;
    const op_attention_case oracle = {
        .q = q,
        .k = kv,
        .v = kv + width,
        .q_stride = width,
        .kv_stride = 2 * width,
        .key = key,
        .query = query,
        .offsets = offsets,
        .seqs = seqs,
        .seq_tokens_max = c->reach,
        .heads = c->heads,
        .head_size = c->head_size,
        .pool_index = c->pool_index,
        .activation = type,
    };
    double *expected = calloc(count + 1, sizeof *expected);
    float *plain = calloc(count + 1, sizeof *plain);
    op_attention_double(expected, &oracle);
    op_attention_float(plain, &oracle);

    br_positions *positions = NULL;
    br_error error = {0};
    const br_positions_source source = {key, query, c->reach, c->heads, c->head_size};
    if (key != NULL || query != NULL)
        if (device->ops->positions_create(device->backend, &positions, &source, &error) != BR_OK)
            fail_msg("%s", error.text);
    op_buffer q_buffer = op_put(device, q, count, type);
    op_buffer kv_buffer = op_put(device, kv, kv_count, type);
    op_buffer context = op_put(device, NULL, count, type);
    int32_t *device_offsets = op_put_ints(device, offsets, (size_t)seqs + 1);
    const br_pooled_attention_args args = {
        .query = q_buffer.memory,
        .kv = kv_buffer.memory,
        .positions = positions,
        .offsets = device_offsets,
        .context = context.memory,
        .pool_index = c->pool_index,
        .seqs = seqs,
        .seq_tokens_max = longest,
        .heads = c->heads,
        .head_size = c->head_size,
    };
    assert_int_equal(device->ops->pooled_attention(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &context);
    op_assert_close(device, c->name, got, expected, plain, count, type);

    free(got);
    op_drop(device, q_buffer.memory);
    op_drop(device, kv_buffer.memory);
    op_drop(device, context.memory);
    op_drop(device, device_offsets);
    device->ops->positions_destroy(device->backend, positions);
    free(q);
    free(kv);
    free(key);
    free(query);
    free(expected);
    free(plain);
}

static void run_one(op_device *device, const void *context)
{
    run_case(device, context);
}

static void test_pooled_context_matches_the_plain_loops(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        op_on_every_engine(run_one, &cases[i], cases[i].heads, cases[i].head_size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pooled_context_matches_the_plain_loops),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
