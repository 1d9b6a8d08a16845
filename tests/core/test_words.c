/* test_words.c - status.h, error.h, core/dtype.h: names, formatted errors, conversions. */
#include "bestroute/error.h"
#include "core/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_every_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    assert_string_equal(br_status_name(BR_OK), "BR_OK");
    assert_string_equal(br_status_name(BR_ECLOSED), "BR_ECLOSED");
    assert_string_equal(br_status_text(BR_EBUSY), "the queue is full, try again later");
    assert_string_equal(br_status_name((br_status)999), "BR_?");
    assert_string_equal(br_status_text((br_status)999), "unknown status");
}

static void test_fail_formats_and_returns_the_status(void **state)
{
    (void)state;
    br_error error = {0};
    assert_int_equal(br_fail(&error, BR_EFORMAT, "%s: found %d, expected %d", "a.json", 3, 4), BR_EFORMAT);
    assert_int_equal(error.status, BR_EFORMAT);
    assert_string_equal(error.text, "a.json: found 3, expected 4");
    assert_int_equal(br_fail(NULL, BR_EIO, "nobody listens"), BR_EIO);
}

static void test_control_bytes_never_reach_an_error_text(void **state)
{
    (void)state;
    br_error error = {0};
    (void)!br_fail(&error, BR_EFORMAT, "key %s", "a\nb\x1b[31m\x7f");
    assert_string_equal(error.text, "key a?b?[31m?");
}

static void test_a_long_error_is_cut_not_overrun(void **state)
{
    (void)state;
    char long_text[2 * BR_ERROR_TEXT_BYTES];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    br_error error = {0};
    (void)!br_fail(&error, BR_EFORMAT, "%s", long_text);
    assert_int_equal(strlen(error.text), BR_ERROR_TEXT_BYTES - 1);
}

static void test_the_words_of_precisions_are_their_names_in_order(void **state)
{
    (void)state;
    char names[64] = "";
    for (br_precision p = BR_PRECISION_AUTO; p <= BR_PRECISION_FP8; p++) {
        if (p > BR_PRECISION_AUTO) strcat(names, "|");
        strcat(names, br_precision_name(p));
    }
    assert_string_equal(names, BR_PRECISION_WORDS);
}

static void test_bf16_rounds_to_nearest_even_and_keeps_nan(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        float value;
        uint16_t bits;
    } cases[] = {
        {"one", 1.0f, 0x3f80},
        {"a tie goes down to even", 0x1.01p0f, 0x3f80},
        {"a tie goes up to even", 0x1.03p0f, 0x3f82},
        {"just above a tie goes up", 0x1.010002p0f, 0x3f81},
        {"minus zero", -0.0f, 0x8000},
        {"the largest float overflows to infinity", 0x1.fffffep127f, 0x7f80},
        {"infinity", INFINITY, 0x7f80},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (br_f32_to_bf16(cases[i].value) != cases[i].bits) fail_msg("%s", cases[i].name);
    }
    assert_true(isnan(br_bf16_to_f32(br_f32_to_bf16(NAN))));
    assert_true(br_bf16_to_f32(0x4049) == 3.140625f);
}

/* Every finite value of a 16- or 8-bit type converts back to its bits; halfway to the next, even bits win;
 * just beyond either side of halfway, the nearer. `last` is the largest finite value's bits. */
static void check_rounding(float (*widen)(uint16_t), uint16_t (*narrow)(float), uint16_t last)
{
    for (uint16_t bits = 0; bits < last; bits++) {
        const float value = widen(bits);
        const float next = widen((uint16_t)(bits + 1));
        const float half = value + (next - value) / 2;
        assert_int_equal(narrow(value), bits);
        assert_int_equal(narrow(half), bits % 2 == 0 ? bits : bits + 1);
        assert_int_equal(narrow(nextafterf(half, value)), bits);
        assert_int_equal(narrow(nextafterf(half, next)), bits + 1);
    }
}

static float wide_e4m3(uint16_t bits)
{
    return br_e4m3_to_f32((uint8_t)bits);
}

static uint16_t narrow_e4m3(float value)
{
    return br_f32_to_e4m3(value);
}

static void test_f16_rounds_to_nearest_even_and_overflows_to_infinity(void **state)
{
    (void)state;
    check_rounding(br_f16_to_f32, br_f32_to_f16, 0x7bff);
    assert_int_equal(br_f32_to_f16(65519.99F), 0x7bff);
    assert_int_equal(br_f32_to_f16(65520), 0x7c00);
    assert_int_equal(br_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(br_f32_to_f16(-0.0F), 0x8000);
    assert_true(isnan(br_f16_to_f32(br_f32_to_f16(NAN))));
}

static void test_e4m3_rounds_to_nearest_even_and_saturates(void **state)
{
    (void)state;
    check_rounding(wide_e4m3, narrow_e4m3, 0x7e);
    assert_true(br_e4m3_to_f32(0x7e) == 448);
    assert_true(br_e4m3_to_f32(0x38) == 1);
    assert_true(br_e4m3_to_f32(0xb8) == -1);
    assert_int_equal(br_f32_to_e4m3(1e9F), 0x7e);
    assert_int_equal(br_f32_to_e4m3(-INFINITY), 0xfe);
    assert_true(isnan(br_e4m3_to_f32(br_f32_to_e4m3(NAN))));
}

static void test_f16_values_convert_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint16_t bits;
        float value;
    } cases[] = {
        {"zero", 0x0000, 0.0f},
        {"one", 0x3c00, 1.0f},
        {"minus two", 0xc000, -2.0f},
        {"largest", 0x7bff, 65504.0f},
        {"smallest normal", 0x0400, 0x1p-14f},
        {"largest subnormal", 0x03ff, 0x1.ff8p-15f},
        {"smallest subnormal", 0x0001, 0x1p-24f},
        {"negative subnormal", 0x8001, -0x1p-24f},
        {"infinity", 0x7c00, INFINITY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (br_f16_to_f32(cases[i].bits) != cases[i].value) fail_msg("%s", cases[i].name);
    }
    assert_true(signbit(br_f16_to_f32(0x8000)));
    assert_true(isnan(br_f16_to_f32(0x7e01)));
}

static void test_arrays_convert_from_any_alignment(void **state)
{
    (void)state;
    unsigned char bytes[1 + 3 * sizeof(float)];
    const float source[3] = {1.5f, -2.0f, 0.25f};
    float out[3];
    memcpy(bytes + 1, source, sizeof source);
    br_dtype_to_f32(out, bytes + 1, BR_F32, 3);
    assert_memory_equal(out, source, sizeof source);

    const uint16_t halves[2] = {0x3c00, 0xc000};
    memcpy(bytes + 1, halves, sizeof halves);
    br_dtype_to_f32(out, bytes + 1, BR_F16, 2);
    assert_true(out[0] == 1.0f);
    assert_true(out[1] == -2.0f);
    br_dtype_to_f32(out, bytes + 1, BR_BF16, 2);
    assert_true(out[0] == br_bf16_to_f32(0x3c00));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_a_name_and_a_text),
        cmocka_unit_test(test_fail_formats_and_returns_the_status),
        cmocka_unit_test(test_control_bytes_never_reach_an_error_text),
        cmocka_unit_test(test_a_long_error_is_cut_not_overrun),
        cmocka_unit_test(test_the_words_of_precisions_are_their_names_in_order),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even_and_keeps_nan),
        cmocka_unit_test(test_f16_rounds_to_nearest_even_and_overflows_to_infinity),
        cmocka_unit_test(test_e4m3_rounds_to_nearest_even_and_saturates),
        cmocka_unit_test(test_f16_values_convert_exactly),
        cmocka_unit_test(test_arrays_convert_from_any_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
