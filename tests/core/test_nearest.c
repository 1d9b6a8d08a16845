/* test_nearest.c - core/nearest.h: distances, and which word is offered for a misspelt one. */
#include "core/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_a_distance_counts_edits(void **state)
{
    (void)state;
    static const struct {
        const char *a;
        const char *b;
        size_t distance;
    } cases[] = {
        {"", "", 0},
        {"", "abc", 3},
        {"name", "name", 0},
        {"name", "names", 1},
        {"name", "nam", 1},
        {"name", "nome", 1},
        {"nmae", "name", 1},
        {"ca", "abc", 3}, /* no letter is edited twice */
        {"kitten", "sitting", 3},
        {"ab", "ba", 1},
        {"abcd", "dcba", 3},
        {"threshold", "budget", 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const br_str a = br_str_from(cases[i].a);
        const br_str b = br_str_from(cases[i].b);
        if (br_edit_distance(a, b) != cases[i].distance || br_edit_distance(b, a) != cases[i].distance)
            fail_msg("%s, %s: %zu, expected %zu", cases[i].a, cases[i].b, br_edit_distance(a, b),
                     cases[i].distance);
    }
}

static void test_a_word_beyond_the_limit_is_near_nothing(void **state)
{
    (void)state;
    char text[BR_NEAREST_BYTES_MAX + 2];
    memset(text, 'x', sizeof text);
    const br_str longest = {text, BR_NEAREST_BYTES_MAX};
    const br_str longer = {text, BR_NEAREST_BYTES_MAX + 1};
    assert_int_equal(br_edit_distance(longest, longest), 0);
    assert_int_equal(br_edit_distance(longest, BR_STR_LITERAL("x")), BR_NEAREST_BYTES_MAX - 1);
    assert_true(br_edit_distance(longer, longer) == SIZE_MAX);
    br_nearest nearest = br_nearest_to(longer);
    br_nearest_offer(&nearest, "x");
    assert_null(nearest.best);
}

static const char *nearest_option(const char *word)
{
    br_nearest nearest = br_nearest_to(br_str_from(word));
    static const char *const known[] = {"name", "names", "queue-max", "max-queries", "n"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) br_nearest_offer(&nearest, known[i]);
    return nearest.best != NULL ? nearest.best : "none";
}

static void test_the_nearest_word_is_offered_or_none(void **state)
{
    (void)state;
    assert_string_equal(nearest_option("nmae"), "name");
    assert_string_equal(nearest_option("queue_max"), "queue-max");
    assert_string_equal(nearest_option("queue-maximu"), "queue-max");
    assert_string_equal(nearest_option("queue-maximums"), "none");
    assert_string_equal(nearest_option("m"), "n");
    assert_string_equal(nearest_option("engine"), "none");
    assert_string_equal(nearest_option(""), "n");
}

static void test_of_equally_near_words_the_first_wins(void **state)
{
    (void)state;
    br_nearest nearest = br_nearest_to(BR_STR_LITERAL("bat"));
    br_nearest_offer(&nearest, "cat");
    br_nearest_offer(&nearest, "rat");
    assert_string_equal(nearest.best, "cat");
    br_nearest_offer(&nearest, "bat");
    assert_string_equal(nearest.best, "bat");
    assert_int_equal(nearest.distance, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_distance_counts_edits),
        cmocka_unit_test(test_a_word_beyond_the_limit_is_near_nothing),
        cmocka_unit_test(test_the_nearest_word_is_offered_or_none),
        cmocka_unit_test(test_of_equally_near_words_the_first_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
