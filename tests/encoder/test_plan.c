/* test_plan.c - buffers that live at the same time share no bytes, for many shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "core/memory.h"
#include "encoder/plan.h"

/* The buffers by number, in the list's order. */
enum {
#define PLAN_ENUM(name) PLAN_##name,
    WORKSPACE_LIST(PLAN_ENUM)
#undef PLAN_ENUM
        PLAN_BUFFERS
};

static const char *const names[PLAN_BUFFERS] = {
#define PLAN_NAME(name) #name,
    WORKSPACE_LIST(PLAN_NAME)
#undef PLAN_NAME
};

typedef struct plan_case {
    const char *name;
    int32_t width, ffn_width;
    workspace_shape shape;
} plan_case;

static const plan_case cases[] = {
    {"the smallest", 1, 1, {1, 1, 1, BR_F32, BR_F32, false}},
    {"odd sizes", 48, 100, {37, 5, 3, BR_F32, BR_F32, false}},
    {"odd sizes, bf16", 48, 100, {37, 5, 3, BR_F32, BR_BF16, false}},
    {"with a pooler", 48, 100, {37, 5, 3, BR_F32, BR_BF16, true}},
    {"44M, float32", 768, 3072, {2816, 256, 12, BR_F32, BR_F32, false}},
    {"44M, bf16 over float32", 768, 3072, {2816, 256, 12, BR_F32, BR_BF16, false}},
    {"44M, all bf16", 768, 3072, {2816, 256, 12, BR_BF16, BR_BF16, false}},
    {"an ffn wider than q, k, v and context", 64, 1024, {100, 10, 2, BR_F32, BR_BF16, false}},
    {"an ffn narrower than the width", 64, 16, {100, 10, 2, BR_F32, BR_BF16, false}},
    {"the largest",
     BR_WIDTH_MAX,
     BR_FFN_MAX,
     {BR_BATCH_TOKENS_MAX, BR_BATCH_SEQS_MAX, BR_CANDIDATES_MAX, BR_F32, BR_F32, false}},
};

static void sizes_of(size_t *sizes, const plan_case *c)
{
    const size_t tokens = (size_t)c->shape.tokens_max;
    const size_t seqs = (size_t)c->shape.seqs_max;
    const size_t width = (size_t)c->width;
    const size_t ffn_width = (size_t)c->ffn_width;
    const size_t residual = br_dtype_bytes(c->shape.residual);
    const size_t activation = br_dtype_bytes(c->shape.activation);
    sizes[PLAN_ids] = tokens * 4;
    sizes[PLAN_offsets] = (seqs + 1) * 4;
    sizes[PLAN_residual] = tokens * width * residual;
    sizes[PLAN_input] = tokens * width * activation;
    sizes[PLAN_qkv] = tokens * 3 * width * activation;
    sizes[PLAN_context] = tokens * width * activation;
    sizes[PLAN_ffn] = tokens * ffn_width * activation;
    sizes[PLAN_pooled_residual] = seqs * width * residual;
    sizes[PLAN_pooled_input] = seqs * width * activation;
    sizes[PLAN_pooled_query] = seqs * width * activation;
    sizes[PLAN_pooled_context] = seqs * width * activation;
    sizes[PLAN_pooled_ffn] = seqs * ffn_width * activation;
    sizes[PLAN_pooler] = c->shape.has_pooler ? seqs * width * 4 : 0;
    sizes[PLAN_quality] = seqs * (size_t)c->shape.heads_count * 4;
}

/* True for the pairs that share bytes by encoder/plan.h. */
static bool may_share(const plan_case *c, size_t a, size_t b)
{
    const bool aliased = c->shape.residual == c->shape.activation;
    if (a == PLAN_residual && b == PLAN_input) return aliased;
    if (a == PLAN_pooled_residual && b == PLAN_pooled_input) return aliased;
    return b == PLAN_ffn && (a == PLAN_qkv || a == PLAN_context);
}

static void test_buffers_alive_together_share_no_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const plan_case *c = &cases[i];
        const br_model model = {.width = c->width, .ffn_width = c->ffn_width};
        workspace_plan plan;
        workspace_plan_make(&plan, &model, &c->shape);
        const size_t offsets[PLAN_BUFFERS] = {
#define PLAN_OFFSET(name) plan.name,
            WORKSPACE_LIST(PLAN_OFFSET)
#undef PLAN_OFFSET
        };
        size_t sizes[PLAN_BUFFERS];
        sizes_of(sizes, c);
        for (size_t a = 0; a < PLAN_BUFFERS; a++) {
            assert_int_equal(offsets[a] % BR_ALIGNMENT, 0);
            assert_true(offsets[a] + sizes[a] <= plan.total_bytes);
            for (size_t b = a + 1; b < PLAN_BUFFERS; b++) {
                const bool apart = offsets[a] + sizes[a] <= offsets[b] || offsets[b] + sizes[b] <= offsets[a];
                if (!apart && !may_share(c, a, b))
                    fail_msg("%s: %s and %s overlap", c->name, names[a], names[b]);
            }
        }
    }
}

static void test_residual_and_input_are_one_buffer_exactly_when_their_types_agree(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const br_model model = {.width = cases[i].width, .ffn_width = cases[i].ffn_width};
        const bool agree = cases[i].shape.residual == cases[i].shape.activation;
        workspace_plan plan;
        workspace_plan_make(&plan, &model, &cases[i].shape);
        assert_int_equal(plan.residual == plan.input, agree);
        assert_int_equal(plan.pooled_residual == plan.pooled_input, agree);
    }
}

static void test_the_ffn_costs_only_what_exceeds_the_attention(void **state)
{
    (void)state;
    const workspace_shape shape = {1000, 10, 1, BR_F32, BR_F32, false};
    const br_model narrow = {.width = 64, .ffn_width = 64};
    const br_model usual = {.width = 64, .ffn_width = 256};
    workspace_plan a;
    workspace_plan b;
    workspace_plan_make(&a, &narrow, &shape);
    workspace_plan_make(&b, &usual, &shape);
    /* [T, F] equals [T, 3C] + [T, C] for F = 4C: only the pooled rows' ffn grows. */
    assert_int_equal(b.total_bytes - a.total_bytes, (size_t)10 * (256 - 64) * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_alive_together_share_no_bytes),
        cmocka_unit_test(test_residual_and_input_are_one_buffer_exactly_when_their_types_agree),
        cmocka_unit_test(test_the_ffn_costs_only_what_exceeds_the_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
