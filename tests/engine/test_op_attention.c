/* test_op_attention.c - disentangled attention over packed sequences, all queries, on every engine. */
#include "op_cases.h"

#include <stdlib.h>

enum { SEQS = 320 };

typedef enum terms { CONTENT = 0, C2P = 1, P2C = 2, BOTH = C2P | P2C } terms;

typedef struct attention_case {
    const char *name;
    int32_t lengths[SEQS]; /* 0 ends the list */
    int32_t heads;
    int32_t head_size;
    int32_t reach; /* S of the position tables */
    terms terms;
    float scale; /* of q and k: how far the attention is from uniform */
    bool split;  /* q in a buffer of its own */
} attention_case;

static const attention_case cases[] = {
    {"no sequences", {0}, 2, 16, 8, BOTH, 1, false},
    {"one token", {1}, 2, 16, 8, BOTH, 1, false},
    {"the shortest prompt", {3}, 3, 16, 8, BOTH, 1, false},
    {"content alone", {5, 17, 3}, 3, 16, 32, CONTENT, 1, false},
    {"content to position alone", {5, 17, 3}, 3, 16, 32, C2P, 1, false},
    {"position to content alone", {5, 17, 3}, 3, 16, 32, P2C, 1, false},
    {"both terms", {5, 17, 3}, 3, 16, 32, BOTH, 1, false},
    {"q apart from k and v", {5, 17, 3}, 3, 16, 32, BOTH, 1, true},
    {"the tables' full reach", {32, 31, 1}, 2, 32, 32, BOTH, 1, false},
    {"tables that reach much further", {9, 4}, 2, 32, 512, BOTH, 1, false},
    {"heads of 64 around a tile", {15, 16, 17, 63, 64, 65}, 2, 64, 128, BOTH, 0.7F, false},
    {"heads of 32 around a tile", {31, 32, 33, 47, 48, 49}, 2, 32, 64, BOTH, 1, false},
    {"heads of 8", {7, 21}, 4, 8, 40, BOTH, 1.5F, false},
    {"heads of 24", {7, 21, 40}, 2, 24, 40, BOTH, 1, true},
    {"an odd head", {7, 21}, 3, 5, 40, BOTH, 1, false},
    {"very mixed lengths", {3, 200, 1, 129, 7, 64, 3}, 2, 32, 200, BOTH, 1, false},
    {"long", {511, 512}, 1, 64, 512, BOTH, 0.7F, false},
    {"heads of 64 around eight tiles", {112, 113, 127, 128, 129, 145}, 2, 64, 160, BOTH, 0.7F, false},
    {"heads of 32 around eight tiles", {112, 113, 127, 128, 129, 145}, 2, 32, 160, BOTH, 1, false},
    {"around two and three slices of keys", {255, 256, 257, 383, 384, 385}, 1, 64, 400, BOTH, 0.7F, false},
    {"one long among many short", {9, 3, 512, 4, 64, 17, 1}, 2, 32, 512, BOTH, 1, false},
    {"long, content to position alone", {300}, 1, 64, 300, C2P, 0.7F, false},
    {"long, position to content alone", {300}, 1, 64, 300, P2C, 0.7F, false},
    {"the real shape", {128, 127, 33}, 12, 64, 128, BOTH, 0.6F, false},
    {"a real shape, content alone", {130, 40}, 12, 64, 130, CONTENT, 0.6F, false},
    {"scores far beyond exp's range", {12, 40}, 2, 64, 40, BOTH, 6, false},
};

typedef struct attention_data {
    float *q, *k, *v; /* as rows of q_stride, kv_stride; k and v into one array */
    float *rows;      /* [T, 3C], or NULL when split */
    float *q_rows;    /* [T, C] when split */
    float *kv_rows;   /* [T, 2C] when split */
    float *key, *query;
    int32_t offsets[SEQS + 1];
    int32_t seqs;
    int32_t longest;
    size_t tokens, width;
} attention_data;

static void interleave(float *to, size_t stride, size_t column, const float *from, const attention_data *d)
{
    for (size_t t = 0; t < d->tokens; t++)
        for (size_t c = 0; c < d->width; c++) to[t * stride + column + c] = from[t * d->width + c];
}

static void make_data(attention_data *d, const attention_case *c, br_dtype type)
{
    *d = (attention_data){.width = (size_t)c->heads * (size_t)c->head_size};
    for (; d->seqs < SEQS && c->lengths[d->seqs] > 0; d->seqs++) {
        d->offsets[d->seqs + 1] = d->offsets[d->seqs] + c->lengths[d->seqs];
        if (c->lengths[d->seqs] > d->longest) d->longest = c->lengths[d->seqs];
    }
    d->tokens = (size_t)d->offsets[d->seqs];
    float *q = op_values(d->tokens * d->width, 1, c->scale, 0, type);
    float *k = op_values(d->tokens * d->width, 2, c->scale, 0, type);
    float *v = op_values(d->tokens * d->width, 3, 1, 0.25F, type);
    d->rows = calloc(3 * d->tokens * d->width + 1, sizeof *d->rows);
    d->q_rows = calloc(d->tokens * d->width + 1, sizeof *d->rows);
    d->kv_rows = calloc(2 * d->tokens * d->width + 1, sizeof *d->rows);
    interleave(d->rows, 3 * d->width, 0, q, d);
    interleave(d->rows, 3 * d->width, d->width, k, d);
    interleave(d->rows, 3 * d->width, 2 * d->width, v, d);
    interleave(d->q_rows, d->width, 0, q, d);
    interleave(d->kv_rows, 2 * d->width, 0, k, d);
    interleave(d->kv_rows, 2 * d->width, d->width, v, d);
    const size_t table = (2 * (size_t)c->reach - 1) * d->width;
    if (c->terms & C2P) d->key = op_values(table, 4, c->scale, 0.1F, type);
    if (c->terms & P2C) d->query = op_values(table, 5, c->scale, -0.1F, type);
    free(q);
    free(k);
    free(v);
}

static void free_data(attention_data *d)
{
    free(d->rows);
    free(d->q_rows);
    free(d->kv_rows);
    free(d->key);
    free(d->query);
}

static br_positions *make_positions(op_device *device, const attention_case *c, const attention_data *d)
{
    if (c->terms == CONTENT) return NULL;
    br_positions *positions = NULL;
    br_error error = {0};
    const br_positions_source source = {d->key, d->query, c->reach, c->heads, c->head_size};
    if (device->ops->positions_create(device->backend, &positions, &source, &error) != BR_OK)
        fail_msg("%s", error.text);
    return positions;
}

static void run_case(op_device *device, const attention_case *c)
{
    const br_dtype type = device->backend->activation;
    attention_data d;
    make_data(&d, c, type);
    const size_t count = d.tokens * d.width;
    const op_attention_case oracle = {
        .q = d.rows,
        .k = d.rows + d.width,
        .v = d.rows + 2 * d.width,
        .q_stride = 3 * d.width,
        .kv_stride = 3 * d.width,
        .key = d.key,
        .query = d.query,
        .offsets = d.offsets,
        .seqs = d.seqs,
        .seq_tokens_max = c->reach,
        .heads = c->heads,
        .head_size = c->head_size,
        .pool_index = -1,
        .activation = type,
    };
    double *expected = calloc(count + 1, sizeof *expected);
    float *plain = calloc(count + 1, sizeof *plain);
    op_attention_double(expected, &oracle);
    op_attention_float(plain, &oracle);

    br_positions *positions = make_positions(device, c, &d);
    const size_t step = d.width * br_dtype_bytes(type);
    op_buffer first =
        c->split ? op_put(device, d.q_rows, count, type) : op_put(device, d.rows, 3 * count, type);
    op_buffer second = c->split ? op_put(device, d.kv_rows, 2 * count, type) : (op_buffer){0};
    char *kv = c->split ? second.memory : (char *)first.memory + step;
    op_buffer context = op_put(device, NULL, count, type);
    int32_t *offsets = op_put_ints(device, d.offsets, (size_t)d.seqs + 1);
    const br_attention_args args = {
        .q = first.memory,
        .k = kv,
        .v = kv + step,
        .positions = positions,
        .offsets = offsets,
        .context = context.memory,
        .q_stride = (int32_t)d.width * (c->split ? 1 : 3),
        .kv_stride = (int32_t)d.width * (c->split ? 2 : 3),
        .tokens = (int32_t)d.tokens,
        .seqs = d.seqs,
        .seq_tokens_max = d.longest,
        .heads = c->heads,
        .head_size = c->head_size,
    };
    assert_int_equal(device->ops->attention(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &context);
    op_assert_close(device, c->name, got, expected, plain, count, type);

    free(got);
    op_drop(device, first.memory);
    op_drop(device, second.memory);
    op_drop(device, context.memory);
    op_drop(device, offsets);
    device->ops->positions_destroy(device->backend, positions);
    free(expected);
    free(plain);
    free_data(&d);
}

static void run_one(op_device *device, const void *context)
{
    run_case(device, context);
}

static void test_context_matches_the_plain_loops(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        op_on_every_engine(run_one, &cases[i], cases[i].heads, cases[i].head_size);
}

static void test_hundreds_of_sequences_in_one_launch(void **state)
{
    (void)state;
    attention_case c = {"hundreds of short ones", {0}, 2, 64, 8, BOTH, 1, false};
    for (int32_t i = 0; i < 300; i++) c.lengths[i] = 1 + i * 5 % 7;
    op_on_every_engine(run_one, &c, c.heads, c.head_size);
    c.head_size = 32;
    op_on_every_engine(run_one, &c, c.heads, c.head_size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hundreds_of_sequences_in_one_launch),
        cmocka_unit_test(test_context_matches_the_plain_loops),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
