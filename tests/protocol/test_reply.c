/*
 * test_reply.c - reply messages: their exact form, and reading them back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "protocol/reply.h"
#include "support/notation.h"
#include "support/oom.h"

#define STR BR_STR_LITERAL

static const br_reply_candidate table[] = {
    {.model = {"a", 1}, .n = 1, .quality = 0.25, .cost = 0.5, .allowed = true, .reason = {"", 0}},
    {.model = {"b", 1}, .n = 300, .quality = 1, .cost = NAN, .allowed = false, .reason = {"no_price", 8}},
};
static const double qualities[] = {0.25, 0.5, 1};
static const br_str devices[] = {{"cpu 0", 5}};
static const br_info_model models[] = {
    {.name = {"a", 1},
     .has_price = true,
     .input_price = 0,
     .output_price = 0.5,
     .avg_output_tokens = 300,
     .input_per_sample = true},
    {.name = {"b", 1}, .input_price = 7},
};
static const br_info info = {
    .candidates = table,
    .candidate_count = 2,
    .reference = 1,
    .models = models,
    .model_count = 2,
    .policy = {.has = BR_HAS_KIND | BR_HAS_THRESHOLD, .kind = BR_POLICY_THRESHOLD, .threshold = 0.5},
    .max_queries = 1024,
    .max_tokens = 512,
    .max_message_bytes = 1 << 20,
    .max_text_bytes = 70000,
    .version = {"0.1.0", 5},
    .engine = {"cpu", 3},
    .precision = {"bf16", 4},
    .devices = devices,
    .device_count = 1,
};
static const br_policy_row rows[] = {
    {.threshold = 0, .reference_share = 0, .mean_cost = 0.25, .quality = 0.5},
    {.threshold = 0.5, .reference_share = 0.75, .mean_cost = 0.5, .quality = 1},
};
static const br_info calibrated = {
    .policy = {.has = BR_HAS_KIND | BR_HAS_THRESHOLD, .kind = BR_POLICY_THRESHOLD, .threshold = 0.5},
    .measured = {.rows = rows, .row_count = 2, .prompts = 283},
};
static const br_stat stats[] = {
    {.name = {"requests", 8}, .count = 70000},
    {.name = {"p50", 3}, .is_real = true, .real = 0.5},
    {.name = {"none", 4}, .is_real = true, .real = NAN},
};
static const br_reply_result routed[] = {
    {.model = {"a", 1}, .n = 4, .quality = 0.75, .cost = 0.5, .met = true, .margin = 0.125, .tokens = 14},
    {.code = BR_CODE_BAD_REQUEST, .message = {"why", 3}},
    {.model = {"b", 1},
     .n = 300,
     .quality = 1,
     .cost = NAN,
     .tokens = 512,
     .truncated = true,
     .candidates = table,
     .candidate_count = 2},
};
static const br_reply_result scored[] = {
    {.tokens = 9, .truncated = true, .qualities = qualities, .quality_count = 3},
    {.code = BR_CODE_DEADLINE, .message = {"late", 4}},
};

/* Each reply beside its message; both directions are tested on it. */
static const struct {
    br_reply reply;
    const char *text;
} forms[] = {
    {{.ok = true, .op = BR_OP_PING}, "{'v':1,'id':nil,'ok':true}"},
    {{.id = {"\xa1x", 2},
      .code = BR_CODE_OVERLOADED,
      .message = {"full", 4},
      .has_retry = true,
      .retry_ms = 25},
     "{'v':1,'id':'x','ok':false,'error':{'code':'overloaded','message':'full','retry_ms':25}}"},
    {{.code = BR_CODE_BAD_REQUEST, .op = BR_OP_ROUTE},
     "{'v':1,'id':nil,'ok':false,'error':{'code':'bad_request','message':''}}"},
    {{.id = {"\x2a", 1},
      .ok = true,
      .op = BR_OP_ROUTE,
      .results = routed,
      .result_count = 3,
      .has_bundle = true,
      .bundle_name = {"demo", 4},
      .bundle_hash = {"5f0c", 4},
      .has_timing = true,
      .timing = {21, 40, 950, 1040, 3}},
     "{'v':1,'id':42,'ok':true,'results':["
     "{'model':'a','n':4,'quality':0.75,'cost':0.5,'met':true,'margin':0.125,'tokens':14,'truncated':false},"
     "{'error':{'code':'bad_request','message':'why'}},"
     "{'model':'b','n':300,'quality':1.0,'cost':nil,'met':false,'margin':0.0,'tokens':512,'truncated':true,"
     "'candidates':[{'model':'a','n':1,'quality':0.25,'cost':0.5,'allowed':true,'reason':''},"
     "{'model':'b','n':300,'quality':1.0,'cost':nil,'allowed':false,'reason':'no_price'}]}],"
     "'bundle':{'name':'demo','hash':'5f0c'},"
     "'timing':{'tokenize':21,'queue':40,'compute':950,'total':1040,'batch':3}}"},
    {{.ok = true, .op = BR_OP_SCORE, .results = scored, .result_count = 2},
     "{'v':1,'id':nil,'ok':true,'results':[{'tokens':9,'truncated':true,'quality':[0.25,0.5,1.0]},"
     "{'error':{'code':'deadline','message':'late'}}]}"},
    {{.ok = true, .op = BR_OP_INFO, .info = &info, .has_bundle = true, .bundle_name = {"demo", 4}},
     "{'v':1,'id':nil,'ok':true,'candidates':[{'model':'a','n':1},{'model':'b','n':300}],'reference':1,"
     "'models':{'a':{'input_price':0.0,'output_price':0.5,'avg_output_tokens':300.0,'input_per_sample':true},"
     "'b':{'input_price':nil,'output_price':nil,'avg_output_tokens':0.0,'input_per_sample':false}},"
     "'policy':{'kind':'threshold','threshold':0.5},"
     "'limits':{'max_queries':1024,'max_tokens':512,'max_message_bytes':1048576,'max_text_bytes':70000},"
     "'server':{'version':'0.1.0','engine':'cpu','precision':'bf16','devices':['cpu 0']},"
     "'bundle':{'name':'demo','hash':''}}"},
    {{.ok = true, .op = BR_OP_INFO, .info = &calibrated},
     "{'v':1,'id':nil,'ok':true,'candidates':[],'reference':0,'models':{},"
     "'policy':{'kind':'threshold','threshold':0.5},"
     "'policy_table':{'kind':'threshold','rows':283,'table':["
     "{'threshold':0.0,'reference_share':0.0,'mean_cost':0.25,'quality':0.5},"
     "{'threshold':0.5,'reference_share':0.75,'mean_cost':0.5,'quality':1.0}]},"
     "'limits':{'max_queries':0,'max_tokens':0,'max_message_bytes':0,'max_text_bytes':0},"
     "'server':{'version':'','engine':'','precision':'','devices':[]}}"},
    {{.ok = true, .op = BR_OP_STATS, .stats = stats, .stat_count = 3},
     "{'v':1,'id':nil,'ok':true,'stats':{'requests':70000,'p50':0.5,'none':nil}}"},
    {{.ok = true, .op = BR_OP_RELOAD, .has_bundle = true},
     "{'v':1,'id':nil,'ok':true,'bundle':{'name':'','hash':''}}"},
};

enum { FORMS = sizeof forms / sizeof *forms };

static void test_each_reply_has_its_exact_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMS; i++) {
        message expected = message_from(forms[i].text);
        message found = {0};
        assert_int_equal(br_reply_encode(&forms[i].reply, &found, message_append), 0);
        assert_int_equal(found.size, expected.size);
        assert_memory_equal(found.bytes, expected.bytes, found.size);
        free(found.bytes);
        free(expected.bytes);
    }
}

static void test_a_decoded_reply_is_encoded_to_the_same_bytes(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    for (size_t i = 0; i < FORMS; i++) {
        message sent = message_from(forms[i].text);
        br_reply reply;
        br_error error = {0};
        br_status status = br_reply_decode(&reply, sent.bytes, sent.size, &arena, &error);
        if (status != BR_OK) fail_msg("%s: %s", forms[i].text, error.text);
        assert_int_equal(reply.op, BR_OP_NONE);
        reply.op = forms[i].reply.op;
        message again = {0};
        assert_int_equal(br_reply_encode(&reply, &again, message_append), 0);
        assert_int_equal(again.size, sent.size);
        assert_memory_equal(again.bytes, sent.bytes, again.size);
        free(again.bytes);
        free(sent.bytes);
    }
    br_arena_deinit(&arena);
}

static void test_a_message_that_is_not_utf8_is_made_so(void **state)
{
    (void)state;
    static const struct {
        br_str sent;
        const char *text;
    } cases[] = {
        {{"a\xff\xfe z\xc3", 6}, "'a?? z?'"},
        {{"\xc3\xa9\x80", 3}, "<a3 c3 a9 3f>"},
        {{"na\xc3\xafve", 6}, "<a6 6e 61 c3 af 76 65>"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const br_reply reply = {.code = BR_CODE_BAD_REQUEST, .message = cases[i].sent};
        char text[200];
        (void)snprintf(text, sizeof text,
                       "{'v':1,'id':nil,'ok':false,'error':{'code':'bad_request','message':%s}}",
                       cases[i].text);
        message expected = message_from(text);
        message found = {0};
        assert_int_equal(br_reply_encode(&reply, &found, message_append), 0);
        assert_int_equal(found.size, expected.size);
        assert_memory_equal(found.bytes, expected.bytes, found.size);
        free(found.bytes);
        free(expected.bytes);
    }
}

static void test_what_a_newer_service_adds_is_read_over(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    message m = message_from(
        "{'new':{'x':[1]},'ok':true,'id':<a1 78>,'v':1,'results':[{'model':'m','n':2,'new':nil,"
        "'quality':1,'cost':<ca 3f 00 00 00>},{'error':{'code':'tired','message':'later','x':1}}]}");
    br_reply reply;
    assert_int_equal(br_reply_decode(&reply, m.bytes, m.size, &arena, NULL), BR_OK);
    assert_true(br_str_equal(reply.id, STR("\xa1x")));
    assert_int_equal(reply.result_count, 2);
    assert_int_equal(reply.results[0].n, 2);
    assert_true(reply.results[0].quality == 1);
    assert_true(reply.results[0].cost == 0.5);
    assert_int_equal(reply.results[1].code, BR_CODE_INTERNAL); /* a code of the future is an error still */
    assert_true(br_str_equal(reply.results[1].message, STR("later")));
    free(m.bytes);
    br_arena_deinit(&arena);
}

static void test_a_score_that_is_no_number_is_written_and_read_as_nil(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    const double sent[2] = {NAN, 0.5};
    const br_reply_result result = {.tokens = 3, .qualities = sent, .quality_count = 2};
    const br_reply reply = {.ok = true, .op = BR_OP_SCORE, .results = &result, .result_count = 1};
    message m = {0};
    br_reply found;
    assert_int_equal(br_reply_encode(&reply, &m, message_append), 0);
    assert_int_equal(br_reply_decode(&found, m.bytes, m.size, &arena, NULL), BR_OK);
    assert_int_equal(found.results[0].quality_count, 2);
    assert_true(isnan(found.results[0].qualities[0]));
    assert_true(found.results[0].qualities[1] == 0.5);
    free(m.bytes);
    br_arena_deinit(&arena);
}

static void test_messages_that_are_no_replies(void **state)
{
    (void)state;
    static const struct {
        const char *message;
        const char *text;
    } cases[] = {
        {"", "the message: truncated, or not msgpack"},
        {"7", "the message: expected a map, found uint"},
        {"{'v':1,'ok':true} 1", "the message: bytes after its end"},
        {"{}", "v: not a reply of version 1"},
        {"{'v':2,'ok':true}", "v: not a reply of version 1"},
        {"{'v':'1','ok':true}", "v: expected an unsigned integer, found str"},
        {"{'v':1}", "ok: missing"},
        {"{'v':1,'ok':1}", "ok: expected a bool, found uint"},
        {"{'v':1,'ok':false}", "error: missing"},
        {"{'v':1,'ok':false,'error':{'code':7}}", "error.code: expected a string, found uint"},
        {"{'v':1,'ok':true,'results':{}}", "results: expected an array, found map"},
        {"{'v':1,'ok':true,'results':[{'model':'aaaaaaaaaa','n':-1}]}",
         "results[0].n: expected an unsigned integer, found negative int"},
        {"{'v':1,'ok':true,'results':[{'candidates':[{'model':1,'quality':0.5}]}]}",
         "results[0].candidates[0].model: expected a string, found uint"},
        {"{'v':1,'ok':true,'results':[{'tokens':1,'quality':[1,'1']}]}",
         "results[0].quality: expected numbers, found str"},
        {"{'v':1,'ok':true,'results':[1,2,3,4,5,6,7,8]}", "results: too short for its count"},
        {"{'v':1,'ok':true,'bundle':{'name':1}}", "bundle.name: expected a string, found uint"},
        {"{'v':1,'ok':true,'timing':{'batch':'1'}}", "timing.batch: expected an unsigned integer, found str"},
        {"{'v':1,'ok':true,'candidates':[],'models':[]}", "models: expected a map, found array"},
        {"{'v':1,'ok':true,'candidates':[],'models':{1:{}}}", "models: expected names as keys, found uint"},
        {"{'v':1,'ok':true,'candidates':[],'models':{'a':{'input_price':'1'}}}",
         "models[0].input_price: expected a number, found str"},
        {"{'v':1,'ok':true,'candidates':[],'limits':{'max_tokens':0.5}}",
         "limits.max_tokens: expected an unsigned integer, found float"},
        {"{'v':1,'ok':true,'candidates':[],'server':{'devices':[1]}}",
         "server.devices: expected strings, found uint"},
        {"{'v':1,'ok':true,'candidates':[],'policy':{'lambda':nan}}",
         "policy.lambda: expected a finite number, found NaN"},
        {"{'v':1,'ok':true,'stats':{'a':'b'}}", "stats: expected numbers as values, found str"},
    };
    br_arena arena;
    br_arena_init(&arena);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        message m = message_from(cases[i].message);
        br_reply reply;
        br_error error = {0};
        br_status status = br_reply_decode(&reply, m.bytes, m.size, &arena, &error);
        if (status != BR_EFORMAT || strcmp(error.text, cases[i].text) != 0) {
            fail_msg("%s: found %s: %s", cases[i].message, br_status_name(status), error.text);
        }
        assert_int_equal(error.status, BR_EFORMAT);
        free(m.bytes);
    }
    br_arena_deinit(&arena);
}

static void test_every_prefix_and_any_changed_byte_is_survived(void **state)
{
    (void)state;
    br_arena arena;
    br_arena_init(&arena);
    for (size_t i = 0; i < FORMS; i++) {
        message m = message_from(forms[i].text);
        br_reply reply;
        for (size_t size = 0; size < m.size; size++) {
            uint8_t *part = malloc(size + 1);
            assert_non_null(part);
            memcpy(part, m.bytes, size);
            br_arena_reset(&arena, 1 << 20);
            assert_int_equal(br_reply_decode(&reply, part, size, &arena, NULL), BR_EFORMAT);
            free(part);
        }
        for (size_t at = 0; at < m.size; at++) {
            const uint8_t kept = m.bytes[at];
            for (int byte = 0; byte < 256; byte++) {
                m.bytes[at] = (uint8_t)byte;
                br_arena_reset(&arena, 1 << 20);
                br_status status = br_reply_decode(&reply, m.bytes, m.size, &arena, NULL);
                assert_true(status == BR_OK || status == BR_EFORMAT);
            }
            m.bytes[at] = kept;
        }
        free(m.bytes);
    }
    br_arena_deinit(&arena);
}

static void test_a_lack_of_memory_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < FORMS; i++) {
        message m = message_from(forms[i].text);
        br_reply reply;
        BR_OOM_SWEEP({
            br_arena arena;
            br_arena_init(&arena);
            br_status status = br_reply_decode(&reply, m.bytes, m.size, &arena, NULL);
            assert_true(status == BR_OK || status == BR_ENOMEM);
            br_arena_deinit(&arena);
        });
        free(m.bytes);
    }
}

static void test_encoding_allocates_nothing(void **state)
{
    (void)state;
    static char room[4096];
    message found = {.bytes = (uint8_t *)room, .room = sizeof room};
    const size_t before = br_oom_count();
    for (size_t i = 0; i < FORMS; i++) {
        found.size = 0;
        assert_int_equal(br_reply_encode(&forms[i].reply, &found, message_append), 0);
    }
    assert_int_equal(br_oom_count(), before);
}

static int refuse(void *sink, const char *bytes, size_t size)
{
    (void)sink;
    (void)bytes;
    (void)size;
    return -1;
}

static void test_an_encoder_tells_of_a_sink_that_refuses(void **state)
{
    (void)state;
    assert_int_equal(br_reply_encode(&forms[0].reply, NULL, refuse), -1);
}

/* The bytes of the page's block fenced as ```name: on each line, the pairs of digits before two spaces. */
static message bytes_on_the_page(const char *page, const char *name)
{
    char fence[32];
    (void)snprintf(fence, sizeof fence, "\n```%s\n", name);
    const char *at = strstr(page, fence);
    assert_non_null(at);
    at += strlen(fence);
    const char *end = strstr(at, "\n```");
    assert_non_null(end);

    message out = {0};
    for (const char *line = at; line < end; line = strchr(line, '\n') + 1) {
        unsigned int byte;
        for (const char *pair = line; sscanf(pair, "%2x", &byte) == 1; pair += 3) {
            const char c = (char)byte;
            (void)message_append(&out, &c, 1);
            if (pair[2] == '\n' || pair[3] == ' ') break;
        }
    }
    return out;
}

static char *read_page(void)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/docs/PROTOCOL.md", getenv("BESTROUTE_SOURCE"));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    enum { PAGE_BYTES = 1 << 16 };
    char *page = calloc(1, PAGE_BYTES);
    assert_non_null(page);
    assert_in_range(fread(page, 1, PAGE_BYTES - 1, file), 1, PAGE_BYTES - 2);
    (void)fclose(file);
    return page;
}

static void test_the_page_shows_the_bytes_that_are_sent(void **state)
{
    (void)state;
    if (getenv("BESTROUTE_SOURCE") == NULL) {
        print_message("skipped: BESTROUTE_SOURCE does not say where docs/PROTOCOL.md is\n");
        skip();
    }
    br_query query = {.has_text = true,
                      .text = BR_STR_LITERAL("Prove that the square root of 2 is irrational."),
                      .max_cost = INFINITY};
    const br_request request = {
        .op = BR_OP_ROUTE,
        .id = BR_STR_LITERAL("\x2a"),
        .queries = &query,
        .query_count = 1,
        .policy = {.has = BR_HAS_KIND | BR_HAS_MAX_COST, .kind = BR_POLICY_BUDGET, .max_cost = 0.0008},
    };
    const br_reply_result result = {.model = BR_STR_LITERAL("llama-31-8b"),
                                    .n = 4,
                                    .quality = 0.71,
                                    .cost = 0.00074,
                                    .met = true,
                                    .margin = 0.08,
                                    .tokens = 14};
    const br_reply reply = {
        .id = BR_STR_LITERAL("\x2a"),
        .ok = true,
        .op = BR_OP_ROUTE,
        .results = &result,
        .result_count = 1,
        .has_bundle = true,
        .bundle_name = BR_STR_LITERAL("demo"),
        .bundle_hash = BR_STR_LITERAL("5f0c"),
        .has_timing = true,
        .timing = {.tokenize_us = 21, .queue_us = 40, .compute_us = 950, .total_us = 1040, .batch = 3},
    };
    message sent[2] = {{0}, {0}};
    assert_int_equal(br_request_encode(&request, &sent[0], message_append), 0);
    assert_int_equal(br_reply_encode(&reply, &sent[1], message_append), 0);

    static const char *const names[] = {"request", "reply"};
    char *page = read_page();
    for (int i = 0; i < 2; i++) {
        message shown = bytes_on_the_page(page, names[i]);
        assert_int_equal(shown.size, sent[i].size);
        assert_memory_equal(shown.bytes, sent[i].bytes, shown.size);
        free(shown.bytes);
        free(sent[i].bytes);
    }
    assert_non_null(strstr(page, "Its 118 bytes"));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_reply_has_its_exact_form),
        cmocka_unit_test(test_a_decoded_reply_is_encoded_to_the_same_bytes),
        cmocka_unit_test(test_a_message_that_is_not_utf8_is_made_so),
        cmocka_unit_test(test_what_a_newer_service_adds_is_read_over),
        cmocka_unit_test(test_a_score_that_is_no_number_is_written_and_read_as_nil),
        cmocka_unit_test(test_messages_that_are_no_replies),
        cmocka_unit_test(test_every_prefix_and_any_changed_byte_is_survived),
        cmocka_unit_test(test_a_lack_of_memory_is_told),
        cmocka_unit_test(test_encoding_allocates_nothing),
        cmocka_unit_test(test_an_encoder_tells_of_a_sink_that_refuses),
        cmocka_unit_test(test_the_page_shows_the_bytes_that_are_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
