/* test_model.c - config.json to a model, and the rows of relative positions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bundle/model.h"
#include "core/limits.h"

static br_status parse(br_model *model, const char *json, br_error *error)
{
    return br_model_parse(model, br_str_from(json), "config.json", error);
}

/* The keys of deberta-v3-small's own file that the service reads. */
static const char small_json[] =
    "{\"model_type\": \"deberta-v2\", \"attention_probs_dropout_prob\": 0.1, \"hidden_act\": \"gelu\","
    " \"hidden_size\": 768, \"intermediate_size\": 3072, \"max_position_embeddings\": 512,"
    " \"relative_attention\": true, \"position_buckets\": 256, \"norm_rel_ebd\": \"layer_norm\","
    " \"share_att_key\": true, \"pos_att_type\": \"p2c|c2p\", \"layer_norm_eps\": 1e-7,"
    " \"max_relative_positions\": -1, \"position_biased_input\": false, \"num_attention_heads\": 12,"
    " \"num_hidden_layers\": 6, \"type_vocab_size\": 0, \"vocab_size\": 128100}";

static void test_the_published_configuration_is_read(void **state)
{
    (void)state;
    br_model m;
    br_error error;
    assert_int_equal(parse(&m, small_json, &error), BR_OK);
    assert_int_equal(m.width, 768);
    assert_int_equal(m.layers, 6);
    assert_int_equal(m.heads, 12);
    assert_int_equal(m.head_size, 64);
    assert_int_equal(m.ffn_width, 3072);
    assert_int_equal(m.vocab, 128100);
    assert_true(m.layer_norm_epsilon == 1e-7f);
    assert_true(m.relative_attention);
    assert_true(m.share_att_key);
    assert_true(m.c2p);
    assert_true(m.p2c);
    assert_true(m.norm_rel_ebd);
    assert_int_equal(m.position_buckets, 256);
    assert_int_equal(m.max_positions, 512); /* from max_position_embeddings */
    assert_int_equal(m.position_span, 256);
}

static void test_absent_keys_take_hugging_faces_defaults(void **state)
{
    (void)state;
    br_model m;
    br_error error;
    assert_int_equal(parse(&m, "{\"position_biased_input\": false}", &error), BR_OK);
    assert_int_equal(m.width, 1536);
    assert_int_equal(m.layers, 24);
    assert_int_equal(m.heads, 24);
    assert_int_equal(m.ffn_width, 6144);
    assert_int_equal(m.vocab, 128100);
    assert_true(m.layer_norm_epsilon == 1e-7f);
    assert_false(m.relative_attention);
    assert_false(m.share_att_key);
    assert_false(m.c2p);
    assert_false(m.p2c);
    assert_false(m.norm_rel_ebd);
    assert_int_equal(m.position_span, 0);
}

static void test_words_are_read_as_a_list_or_joined(void **state)
{
    (void)state;
    static const struct {
        const char *pos_att_type;
        bool c2p;
        bool p2c;
    } cases[] = {
        {"\"p2c|c2p\"", true, true},     {"\"c2p|p2c\"", true, true},
        {"\" C2P | p2c \"", true, true}, {"\"c2p\"", true, false},
        {"\"p2c|p2c\"", false, true},    {"\"\"", false, false},
        {"null", false, false},          {"[]", false, false},
        {"[\"c2p\"]", true, false},      {"[\"p2c\", \"c2p\"]", true, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"position_biased_input\": false, \"pos_att_type\": %s}",
                 cases[i].pos_att_type);
        br_model m;
        br_error error;
        assert_int_equal(parse(&m, json, &error), BR_OK);
        assert_int_equal(m.c2p, cases[i].c2p);
        assert_int_equal(m.p2c, cases[i].p2c);
    }
}

static void test_the_span_is_the_buckets_or_the_positions(void **state)
{
    (void)state;
    static const struct {
        const char *keys;
        int32_t buckets;
        int32_t max_positions;
        int32_t span;
    } cases[] = {
        {"\"position_buckets\": 256", 256, 512, 256},
        {"\"position_buckets\": 256, \"max_relative_positions\": 0", 256, 512, 256},
        {"\"position_buckets\": 256, \"max_relative_positions\": 400", 256, 400, 256},
        {"\"position_buckets\": -1", 0, 512, 512},
        {"\"position_buckets\": 0, \"max_relative_positions\": 64", 0, 64, 64},
        {"\"max_position_embeddings\": 128", 0, 128, 128},
        {"\"max_relative_positions\": 4096", 0, 4096, 4096},
        /* With buckets the positions decide only the logarithm. */
        {"\"position_buckets\": 4096, \"max_relative_positions\": 100000", 4096, 100000, 4096},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[256];
        snprintf(json, sizeof json, "{\"position_biased_input\": false, \"relative_attention\": true, %s}",
                 cases[i].keys);
        br_model m;
        br_error error;
        assert_int_equal(parse(&m, json, &error), BR_OK);
        assert_int_equal(m.position_buckets, cases[i].buckets);
        assert_int_equal(m.max_positions, cases[i].max_positions);
        assert_int_equal(m.position_span, cases[i].span);
    }
}

static void test_bert_and_distilbert_are_read_by_their_own_keys(void **state)
{
    (void)state;
    br_model m;
    br_error error;
    assert_int_equal(parse(&m, "{\"model_type\": \"bert\"}", &error),
                     BR_OK); /* bert-base's are the defaults */
    assert_int_equal(m.family, BR_FAMILY_BERT);
    assert_int_equal(m.width, 768);
    assert_int_equal(m.layers, 12);
    assert_int_equal(m.vocab, 30522);
    assert_int_equal(m.absolute_positions, 512);
    assert_int_equal(m.token_types, 2);
    assert_false(m.relative_attention);
    assert_false(m.c2p || m.p2c); /* the scale is 1 / sqrt(D) */
    assert_true(m.layer_norm_epsilon == 1e-12f);

    static const char distilbert[] =
        "{\"model_type\": \"distilbert\", \"dim\": 48, \"n_layers\": 2, \"n_heads\": 3,"
        " \"hidden_dim\": 100, \"max_position_embeddings\": 66, \"hidden_size\": 7}";
    assert_int_equal(parse(&m, distilbert, &error), BR_OK);
    assert_int_equal(m.family, BR_FAMILY_DISTILBERT);
    assert_int_equal(m.width, 48);
    assert_int_equal(m.layers, 2);
    assert_int_equal(m.head_size, 16);
    assert_int_equal(m.ffn_width, 100);
    assert_int_equal(m.absolute_positions, 66);
    assert_int_equal(m.token_types, 0);

    static const struct {
        const char *json;
        br_status status;
        const char *found;
    } bad[] = {
        {"{\"model_type\": \"bert\", \"hidden_act\": \"relu\"}", BR_ENOTSUP, "hidden_act"},
        {"{\"model_type\": \"distilbert\", \"activation\": \"relu\"}", BR_ENOTSUP, "activation"},
        {"{\"model_type\": \"bert\", \"position_embedding_type\": \"relative_key\"}", BR_ENOTSUP,
         "position_embedding_type"},
        {"{\"model_type\": \"bert\", \"type_vocab_size\": 0}", BR_EINVAL, "type_vocab_size"},
        {"{\"model_type\": \"distilbert\", \"n_heads\": 5}", BR_EINVAL,
         "n_heads: found 5, expected a divisor of dim"},
        {"{\"model_type\": \"roberta\"}", BR_ENOTSUP, "\"distilbert\""},
        {"{\"model_type\": 1}", BR_EFORMAT, "model_type"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(&m, bad[i].json, &error), bad[i].status);
        if (strstr(error.text, bad[i].found) == NULL) fail_msg("%s", error.text);
    }
}

/* Every refusal names the file and the key, and what was found. */
static void test_what_the_engine_cannot_do_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *keys;
        br_status status;
        const char *key;
        const char *found;
    } cases[] = {
        {"\"position_biased_input\": true", BR_ENOTSUP, "position_biased_input", "true"},
        {"\"position_biased_input\": 0", BR_EFORMAT, "position_biased_input", "0"},
        {"\"x\": 1", BR_ENOTSUP, "position_biased_input", "nothing"},
        {"\"conv_kernel_size\": 3", BR_ENOTSUP, "conv_kernel_size", "3"},
        {"\"type_vocab_size\": 2", BR_ENOTSUP, "type_vocab_size", "2"},
        {"\"hidden_act\": \"gelu_new\"", BR_ENOTSUP, "hidden_act", "gelu_new"},
        {"\"hidden_act\": 7", BR_EFORMAT, "hidden_act", "7"},
        {"\"model_type\": \"deberta\"", BR_ENOTSUP, "model_type", "deberta"},
        {"\"embedding_size\": 128", BR_ENOTSUP, "embedding_size", "128"},
        {"\"attention_head_size\": 32", BR_ENOTSUP, "attention_head_size", "32"},
        {"\"pos_att_type\": \"c2p|p2p\"", BR_ENOTSUP, "pos_att_type", "p2p"},
        {"\"pos_att_type\": [\"c2p\", \"C2P\"]", BR_ENOTSUP, "pos_att_type", "C2P"},
        {"\"pos_att_type\": [\"c2p\", 1]", BR_EFORMAT, "pos_att_type", "1"},
        {"\"pos_att_type\": 1", BR_EFORMAT, "pos_att_type", "1"},
        {"\"norm_rel_ebd\": \"batch_norm\"", BR_ENOTSUP, "norm_rel_ebd", "batch_norm"},
        {"\"hidden_size\": 770", BR_EINVAL, "num_attention_heads", "24"},
        {"\"hidden_size\": 0", BR_EINVAL, "hidden_size", "0"},
        {"\"hidden_size\": 16384", BR_ETOOBIG, "hidden_size", "16384"},
        {"\"hidden_size\": 9223372036854775807", BR_EINVAL, "hidden_size", "9223372036854775807"},
        {"\"hidden_size\": 768.0", BR_EFORMAT, "hidden_size", "768"},
        {"\"hidden_size\": \"768\"", BR_EFORMAT, "hidden_size", "768"},
        {"\"num_hidden_layers\": 129", BR_ETOOBIG, "num_hidden_layers", "129"},
        {"\"num_attention_heads\": 0", BR_EINVAL, "num_attention_heads", "0"},
        {"\"intermediate_size\": 40000", BR_ETOOBIG, "intermediate_size", "40000"},
        {"\"vocab_size\": -5", BR_EINVAL, "vocab_size", "-5"},
        {"\"layer_norm_eps\": -1e-7", BR_EINVAL, "layer_norm_eps", "-9.9"},
        {"\"layer_norm_eps\": \"small\"", BR_EFORMAT, "layer_norm_eps", "small"},
        {"\"relative_attention\": \"yes\"", BR_EFORMAT, "relative_attention", "yes"},
        {"\"relative_attention\": true, \"max_position_embeddings\": 0", BR_EINVAL, "max_position_embeddings",
         "0"},
        {"\"relative_attention\": true, \"position_buckets\": 1", BR_EINVAL, "position_buckets", "1"},
        {"\"relative_attention\": true, \"position_buckets\": 4097", BR_ETOOBIG, "position_buckets", "4097"},
        {"\"relative_attention\": true, \"max_relative_positions\": 4097", BR_ETOOBIG,
         "max_relative_positions", "4097"},
        {"\"relative_attention\": true, \"position_buckets\": 256, \"max_relative_positions\": 129",
         BR_EINVAL, "max_relative_positions", "129"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool says =
            strstr(cases[i].keys, "position_biased_input") != NULL || strcmp(cases[i].found, "nothing") == 0;
        char json[256];
        snprintf(json, sizeof json, "{%s%s}", says ? "" : "\"position_biased_input\": false, ",
                 cases[i].keys);
        br_model m;
        br_error error = {0};
        print_message("%s\n", cases[i].keys);
        assert_int_equal(parse(&m, json, &error), cases[i].status);
        assert_int_equal(error.status, cases[i].status);
        assert_non_null(strstr(error.text, "config.json: "));
        assert_non_null(strstr(error.text, cases[i].key));
        assert_non_null(strstr(error.text, cases[i].found));
        assert_non_null(strstr(error.text, "expected"));
    }
}

static void test_what_is_not_a_json_object_is_malformed(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",     "{", "[]", "7", "{} {}", "{\"hidden_size\": 1, \"hidden_size\": 2}", "{\"a\": \"\\u0000\"}",
        "\xff",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        br_model m;
        br_error error = {0};
        assert_int_equal(parse(&m, texts[i], &error), BR_EFORMAT);
        assert_non_null(strstr(error.text, "config.json"));
        assert_int_equal(parse(&m, texts[i], NULL), BR_EFORMAT);
    }
}

static void test_a_text_over_the_limit_is_too_big(void **state)
{
    (void)state;
    static const char minimal[] = "{\"position_biased_input\": false}";
    char *text = malloc(BR_JSON_BYTES_MAX + 1);
    assert_non_null(text);
    memset(text, ' ', BR_JSON_BYTES_MAX + 1);
    memcpy(text, minimal, sizeof minimal - 1);
    br_model m;
    br_error error;
    assert_int_equal(br_model_parse(&m, (br_str){text, BR_JSON_BYTES_MAX}, "config.json", &error), BR_OK);
    assert_int_equal(br_model_parse(&m, (br_str){text, BR_JSON_BYTES_MAX + 1}, "config.json", &error),
                     BR_ETOOBIG);
    free(text);
}

enum { DISTANCES = 2047, LINE_BYTES_MAX = 1 << 14 };

/* One token of tools/make_position_rows.py: "L", "LjJ", either with "*k". */
static const char *read_run(const char *at, int *length, int *jump, int *times)
{
    char *end;
    *length = (int)strtol(at, &end, 10);
    *jump = 1;
    *times = 1;
    if (*end == 'j') *jump = (int)strtol(end + 1, &end, 10);
    if (*end == '*') *times = (int)strtol(end + 1, &end, 10);
    while (*end == ' ' || *end == '\n') end++;
    return end;
}

static void check_line(const char *line)
{
    br_model m = {.relative_attention = true};
    int row;
    int consumed;
    assert_int_equal(sscanf(line, "%d %d %d : %d %n", &m.position_buckets, &m.max_positions, &m.position_span,
                            &row, &consumed),
                     4);
    const char *at = line + consumed;
    int distance = -DISTANCES;
    while (*at != '\0') {
        int length;
        int jump;
        int times;
        at = read_run(at, &length, &jump, &times);
        for (; times > 0; times--) {
            for (int i = 0; i < length; i++, distance++) {
                if (br_model_position_row(&m, distance) == row) continue;
                fail_msg("buckets %d, positions %d, distance %d: row %d, expected %d",
                         (int)m.position_buckets, (int)m.max_positions, distance,
                         (int)br_model_position_row(&m, distance), row);
            }
            row += jump;
        }
    }
    assert_int_equal(distance, DISTANCES + 1);
}

static void test_the_row_of_every_distance_is_hugging_faces(void **state)
{
    (void)state;
    char path[4096];
    const char *source = getenv("BESTROUTE_SOURCE");
    snprintf(path, sizeof path, "%s/tests/data/position_rows.txt", source == NULL ? "." : source);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *line = malloc(LINE_BYTES_MAX);
    assert_non_null(line);
    int lines = 0;
    while (fgets(line, LINE_BYTES_MAX, file) != NULL) {
        check_line(line);
        lines++;
    }
    assert_true(lines >= 40);
    free(line);
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_published_configuration_is_read),
        cmocka_unit_test(test_absent_keys_take_hugging_faces_defaults),
        cmocka_unit_test(test_bert_and_distilbert_are_read_by_their_own_keys),
        cmocka_unit_test(test_words_are_read_as_a_list_or_joined),
        cmocka_unit_test(test_the_span_is_the_buckets_or_the_positions),
        cmocka_unit_test(test_what_the_engine_cannot_do_is_refused_by_name),
        cmocka_unit_test(test_what_is_not_a_json_object_is_malformed),
        cmocka_unit_test(test_a_text_over_the_limit_is_too_big),
        cmocka_unit_test(test_the_row_of_every_distance_is_hugging_faces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
