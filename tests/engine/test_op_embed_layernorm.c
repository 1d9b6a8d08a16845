/* test_op_embed_layernorm.c - residual[t] = layernorm(embedding[ids[t]] + position),
 * for each type of table, on every engine. */
#include "op_cases.h"

#include <stdlib.h>
#include <string.h>

enum { VOCAB = 37 };

typedef struct embed_case {
    const char *name;
    int32_t tokens;
    int32_t width;
    br_dtype type; /* of the table */
    float offset;
    bool unaligned; /* the table starts at an odd address, as in a file */
    bool positions;
    int32_t seq_tokens; /* of every sequence but the last; 0: three, the second empty or one token long */
    int32_t padding;    /* of the tokens, behind the last sequence: on engines that pad a pass */
} embed_case;

static const embed_case cases[] = {
    {"no tokens", 0, 64, BR_F32, 0, false, false, 0, 0},
    {"one token", 1, 48, BR_F32, 0, false, false, 0, 0},
    {"float32", 33, 64, BR_F32, 0, false, false, 0, 0},
    {"bfloat16", 33, 64, BR_BF16, 0, false, false, 0, 0},
    {"float16", 33, 64, BR_F16, 0, false, false, 0, 0},
    {"float32 at an odd address", 17, 48, BR_F32, 0, true, false, 0, 0},
    {"bfloat16 at an odd address", 17, 48, BR_BF16, 0, true, false, 0, 0},
    {"an odd width", 5, 65, BR_F16, 0, true, false, 0, 0},
    {"a large offset", 20, 128, BR_F32, 100, false, false, 0, 0},
    {"a real width", 65, 768, BR_BF16, 0, false, false, 0, 0},
    {"positions, no tokens", 0, 64, BR_F32, 0, false, true, 0, 0},
    {"positions, one token", 1, 48, BR_F32, 0, false, true, 0, 0},
    {"positions, one sequence empty", 34, 64, BR_F32, 0, false, true, 0, 0},
    {"positions, an odd width", 19, 65, BR_F16, 0, true, true, 0, 0},
    {"positions, a real width", 65, 768, BR_BF16, 0, false, true, 0, 0},
    {"positions, a large width", 17, 1024, BR_F32, 0, false, true, 0, 0},
    {"positions, half a vector of lanes", 9, 136, BR_F32, 0, false, true, 0, 0},
    {"positions, more sequences than threads of a block", 599, 64, BR_F32, 0, false, true, 2, 0},
    {"positions, one long sequence", 600, 64, BR_F32, 0, false, true, 600, 0},
    {"positions, a padded pass", 40, 64, BR_F32, 0, false, true, 5, 19},
    {"positions, more padding than positions, more sequences than lanes", 200, 768, BR_BF16, 0, false, true,
     2, 130},
    {"positions, one sequence and padding in other blocks", 600, 64, BR_F16, 0, false, true, 8, 592},
};

/* A half of the form m * 2^e with few bits: exact in every type of table. */
static uint16_t half_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffU) == 0) return 0;
    const uint32_t exponent = ((bits >> 23) & 0xffU) - 127 + 15;
    assert_in_range(exponent, 1, 30);
    return (uint16_t)(((bits >> 16) & 0x8000U) | (exponent << 10) | ((bits >> 13) & 0x3ffU));
}

/* The table as bytes of a file; each value is exact in its type. */
static char *table_bytes(const float *values, size_t count, br_dtype type)
{
    char *bytes = malloc(count * sizeof(float));
    assert_non_null(bytes);
    for (size_t i = 0; i < count; i++) {
        const uint16_t narrow = type == BR_F16 ? half_bits(values[i]) : br_f32_to_bf16(values[i]);
        if (type == BR_F32)
            memcpy(bytes + i * sizeof(float), &values[i], sizeof(float));
        else
            memcpy(bytes + i * sizeof narrow, &narrow, sizeof narrow);
    }
    return bytes;
}

static br_embedding *make_embedding(op_device *device, const embed_case *c, const float *values)
{
    const size_t count = (size_t)VOCAB * (size_t)c->width;
    const size_t bytes = count * br_dtype_bytes(c->type);
    char *exact = table_bytes(values, count, c->type);
    char *placed = malloc(bytes + 1);
    assert_non_null(placed);
    memcpy(placed + (c->unaligned ? 1 : 0), exact, bytes);
    const br_tensor tensor = {
        .type = c->type,
        .readable = true,
        .rank = 2,
        .shape = {VOCAB, c->width},
        .data = placed + (c->unaligned ? 1 : 0),
        .bytes = bytes,
    };
    br_embedding *embedding = NULL;
    br_error error = {0};
    if (device->ops->embedding_create(device->backend, &embedding, &tensor, &error) != BR_OK)
        fail_msg("%s", error.text);
    free(exact);
    free(placed); /* the backend has its own copy */
    return embedding;
}

/* Returns the number of sequences. */
static int32_t fill_offsets(int32_t *offsets, const embed_case *c)
{
    const int32_t tokens = c->tokens - c->padding;
    int32_t seqs = 0;
    offsets[0] = 0;
    if (c->seq_tokens == 0) {
        offsets[++seqs] = tokens / 3;
        offsets[++seqs] = offsets[1] < tokens ? offsets[1] + tokens % 2 : offsets[1];
        offsets[++seqs] = tokens;
    }
    while (offsets[seqs] < tokens) {
        const int32_t left = tokens - offsets[seqs];
        offsets[seqs + 1] = offsets[seqs] + (left < c->seq_tokens ? left : c->seq_tokens);
        seqs++;
    }
    return seqs;
}

/* x[t] += the row of its position; padding takes the first. Returns the rows there must be:
 * the longest sequence's. */
static int32_t add_positions(float *x, const float *positions, const int32_t *offsets, int32_t seqs,
                             const embed_case *c)
{
    const size_t width = (size_t)c->width;
    int32_t longest = 1;
    for (int32_t b = 0; b < seqs; b++) {
        const int32_t length = offsets[b + 1] - offsets[b];
        if (length > longest) longest = length;
        for (size_t i = 0; i < (size_t)length * width; i++) x[(size_t)offsets[b] * width + i] += positions[i];
    }
    for (size_t t = (size_t)offsets[seqs]; t < (size_t)c->tokens; t++)
        for (size_t i = 0; i < width; i++) x[t * width + i] += positions[i];
    return longest;
}

static void run_case(op_device *device, const embed_case *c)
{
    const br_dtype residual_type = device->backend->residual;
    const br_dtype input_type = device->backend->activation;
    const size_t width = (size_t)c->width;
    const size_t count = (size_t)c->tokens * width;
    float *table = op_values(VOCAB * width, 1, 1, c->offset, BR_BF16);
    for (size_t i = 0; i < VOCAB * width; i++)
        if (table[i] < 0x1p-10F && table[i] > -0x1p-10F) table[i] = 0; /* normal halves only */
    float *gamma = op_values(width, 2, 0.5F, 1, BR_F32);
    float *beta = op_values(width, 3, 0.5F, 0, BR_F32);
    int32_t ids[OP_SEQ_TOKENS_MAX];
    float *x = malloc((count + 1) * sizeof *x);
    for (int32_t t = 0; t < c->tokens; t++) {
        ids[t] = t == 0 ? VOCAB - 1 : (t * 7) % VOCAB;
        memcpy(x + (size_t)t * width, table + (size_t)ids[t] * width, width * sizeof *x);
    }
    int32_t offsets[OP_SEQ_TOKENS_MAX + 1];
    const int32_t seqs = fill_offsets(offsets, c);
    float *positions = op_values((size_t)OP_SEQ_TOKENS_MAX * width, 6, 1, 0, BR_F32);
    const int32_t rows_used = c->positions ? add_positions(x, positions, offsets, seqs, c) : 1;
    const float epsilon = 1e-7F;
    double *expected = calloc(count + 1, sizeof *expected);
    float *plain = calloc(count + 1, sizeof *plain);
    op_layernorm_double(expected, x, gamma, beta, epsilon, c->tokens, c->width);
    op_layernorm_float(plain, x, gamma, beta, epsilon, c->tokens, c->width);

    br_embedding *embedding = make_embedding(device, c, table);
    int32_t *device_ids = op_put_ints(device, ids, (size_t)c->tokens);
    op_buffer residual = op_put(device, NULL, count, residual_type);
    op_buffer input = residual_type == input_type ? residual : op_put(device, NULL, count, input_type);
    op_buffer gammas = op_put(device, gamma, width, BR_F32);
    op_buffer betas = op_put(device, beta, width, BR_F32);
    op_buffer rows = op_put(device, positions, (size_t)rows_used * width, BR_F32);
    int32_t *device_offsets = op_put_ints(device, offsets, (size_t)seqs + 1);
    const br_embed_args args = {
        .positions = c->positions ? rows.memory : NULL,
        .offsets = device_offsets,
        .seqs = seqs,
        .embedding = embedding,
        .ids = device_ids,
        .gamma = gammas.memory,
        .beta = betas.memory,
        .epsilon = epsilon,
        .residual = residual.memory,
        .input = input.memory,
        .tokens = c->tokens,
    };
    assert_int_equal(device->ops->embed_layernorm(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    float *got = op_get(device, &residual);
    float *got_input = op_get(device, &input);
    op_assert_close(device, c->name, got, expected, plain, count, residual_type);
    op_assert_close(device, c->name, got_input, expected, plain, count, input_type);

    free(got);
    free(got_input);
    if (input.memory != residual.memory) op_drop(device, input.memory);
    op_drop(device, residual.memory);
    op_drop(device, gammas.memory);
    op_drop(device, betas.memory);
    op_drop(device, device_ids);
    op_drop(device, rows.memory);
    op_drop(device, device_offsets);
    free(positions);
    device->ops->embedding_destroy(device->backend, embedding);
    free(table);
    free(gamma);
    free(beta);
    free(x);
    free(expected);
    free(plain);
}

static void run_cases(op_device *device, const void *context)
{
    (void)context;
    const bool pads = device->ops->pass_shapes != NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (cases[i].padding == 0 || pads) run_case(device, &cases[i]);
}

static void test_rows_are_looked_up_and_normalised_for_every_type_of_table(void **state)
{
    (void)state;
    op_on_every_engine(run_cases, NULL, 12, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_looked_up_and_normalised_for_every_type_of_table),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
