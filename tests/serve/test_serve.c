/* test_serve.c - the data socket: every operation, every error, every transport. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/nng.h> /* first: the next needs it */

#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>

#include "serve/service.h"
#include "serve/sockets.h"
#include "support/oom.h"
#include "support/service_fixture.h"

static service shared;
static peer line; /* to `shared`, over inproc */

static int open_shared(void **state)
{
    (void)state;
    service_start(&shared, (const char *const[]){"--max-text-bytes=2000", "--max-message-bytes=65536", NULL});
    peer_open(&line, shared.url);
    return 0;
}

static int close_shared(void **state)
{
    (void)state;
    peer_close(&line);
    service_stop(&shared);
    return 0;
}

static br_request request_of(br_op op, br_query *queries, size_t count)
{
    return (br_request){.op = op, .queries = queries, .query_count = count};
}

static void assert_text_is(br_str found, const char *expected)
{
    assert_int_equal(found.size, strlen(expected));
    assert_memory_equal(found.data, expected, found.size);
}

static void test_route_answers_each_query_in_order_with_bundle_and_timing(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query queries[3] = {text_query("Prove that the square root of 2 is irrational."), text_query(""),
                           text_query("hello")};
    br_request request = request_of(BR_OP_ROUTE, queries, 3);
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.result_count, 3);
    for (int i = 0; i < 3; i++) {
        const br_reply_result *r = &a.reply.results[i];
        assert_int_equal(r->code, BR_CODE_NONE);
        assert_true(r->model.size > 0);
        assert_true(r->n >= 1);
        assert_true(r->quality >= 0.5 && r->quality <= 1.0); /* the bundle's threshold */
        assert_true(r->met);
        assert_true(r->margin >= 0.0);
        assert_true(r->cost > 0.0);
        assert_false(r->truncated);
        assert_int_equal(r->candidate_count, 0);
    }
    assert_true(a.reply.results[0].tokens > a.reply.results[2].tokens);
    assert_int_equal(a.reply.results[1].tokens, 3); /* nothing between the special tokens */
    assert_text_is(a.reply.bundle_name, "tiny-random");
    assert_int_equal(a.reply.bundle_hash.size, 64);
    assert_true(a.reply.has_timing);
    assert_true(a.reply.timing.compute_us > 0);
    assert_true(a.reply.timing.total_us >= a.reply.timing.compute_us);
    assert_in_range(a.reply.timing.batch, 1, 3);
    answer_free(&a);
}

static void test_a_long_prompt_is_truncated_but_billed_whole(void **state)
{
    (void)state;
    char text[1501];
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = "ab cd "[i % 6];
    text[sizeof text - 1] = '\0';
    peer_answer a = {0};
    br_query queries[2] = {text_query(text), text_query(text)};
    queries[1].prompt_tokens = (br_counts){.form = BR_COUNTS_ALL, .all = 0};
    br_request request = request_of(BR_OP_ROUTE, queries, 2);
    request.explain = true;
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    assert_true(a.reply.results[0].truncated);
    assert_int_equal(a.reply.results[0].tokens, 128);
    const br_reply_candidate *billed = &a.reply.results[0].candidates[0];
    const br_reply_candidate *unbilled = &a.reply.results[1].candidates[0];
    assert_true((billed->cost - unbilled->cost) / 3e-7 > 200); /* more tokens than the 128 that were read */
    answer_free(&a);
}

static void test_explain_adds_the_whole_table(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query query = text_query("hello");
    br_request request = request_of(BR_OP_ROUTE, &query, 1);
    request.explain = true;
    const br_str only[] = {BR_STR_LITERAL("llama-31-8b"), BR_STR_LITERAL("gpt-4o")};
    request.policy = (br_policy_spec){
        .has = BR_HAS_MODELS | BR_HAS_MAX_COST, .models = only, .model_count = 2, .max_cost = 5e-4};
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    const br_reply_result *r = &a.reply.results[0];
    assert_int_equal(r->candidate_count, 16);
    int filtered = 0;
    int dear = 0;
    for (size_t i = 0; i < r->candidate_count; i++) {
        const br_reply_candidate *c = &r->candidates[i];
        filtered += br_str_equal(c->reason, BR_STR_LITERAL("filtered"));
        dear += br_str_equal(c->reason, BR_STR_LITERAL("over_max_cost"));
        assert_int_equal(c->allowed, !br_str_equal(c->reason, BR_STR_LITERAL("filtered")));
    }
    assert_int_equal(filtered, 10);
    assert_int_equal(dear, 4); /* llama n 3, 4, 5 and gpt-4o */
    assert_text_is(r->model, "llama-31-8b");
    answer_free(&a);
}

static void test_score_answers_qualities_in_the_order_of_info(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_request info = {.op = BR_OP_INFO};
    peer_ask(&line, &a, &info);
    assert_true(a.reply.ok);
    assert_non_null(a.reply.info);
    assert_int_equal(a.reply.info->candidate_count, 16);
    assert_int_equal(a.reply.info->reference, 15);
    assert_int_equal(a.reply.info->max_text_bytes, 2000);
    assert_int_equal(a.reply.info->max_tokens, 128);
    assert_text_is(a.reply.info->engine, "reference");

    br_query queries[2] = {text_query("hello"), text_query("unused")};
    queries[1].has_text = false;
    const uint32_t tokens[] = {600, 601, 602};
    queries[1].tokens = tokens;
    queries[1].token_count = 3;
    br_request request = request_of(BR_OP_SCORE, queries, 2);
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    for (int i = 0; i < 2; i++) {
        const br_reply_result *r = &a.reply.results[i];
        assert_int_equal(r->quality_count, 16);
        assert_true(r->qualities[15] == 1.0);
        for (int k = 0; k < 15; k++) assert_true(r->qualities[k] > 0.0 && r->qualities[k] < 1.0);
    }
    assert_int_equal(a.reply.results[1].tokens, 6);
    answer_free(&a);
}

static void test_ids_come_back_as_they_came(void **state)
{
    (void)state;
    static const br_str ids[] = {
        {"\x07", 1},
        {"\xc3", 1},
        {"\xa3"
         "abc",
         4},
        {"\xcb\x40\x09\x21\xfb\x54\x44\x2d\x18", 9},
        {"\xff", 1},
        {"\xcd\x00\x07", 3},
        {"\xc4\x02zz", 4},
    };
    peer_answer a = {0};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        br_request request = {.op = BR_OP_PING, .id = ids[i]};
        peer_ask(&line, &a, &request);
        assert_true(a.reply.ok);
        assert_int_equal(a.reply.id.size, ids[i].size);
        assert_memory_equal(a.reply.id.data, ids[i].data, ids[i].size);
    }
    answer_free(&a);
}

static void test_a_query_that_fails_leaves_the_others_alone(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query queries[8];
    for (int i = 0; i < 8; i++) queries[i] = text_query("hello");
    queries[1].policy =
        (br_policy_spec){.has = BR_HAS_KIND, .kind = BR_POLICY_BUDGET}; /* max_cost is missing */
    queries[2].policy = (br_policy_spec){.has = BR_HAS_MAX_N, .max_n = 0};
    queries[3].has_text = false;
    queries[3].tokens = (const uint32_t[]){1}; /* [CLS] */
    queries[3].token_count = 1;
    queries[4].output_tokens = (br_counts){.form = BR_COUNTS_BY_MODEL,
                                           .entries = &(br_count_entry){BR_STR_LITERAL("nobody"), 1},
                                           .entry_count = 1};
    queries[5].policy =
        (br_policy_spec){.has = BR_HAS_KIND | BR_HAS_TOTAL_BUDGET, .kind = BR_POLICY_POOL, .total_budget = 1};
    queries[6].policy = (br_policy_spec){
        .has = BR_HAS_MAX_COST | BR_HAS_FALLBACK, .max_cost = 0, .fallback = BR_FALLBACK_ERROR};
    br_request request = request_of(BR_OP_ROUTE, queries, 8);
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    static const br_code expected[8] = {
        BR_CODE_NONE,        BR_CODE_BAD_REQUEST, BR_CODE_BAD_REQUEST, BR_CODE_BAD_REQUEST,
        BR_CODE_BAD_REQUEST, BR_CODE_BAD_REQUEST, BR_CODE_INFEASIBLE,  BR_CODE_NONE,
    };
    for (int i = 0; i < 8; i++) {
        if (a.reply.results[i].code != expected[i])
            fail_msg("query %d: %s", i, br_code_name(a.reply.results[i].code));
        if (expected[i] != BR_CODE_NONE) assert_true(a.reply.results[i].message.size > 0);
    }
    assert_true(br_str_equal(a.reply.results[0].model, a.reply.results[7].model));
    answer_free(&a);
}

static void test_an_error_of_the_request_computes_nothing(void **state)
{
    (void)state;
    const uint64_t scored = br_metrics_get(&shared.server->metrics, BR_COUNTER_queries_scored);
    static const br_str nobody[] = {{"nobody", 6}};
    const struct {
        br_policy_spec policy;
        const char *key;
    } cases[] = {
        {{.has = BR_HAS_KIND, .kind = BR_POLICY_BUDGET}, "policy.max_cost: missing"},
        {{.has = BR_HAS_KIND, .kind = BR_POLICY_UTILITY}, "policy.lambda: missing"},
        {{.has = BR_HAS_KIND, .kind = BR_POLICY_POOL}, "policy.total_budget: missing"},
        {{.has = BR_HAS_MODELS, .models = nobody, .model_count = 1},
         "policy.models[0]: unknown model \"nobody\"; nearest is "},
        {{.has = BR_HAS_EXCLUDE, .exclude = nobody, .exclude_count = 1}, "exclude"},
    };
    peer_answer a = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        br_query query = text_query("hello");
        br_request request = request_of(BR_OP_ROUTE, &query, 1);
        request.policy = cases[i].policy;
        peer_ask(&line, &a, &request);
        assert_false(a.reply.ok);
        assert_int_equal(a.reply.code, BR_CODE_BAD_REQUEST);
        assert_non_null(
            memmem(a.reply.message.data, a.reply.message.size, cases[i].key, strlen(cases[i].key)));
    }
    assert_int_equal(br_metrics_get(&shared.server->metrics, BR_COUNTER_queries_scored), scored);
    assert_int_equal(atomic_load(&shared.server->admitted), 0);
    answer_free(&a);
}

static void test_an_unknown_model_is_named_with_its_place_and_the_nearest(void **state)
{
    (void)state;
    peer_answer a = {0};
    static const br_str names[] = {{"gpt-4o", 6}, {"gpt-4", 5}};
    static const br_count_entry counts[] = {{{"gpt-4", 5}, 3}};
    br_query queries[3] = {text_query("hello"), text_query("hello"), text_query("hello")};
    queries[1].policy = (br_policy_spec){.has = BR_HAS_MODELS, .models = names, .model_count = 2};
    queries[2].output_tokens = (br_counts){.form = BR_COUNTS_BY_MODEL, .entries = counts, .entry_count = 1};
    br_request request = request_of(BR_OP_ROUTE, queries, 3);
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
    assert_text_is(a.reply.results[1].message,
                   "queries[1].policy.models[1]: unknown model \"gpt-4\"; nearest is \"gpt-4o\"");
    assert_text_is(a.reply.results[2].message,
                   "queries[2].output_tokens: unknown model \"gpt-4\"; nearest is \"gpt-4o\"");
    answer_free(&a);
}

static void test_budget_may_take_its_cap_from_every_query(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query queries[2] = {text_query("hello"), text_query("hello")};
    queries[0].max_cost = 3e-4;
    queries[1].max_cost = 1.0;
    br_request request = request_of(BR_OP_ROUTE, queries, 2);
    request.policy = (br_policy_spec){.has = BR_HAS_KIND, .kind = BR_POLICY_BUDGET};
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    assert_true(a.reply.results[0].cost <= 3e-4);
    assert_text_is(a.reply.results[1].model, "gpt-4o");
    queries[1].max_cost = INFINITY;
    peer_ask(&line, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_BAD_REQUEST);
    answer_free(&a);
}

static void test_a_pool_is_decided_together_and_others_beside_it(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query queries[4] = {text_query("a"), text_query("b c"), text_query("d"), text_query("e")};
    queries[3].policy = (br_policy_spec){
        .has = BR_HAS_KIND | BR_HAS_THRESHOLD, .kind = BR_POLICY_THRESHOLD, .threshold = 1.0};
    br_request request = request_of(BR_OP_ROUTE, queries, 4);
    request.policy = (br_policy_spec){
        .has = BR_HAS_KIND | BR_HAS_TOTAL_BUDGET, .kind = BR_POLICY_POOL, .total_budget = 0.002};
    request.explain = true;
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    double cost = 0;
    for (int i = 0; i < 3; i++) {
        assert_true(a.reply.results[i].met);
        cost += a.reply.results[i].cost;
    }
    assert_true(cost <= 0.002);
    assert_text_is(a.reply.results[3].model, "gpt-4o"); /* nothing else reaches 1 */
    answer_free(&a);
}

static void test_a_pool_is_for_the_whole_request(void **state)
{
    (void)state;
    peer_answer a = {0};
    br_query queries[2] = {text_query("a"), text_query("b")};
    queries[0].policy = (br_policy_spec){.has = BR_HAS_KIND, .kind = BR_POLICY_POOL};
    br_request request = request_of(BR_OP_ROUTE, queries, 2);
    request.policy = (br_policy_spec){.has = BR_HAS_TOTAL_BUDGET, .total_budget = 1}; /* sets the kind */
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    assert_int_equal(a.reply.results[0].code, BR_CODE_BAD_REQUEST);
    assert_int_equal(a.reply.results[1].code, BR_CODE_NONE);
    answer_free(&a);
}

static void test_bytes_that_are_no_request_get_one_error_each(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        br_code code;
    } cases[] = {
        {"", 0, BR_CODE_BAD_REQUEST},
        {"\xc1", 1, BR_CODE_BAD_REQUEST},
        {"\x80", 1, BR_CODE_BAD_REQUEST},
        {"\x82\xa1v\x02\xa2op\xa4ping", 12, BR_CODE_UNSUPPORTED},
        {"\x82\xa1v\x01\xa2op\xa4pong", 12, BR_CODE_UNSUPPORTED},
        {"\x82\xa1v\x01\xa2op\xa5"
         "drain",
         13, BR_CODE_UNSUPPORTED},
        {"\x82\xa1v\x01\xa2op\xa4ping\xc0", 13, BR_CODE_BAD_REQUEST},
        {"\x82\xa1v\x01\xa2op\xa5route", 13, BR_CODE_BAD_REQUEST},
        {"\x83\xa1v\x01\xa2op\xa5route\xa7queries\x90", 22, BR_CODE_BAD_REQUEST},
    };
    peer_answer a = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        peer_ask_bytes(&line, &a, cases[i].bytes, cases[i].size);
        assert_false(a.reply.ok);
        if (a.reply.code != cases[i].code) fail_msg("case %zu: %s", i, br_code_name(a.reply.code));
    }
    answer_free(&a);
}

static void test_limits_hold_on_both_sides(void **state)
{
    (void)state;
    peer_answer a = {0};
    static char text[2001];
    memset(text, 'a', sizeof text);
    br_query queries[65];
    for (int i = 0; i < 65; i++) queries[i] = text_query("x");
    br_request request = request_of(BR_OP_SCORE, queries, 64);
    peer_ask(&line, &a, &request);
    assert_true(a.reply.ok);
    request.query_count = 65;
    peer_ask(&line, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_TOO_LARGE);

    queries[0].text = (br_str){text, 2000};
    request.query_count = 1;
    peer_ask(&line, &a, &request);
    assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
    queries[0].text.size = 2001;
    peer_ask(&line, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_TOO_LARGE);

    static char message[65537];
    memset(message, '\xc0', sizeof message);
    peer_ask_bytes(&line, &a, message, 65537);
    assert_int_equal(a.reply.code, BR_CODE_TOO_LARGE);
    peer_ask_bytes(&line, &a, message, 65536);
    assert_int_equal(a.reply.code, BR_CODE_BAD_REQUEST);
    answer_free(&a);
}

enum { CLIENTS = 4, ASKS = 40 };

static void *ask_many(void *argument)
{
    const char *url = argument;
    peer p;
    peer_open(&p, url);
    peer_answer a = {0};
    for (int i = 0; i < ASKS; i++) {
        br_query queries[3] = {text_query("one"), text_query("two words"), text_query("and three words")};
        br_request request = request_of(i % 2 == 0 ? BR_OP_ROUTE : BR_OP_SCORE, queries, 1 + (size_t)i % 3);
        char id[3] = {'\xa2', 'a', (char)('a' + i % 26)};
        request.id = (br_str){id, 3};
        peer_ask(&p, &a, &request);
        assert_true(a.reply.ok);
        assert_int_equal(a.reply.result_count, request.query_count);
        assert_memory_equal(a.reply.id.data, id, 3);
    }
    answer_free(&a);
    peer_close(&p);
    return NULL;
}

static void test_concurrent_clients_on_tcp_and_ipc_are_all_served(void **state)
{
    (void)state;
    char ipc[64];
    (void)snprintf(ipc, sizeof ipc, "--listen=ipc:///tmp/bestroute-serve-%d", (int)getpid());
    service s;
    service_start(&s, (const char *const[]){"--listen=tcp://127.0.0.1:0", ipc, "--workers=2",
                                            "--tokenizer-threads=2", "--batch-tokens=256", NULL});
    char urls[2][128];
    pthread_t threads[CLIENTS];
    for (int i = 0; i < 2; i++) assert_int_equal(br_server_url(s.server, i, urls[i], sizeof urls[i]), BR_OK);
    assert_int_equal(br_server_url(s.server, 2, urls[1], 0), BR_EINVAL);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_many, urls[i % 2]), 0);
    for (int i = 0; i < CLIENTS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    service_stop(&s);
}

static void test_batching_changes_qualities_by_rounding_only(void **state)
{
    (void)state;
    static const char *const texts[] = {"a", "the quick brown fox", "Why is the sky blue?", "1 + 1", "x y z"};
    peer_answer alone = {0};
    peer_answer together = {0};
    br_query queries[5];
    for (int i = 0; i < 5; i++) queries[i] = text_query(texts[i]);
    br_request request = request_of(BR_OP_SCORE, queries, 5);
    peer_ask(&line, &together, &request);
    assert_true(together.reply.ok);
    for (int i = 0; i < 5; i++) {
        br_request one = request_of(BR_OP_SCORE, &queries[i], 1);
        peer_ask(&line, &alone, &one);
        for (int k = 0; k < 16; k++)
            assert_true(fabs(alone.reply.results[0].qualities[k] - together.reply.results[i].qualities[k]) <
                        1e-6);
    }
    answer_free(&alone);
    answer_free(&together);
}

static void test_a_warm_service_allocates_nothing_for_a_request(void **state)
{
    (void)state;
    enum { CONTEXTS = 1 + SPARE_CONTEXTS };
    service s; /* few contexts, so that each of them has seen a request soon */
    service_start(&s, (const char *const[]){"--queue-max=1", "--max-queries=1", NULL});
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("Prove that the square root of 2 is irrational.");
    br_request request = request_of(BR_OP_ROUTE, &query, 1);
    request.explain = true;
    for (int i = 0; i < 3 * CONTEXTS; i++) peer_ask(&p, &a, &request);
    const size_t before = br_oom_count();
    for (int i = 0; i < 2 * CONTEXTS; i++) {
        peer_ask(&p, &a, &request);
        assert_true(a.reply.ok);
    }
    assert_int_equal(br_oom_count(), before);
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_without_an_encoder_every_quality_is_the_same_and_the_log_says_so(void **state)
{
    (void)state;
    service s;
    service_start(&s, (const char *const[]){"--engine=noop", NULL});
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("hello");
    br_request request = request_of(BR_OP_SCORE, &query, 1);
    peer_ask(&p, &a, &request);
    assert_true(a.reply.ok);
    for (int k = 0; k < 15; k++) assert_true(a.reply.results[0].qualities[k] == (double)BR_NOOP_QUALITY);
    (void)fflush(s.log_stream);
    assert_non_null(strstr(s.log_text, "warn noop_engine"));
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

static void test_the_log_never_holds_a_prompt(void **state)
{
    (void)state;
    service s;
    service_start(&s, (const char *const[]){"--queue-max=1", "--max-queries=1", NULL});
    peer p;
    peer_open(&p, s.url);
    peer_answer a = {0};
    br_query query = text_query("zanzibar");
    br_request request = request_of(BR_OP_ROUTE, &query, 1);
    gate g;
    gate_close(&g, &s);
    pending w;
    pending_send(&w, &p, &request);
    service_wait_for_waiting(&s, 1);
    peer_ask(&p, &a, &request);
    assert_int_equal(a.reply.code, BR_CODE_OVERLOADED);
    gate_open(&g);
    pending_wait(&w, &a);
    (void)fflush(s.log_stream);
    assert_non_null(strstr(s.log_text, "warn overloaded"));
    assert_null(strstr(s.log_text, "zanzibar"));
    answer_free(&a);
    peer_close(&p);
    service_stop(&s);
}

/* An authority, a server's and a client's certificate, and one of a stranger, made in `folder`. */
static bool make_certificates(char *folder, size_t size)
{
    (void)snprintf(folder, size, "/tmp/bestroute-tls-XXXXXX");
    if (mkdtemp(folder) == NULL) return false;
    char command[2048];
    (void)snprintf(
        command, sizeof command,
        "cd '%s' && exec >/dev/null 2>&1; set -e; "
        "for a in ca other; do openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$a "
        "-keyout $a.key -out $a.crt; done; "
        "for n in server:ca client:ca stranger:other; do w=${n%%%%:*}; a=${n##*:}; "
        "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout $w.key -out $w.csr; "
        "openssl x509 -req -in $w.csr -CA $a.crt -CAkey $a.key -CAcreateserial -days 2 -out $w.crt; done",
        folder);
    return system(command) == 0;
}

/* False when no reply comes: the handshake was refused. */
static bool ask_over_tls(const char *url, const char *folder, const char *who, nng_duration patience_ms)
{
    char ca[128];
    char pair[128];
    char command[512];
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", folder);
    (void)snprintf(pair, sizeof pair, "%s/%s.pem", folder, who != NULL ? who : "nobody");
    nng_tls_config *tls;
    assert_int_equal(nng_tls_config_alloc(&tls, NNG_TLS_MODE_CLIENT), 0);
    assert_int_equal(nng_tls_config_ca_file(tls, ca), 0);
    assert_int_equal(nng_tls_config_server_name(tls, "localhost"), 0);
    assert_int_equal(nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED), 0);
    if (who != NULL) {
        (void)snprintf(command, sizeof command, "cd '%s' && cat %s.crt %s.key > %s.pem", folder, who, who,
                       who);
        assert_int_equal(system(command), 0);
        assert_int_equal(nng_tls_config_cert_key_file(tls, pair, NULL), 0);
    }
    nng_socket socket;
    nng_dialer dialer;
    assert_int_equal(nng_req0_open(&socket), 0);
    assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, patience_ms), 0);
    assert_int_equal(nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, patience_ms), 0);
    assert_int_equal(nng_dialer_create(&dialer, socket, url), 0);
    assert_int_equal(nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls), 0);
    (void)nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    char ping[] = "\x82\xa1v\x01\xa2op\xa4ping";
    void *reply = NULL;
    size_t size = 0;
    bool answered = nng_send(socket, ping, 12, 0) == 0;
    answered = answered && nng_recv(socket, &reply, &size, NNG_FLAG_ALLOC) == 0;
    if (answered) nng_free(reply, size);
    (void)nng_close(socket);
    nng_tls_config_free(tls);
    return answered;
}

static void test_tls_serves_clients_with_a_certificate_and_nobody_else(void **state)
{
    (void)state;
    enum { SHORT_MS = 1500 };
    char folder[64];
    if (!make_certificates(folder, sizeof folder)) {
        print_message("openssl is not here: TLS is not tested\n");
        skip();
    }
    char flags[3][128];
    (void)snprintf(flags[0], sizeof flags[0], "--tls-cert=%s/server.crt", folder);
    (void)snprintf(flags[1], sizeof flags[1], "--tls-key=%s/server.key", folder);
    (void)snprintf(flags[2], sizeof flags[2], "--tls-ca=%s/ca.crt", folder);
    char url[128];
    for (int with_ca = 0; with_ca < 2; with_ca++) {
        service s;
        service_start(&s, (const char *const[]){"--listen=tls+tcp://127.0.0.1:0", flags[0], flags[1],
                                                with_ca ? flags[2] : NULL, NULL});
        assert_int_equal(br_server_url(s.server, 0, url, sizeof url), BR_OK);
        assert_true(ask_over_tls(url, folder, "client", SERVICE_WAIT_MS));
        assert_int_equal(ask_over_tls(url, folder, NULL, with_ca ? SHORT_MS : SERVICE_WAIT_MS), !with_ca);
        if (with_ca) assert_false(ask_over_tls(url, folder, "stranger", SHORT_MS));
        service_stop(&s);
    }
    folder_remove(folder);
}

static void test_listeners_that_cannot_be_are_named(void **state)
{
    (void)state;
    static const char *const cases[][5] = {
        {"--listen=tcp://256.1.1.1:99999", "256.1.1.1", NULL},
        {"--listen=ipc:///nowhere/at/all", "/nowhere/at/all", NULL},
        {"--listen=tls+tcp://127.0.0.1:0", "/nowhere/cert", "--tls-cert=/nowhere/cert",
         "--tls-key=/nowhere/key", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *bundle = service_tiny_bundle();
        char *argv[6] = {(char *)"bestrouted", (char *)"--bundle", (char *)bundle, (char *)cases[i][0]};
        int argc = 4;
        for (int k = 2; cases[i][k] != NULL; k++) argv[argc++] = (char *)cases[i][k];
        br_config config;
        br_error error = {0};
        if (br_config_load(&config, argc, argv, NULL, &error) != BR_OK) fail_msg("%s", error.text);
        config.engine = BR_CONFIG_ENGINE_NOOP;
        br_server *server;
        assert_int_equal(br_server_create(&server, &config, NULL, &error), BR_OK);
        assert_int_not_equal(br_server_listen(server, &error), BR_OK);
        if (strstr(error.text, cases[i][1]) == NULL) fail_msg("case %zu: \"%s\"", i, error.text);
        br_server_destroy(server);
        br_config_deinit(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_answers_each_query_in_order_with_bundle_and_timing),
        cmocka_unit_test(test_a_long_prompt_is_truncated_but_billed_whole),
        cmocka_unit_test(test_explain_adds_the_whole_table),
        cmocka_unit_test(test_score_answers_qualities_in_the_order_of_info),
        cmocka_unit_test(test_ids_come_back_as_they_came),
        cmocka_unit_test(test_a_query_that_fails_leaves_the_others_alone),
        cmocka_unit_test(test_an_error_of_the_request_computes_nothing),
        cmocka_unit_test(test_an_unknown_model_is_named_with_its_place_and_the_nearest),
        cmocka_unit_test(test_budget_may_take_its_cap_from_every_query),
        cmocka_unit_test(test_a_pool_is_decided_together_and_others_beside_it),
        cmocka_unit_test(test_a_pool_is_for_the_whole_request),
        cmocka_unit_test(test_bytes_that_are_no_request_get_one_error_each),
        cmocka_unit_test(test_limits_hold_on_both_sides),
        cmocka_unit_test(test_concurrent_clients_on_tcp_and_ipc_are_all_served),
        cmocka_unit_test(test_batching_changes_qualities_by_rounding_only),
        cmocka_unit_test(test_a_warm_service_allocates_nothing_for_a_request),
        cmocka_unit_test(test_without_an_encoder_every_quality_is_the_same_and_the_log_says_so),
        cmocka_unit_test(test_the_log_never_holds_a_prompt),
        cmocka_unit_test(test_tls_serves_clients_with_a_certificate_and_nobody_else),
        cmocka_unit_test(test_listeners_that_cannot_be_are_named),
    };
    return cmocka_run_group_tests(tests, open_shared, close_shared);
}
