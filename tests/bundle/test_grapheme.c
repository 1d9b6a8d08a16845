/* test_grapheme.c - where clusters end, rule by rule of Annex 29. */
#include "bundle/tokenizer/grapheme.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CODES_MAX = 8 };

/* Clusters are separated by 0xFFFFFFFF, the list ends with 0. */
enum { END = 0 };
#define CUT UINT32_MAX

static const struct {
    const char *name;
    uint32_t codes[CODES_MAX + 1];
} cases[] = {
    {"letters stand alone", {'a', CUT, 'b', CUT, 'c'}},
    {"GB3 CR LF", {'\r', '\n'}},
    {"LF CR", {'\n', CUT, '\r'}},
    {"GB4 after a control", {0x01, CUT, 0x0301}},
    {"GB4 after LF", {'\n', CUT, 0x0301}},
    {"GB5 before a control", {'a', CUT, 0x200B, CUT, 'b'}},
    {"a soft hyphen is a control", {'a', CUT, 0xAD}},
    {"GB6 L L", {0x1100, 0x1100}},
    {"GB6 L V", {0x1100, 0x1161}},
    {"GB6 L LV", {0x1100, 0xAC00}},
    {"GB6 L LVT", {0x1100, 0xAC01}},
    {"L T", {0x1100, CUT, 0x11A8}},
    {"GB7 LV V", {0xAC00, 0x1161}},
    {"GB7 LV T", {0xAC00, 0x11A8}},
    {"GB7 V T", {0x1161, 0x11A8}},
    {"V L", {0x1161, CUT, 0x1100}},
    {"GB8 LVT T", {0xAC01, 0x11A8}},
    {"GB8 T T", {0x11A8, 0x11A8}},
    {"LVT V", {0xAC01, CUT, 0x1161}},
    {"T V", {0x11A8, CUT, 0x1161}},
    {"old jamo", {0xA960, 0xD7B0, 0xD7CB}},
    {"syllables stand alone", {0xAC00, CUT, 0xAC00}},
    {"GB9 marks", {'e', 0x0301, 0x0301, CUT, 'e'}},
    {"GB9 a joiner", {'a', 0x200D, CUT, 'b'}},
    {"GB9 a non-joiner", {'a', 0x200C, CUT, 'b'}},
    {"GB9 at the start", {0x0301, 0x0301}},
    {"GB9a a spacing mark", {0x0E01, 0x0E33}},
    {"GB9b a prepended mark", {0x0600, '1', CUT, '2'}},
    {"GB9b but not to a control", {0x0600, CUT, '\n'}},
    {"GB9c a conjunct", {0x0915, 0x094D, 0x0937}},
    {"GB9c with marks between", {0x0915, 0x093C, 0x094D, 0x200D, 0x0937}},
    {"without a linker", {0x0915, 0x093C, CUT, 0x0937}},
    {"a linker and then a non-joiner", {0x0915, 0x094D, 0x200C, CUT, 0x0937}},
    {"a linker after no consonant", {'a', 0x094D, CUT, 0x0937}},
    {"GB9c three consonants", {0x0915, 0x094D, 0x0937, 0x094D, 0x0930}},
    {"the linker counts once", {0x0915, 0x094D, 0x0937, CUT, 0x0930}},
    {"GB11 pictures joined", {0x1F468, 0x200D, 0x1F469}},
    {"GB11 with a mark between", {0x2764, 0xFE0F, 0x200D, 0x1F525}},
    {"GB11 three", {0x1F468, 0x200D, 0x1F469, 0x200D, 0x1F467}},
    {"pictures without a joiner", {0x1F468, CUT, 0x1F469}},
    {"a mark after the joiner", {0x1F468, 0x200D, 0xFE0F, CUT, 0x1F469}},
    {"a joiner after a letter", {'a', 0x200D, CUT, 0x1F469}},
    {"a tone", {0x1F44D, 0x1F3FD, CUT, 0x1F44D}},
    {"GB12 flags in pairs", {0x1F1E9, 0x1F1EA, CUT, 0x1F1EB, 0x1F1F7}},
    {"GB13 an odd one", {'a', CUT, 0x1F1E9, 0x1F1EA, CUT, 0x1F1EB}},
    {"a mark within a flag", {0x1F1E9, 0x0301, CUT, 0x1F1EA}},
    {"ideographs stand alone", {0x4E2D, CUT, 0x6587, 0x0301}},
    {"the last code point", {0x10FFFF, CUT, 'a'}},
    {"NUL is a control", {'a', CUT, 0x00}},
};

static void test_clusters_end_where_the_rules_say(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        grapheme cluster;
        grapheme_begin(&cluster, cases[i].codes[0]);
        for (size_t k = 1; k <= CODES_MAX && cases[i].codes[k] != END; k++) {
            const bool cut = cases[i].codes[k] == CUT;
            if (cut) k++;
            const uint32_t code = cases[i].codes[k];
            if (grapheme_joins(&cluster, code) == cut) fail_msg("%s: U+%04X", cases[i].name, (unsigned)code);
            if (cut) grapheme_begin(&cluster, code);
        }
    }
}

static void test_any_number_is_a_legal_code_point(void **state)
{
    (void)state;
    grapheme cluster;
    grapheme_begin(&cluster, UINT32_MAX);
    assert_false(grapheme_joins(&cluster, 0x110000));
    assert_true(grapheme_joins(&cluster, 0x0301));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clusters_end_where_the_rules_say),
        cmocka_unit_test(test_any_number_is_a_legal_code_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
