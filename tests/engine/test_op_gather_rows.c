/* test_op_gather_rows.c - the pooled row of each sequence, bit for bit, on every engine. */
#include "op_cases.h"

#include <stdlib.h>

typedef struct gather_case {
    const char *name;
    int32_t lengths[8]; /* 0 ends the list */
    int32_t width;
    int32_t pool_index;
} gather_case;

static const gather_case cases[] = {
    {"no sequences", {0}, 64, 1},
    {"one sequence", {3}, 48, 1},
    {"the first token", {3, 9, 4}, 48, 0},
    {"the second token", {3, 9, 4, 130, 5}, 65, 1},
    {"the last token of the shortest", {3, 9, 4}, 64, 2},
    {"a real width", {7, 128, 3, 33}, 768, 1},
};

static void check_rows(op_device *device, const op_buffer *pooled, const float *from, const int32_t *offsets,
                       const gather_case *c, int32_t seqs)
{
    float *got = op_get(device, pooled);
    for (int32_t b = 0; b < seqs; b++) {
        const float *row = from + (size_t)(offsets[b] + c->pool_index) * (size_t)c->width;
        for (int32_t i = 0; i < c->width; i++) {
            const float value = got[(size_t)b * (size_t)c->width + (size_t)i];
            if (!(value == row[i])) fail_msg("%s, %s: row %d differs", device->name, c->name, (int)b);
        }
    }
    free(got);
}

static void run_case(op_device *device, const gather_case *c)
{
    const br_dtype residual_type = device->backend->residual;
    const br_dtype input_type = device->backend->activation;
    int32_t offsets[9] = {0};
    int32_t seqs = 0;
    for (; seqs < 8 && c->lengths[seqs] > 0; seqs++) offsets[seqs + 1] = offsets[seqs] + c->lengths[seqs];
    const size_t count = (size_t)offsets[seqs] * (size_t)c->width;
    const size_t pooled_count = (size_t)seqs * (size_t)c->width;
    float *x = op_values(count, 1, 1, 0, residual_type);
    float *y = op_values(count, 2, 1, 0, input_type);

    const bool aliased = residual_type == input_type;
    op_buffer residual = op_put(device, x, count, residual_type);
    op_buffer input = aliased ? residual : op_put(device, y, count, input_type);
    op_buffer pooled_residual = op_put(device, NULL, pooled_count, residual_type);
    op_buffer pooled_input = aliased ? pooled_residual : op_put(device, NULL, pooled_count, input_type);
    int32_t *device_offsets = op_put_ints(device, offsets, (size_t)seqs + 1);
    const br_gather_args args = {
        .residual = residual.memory,
        .input = input.memory,
        .offsets = device_offsets,
        .pooled_residual = pooled_residual.memory,
        .pooled_input = pooled_input.memory,
        .pool_index = c->pool_index,
        .seqs = seqs,
        .width = c->width,
    };
    assert_int_equal(device->ops->gather_rows(device->stream, &args), BR_OK);
    assert_int_equal(device->ops->wait(device->stream), BR_OK);
    check_rows(device, &pooled_residual, x, offsets, c, seqs);
    if (!aliased) check_rows(device, &pooled_input, y, offsets, c, seqs);

    op_drop(device, residual.memory);
    op_drop(device, pooled_residual.memory);
    if (!aliased) {
        op_drop(device, input.memory);
        op_drop(device, pooled_input.memory);
    }
    op_drop(device, device_offsets);
    free(x);
    free(y);
}

static void run_cases(op_device *device, const void *context)
{
    (void)context;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) run_case(device, &cases[i]);
}

static void test_pooled_rows_are_copied_bit_for_bit(void **state)
{
    (void)state;
    op_on_every_engine(run_cases, NULL, 12, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pooled_rows_are_copied_bit_for_bit),
    };
    return cmocka_run_group_tests(tests, op_name_engines, NULL);
}
