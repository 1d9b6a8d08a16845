/* test_router.c - router.json: what it says, and what it may not say. */
#include "policy/router.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/oom.h"

/* The example of the bundle's description. */
static const char example[] =
    "{\"format\": \"bestroute-bundle/1\", \"name\": \"best-route-bo5\", \"max_tokens\": 128,"
    " \"source_prefix\": \"<|source|>\", \"pool\": \"source_prefix\", \"models\": {"
    " \"llama-31-8b\": {\"input_price\": 3.0e-7, \"output_price\": 6.1e-7, \"avg_output_tokens\": 298.3,"
    " \"input_per_sample\": true},"
    " \"gpt-4o\": {\"input_price\": 5.0e-6, \"output_price\": 1.5e-5, \"avg_output_tokens\": 294.0}},"
    " \"candidates\": [{\"model\": \"llama-31-8b\", \"n\": 1, \"head\": 0},"
    " {\"model\": \"llama-31-8b\", \"n\": 2, \"head\": 1},"
    " {\"model\": \"gpt-4o\", \"n\": 1, \"reference\": true}],"
    " \"policy\": {\"kind\": \"threshold\", \"threshold\": 0.5}}";

enum { TEXT_BYTES = 1 << 16 };

/* `json` parsed in storage too large for a stack frame. */
static br_status parse(br_router **router, const char *json, br_error *error)
{
    *router = malloc(sizeof **router);
    assert_non_null(*router);
    return br_router_parse(*router, br_str_from(json), "router.json", error);
}

static void drop(br_router *router)
{
    br_router_deinit(router);
    free(router);
}

/* The example with its first `from` replaced by `to`. */
static void replace(char out[TEXT_BYTES], const char *from, const char *to)
{
    const char *at = strstr(example, from);
    assert_non_null(at);
    snprintf(out, TEXT_BYTES, "%.*s%s%s", (int)(at - example), example, to, at + strlen(from));
}

static void test_the_example_is_read(void **state)
{
    (void)state;
    br_router *r;
    br_error error;
    assert_int_equal(parse(&r, example, &error), BR_OK);
    assert_string_equal(r->name, "best-route-bo5");
    assert_string_equal(r->source_prefix, "<|source|>");
    assert_int_equal(r->max_tokens, 128);
    assert_int_equal(r->model_count, 2);
    assert_string_equal(r->models[0].name, "llama-31-8b");
    assert_true(r->models[0].has_price);
    assert_true(r->models[0].input_price == 3.0e-7);
    assert_true(r->models[0].output_price == 6.1e-7);
    assert_true(r->models[0].avg_output_tokens == 298.3);
    assert_true(r->models[0].input_per_sample);
    assert_false(r->models[1].input_per_sample);
    assert_int_equal(r->candidate_count, 3);
    assert_int_equal(r->candidates[1].model, 0);
    assert_int_equal(r->candidates[1].n, 2);
    assert_int_equal(r->candidates[1].head, 1);
    assert_int_equal(r->candidates[2].head, -1);
    assert_int_equal(r->reference, 2);
    assert_int_equal(r->head_count, 2);
    assert_int_equal(r->policy.has, BR_HAS_KIND | BR_HAS_THRESHOLD);
    assert_int_equal(r->policy.kind, BR_POLICY_THRESHOLD);
    assert_true(r->policy.threshold == 0.5);
    assert_int_equal(br_router_find_model(r, BR_STR_LITERAL("gpt-4o")), 1);
    assert_int_equal(br_router_find_model(r, BR_STR_LITERAL("gpt-4")), -1);
    assert_int_equal(br_router_find_model(r, (br_str){NULL, 0}), -1);
    drop(r);
}

/* A policy_table of these rows before the policy, and a row of it. */
#define TABLE(rows)                                                                                          \
    "\"policy_table\": {\"kind\": \"threshold\", \"rows\": 9, \"table\": [" rows "]}, \"policy\":"
#define ROW(threshold, quality)                                                                              \
    "{\"threshold\": " threshold ", \"reference_share\": 0.25, \"mean_cost\": 0.001, \"quality\": " quality  \
    ", \"x_later\": 1}"

static void test_a_calibrated_bundle_tells_its_policy_table(void **state)
{
    (void)state;
    char json[TEXT_BYTES];
    replace(json, "\"policy\":", TABLE(ROW("0", "0.5") "," ROW("1", "1")));
    br_router *r;
    br_error error;
    assert_int_equal(parse(&r, json, &error), BR_OK);
    assert_int_equal(r->measured.row_count, 2);
    assert_int_equal(r->measured.prompts, 9);
    assert_true(r->measured.rows[0].threshold == 0 && r->measured.rows[1].threshold == 1);
    assert_true(r->measured.rows[1].reference_share == 0.25 && r->measured.rows[1].mean_cost == 0.001);
    assert_true(r->measured.rows[0].quality == 0.5 && r->measured.rows[1].quality == 1);
    drop(r);

    assert_int_equal(parse(&r, example, &error), BR_OK);
    assert_int_equal(r->measured.row_count, 0);
    drop(r);
}

static void test_a_policy_table_has_at_most_1001_rows(void **state)
{
    (void)state;
    enum { LONG_BYTES = 1 << 18 };
    char *json = malloc(LONG_BYTES);
    assert_non_null(json);
    for (int rows = BR_POLICY_TABLE_ROWS_MAX; rows <= BR_POLICY_TABLE_ROWS_MAX + 1; rows++) {
        size_t at = (size_t)snprintf(
            json, LONG_BYTES, "%.*s, \"policy_table\": {\"kind\": \"threshold\", \"rows\": 1, \"table\": [",
            (int)(strrchr(example, '}') - example), example);
        for (int i = 0; i < rows; i++)
            at += (size_t)snprintf(json + at, LONG_BYTES - at, "%s" ROW("%g", "0.5"), i == 0 ? "" : ",",
                                   i / 2000.0);
        snprintf(json + at, LONG_BYTES - at, "]}}");
        br_router *r;
        br_error error = {0};
        const bool fits = rows <= BR_POLICY_TABLE_ROWS_MAX;
        assert_int_equal(parse(&r, json, &error), fits ? BR_OK : BR_ETOOBIG);
        assert_true(fits || strstr(error.text, "policy_table.table: found an array of 1002") != NULL);
        drop(r);
    }
    free(json);
}

static void test_what_may_be_left_out_has_defaults(void **state)
{
    (void)state;
    static const char json[] = "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\", \"max_tokens\": 3,"
                               " \"models\": {\"a\": {}, \"b\": {\"input_price\": 0, \"output_price\": 0}},"
                               " \"candidates\": [{\"model\": \"b\", \"n\": 1, \"reference\": true},"
                               " {\"model\": \"a\", \"n\": 1000, \"head\": 255, \"reference\": false}]}";
    br_router *r;
    br_error error;
    assert_int_equal(parse(&r, json, &error), BR_OK);
    assert_string_equal(r->source_prefix, "<|source|>");
    assert_false(r->models[0].has_price);
    assert_true(isnan(r->models[0].avg_output_tokens));
    assert_true(r->models[1].has_price); /* a price of 0 is a price */
    assert_int_equal(r->reference, 0);
    assert_int_equal(r->head_count, 256); /* heads that no candidate uses are there all the same */
    assert_int_equal(r->policy.has, BR_HAS_KIND | BR_HAS_THRESHOLD);
    assert_int_equal(r->policy.kind, BR_POLICY_THRESHOLD);
    assert_true(r->policy.threshold == 0.5);
    drop(r);
}

static void test_every_key_of_a_policy_is_read(void **state)
{
    (void)state;
    char json[TEXT_BYTES];
    replace(json, "{\"kind\": \"threshold\", \"threshold\": 0.5}",
            "{\"kind\": \"pool\", \"max_cost\": 0.25,"
            " \"total_budget\": 3, \"models\": [\"gpt-4o\", \"llama-31-8b\"], \"exclude\": [\"gpt-4o\"],"
            " \"max_n\": 4294967295, \"fallback\": \"reference\", \"x_later\": {}}");
    br_router *r;
    br_error error;
    assert_int_equal(parse(&r, json, &error), BR_OK);
    const br_policy_spec *p = &r->policy;
    assert_int_equal(p->has, BR_HAS_KIND | BR_HAS_MAX_COST | BR_HAS_TOTAL_BUDGET | BR_HAS_MODELS |
                                 BR_HAS_EXCLUDE | BR_HAS_MAX_N | BR_HAS_FALLBACK);
    assert_int_equal(p->kind, BR_POLICY_POOL);
    assert_int_equal(p->fallback, BR_FALLBACK_REFERENCE);
    assert_true(p->max_cost == 0.25);
    assert_true(p->total_budget == 3);
    assert_true(p->max_n == UINT32_MAX);
    assert_int_equal(p->model_count, 2);
    assert_true(br_str_equal(p->models[1], BR_STR_LITERAL("llama-31-8b")));
    assert_int_equal(p->exclude_count, 1);
    assert_true(br_str_equal(p->exclude[0], BR_STR_LITERAL("gpt-4o")));
    drop(r);
}

static void test_a_head_may_bring_its_calibration(void **state)
{
    (void)state;
    char json[TEXT_BYTES];
    br_router *r;
    replace(json, "\"head\": 1", "\"head\": 1, \"calibration\": {\"scale\": 1.25, \"bias\": -0.5}");
    assert_int_equal(parse(&r, json, NULL), BR_OK);
    assert_true(r->candidates[0].scale == 1 && r->candidates[0].bias == 0);
    assert_true(r->candidates[1].scale == 1.25F && r->candidates[1].bias == -0.5F);
    drop(r);
    replace(json, "\"head\": 1", "\"head\": 1, \"calibration\": {\"bias\": 2}");
    assert_int_equal(parse(&r, json, NULL), BR_OK);
    assert_true(r->candidates[1].scale == 1 && r->candidates[1].bias == 2);
    drop(r);
}

/* A softmax has no log odds of its own to stretch. */
static void test_calibration_is_refused_where_qualities_are_no_sigmoids_of_their_own(void **state)
{
    (void)state;
    static const struct {
        const char *heads;
        br_status status;
    } cases[] = {{"best_route", BR_OK},
                 {"n_label", BR_OK},
                 {"n_class", BR_EINVAL},
                 {"zooter", BR_EINVAL},
                 {"router_dc", BR_EINVAL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool scored = cases[i].status != BR_OK;
        char json[TEXT_BYTES];
        snprintf(
            json, sizeof json,
            "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\", \"max_tokens\": 16, \"heads\": \"%s\","
            " \"models\": {\"a\": {}, \"b\": {}}, \"candidates\": ["
            "{\"model\": \"a\", \"n\": 1, \"head\": 0, \"calibration\": {\"scale\": 2}},"
            "{\"model\": \"b\", \"n\": 1, \"reference\": true%s}]}",
            cases[i].heads, scored ? ", \"head\": 1" : "");
        br_router *r;
        br_error error = {0};
        assert_int_equal(parse(&r, json, &error), cases[i].status);
        if (scored) assert_non_null(strstr(error.text, "candidates[0].calibration"));
        drop(r);
    }
}

static void test_only_some_unknown_keys_may_be_skipped(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        const char *to;
        const char *text; /* of the error; NULL: it is read */
    } cases[] = {
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"x_note\": [1, {}], \"x_\": null", NULL},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"unfamiliar\": null", NULL},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"optional\": [], \"treshold\": 1",
         "router.json: treshold: unknown key; nearest is "},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"polcy\": {}",
         "router.json: polcy: unknown key; nearest is policy"},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"selector\": 1, \"optional\": [\"selector\"]", NULL},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"selector\": 1, \"optional\": [\"selectors\"]",
         "router.json: selector: unknown key; nearest is "},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"optional\": \"selector\"",
         "router.json: optional: found the string"},
        {"\"max_tokens\": 128", "\"max_tokens\": 128, \"optional\": [1]", "router.json: optional: found 1"},
        {"\"input_price\": 5.0e-6", "\"input_cost_per_token\": 5.0e-6",
         "router.json: models.gpt-4o.input_cost_per_token: unknown key; nearest is input_price"},
        {"\"n\": 1, \"head\": 0", "\"n\": 1, \"head\": 0, \"votes\": 3",
         "router.json: candidates[0].votes: unknown key; nearest is "},
        {"\"n\": 1, \"head\": 0}", "\"n\": 1, \"head\": 0, \"x_votes\": 3}", NULL},
        {"\"head\": 1", "\"head\": 1, \"calibration\": {\"scales\": 2}",
         "router.json: candidates[1].calibration.scales: unknown key; nearest is scale"},
        {"\"threshold\": 0.5", "\"treshold\": 0.5",
         "router.json: policy.treshold: unknown key; nearest is threshold"},
        {"\"policy\":", "\"policy_table\": {\"kinds\": 1}, \"policy\":",
         "router.json: policy_table.kinds: unknown key; nearest is kind"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[TEXT_BYTES];
        replace(json, cases[i].from, cases[i].to);
        br_router *r;
        br_error error = {0};
        const br_status status = parse(&r, json, &error);
        if ((status == BR_OK) != (cases[i].text == NULL)) fail_msg("%s: %s", cases[i].to, error.text);
        if (cases[i].text != NULL && strstr(error.text, cases[i].text) != error.text)
            fail_msg("%s: %s", cases[i].to, error.text);
        drop(r);
    }
}

static void test_a_key_may_be_optional_at_any_level(void **state)
{
    (void)state;
    static const char json[] =
        "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\", \"max_tokens\": 3, \"groups\": {\"votes\": 1},"
        " \"optional\": [\"votes\", \"groups\", \"n\"], \"models\": {\"a\": {\"votes\": 1}, \"b\": {}},"
        " \"candidates\": [{\"model\": \"b\", \"n\": 2, \"reference\": true},"
        " {\"model\": \"a\", \"n\": 7, \"head\": 0, \"votes\": 2}],"
        " \"policy\": {\"threshold\": 1, \"votes\": 3}}";
    br_router *r;
    br_error error = {0};
    assert_int_equal(parse(&r, json, &error), BR_OK);
    assert_int_equal(r->candidates[1].n, 7); /* a key that is known is read all the same */
    assert_int_equal(r->policy.kind, BR_POLICY_THRESHOLD);
    drop(r);
}

static void test_unusual_prices_have_to_be_allowed(void **state)
{
    (void)state;
    static const struct {
        const char *price;
        bool usual;
        bool hint;
    } cases[] = {
        {"0", true, false},       {"1e-9", true, false}, {"1e-3", true, false}, {"9.9e-10", false, false},
        {"1.01e-3", false, true}, {"2.5", false, true},  {"1000", false, true}, {"1001", false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (int allowed = 0; allowed <= 1; allowed++) {
            char to[128];
            snprintf(to, sizeof to, "\"output_price\": %s", cases[i].price);
            char json[TEXT_BYTES];
            replace(json, "\"output_price\": 1.5e-5", to);
            if (allowed == 1) {
                char *end = strrchr(json, '}');
                snprintf(end, (size_t)(json + sizeof json - end), ", \"allow_unusual_prices\": true}");
            }
            br_router *r;
            br_error error = {0};
            const br_status status = parse(&r, json, &error);
            assert_int_equal(status, cases[i].usual || allowed == 1 ? BR_OK : BR_EINVAL);
            if (status != BR_OK) {
                assert_non_null(strstr(error.text, "models.gpt-4o.output_price: found "));
                assert_non_null(strstr(error.text, "\"allow_unusual_prices\": true"));
                assert_int_equal(strstr(error.text, "per million tokens?") != NULL, cases[i].hint);
            }
            drop(r);
        }
    }
}

static void test_every_kind_of_heads_is_read(void **state)
{
    (void)state;
    static const char pair[] = "{\"model\": \"llama-31-8b\", \"n\": 1, \"head\": 0},"
                               " {\"model\": \"gpt-4o\", \"n\": 1, \"reference\": true}";
    static const char scored[] = "{\"model\": \"llama-31-8b\", \"n\": 1, \"head\": 0},"
                                 " {\"model\": \"gpt-4o\", \"n\": 1, \"head\": 1, \"reference\": true}";
    static const struct {
        const char *keys;
        const char *candidates;
        br_router expected;
    } cases[] = {
        {"", pair, {.heads = BR_HEADS_BEST_ROUTE, .head_count = 1, .temperature = 1}},
        {"\"heads\": \"best_route\", \"pool\": \"first\", ",
         pair,
         {.heads = BR_HEADS_BEST_ROUTE, .head_count = 1, .pool_first = true, .temperature = 1}},
        {"\"heads\": \"hybrid_llm\", ",
         pair,
         {.heads = BR_HEADS_HYBRID_LLM, .head_count = 1, .temperature = 1}},
        {"\"heads\": \"n_label\", \"pool\": \"source_prefix\", ",
         pair,
         {.heads = BR_HEADS_N_LABEL, .head_count = 1, .temperature = 1}},
        {"\"heads\": \"n_class\", \"truncate\": \"right\", ",
         scored,
         {.heads = BR_HEADS_N_CLASS, .head_count = 2, .temperature = 1}},
        {"\"heads\": \"zooter\", \"pooler\": \"gelu\", ",
         scored,
         {.heads = BR_HEADS_ZOOTER,
          .head_count = 2,
          .pool_first = true,
          .pooler = BR_POOLER_GELU,
          .temperature = 1}},
        {"\"heads\": \"router_dc\", \"temperature\": 0.5, \"truncate\": \"left\", ",
         scored,
         {.heads = BR_HEADS_ROUTER_DC,
          .head_count = 2,
          .pool_first = true,
          .truncate_left = true,
          .temperature = 0.5}},
        {"\"heads\": \"route_llm_bert\", \"pooler\": \"tanh\", ",
         pair,
         {.heads = BR_HEADS_ROUTE_LLM_BERT,
          .head_count = 3,
          .pool_first = true,
          .pooler = BR_POOLER_TANH,
          .temperature = 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[TEXT_BYTES];
        snprintf(json, sizeof json,
                 "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\", \"max_tokens\": 3, %s"
                 "\"models\": {\"llama-31-8b\": {}, \"gpt-4o\": {}}, \"candidates\": [%s]}",
                 cases[i].keys, cases[i].candidates);
        print_message("%s\n", cases[i].keys);
        br_router *r;
        br_error error = {0};
        if (parse(&r, json, &error) != BR_OK) fail_msg("%s", error.text);
        const br_router *e = &cases[i].expected;
        assert_int_equal(r->heads, e->heads);
        assert_int_equal(r->head_count, e->head_count);
        assert_int_equal(r->pool_first, e->pool_first);
        assert_int_equal(r->truncate_left, e->truncate_left);
        assert_int_equal(r->pooler, e->pooler);
        assert_true(r->temperature == e->temperature);
        const bool reference_scored = br_heads_rule_of(r->heads)->reference_scored;
        assert_int_equal(r->candidates[1].head, reference_scored ? 1 : -1);
        assert_int_equal(r->policy.kind, reference_scored ? BR_POLICY_TOLERANCE : BR_POLICY_THRESHOLD);
        assert_true(r->policy.tolerance == 0);
        drop(r);
    }
}

static void test_what_makes_no_sense_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *from;
        const char *to;
        br_status status;
        const char *key;
        const char *found;
    } cases[] = {
        {"\"format\": \"bestroute-bundle/1\", ", "", BR_EINVAL, "format", "nothing"},
        {"bestroute-bundle/1", "bestroute-bundle/2", BR_ENOTSUP, "format", "bestroute-bundle/2"},
        {"\"bestroute-bundle/1\"", "1", BR_EFORMAT, "format", "1"},
        {"\"name\": \"best-route-bo5\"", "\"x\": 1", BR_EINVAL, "name", "nothing"},
        {"best-route-bo5", "", BR_EINVAL, "name", "\"\""},
        {"\"max_tokens\": 128", "\"max_tokens\": 2", BR_EINVAL, "max_tokens", "2"},
        {"\"max_tokens\": 128", "\"max_tokens\": 2049", BR_EINVAL, "max_tokens", "2049"},
        {"\"max_tokens\": 128", "\"max_tokens\": 128.0", BR_EFORMAT, "max_tokens", "128"},
        {"\"max_tokens\": 128", "\"max\": 128", BR_EINVAL, "max_tokens", "nothing"},
        {"\"source_prefix\": \"<|source|>\"", "\"source_prefix\": \"\"", BR_EINVAL, "source_prefix", "\"\""},
        {"\"pool\": \"source_prefix\"", "\"pool\": \"cls\"", BR_ENOTSUP, "pool", "cls"},
        {"\"pool\": \"source_prefix\"", "\"pool\": 1", BR_EFORMAT, "pool", "1"},
        {"\"pool\": \"source_prefix\"", "\"truncate\": \"middle\"", BR_ENOTSUP, "truncate",
         "\"right\", \"left\""},
        {"\"pool\": \"source_prefix\"", "\"pooler\": \"swish\"", BR_ENOTSUP, "pooler", "swish"},
        {"\"pool\": \"source_prefix\"", "\"heads\": \"best\"", BR_ENOTSUP, "heads", "\"hybrid_llm\""},
        {"\"pool\": \"source_prefix\"", "\"temperature\": 1", BR_EINVAL, "temperature", "only router_dc"},
        {"\"pool\": \"source_prefix\"", "\"heads\": \"router_dc\", \"temperature\": 0", BR_EINVAL,
         "temperature", "0"},
        {"\"pool\": \"source_prefix\"", "\"heads\": \"hybrid_llm\"", BR_EINVAL, "candidates",
         "found 3, expected 2"},
        {"\"pool\": \"source_prefix\"", "\"heads\": \"route_llm_bert\"", BR_EINVAL, "candidates",
         "found 3, expected 2"},
        {"\"pool\": \"source_prefix\"", "\"heads\": \"zooter\"", BR_EINVAL, "candidates[2].head", "nothing"},
        {"\"models\": {", "\"modell\": {", BR_EINVAL, "modell", "nearest is models"},
        {"\"models\": {", "\"models\": null, \"x_models\": {", BR_EFORMAT, "models", "nothing"},
        {"\"llama-31-8b\": {", "\"\": {", BR_EINVAL, "models.", "an object"},
        {"\"gpt-4o\": {\"input_price\": 5.0e-6, \"output_price\": 1.5e-5, \"avg_output_tokens\": 294.0}",
         "\"gpt-4o\": 5", BR_EFORMAT, "models.gpt-4o", "5"},
        {"5.0e-6", "-5.0e-6", BR_EINVAL, "models.gpt-4o.input_price", "-"},
        {"5.0e-6", "1e7", BR_EINVAL, "models.gpt-4o.input_price", "10000000"},
        {"5.0e-6", "null", BR_EINVAL, "models.gpt-4o.input_price", "nothing"},
        {"\"output_price\": 1.5e-5, ", "", BR_EINVAL, "models.gpt-4o.output_price", "nothing"},
        {"\"input_price\": 5.0e-6, ", "", BR_EINVAL, "models.gpt-4o.input_price", "nothing"},
        {"294.0", "-1", BR_EINVAL, "models.gpt-4o.avg_output_tokens", "-1"},
        {"294.0", "\"many\"", BR_EFORMAT, "models.gpt-4o.avg_output_tokens", "many"},
        {"\"input_per_sample\": true", "\"input_per_sample\": 1", BR_EFORMAT,
         "models.llama-31-8b.input_per_sample", "1"},
        {"\"candidates\": [", "\"x_candidates\": [", BR_EFORMAT, "candidates", "nothing"},
        {"{\"model\": \"llama-31-8b\", \"n\": 1, \"head\": 0}", "7", BR_EFORMAT, "candidates[0]", "7"},
        {"{\"model\": \"llama-31-8b\", \"n\": 1", "{\"model\": \"llama\", \"n\": 1", BR_EINVAL,
         "candidates[0].model", "llama"},
        {"{\"model\": \"llama-31-8b\", \"n\": 1", "{\"model\": 3, \"n\": 1", BR_EFORMAT,
         "candidates[0].model", "3"},
        {"\"n\": 1", "\"n\": 0", BR_EINVAL, "candidates[0].n", "0"},
        {"\"n\": 1", "\"n\": 1001", BR_EINVAL, "candidates[0].n", "1001"},
        {"\"n\": 1", "\"x_n\": 1", BR_EINVAL, "candidates[0].n", "nothing"},
        {"\"threshold\": 0.5", "\"lambda\": 1", BR_EINVAL, "policy.lambda", "kind utility, not to threshold"},
        {"\"n\": 1", "\"n\": 2", BR_EINVAL, "candidates[1].n", "(llama-31-8b, 2) again"},
        {"\"head\": 1", "\"head\": 0", BR_EINVAL, "candidates[1].head", "the head of candidates[0]"},
        {"\"head\": 1", "\"head\": -1", BR_EINVAL, "candidates[1].head", "-1"},
        {"\"head\": 1", "\"head\": 256", BR_EINVAL, "candidates[1].head", "256"},
        {"\"head\": 1", "\"reference\": false", BR_EINVAL, "candidates[1].head", "nothing"},
        {"\"head\": 1", "\"reference\": true", BR_EINVAL, "candidates[2].reference", "as in candidates[1]"},
        {"\"head\": 1", "\"head\": 1, \"calibration\": 1", BR_EFORMAT, "candidates[1].calibration", "1"},
        {"\"head\": 1", "\"head\": 1, \"calibration\": {\"scale\": 0}", BR_EINVAL,
         "candidates[1].calibration.scale", "0"},
        {"\"head\": 1", "\"head\": 1, \"calibration\": {\"scale\": 1001}", BR_EINVAL,
         "candidates[1].calibration.scale", "1001"},
        {"\"head\": 1", "\"head\": 1, \"calibration\": {\"bias\": -101}", BR_EINVAL,
         "candidates[1].calibration.bias", "-101"},
        {"\"head\": 1", "\"head\": 1, \"calibration\": {\"bias\": \"low\"}", BR_EFORMAT,
         "candidates[1].calibration.bias", "low"},
        {"\"max_tokens\": 128,", "\"max_tokens\": 128, \"heads\": \"hybrid\",", BR_ENOTSUP, "heads",
         "hybrid"},
        {"\"reference\": true", "\"reference\": true, \"calibration\": {}", BR_EINVAL,
         "candidates[2].calibration", "none for the reference"},
        {"\"reference\": true", "\"reference\": 1", BR_EFORMAT, "candidates[2].reference", "1"},
        {"\"reference\": true", "\"reference\": true, \"head\": 2", BR_EINVAL, "candidates[2].head", "2"},
        {"\"reference\": true", "\"head\": 2", BR_EINVAL, "candidates", "an array of 3"},
        {"{\"model\": \"llama-31-8b\", \"n\": 1, \"head\": 0}, "
         "{\"model\": \"llama-31-8b\", \"n\": 2, \"head\": 1},",
         "", BR_EINVAL, "candidates", "an array of 1"},
        {"{\"kind\": \"threshold\", \"threshold\": 0.5}", "[]", BR_EFORMAT, "policy", "an array"},
        {"\"kind\": \"threshold\"", "\"kind\": \"thresh\"", BR_EINVAL, "policy.kind", "thresh"},
        {"\"kind\": \"threshold\"", "\"kind\": 1", BR_EFORMAT, "policy.kind", "1"},
        {"\"threshold\": 0.5", "\"threshold\": 1.01", BR_EINVAL, "policy.threshold", "1.01"},
        {"\"threshold\": 0.5", "\"threshold\": \"half\"", BR_EFORMAT, "policy.threshold", "half"},
        {"\"threshold\": 0.5", "\"max_cost\": -1", BR_EINVAL, "policy.max_cost", "-1"},
        {"\"threshold\": 0.5", "\"lambda\": -1", BR_EINVAL, "policy.lambda", "-1"},
        {"\"threshold\": 0.5", "\"tolerance\": 2", BR_EINVAL, "policy.tolerance", "2"},
        {"\"threshold\": 0.5", "\"total_budget\": -0.5", BR_EINVAL, "policy.total_budget", "-0.5"},
        {"\"threshold\": 0.5", "\"max_n\": 0", BR_EINVAL, "policy.max_n", "0"},
        {"\"threshold\": 0.5", "\"max_n\": 1.0", BR_EFORMAT, "policy.max_n", "1"},
        {"\"threshold\": 0.5", "\"fallback\": \"worst\"", BR_EINVAL, "policy.fallback", "worst"},
        {"\"threshold\": 0.5", "\"models\": []", BR_EINVAL, "policy.models", "an array of 0"},
        {"\"threshold\": 0.5", "\"models\": \"gpt-4o\"", BR_EFORMAT, "policy.models", "gpt-4o"},
        {"\"threshold\": 0.5", "\"models\": [1]", BR_EFORMAT, "policy.models", "1"},
        {"\"threshold\": 0.5", "\"exclude\": [\"gpt-5\"]", BR_EINVAL, "policy.exclude", "gpt-5"},
        {"\"name\": \"best-route-bo5\"", "\"name\": \"a\", \"name\": \"b\"", BR_EFORMAT, "duplicate", "name"},
        {"\"policy\":", "\"policy_table\": [], \"policy\":", BR_EFORMAT, "policy_table", "an array"},
        {"\"policy\":", "\"policy_table\": {}, \"policy\":", BR_EINVAL, "policy_table.kind", "nothing"},
        {"\"policy\":", "\"policy_table\": {\"kind\": \"pool\"}, \"policy\":", BR_ENOTSUP,
         "policy_table.kind", "pool"},
        {"\"policy\":", "\"policy_table\": {\"kind\": \"threshold\"}, \"policy\":", BR_EINVAL,
         "policy_table.rows", "nothing"},
        {"\"policy\":", "\"policy_table\": {\"kind\": \"threshold\", \"rows\": 0}, \"policy\":", BR_EINVAL,
         "policy_table.rows", "0"},
        {"\"policy\":", "\"policy_table\": {\"kind\": \"threshold\", \"rows\": 1}, \"policy\":", BR_EFORMAT,
         "policy_table.table", "nothing"},
        {"\"policy\":", TABLE(""), BR_EINVAL, "policy_table.table", "an array of 0"},
        {"\"policy\":", TABLE("7"), BR_EFORMAT, "policy_table.table[0]", "7"},
        {"\"policy\":", TABLE(ROW("0.5", "0.1") "," ROW("0.5", "0.2")), BR_EINVAL,
         "policy_table.table[1].threshold", "0.5"},
        {"\"policy\":", TABLE(ROW("1.01", "0.1")), BR_EINVAL, "policy_table.table[0].threshold", "1.01"},
        {"\"policy\":", TABLE(ROW("0.5", "-0.1")), BR_EINVAL, "policy_table.table[0].quality", "-0.1"},
        {"\"policy\":", TABLE(ROW("0.5", "\"high\"")), BR_EFORMAT, "policy_table.table[0].quality", "high"},
        {"\"policy\":", TABLE("{\"threshold\": 0}"), BR_EINVAL, "policy_table.table[0].reference_share",
         "nothing"},
        {"5.0e-6", "NaN", BR_EFORMAT, "JSON", ""},
        {"5.0e-6", "1e999", BR_EFORMAT, "JSON", ""},
    };
    char json[TEXT_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        print_message("%s -> %s\n", cases[i].from, cases[i].to);
        replace(json, cases[i].from, cases[i].to);
        br_router *r;
        br_error error = {0};
        assert_int_equal(parse(&r, json, &error), cases[i].status);
        assert_int_equal(error.status, cases[i].status);
        assert_non_null(strstr(error.text, "router.json: "));
        assert_non_null(strstr(error.text, cases[i].key));
        assert_non_null(strstr(error.text, cases[i].found));
        drop(r);
        assert_int_equal(parse(&r, json, NULL), cases[i].status);
        drop(r);
    }
}

static void test_heads_that_do_not_fit_their_kind_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *kind;
        int reference_head; /* -1: none */
        int other_head;
        const char *found;
    } cases[] = {
        {"n_class", 0, 1, "candidates[1].head: found 0, expected 1: the reference's class is the last"},
        {"n_class", -1, 0, "candidates[1].head: found nothing"},
        {"n_label", 1, 0, "candidates[1].head: found 1"},
        {"hybrid_llm", -1, 1, "candidates: found head 1, expected 0"},
        {"route_llm_bert", -1, 2, "candidates: found head 2, expected 0"},
        {"router_dc", 1, 1, "candidates[1].head: found 1, the head of candidates[0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char json[TEXT_BYTES];
        char head[24] = "";
        if (cases[i].reference_head >= 0)
            snprintf(head, sizeof head, "\"head\": %d, ", cases[i].reference_head);
        snprintf(json, sizeof json,
                 "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\", \"max_tokens\": 3, \"heads\": \"%s\","
                 " \"models\": {\"a\": {}}, \"candidates\": [{\"model\": \"a\", \"n\": 1, \"head\": %d},"
                 " {\"model\": \"a\", \"n\": 2, %s\"reference\": true}]}",
                 cases[i].kind, cases[i].other_head, head);
        br_router *r;
        br_error error = {0};
        assert_int_equal(parse(&r, json, &error), BR_EINVAL);
        if (strstr(error.text, cases[i].found) == NULL) fail_msg("%s: %s", cases[i].kind, error.text);
        drop(r);
    }
}

/* A router of `models` models and `candidates` candidates besides the reference. */
static void write_large(char *out, size_t size, int models, int candidates)
{
    size_t at = (size_t)snprintf(out, size,
                                 "{\"format\": \"bestroute-bundle/1\", \"name\": \"x\","
                                 " \"max_tokens\": 2048, \"models\": {");
    for (int i = 0; i < models; i++) {
        at += (size_t)snprintf(out + at, size - at, "%s\"m%d\": {}", i == 0 ? "" : ", ", i);
    }
    at += (size_t)snprintf(out + at, size - at,
                           "}, \"candidates\": [{\"model\": \"m0\", \"n\": 1000, "
                           "\"reference\": true}");
    for (int i = 0; i < candidates; i++) {
        at += (size_t)snprintf(out + at, size - at, ", {\"model\": \"m%d\", \"n\": %d, \"head\": %d}",
                               i % models, i / models + 1, i);
    }
    snprintf(out + at, size - at, "]}");
}

static void test_the_limits_hold_on_both_sides(void **state)
{
    (void)state;
    static const struct {
        int models;
        int candidates;
        br_status status;
        const char *key;
    } cases[] = {
        {BR_MODELS_MAX, BR_CANDIDATES_MAX - 1, BR_OK, ""},
        {BR_MODELS_MAX + 1, BR_CANDIDATES_MAX - 1, BR_ETOOBIG, "models"},
        {BR_MODELS_MAX, BR_CANDIDATES_MAX, BR_ETOOBIG, "candidates"},
    };
    char *json = malloc(TEXT_BYTES);
    assert_non_null(json);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_large(json, TEXT_BYTES, cases[i].models, cases[i].candidates);
        br_router *r;
        br_error error = {0};
        assert_int_equal(parse(&r, json, &error), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].key));
        drop(r);
    }
    free(json);
}

static void test_names_are_bounded(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) {
        char name[BR_NAME_BYTES_MAX + 2];
        memset(name, 'x', sizeof name);
        name[BR_NAME_BYTES_MAX + over] = '\0';
        char json[TEXT_BYTES];
        br_router *r;

        replace(json, "best-route-bo5", name);
        assert_int_equal(parse(&r, json, NULL), over ? BR_EINVAL : BR_OK);
        drop(r);

        char entry[256];
        snprintf(entry, sizeof entry, "\"models\": {\"%s\": {}, ", name);
        replace(json, "\"models\": {", entry);
        assert_int_equal(parse(&r, json, NULL), over ? BR_EINVAL : BR_OK);
        drop(r);
    }
}

/* Long names in long paths are cut in the message, not in memory. */
static void test_messages_quote_hostile_names_within_bounds(void **state)
{
    (void)state;
    char json[TEXT_BYTES];
    char model[512];
    memset(model, 0, sizeof model);
    for (size_t i = 0; i < 150; i++) memcpy(model + 3 * i, "\xe2\x82\xac", 3);
    replace(json, "{\"model\": \"llama-31-8b\"", "{\"model\": \"\\n\\u001b[31m\"");
    br_router *r;
    br_error error = {0};
    assert_int_equal(parse(&r, json, &error), BR_EINVAL);
    assert_null(strchr(error.text, '\n'));
    assert_null(strchr(error.text, '\x1b'));
    drop(r);

    char entry[600];
    snprintf(entry, sizeof entry, "{\"model\": \"%s\"", model);
    replace(json, "{\"model\": \"llama-31-8b\"", entry);
    assert_int_equal(parse(&r, json, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "\xe2\x82\xac\"")); /* cut between two characters */
    drop(r);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    char json[TEXT_BYTES];
    replace(json, "\"threshold\": 0.5", "\"models\": [\"gpt-4o\"], \"exclude\": [\"gpt-4o\"]");
    br_router *r = malloc(sizeof *r);
    assert_non_null(r);
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        status = br_router_parse(r, br_str_from(json), "router.json", NULL);
        if (status != BR_OK) {
            assert_int_equal(status, BR_ENOMEM);
            failures++;
        }
        br_router_deinit(r);
    });
    assert_int_equal(status, BR_OK);
    assert_true(failures >= 1);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_is_read),
        cmocka_unit_test(test_a_calibrated_bundle_tells_its_policy_table),
        cmocka_unit_test(test_a_policy_table_has_at_most_1001_rows),
        cmocka_unit_test(test_what_may_be_left_out_has_defaults),
        cmocka_unit_test(test_every_key_of_a_policy_is_read),
        cmocka_unit_test(test_a_head_may_bring_its_calibration),
        cmocka_unit_test(test_calibration_is_refused_where_qualities_are_no_sigmoids_of_their_own),
        cmocka_unit_test(test_only_some_unknown_keys_may_be_skipped),
        cmocka_unit_test(test_a_key_may_be_optional_at_any_level),
        cmocka_unit_test(test_unusual_prices_have_to_be_allowed),
        cmocka_unit_test(test_every_kind_of_heads_is_read),
        cmocka_unit_test(test_heads_that_do_not_fit_their_kind_are_refused),
        cmocka_unit_test(test_what_makes_no_sense_is_refused_by_name),
        cmocka_unit_test(test_the_limits_hold_on_both_sides),
        cmocka_unit_test(test_names_are_bounded),
        cmocka_unit_test(test_messages_quote_hostile_names_within_bounds),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
