/* test_wordpiece.c - BERT's tokenizer against stored answers of Hugging Face's, and wrong vocabularies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "bundle/tokenizer/tokenizer.h"
#include "support/files.h"
#include "support/oom.h"

enum { PATH_BYTES = 4096, IDS_MAX = 512 };

static const char small[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##b\n##bc\nab\n[\n]\nsep\r\ncls\n";

static br_tokenizer *make(const char *vocab, bool lowercase)
{
    br_tokenizer *t;
    br_error error = {0};
    if (br_tokenizer_create_wordpiece(&t, br_str_from(vocab), lowercase, "vocab.txt", &error) != BR_OK)
        fail_msg("%s", error.text);
    return t;
}

static char *load(const char *name)
{
    const char *source = getenv("BESTROUTE_SOURCE");
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/tests/data/%s", source == NULL ? "." : source, name);
    size_t size;
    return read_whole(path, &size);
}

static void check_answer(const br_tokenizer *t, const json_t *line, const char *key)
{
    const json_t *text = json_object_get(line, "text");
    const json_t *expected = json_object_get(line, key);
    const br_str view = {json_string_value(text), json_string_length(text)};
    int32_t ids[IDS_MAX];
    size_t count;
    assert_int_equal(br_tokenizer_encode(t, view, ids, IDS_MAX, &count), BR_OK);
    bool equal = count == json_array_size(expected);
    for (size_t i = 0; equal && i < count; i++)
        equal = ids[i] == json_integer_value(json_array_get(expected, i));
    if (!equal) fail_msg("%s: %.*s", key, (int)view.size, view.data);

    /* With too little room it writes the first ids, and returns the whole count. */
    int32_t two[3] = {-7, -7, -7};
    size_t all;
    assert_int_equal(br_tokenizer_encode(t, view, two, 2, &all), BR_OK);
    assert_int_equal(all, count);
    for (size_t i = 0; i < 2 && i < count; i++) assert_int_equal(two[i], ids[i]);
    assert_int_equal(two[2], -7);
}

static void test_ids_are_hugging_faces(void **state)
{
    (void)state;
    char *vocab = load("wordpiece_vocab.txt");
    char *golden = load("wordpiece_golden.jsonl");
    br_tokenizer *uncased = make(vocab, true);
    br_tokenizer *cased = make(vocab, false);
    size_t lines = 0;
    for (char *at = golden; *at != '\0'; lines++) {
        char *end = strchr(at, '\n');
        assert_non_null(end);
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
        assert_non_null(line);
        check_answer(uncased, line, "uncased");
        check_answer(cased, line, "cased");
        json_decref(line);
        at = end + 1;
    }
    assert_true(lines > 50);
    br_tokenizer_destroy(uncased);
    br_tokenizer_destroy(cased);
    free(vocab);
    free(golden);
}

static void test_the_longest_piece_wins_and_text_is_only_text(void **state)
{
    (void)state;
    br_tokenizer *t = make(small, true);
    int32_t ids[16];
    size_t count;
    const int32_t expected[] = {8, 6, 8, 7, 1, 9, 12, 10, 9, 11, 10};
    assert_int_equal(br_tokenizer_encode(t,
                                         BR_STR_LITERAL("abb \xc3\x81"
                                                        "bbc abx [CLS][sep]"),
                                         ids, 16, &count),
                     BR_OK);
    assert_int_equal(count, 11);
    assert_memory_equal(ids, expected, sizeof expected);
    assert_int_equal(br_tokenizer_piece_count(t), 13);
    assert_int_equal(br_tokenizer_cls(t), 2);
    assert_int_equal(br_tokenizer_sep(t), 3);
    assert_true(br_tokenizer_is_text_id(t, 1)); /* [UNK] */
    for (int64_t id = -1; id < 20; id++) {
        const bool special = id == 0 || id == 2 || id == 3 || id == 4;
        assert_int_equal(br_tokenizer_is_text_id(t, id), id >= 0 && id < 13 && !special);
    }
    assert_int_equal(br_tokenizer_encode(t, BR_STR_LITERAL("a\xff"), ids, 16, &count), BR_EFORMAT);
    assert_int_equal(br_tokenizer_use_bytes(t), BR_ENOTSUP);
    br_tokenizer_destroy(t);
}

static void test_a_vocabulary_without_its_special_pieces_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *vocab;
        br_status status;
        const char *found;
    } cases[] = {
        {"", BR_EINVAL, "has no line [UNK]"},
        {"[UNK]\n[SEP]\na\n", BR_EINVAL, "has no line [CLS]"},
        {"[UNK]\n[CLS]\n[SEP ]\n", BR_EINVAL, "has no line [SEP]"},
        {"[UNK]\n[CLS]\n[SEP]\n\xff\n", BR_EFORMAT, "at 18"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_tokenizer *t = NULL;
        br_error error = {0};
        assert_int_equal(
            br_tokenizer_create_wordpiece(&t, br_str_from(cases[i].vocab), true, "vocab.txt", &error),
            cases[i].status);
        assert_null(t);
        assert_non_null(strstr(error.text, "vocab.txt: "));
        if (strstr(error.text, cases[i].found) == NULL) fail_msg("%s", error.text);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_tokenizer *t;
        status = br_tokenizer_create_wordpiece(&t, br_str_from(small), true, "vocab.txt", NULL);
        failures += status != BR_OK;
        assert_true(status == BR_OK || (status == BR_ENOMEM && t == NULL));
        br_tokenizer_destroy(t);
    });
    assert_int_equal(status, BR_OK);
    assert_true(failures >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids_are_hugging_faces),
        cmocka_unit_test(test_the_longest_piece_wins_and_text_is_only_text),
        cmocka_unit_test(test_a_vocabulary_without_its_special_pieces_is_refused),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
