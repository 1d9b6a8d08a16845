/*
 * test_request.c - request messages: what is accepted, what is refused and in which words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "protocol/request.h"
#include "support/notation.h"
#include "support/oom.h"

static const br_request_limits data_limits = {
    .queries_max = 4, .text_bytes_max = 16, .message_bytes_max = 4096};
static const br_request_limits admin_limits = {
    .queries_max = 4, .text_bytes_max = 16, .message_bytes_max = 4096, .admin = true};

typedef struct fixture {
    br_arena arena;
    br_request request;
    br_error error;
    message message;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL) return -1;
    br_arena_init(&f->arena);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    br_arena_deinit(&f->arena);
    free(f->message.bytes);
    free(f);
    return 0;
}

static br_code decode_bytes(fixture *f, const void *bytes, size_t size, const br_request_limits *limits)
{
    br_arena_reset(&f->arena, 1 << 20);
    f->error = (br_error){0};
    return br_request_decode(&f->request, bytes, size, limits, &f->arena, &f->error);
}

/* Decodes a message written in the notation; it lives until the next one. */
static br_code decode(fixture *f, const char *text, const br_request_limits *limits)
{
    free(f->message.bytes);
    f->message = message_from(text);
    return decode_bytes(f, f->message.bytes, f->message.size, limits);
}

static void assert_str(br_str found, const char *expected)
{
    if (!br_str_equal(found, br_str_from(expected))) {
        fail_msg("found \"%.*s\", expected \"%s\"", (int)found.size, found.data, expected);
    }
}

static void test_the_example_of_the_contract_is_read(void **state)
{
    fixture *f = *state;
    const br_request_limits wide = {.queries_max = 1, .text_bytes_max = 100, .message_bytes_max = 4096};
    br_code code = decode(f,
                          "{'v':1, 'op':'route', 'id':42,"
                          " 'queries':[{'text':'Prove that the square root of 2 is irrational.'}],"
                          " 'policy':{'kind':'budget','max_cost':0.0008}}",
                          &wide);
    assert_int_equal(code, BR_CODE_NONE);
    const br_request *r = &f->request;
    assert_int_equal(r->op, BR_OP_ROUTE);
    assert_str(r->id, "\x2a");
    assert_false(r->has_deadline);
    assert_false(r->explain);
    assert_int_equal(r->query_count, 1);
    assert_int_equal(r->queries[0].error.code, BR_CODE_NONE);
    assert_true(r->queries[0].has_text);
    assert_str(r->queries[0].text, "Prove that the square root of 2 is irrational.");
    assert_true(isinf(r->queries[0].max_cost));
    assert_int_equal(r->queries[0].policy.has, 0);
    assert_int_equal(r->policy.has, BR_HAS_KIND | BR_HAS_MAX_COST);
    assert_int_equal(r->policy.kind, BR_POLICY_BUDGET);
    assert_true(r->policy.max_cost == 0.0008);
}

static void test_every_key_is_read(void **state)
{
    fixture *f = *state;
    br_code code =
        decode(f,
               "{'explain':true, 'deadline_ms':250, 'policy':{'kind':'pool','total_budget':2,"
               "  'max_cost':1,'models':['a','b'],'exclude':['c'],"
               "  'max_n':7,'fallback':'error'},"
               " 'queries':[{'tokens':[1,2,<cd 01 00>],'prompt_tokens':9,'output_tokens':{'a':1,'b':2},"
               "   'max_cost':0,'policy':{'kind':'utility','lambda':1}},{'text':''}],"
               " 'id':'x','op':'route','v':1}",
               &data_limits);
    assert_int_equal(code, BR_CODE_NONE);
    const br_request *r = &f->request;
    assert_true(r->explain);
    assert_true(r->has_deadline);
    assert_int_equal(r->deadline_ms, 250);
    assert_str(r->id, "\xa1x");

    const br_policy_spec *p = &r->policy;
    assert_int_equal(p->has, BR_HAS_KIND | BR_HAS_TOTAL_BUDGET | BR_HAS_MAX_COST | BR_HAS_MODELS |
                                 BR_HAS_EXCLUDE | BR_HAS_MAX_N | BR_HAS_FALLBACK);
    assert_int_equal(p->kind, BR_POLICY_POOL);
    assert_int_equal(p->fallback, BR_FALLBACK_ERROR);
    assert_true(p->total_budget == 2);
    assert_true(p->max_cost == 1 && p->max_n == 7);
    assert_int_equal(p->model_count, 2);
    assert_str(p->models[1], "b");
    assert_int_equal(p->exclude_count, 1);
    assert_str(p->exclude[0], "c");

    assert_int_equal(r->query_count, 2);
    const br_query *q = &r->queries[0];
    assert_int_equal(q->error.code, BR_CODE_NONE);
    assert_false(q->has_text);
    assert_int_equal(q->token_count, 3);
    assert_int_equal(q->tokens[2], 256);
    assert_int_equal(q->prompt_tokens.form, BR_COUNTS_ALL);
    assert_int_equal(q->prompt_tokens.all, 9);
    assert_int_equal(q->output_tokens.form, BR_COUNTS_BY_MODEL);
    assert_int_equal(q->output_tokens.entry_count, 2);
    assert_str(q->output_tokens.entries[1].model, "b");
    assert_int_equal(q->output_tokens.entries[1].count, 2);
    assert_true(q->max_cost == 0);
    assert_int_equal(q->policy.kind, BR_POLICY_UTILITY);
    assert_true(r->queries[1].has_text);
    assert_int_equal(r->queries[1].text.size, 0);
    assert_int_equal(r->queries[1].prompt_tokens.form, BR_COUNTS_NONE);
}

static void test_messages_that_are_accepted(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *message;
        br_op op;
    } cases[] = {
        {"{'v':1,'op':'ping'}", BR_OP_PING},
        {"{'v':<cf 00 00 00 00 00 00 00 01>,'op':<db 00 00 00 04 70 69 6e 67>}", BR_OP_PING},
        {"{'v':<d3 00 00 00 00 00 00 00 01>,'op':'info'}", BR_OP_INFO},
        {"<df 00 00 00 02 d9 01 76 01 da 00 02 6f 70 a4 70 69 6e 67>", BR_OP_PING},
        {"{'v':1,'op':'score','queries':[{'tokens':[]}]}", BR_OP_SCORE},
        {"{'v':1,'op':'score','queries':<dd 00 00 00 01 81 a6 74 6f 6b 65 6e 73 dc 00 01 d1 00 05>}",
         BR_OP_SCORE},
        {"{'v':1,'op':'ping','new':{'a':[1,{2:3}]},'newer':<c7 01 05 00>}", BR_OP_PING},
        {"{'v':1,'op':'ping','new':1,'new':2}", BR_OP_PING},
        {"{'v':1,'op':'ping','queries':[7,8],'policy':{},'explain':false,'deadline_ms':0}", BR_OP_PING},
        {"{'v':1,'op':'ping','bundle':7}", BR_OP_PING}, /* the data socket does not know this key */
        {"{'v':1,'op':'route','queries':[{'text':'a','x_new':1},{'text':'b'},{'text':'c'},{'text':'d'}]}",
         BR_OP_ROUTE},
        /* Far from all keys, and a name of the sender's own. */
        {"{'v':1,'op':'ping','extra':1,'x_op':2,'x_v':3}", BR_OP_PING},
        /* nil is absent. */
        {"{'v':1,'op':'ping','id':nil,'deadline_ms':nil,'queries':nil,'policy':nil,'explain':nil}",
         BR_OP_PING},
        {"{'v':1,'op':'route','policy':{'kind':nil,'threshold':nil,'max_cost':nil,'lambda':nil,"
         "'tolerance':nil,'total_budget':nil,'models':nil,'exclude':nil,'max_n':nil,'fallback':nil},"
         "'queries':[{'text':'a','tokens':nil,'prompt_tokens':nil,'output_tokens':{'a':nil},'max_cost':nil,"
         "'policy':nil},{'text':nil,'tokens':[]}]}",
         BR_OP_ROUTE},
        {"{'v':1,'op':'route','queries':[{'text':'0123456789abcdef'}]}", BR_OP_ROUTE},
        {"{'v':1,'op':'route','queries':[{'tokens':[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}]}", BR_OP_ROUTE},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],"
         "'policy':{'lambda':<cc 05>,'max_cost':-1}}",
         BR_OP_ROUTE}, /* ranges are the policy module's */
        {"{'v':1,'op':'route','queries':[{'text':'a','output_tokens':{}}],'policy':{'models':[]}}",
         BR_OP_ROUTE},
        {"{'v':1,'op':'score','explain':true,'policy':{'kind':'pool'},'queries':[{'text':'a'}]}",
         BR_OP_SCORE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_code code = decode(f, cases[i].message, &data_limits);
        if (code != BR_CODE_NONE) fail_msg("%s: %s: %s", cases[i].message, br_code_name(code), f->error.text);
        assert_int_equal(f->request.op, cases[i].op);
        for (size_t q = 0; q < f->request.query_count; q++) {
            assert_int_equal(f->request.queries[q].error.code, BR_CODE_NONE);
        }
    }
}

static void test_requests_refused_as_a_whole(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *message;
        br_code code;
        const char *text;
    } cases[] = {
        /* Bytes. */
        {"", BR_CODE_BAD_REQUEST, "the message: truncated, or not msgpack"},
        {"<c1>", BR_CODE_BAD_REQUEST, "the message: truncated, or not msgpack"},
        {"<df ff ff ff ff 01>", BR_CODE_BAD_REQUEST, "the message: truncated, or not msgpack"},
        {"<81 a1 76>", BR_CODE_BAD_REQUEST, "the message: truncated, or not msgpack"},
        {"{'v':1,'op':'ping'} <c0 c0>", BR_CODE_BAD_REQUEST, "the message: 2 bytes after its end"},
        {"{'v':2} 1", BR_CODE_BAD_REQUEST, "the message: 1 bytes after its end"},
        {"[1]", BR_CODE_BAD_REQUEST, "the message: expected a map, found array"},
        {"'v'", BR_CODE_BAD_REQUEST, "the message: expected a map, found str"},
        {"{1:1,'v':1,'op':'ping'}", BR_CODE_BAD_REQUEST, "the message: a key is not a string"},
        {"{<c4 01 76>:1,'v':1,'op':'ping'}", BR_CODE_BAD_REQUEST, "the message: a key is not a string"},
        {"{[1]:1,'v':1,'op':'ping'}", BR_CODE_BAD_REQUEST, "the message: a key is not a string"},
        /* Version and op. */
        {"{}", BR_CODE_BAD_REQUEST, "v: missing"},
        {"{'op':'ping'}", BR_CODE_BAD_REQUEST, "v: missing"},
        {"{'v':'1','op':'ping'}", BR_CODE_BAD_REQUEST, "v: expected an unsigned integer, found str"},
        {"{'v':1.0,'op':'ping'}", BR_CODE_BAD_REQUEST, "v: expected an unsigned integer, found float"},
        {"{'v':-1,'op':'ping'}", BR_CODE_BAD_REQUEST, "v: expected an unsigned integer, found negative int"},
        {"{'v':0,'op':'ping'}", BR_CODE_UNSUPPORTED, "v: version 0, this service speaks 1"},
        {"{'v':2,'op':7,'queries':true}", BR_CODE_UNSUPPORTED, "v: version 2, this service speaks 1"},
        {"{'v':1,'op':'ping','v':1}", BR_CODE_BAD_REQUEST, "v: given twice"},
        {"{'v':1}", BR_CODE_BAD_REQUEST, "op: missing"},
        {"{'v':1,'op':nil}", BR_CODE_BAD_REQUEST, "op: missing"},
        {"{'v':nil,'op':'ping'}", BR_CODE_BAD_REQUEST, "v: missing"},
        {"{'v':1,'op':nil,'op':'ping'}", BR_CODE_BAD_REQUEST, "op: given twice"},
        {"{'v':1,'op':<c4 04 70 69 6e 67>}", BR_CODE_BAD_REQUEST, "op: expected a string, found bin"},
        {"{'v':1,'op':''}", BR_CODE_UNSUPPORTED, "op: unknown op \"\""},
        {"{'v':1,'op':'pin','queries':3}", BR_CODE_UNSUPPORTED, "op: unknown op \"pin\""},
        {"{'v':1,'op':'reload'}", BR_CODE_UNSUPPORTED, "op: reload belongs to the admin socket"},
        {"{'v':1,'op':'stats'}", BR_CODE_UNSUPPORTED, "op: stats belongs to the admin socket"},
        /* The request's own keys. */
        {"{'v':1,'op':'ping','id':[]}", BR_CODE_BAD_REQUEST, "id: expected a scalar, found array"},
        {"{'v':1,'op':'ping','id':{}}", BR_CODE_BAD_REQUEST, "id: expected a scalar, found map"},
        {"{'v':1,'op':'ping','id':<d4 01 01>}", BR_CODE_BAD_REQUEST, "id: expected a scalar, found ext"},
        {"{'v':1,'op':'ping','deadline_ms':-5}", BR_CODE_BAD_REQUEST,
         "deadline_ms: expected an unsigned integer, found negative int"},
        {"{'v':1,'op':'ping','deadline_ms':5.0}", BR_CODE_BAD_REQUEST,
         "deadline_ms: expected an unsigned integer, found float"},
        {"{'v':1,'op':'ping','explain':1}", BR_CODE_BAD_REQUEST, "explain: expected a bool, found uint"},
        {"{'v':1,'op':'ping','queries':{}}", BR_CODE_BAD_REQUEST, "queries: expected an array, found map"},
        {"{'v':1,'op':'route','queries':nil}", BR_CODE_BAD_REQUEST, "queries: missing"},
        /* Misspelt keys. */
        {"{'v':1,'op':'ping','polcy':7}", BR_CODE_BAD_REQUEST, "polcy: unknown key; nearest is policy"},
        {"{'v':1,'op':'route','querys':[]}", BR_CODE_BAD_REQUEST, "querys: unknown key; nearest is queries"},
        {"{'v':1,'opp':'ping'}", BR_CODE_BAD_REQUEST, "opp: unknown key; nearest is op"},
        {"{'v':1,'op':'ping','Explan':7}", BR_CODE_BAD_REQUEST, "Explan: unknown key; nearest is explain"},
        {"{'v':1,'op':'pong','polcy':7}", BR_CODE_UNSUPPORTED, "op: unknown op \"pong\""},
        {"{'v':2,'opp':'ping'}", BR_CODE_UNSUPPORTED, "v: version 2, this service speaks 1"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'treshold':0.5}}", BR_CODE_BAD_REQUEST,
         "policy.treshold: unknown key; nearest is threshold"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'new':nil}}", BR_CODE_BAD_REQUEST,
         "policy.new: unknown key; nearest is kind"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{<a3 ff 0a 61>:1}}", BR_CODE_BAD_REQUEST,
         "policy.??a: unknown key; nearest is kind"},
        /* Fields of two kinds. */
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'threshold':0.5,'lambda':1}}",
         BR_CODE_BAD_REQUEST, "policy.lambda: belongs to the kind utility, not to threshold"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'kind':'budget','tolerance':0}}",
         BR_CODE_BAD_REQUEST, "policy.tolerance: belongs to the kind tolerance, not to budget"},
        {"{'v':1,'op':'route'}", BR_CODE_BAD_REQUEST, "queries: missing"},
        {"{'v':1,'op':'score'}", BR_CODE_BAD_REQUEST, "queries: missing"},
        {"{'v':1,'op':'route','queries':[]}", BR_CODE_BAD_REQUEST, "queries: expected at least one query"},
        {"{'v':1,'op':'route','queries':[{},{},{},{},{}]}", BR_CODE_TOO_LARGE,
         "queries: 5 queries, the limit is 4"},
        {"{'v':1,'op':'route','queries':[{'text':'a'},7]}", BR_CODE_BAD_REQUEST,
         "queries[1]: expected a map, found uint"},
        {"{'v':1,'op':'route','queries':[{'text':'0123456789abcdefg'}]}", BR_CODE_TOO_LARGE,
         "queries[0].text: 17 bytes, the limit is 16"},
        {"{'v':1,'op':'score','queries':[{'tokens':[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}]}",
         BR_CODE_TOO_LARGE, "queries[0].tokens: 17 tokens, the limit is 16"},
        /* The request's policy. */
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'threshold':nan}}", BR_CODE_BAD_REQUEST,
         "policy.threshold: expected a finite number, found NaN"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'max_cost':inf}}", BR_CODE_BAD_REQUEST,
         "policy.max_cost: expected a finite number, found an infinity"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'lambda':<ca ff 80 00 00>}}",
         BR_CODE_BAD_REQUEST, "policy.lambda: expected a finite number, found an infinity"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'tolerance':'1'}}", BR_CODE_BAD_REQUEST,
         "policy.tolerance: expected a number, found str"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'total_budget':true}}", BR_CODE_BAD_REQUEST,
         "policy.total_budget: expected a number, found bool"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'kind':'cheap'}}", BR_CODE_BAD_REQUEST,
         "policy.kind: expected threshold, budget, utility, tolerance or pool, found \"cheap\""},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'kind':3}}", BR_CODE_BAD_REQUEST,
         "policy.kind: expected a string, found uint"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'fallback':'worst'}}", BR_CODE_BAD_REQUEST,
         "policy.fallback: expected best, reference or error, found \"worst\""},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'models':'a'}}", BR_CODE_BAD_REQUEST,
         "policy.models: expected an array, found str"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'models':['a',1]}}", BR_CODE_BAD_REQUEST,
         "policy.models: expected strings, found uint"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'max_n':1.5}}", BR_CODE_BAD_REQUEST,
         "policy.max_n: expected an unsigned integer, found float"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'kind':'pool','kind':'pool'}}",
         BR_CODE_BAD_REQUEST, "policy.kind: given twice"},
        {"{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{nil:1}}", BR_CODE_BAD_REQUEST,
         "policy: a key is not a string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_code code = decode(f, cases[i].message, &data_limits);
        if (code != cases[i].code || strcmp(f->error.text, cases[i].text) != 0) {
            fail_msg("%s: found %s: %s", cases[i].message, br_code_name(code), f->error.text);
        }
    }
}

static void test_queries_refused_alone(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *query;
        const char *text;
    } cases[] = {
        {"{}", "queries[1].text: expected exactly one of text and tokens, found neither"},
        {"{'text':'a','tokens':[]}", "queries[1].text: expected exactly one of text and tokens, found both"},
        {"{'text':'a','text':'a'}", "queries[1].text: given twice"},
        {"{'text':'a','max_cots':1}", "queries[1].max_cots: unknown key; nearest is max_cost"},
        {"{'txet':'a'}", "queries[1].txet: unknown key; nearest is text"},
        {"{'text':'a','prompt_tokens':1,'completion_tokens':1}",
         "queries[1].completion_tokens: unknown key; nearest is prompt_tokens"},
        {"{'text':nil}", "queries[1].text: expected exactly one of text and tokens, found neither"},
        {"{'text':'a','policy':{'max_cots':1}}",
         "queries[1].policy.max_cots: unknown key; nearest is max_cost"},
        {"{'text':'a','policy':{'kind':'threshold','lambda':1}}",
         "queries[1].policy.lambda: belongs to the kind utility, not to threshold"},
        {"{'text':7}", "queries[1].text: expected a string, found uint"},
        {"{'text':<c4 01 61>}", "queries[1].text: expected a string, found bin"},
        {"{'text':<a3 61 62 ff>}", "queries[1].text: not UTF-8 at byte 2"},
        {"{'text':<a2 c3 28>}", "queries[1].text: not UTF-8 at byte 0"},
        {"{'text':<a3 ed a0 80>}", "queries[1].text: not UTF-8 at byte 0"},
        {"{'tokens':'a'}", "queries[1].tokens: expected an array, found str"},
        {"{'tokens':[1,-1]}", "queries[1].tokens: expected unsigned integers, found negative int"},
        {"{'tokens':[1,2.0]}", "queries[1].tokens: expected unsigned integers, found float"},
        {"{'tokens':[[1]]}", "queries[1].tokens: expected unsigned integers, found array"},
        {"{'tokens':[4294967296]}", "queries[1].tokens: 4294967296 is no token"},
        {"{'text':'a',7:8}", "queries[1]: a key is not a string"},
        {"{'text':'a','prompt_tokens':-1}",
         "queries[1].prompt_tokens: expected an unsigned integer or a map of them, found negative int"},
        {"{'text':'a','output_tokens':[1]}",
         "queries[1].output_tokens: expected an unsigned integer or a map of them, found array"},
        {"{'text':'a','output_tokens':{'a':1.5}}",
         "queries[1].output_tokens: expected unsigned integers as values, found float"},
        {"{'text':'a','output_tokens':{1:1}}",
         "queries[1].output_tokens: expected names of models as keys, found uint"},
        {"{'text':'a','output_tokens':{'a':1,'b':2,'a':1}}",
         "queries[1].output_tokens: a model is named twice"},
        {"{'text':'a','max_cost':nan}", "queries[1].max_cost: expected a finite number, found NaN"},
        {"{'text':'a','max_cost':-0.5}", "queries[1].max_cost: expected a number >= 0, found -0.5"},
        {"{'text':'a','max_cost':'0'}", "queries[1].max_cost: expected a number, found str"},
        {"{'text':'a','policy':[]}", "queries[1].policy: expected a map, found array"},
        {"{'text':'a','policy':{'threshold':'x'}}",
         "queries[1].policy.threshold: expected a number, found str"},
        {"{'text':'a','policy':{'kind':'pool'}}",
         "queries[1].policy: kind pool belongs to the request's policy"},
        {"{'text':'a','policy':{'total_budget':1}}",
         "queries[1].policy: total_budget belongs to the request's policy"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int op = 0; op < 2; op++) {
            char text[512];
            (void)snprintf(text, sizeof text,
                           "{'v':1,'op':'%s','id':7,'queries':[{'text':'a'},%s,{'tokens':[5]}]}",
                           op == 0 ? "route" : "score", cases[i].query);
            br_code code = decode(f, text, &data_limits);
            if (code != BR_CODE_NONE) fail_msg("%s: refused: %s", text, f->error.text);
            const br_query *queries = f->request.queries;
            assert_int_equal(f->request.query_count, 3);
            assert_int_equal(queries[0].error.code, BR_CODE_NONE);
            assert_str(queries[0].text, "a");
            assert_int_equal(queries[2].error.code, BR_CODE_NONE);
            assert_int_equal(queries[2].tokens[0], 5);
            assert_int_equal(queries[1].error.code, BR_CODE_BAD_REQUEST);
            assert_string_equal(queries[1].error.text, cases[i].text);
        }
    }
}

static void test_policies_of_score_are_checked_and_dropped(void **state)
{
    fixture *f = *state;
    br_code code = decode(f,
                          "{'v':1,'op':'score','policy':{'threshold':0.1},"
                          "'queries':[{'text':'a','policy':{'threshold':0.2}}]}",
                          &data_limits);
    assert_int_equal(code, BR_CODE_NONE);
    assert_int_equal(f->request.policy.has, 0);
    assert_int_equal(f->request.queries[0].policy.has, 0);
}

static void test_a_field_sets_its_kind(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *policy;
        br_policy_kind kind;
    } cases[] = {
        {"{'threshold':0.1}", BR_POLICY_THRESHOLD},
        {"{'max_cost':1,'lambda':5}", BR_POLICY_UTILITY},
        {"{'tolerance':0.1,'x_lambda':5}", BR_POLICY_TOLERANCE},
        {"{'total_budget':1,'kind':nil}", BR_POLICY_POOL},
        {"{'total_budget':1,'kind':'pool','lambda':nil}", BR_POLICY_POOL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, "{'v':1,'op':'route','queries':[{'text':'a'}],'policy':%s}",
                       cases[i].policy);
        assert_int_equal(decode(f, text, &data_limits), BR_CODE_NONE);
        assert_true((f->request.policy.has & BR_HAS_KIND) != 0);
        assert_int_equal(f->request.policy.kind, cases[i].kind);
    }
    decode(f, "{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'max_cost':1}}", &data_limits);
    assert_int_equal(f->request.policy.has, BR_HAS_MAX_COST);
}

static void test_a_huge_max_n_means_what_it_says(void **state)
{
    fixture *f = *state;
    assert_int_equal(decode(f, "{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'max_n':4294967297}}",
                            &data_limits),
                     BR_CODE_NONE);
    assert_int_equal(f->request.policy.max_n, UINT32_MAX);
}

static void test_any_scalar_id_is_echoed_byte_for_byte(void **state)
{
    fixture *f = *state;
    static const char *const ids[] = {
        "<c2>",
        "<c3>",
        "<00>",
        "<cc 01>",
        "<cf 00 00 00 00 00 00 00 01>",
        "<e0>",
        "<d3 ff ff ff ff ff ff ff ff>",
        "<ca 7f c0 00 00>",
        "<cb 3f e0 00 00 00 00 00 00>",
        "<a0>",
        "<a2 ff 00>",
        "<d9 01 61>",
        "<db 00 00 00 01 61>",
        "<c4 00>",
        "<c4 02 01 02>",
        "<c6 00 00 00 01 ff>",
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[256];
        message id = message_from(ids[i]);
        (void)snprintf(text, sizeof text, "{'v':1,'op':'ping','id':%s}", ids[i]);
        assert_int_equal(decode(f, text, &data_limits), BR_CODE_NONE);
        assert_int_equal(f->request.id.size, id.size);
        assert_memory_equal(f->request.id.data, id.bytes, id.size);
        free(id.bytes);
    }
}

static void test_an_id_is_bounded_on_both_sides_of_the_limit(void **state)
{
    fixture *f = *state;
    for (size_t size = BR_ID_BYTES_MAX; size <= BR_ID_BYTES_MAX + 1; size++) {
        const size_t letters = size - 3; /* behind a str 16 head */
        char text[800];
        int used = snprintf(text, sizeof text, "{'v':1,'op':'ping','id':<da 00 %02zx", letters);
        for (size_t i = 0; i < letters; i++) used += snprintf(text + used, sizeof text - (size_t)used, "61");
        (void)snprintf(text + used, sizeof text - (size_t)used, ">}");
        const bool fits = size <= BR_ID_BYTES_MAX;
        assert_int_equal(decode(f, text, &data_limits), fits ? BR_CODE_NONE : BR_CODE_BAD_REQUEST);
        assert_int_equal(f->request.id.size, fits ? size : 0);
    }
    assert_string_equal(f->error.text, "id: 257 bytes on the wire, at most 256 are echoed");
}

static void test_the_id_is_found_beside_any_other_fault(void **state)
{
    fixture *f = *state;
    static const char *const found[] = {
        "{'queries':7,'op':8,'id':9}",
        "{'id':9,'v':3}",
        "{'v':1,'v':1,'id':9}",
        "{7:8,'id':9}",
        "{'v':1,'op':'nope','policy':{'kind':[]},'id':9}",
        "{'id':9,'id':10,'v':1,'op':'ping'}",
        "{'v':1,'op':'route','queries':[{'text':'0123456789abcdefg'}],'id':9}",
        "{'v':1,'op':'route','queries':[1],'id':9}",
    };
    for (size_t i = 0; i < sizeof found / sizeof *found; i++) {
        assert_int_not_equal(decode(f, found[i], &data_limits), BR_CODE_NONE);
        assert_str(f->request.id, "\x09");
    }
    static const char *const unparsable[] = {"{'id':9,'v':1,'op':'ping'} 1", "<82 a2 69 64 09>", "[9]",
                                             "{'v':1}"};
    for (size_t i = 0; i < sizeof unparsable / sizeof *unparsable; i++) {
        assert_int_not_equal(decode(f, unparsable[i], &data_limits), BR_CODE_NONE);
        assert_int_equal(f->request.id.size, 0);
    }
}

static void test_nesting_is_bounded_in_unknown_keys_too(void **state)
{
    fixture *f = *state;
    for (int extra = 0; extra <= 1; extra++) {
        char text[400] = "{'v':1,'op':'ping','id':3,'new':";
        for (int i = 0; i < BR_NESTING_MAX + extra; i++) strcat(text, "[");
        strcat(text, "0");
        for (int i = 0; i < BR_NESTING_MAX + extra; i++) strcat(text, "]");
        strcat(text, "}");
        assert_int_equal(decode(f, text, &data_limits), extra == 0 ? BR_CODE_NONE : BR_CODE_BAD_REQUEST);
    }
    assert_string_equal(f->error.text, "the message: a value is nested deeper than 32 levels");
}

static void test_a_message_is_bounded_on_both_sides_of_the_limit(void **state)
{
    fixture *f = *state;
    const char *text = "{'v':1,'op':'ping','id':5}";
    message m = message_from(text);
    br_request_limits limits = data_limits;
    limits.message_bytes_max = m.size;
    assert_int_equal(decode(f, text, &limits), BR_CODE_NONE);
    limits.message_bytes_max = m.size - 1;
    assert_int_equal(decode(f, text, &limits), BR_CODE_TOO_LARGE);
    assert_str(f->request.id, "\x05");
    free(m.bytes);
}

static void test_lists_of_names_are_bounded(void **state)
{
    fixture *f = *state;
    for (int extra = 0; extra <= 1; extra++) {
        static char text[8192];
        int used =
            snprintf(text, sizeof text, "{'v':1,'op':'route','queries':[{'text':'a','output_tokens':{");
        for (int i = 0; i < BR_MODELS_MAX + extra; i++) {
            used += snprintf(text + used, sizeof text - (size_t)used, "'m%d':1,", i);
        }
        used += snprintf(text + used, sizeof text - (size_t)used, "},'policy':{'models':[");
        for (int i = 0; i < BR_CANDIDATES_MAX; i++)
            used += snprintf(text + used, sizeof text - (size_t)used, "'m',");
        (void)snprintf(text + used, sizeof text - (size_t)used, "]}}]}");
        assert_int_equal(decode(f, text, &data_limits), BR_CODE_NONE);
        assert_int_equal(f->request.queries[0].error.code, extra == 0 ? BR_CODE_NONE : BR_CODE_BAD_REQUEST);
    }
    assert_string_equal(f->request.queries[0].error.text,
                        "queries[0].output_tokens: names 65 models, a bundle has at most 64");

    char text[2048];
    int used =
        snprintf(text, sizeof text, "{'v':1,'op':'route','queries':[{'text':'a'}],'policy':{'exclude':[");
    for (int i = 0; i <= BR_CANDIDATES_MAX; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "'m',");
    (void)snprintf(text + used, sizeof text - (size_t)used, "]}}");
    assert_int_equal(decode(f, text, &data_limits), BR_CODE_BAD_REQUEST);
    assert_string_equal(f->error.text, "policy.exclude: expected at most 256 strings, found 257");
}

static void test_the_admin_socket_knows_its_own_ops(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *message;
        br_code code;
        br_op op;
        const char *text;
    } cases[] = {
        {"{'v':1,'op':'reload'}", BR_CODE_NONE, BR_OP_RELOAD, ""},
        {"{'v':1,'op':'reload','bundle':'/b'}", BR_CODE_NONE, BR_OP_RELOAD, ""},
        {"{'v':1,'op':'drain'}", BR_CODE_NONE, BR_OP_DRAIN, ""},
        {"{'v':1,'op':'shutdown'}", BR_CODE_NONE, BR_OP_SHUTDOWN, ""},
        {"{'v':1,'op':'stats'}", BR_CODE_NONE, BR_OP_STATS, ""},
        {"{'v':1,'op':'set_defaults','policy':{}}", BR_CODE_NONE, BR_OP_SET_DEFAULTS, ""},
        {"{'v':1,'op':'set_defaults'}", BR_CODE_BAD_REQUEST, BR_OP_SET_DEFAULTS, "policy: missing"},
        {"{'v':1,'op':'reload','bundle':''}", BR_CODE_BAD_REQUEST, BR_OP_RELOAD,
         "bundle: expected the path of a folder"},
        {"{'v':1,'op':'reload','bundle':<a2 61 00>}", BR_CODE_BAD_REQUEST, BR_OP_RELOAD,
         "bundle: expected the path of a folder"},
        {"{'v':1,'op':'reload','bundle':1}", BR_CODE_BAD_REQUEST, BR_OP_RELOAD,
         "bundle: expected a string, found uint"},
        {"{'v':1,'op':'ping'}", BR_CODE_UNSUPPORTED, BR_OP_NONE, "op: ping belongs to the data socket"},
        {"{'v':1,'op':'route'}", BR_CODE_UNSUPPORTED, BR_OP_NONE, "op: route belongs to the data socket"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_code code = decode(f, cases[i].message, &admin_limits);
        assert_int_equal(code, cases[i].code);
        assert_int_equal(f->request.op, cases[i].op);
        assert_string_equal(f->error.text, cases[i].text);
    }
    assert_int_equal(decode(f, cases[1].message, &admin_limits), BR_CODE_NONE);
    assert_str(f->request.bundle, "/b");
    decode(f, "{'v':1,'op':'set_defaults','policy':{'threshold':0.5}}", &admin_limits);
    assert_int_equal(f->request.policy.has, BR_HAS_KIND | BR_HAS_THRESHOLD);
}

static const char rich[] =
    "{'v':1,'op':'route','id':'abc','deadline_ms':100,'explain':true,"
    "'policy':{'kind':'utility','lambda':2.5,'models':['a','b'],'exclude':['c'],'max_n':3},"
    "'queries':[{'text':'hello','prompt_tokens':{'a':3},'output_tokens':7},"
    "{'tokens':[1,300,70000],'max_cost':0.5,'policy':{'threshold':0.25f}},{'text':7}],"
    "'new':[{'x':<c7 01 05 00>},nan]}";

static void test_every_prefix_of_a_message_is_refused(void **state)
{
    fixture *f = *state;
    message m = message_from(rich);
    for (size_t size = 0; size < m.size; size++) {
        uint8_t *part = malloc(size + 1);
        assert_non_null(part);
        memcpy(part, m.bytes, size);
        assert_int_equal(decode_bytes(f, part, size, &data_limits), BR_CODE_BAD_REQUEST);
        assert_string_equal(f->error.text, "the message: truncated, or not msgpack");
        assert_int_equal(f->request.id.size, 0);
        free(part);
    }
    assert_int_equal(decode_bytes(f, m.bytes, m.size, &data_limits), BR_CODE_NONE);
    free(m.bytes);
}

static void test_any_byte_changed_is_read_or_refused_with_words(void **state)
{
    fixture *f = *state;
    message m = message_from(rich);
    size_t read = 0;
    for (size_t at = 0; at < m.size; at++) {
        const uint8_t kept = m.bytes[at];
        for (int byte = 0; byte < 256; byte++) {
            m.bytes[at] = (uint8_t)byte;
            br_code code = decode_bytes(f, m.bytes, m.size, &data_limits);
            assert_true((code == BR_CODE_NONE) == (f->error.text[0] == '\0'));
            assert_int_not_equal(code, BR_CODE_INTERNAL);
            read += code == BR_CODE_NONE;
        }
        m.bytes[at] = kept;
    }
    assert_true(read > m.size); /* every byte left as it was, and many others */
    free(m.bytes);
}

static void test_a_steady_stream_allocates_nothing(void **state)
{
    fixture *f = *state;
    message m = message_from(rich);
    for (int i = 0; i < 3; i++)
        assert_int_equal(decode_bytes(f, m.bytes, m.size, &data_limits), BR_CODE_NONE);
    const size_t before = br_oom_count();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(decode_bytes(f, m.bytes, m.size, &data_limits), BR_CODE_NONE);
    assert_int_equal(br_oom_count(), before);
    free(m.bytes);
}

static void test_a_lack_of_memory_is_internal(void **state)
{
    fixture *f = *state;
    message m = message_from(rich);
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_arena arena;
        br_arena_init(&arena);
        br_code code = br_request_decode(&f->request, m.bytes, m.size, &data_limits, &arena, &f->error);
        assert_true(code == BR_CODE_INTERNAL || code == BR_CODE_NONE);
        failures += code == BR_CODE_INTERNAL;
        assert_str(f->request.id, "\xa3"
                                  "abc");
        br_arena_deinit(&arena);
    });
    assert_true(failures > 0);
    free(m.bytes);
}

static void test_what_is_encoded_is_decoded_the_same(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *message;
        const br_request_limits *limits;
    } cases[] = {
        {"{'v':1,'op':'ping'}", &data_limits},
        {"{'v':1,'op':'info','id':7}", &data_limits},
        {"{'v':1,'op':'score','id':<cf 00 00 00 00 00 00 00 01>,'queries':[{'tokens':[]},{'text':''}]}",
         &data_limits},
        {"{'v':1,'op':'route','id':'abc','deadline_ms':100,"
         "'queries':[{'text':'hello','prompt_tokens':{'a':3},'output_tokens':7},"
         "{'tokens':[1,300,70000],'max_cost':0.5,'policy':{'kind':'threshold','threshold':0.25}}],"
         "'policy':{'kind':'pool','max_cost':0.25,"
         "'total_budget':8.0,'models':['a','b'],'exclude':['c'],'max_n':3,'fallback':'reference'},"
         "'explain':true}",
         &data_limits},
        {"{'v':1,'op':'reload','bundle':'/b'}", &admin_limits},
        {"{'v':1,'op':'set_defaults','policy':{}}", &admin_limits},
        {"{'v':1,'op':'stats'}", &admin_limits},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(decode(f, cases[i].message, cases[i].limits), BR_CODE_NONE);
        message again = {0};
        assert_int_equal(br_request_encode(&f->request, &again, message_append), 0);
        /* The cases are written in the encoder's order and forms, so equal means byte for byte. */
        assert_int_equal(again.size, f->message.size);
        assert_memory_equal(again.bytes, f->message.bytes, again.size);
        free(again.bytes);
    }
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
    const br_request request = {.op = BR_OP_PING};
    assert_int_equal(br_request_encode(&request, NULL, refuse), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_example_of_the_contract_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_key_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_messages_that_are_accepted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_requests_refused_as_a_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_queries_refused_alone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_policies_of_score_are_checked_and_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_field_sets_its_kind, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_huge_max_n_means_what_it_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_scalar_id_is_echoed_byte_for_byte, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_id_is_bounded_on_both_sides_of_the_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_id_is_found_beside_any_other_fault, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nesting_is_bounded_in_unknown_keys_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_message_is_bounded_on_both_sides_of_the_limit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_lists_of_names_are_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_admin_socket_knows_its_own_ops, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_prefix_of_a_message_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_byte_changed_is_read_or_refused_with_words, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_steady_stream_allocates_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_lack_of_memory_is_internal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_encoded_is_decoded_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_encoder_tells_of_a_sink_that_refuses, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
