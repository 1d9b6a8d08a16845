/* test_client.c - the client library against a scripted service. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "bestroute/client.h"
#include "core/clock.h"
#include "fake_service.h"
#include "support/oom.h"

enum { CALL_THREADS = 8, CALLS_PER_THREAD = 40 };

static br_client *connect_to(const char *url, uint32_t timeout_ms, uint32_t retries)
{
    br_client *client;
    br_error error = {0};
    const br_client_options options = {.url = url, .timeout_ms = timeout_ms, .retries = retries};
    assert_int_equal(br_client_connect(&client, &options, &error), BR_OK);
    return client;
}

static const br_client_query one_query = {.text = "four", .text_bytes = 4};
static const br_client_call one_call = {.queries = &one_query, .query_count = 1};

static double ms_since(uint64_t start_ns)
{
    return (double)(br_clock_now_ns() - start_ns) / BR_NS_PER_MS;
}

static void test_a_route_brings_every_field_in_order(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);

    const uint32_t tokens[] = {5, 6, 7};
    const br_client_query queries[] = {
        {.text = "one", .text_bytes = 3},
        {.text = "bad", .text_bytes = 3},
        {.tokens = tokens, .token_count = 3},
    };
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(client, &answer,
                                     &(br_client_call){.queries = queries, .query_count = 3, .explain = true},
                                     &error),
                     BR_OK);
    br_client_close(client); /* an answer outlives its client */
    fake_stop(&f);

    assert_int_equal(answer->result_count, 3);
    const br_answer_result *first = &answer->results[0];
    assert_null(first->error);
    assert_string_equal(first->model, "small");
    assert_int_equal(first->n, 3);
    assert_true(first->quality == 0.75 && first->cost == 0.002 && first->margin == 0.25);
    assert_true(first->met && first->truncated);
    assert_int_equal(first->tokens, 7);
    assert_int_equal(first->candidate_count, 2);
    assert_string_equal(first->candidates[0].model, "small");
    assert_string_equal(first->candidates[0].reason, "");
    assert_true(first->candidates[0].allowed);
    assert_true(isnan(first->candidates[1].cost));
    assert_string_equal(first->candidates[1].reason, "no_price");
    assert_string_equal(answer->results[1].error, "infeasible");
    assert_string_equal(answer->results[1].message, "nothing fits");
    assert_int_equal(answer->results[2].n, 3);
    assert_ptr_equal(answer->results[2].candidates, first->candidates + 2); /* its own rows */
    assert_string_equal(answer->bundle_name, "tiny");
    assert_string_equal(answer->bundle_hash, "5f0c");
    assert_int_equal(answer->tokenize_us, 1);
    assert_int_equal(answer->total_us, 4);
    assert_int_equal(answer->batch, 5);
    assert_null(answer->policy);
    assert_string_equal(answer->engine, "");
    br_answer_free(answer);
}

static void test_a_score_brings_the_qualities(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    br_answer *answer;
    br_error error = {0};
    const br_client_query queries[] = {one_query, one_query};
    assert_int_equal(
        br_client_score(client, &answer, &(br_client_call){.queries = queries, .query_count = 2}, &error),
        BR_OK);
    assert_int_equal(answer->results[0].quality_count, 2);
    assert_true(answer->results[0].qualities[0] == 0.25 && answer->results[0].qualities[1] == 0.5);
    assert_ptr_equal(answer->results[1].qualities, answer->results[0].qualities + 2); /* its own numbers */
    assert_true(answer->results[1].qualities[1] == 0.5);
    br_answer_free(answer);
    br_client_close(client);
    fake_stop(&f);
}

static void test_info_brings_candidates_prices_policy_and_limits(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_info(client, &answer, &error), BR_OK);
    assert_int_equal(answer->candidate_count, 2);
    assert_string_equal(answer->candidates[0].model, "small");
    assert_int_equal(answer->candidates[0].n, 2);
    assert_int_equal(answer->reference, 1);
    assert_int_equal(answer->model_count, 2);
    assert_true(answer->models[0].has_price && answer->models[0].output_price == 2e-6);
    assert_false(answer->models[1].has_price);
    assert_string_equal(answer->policy->kind, "threshold");
    assert_string_equal(answer->policy->fallback, "reference");
    assert_true(answer->policy->has_threshold && answer->policy->threshold == 0.5);
    assert_false(answer->policy->has_lambda);
    assert_int_equal(answer->policy->model_count, 1);
    assert_string_equal(answer->policy->models[0], "small");
    assert_int_equal(answer->policy_table_count, 2);
    assert_int_equal(answer->policy_table_prompts, 12);
    assert_true(answer->policy_table[0].threshold == 0.25 && answer->policy_table[0].quality == 0.5);
    assert_true(answer->policy_table[1].threshold == 0.5 && answer->policy_table[1].reference_share == 0.25);
    assert_true(answer->policy_table[1].mean_cost == 0.001 && answer->policy_table[1].quality == 0.75);
    assert_int_equal(answer->max_queries, 64);
    assert_int_equal(answer->max_text_bytes, 1 << 16);
    assert_string_equal(answer->version, "9.9");
    assert_string_equal(answer->precision, "f32");
    assert_int_equal(answer->device_count, 2);
    assert_string_equal(answer->devices[1], "cpu1");
    br_answer_free(answer);
    assert_int_equal(br_client_ping(client, &error), BR_OK);
    br_client_close(client);
    fake_stop(&f);
}

static void test_reload_names_the_folder_and_the_bundle(void **state)
{
    (void)state;
    fake f = {0};
    snprintf(f.url, sizeof f.url, "inproc://admin-%d", (int)getpid());
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    br_error error = {0};
    br_answer *answer;
    assert_int_equal(br_client_reload(client, &answer, "some/folder", &error), BR_OK);
    assert_string_equal(answer->bundle_name, "tiny");
    br_answer_free(answer);
    assert_string_equal(f.last_bundle, "some/folder");
    assert_int_equal(br_client_reload(client, NULL, NULL, &error), BR_OK);
    assert_string_equal(f.last_bundle, "");
    br_client_close(client);
    fake_stop(&f);
}

static void test_every_policy_field_arrives(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    const char *names[] = {"small", "large"};
    const br_client_policy policy = {
        .kind = "utility",
        .fallback = "error",
        .has_max_cost = true,
        .max_cost = 0, /* a cap of zero is a cap */
        .has_lambda = true,
        .lambda = 12.5,
        .max_n = 4,
        .models = names,
        .model_count = 2,
        .exclude = names + 1,
        .exclude_count = 1,
    };
    br_client_query query = one_query;
    query.has_max_cost = true;
    query.has_prompt_tokens = true;
    query.prompt_tokens = 9;
    query.output_tokens_by_model = &(br_client_count){.model = "small", .tokens = 5};
    query.output_tokens_by_model_count = 1;
    query.policy = &(br_client_policy){.max_n = 2};
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(
        br_client_route(client, &answer,
                        &(br_client_call){.queries = &query, .query_count = 1, .policy = &policy}, &error),
        BR_OK);
    br_answer_free(answer);
    br_client_close(client);
    fake_stop(&f);

    const br_policy_spec *seen = &f.last_policy;
    assert_int_equal(seen->has, BR_HAS_KIND | BR_HAS_MAX_COST | BR_HAS_LAMBDA | BR_HAS_MODELS |
                                    BR_HAS_EXCLUDE | BR_HAS_MAX_N | BR_HAS_FALLBACK);
    assert_int_equal(seen->kind, BR_POLICY_UTILITY);
    assert_int_equal(seen->fallback, BR_FALLBACK_ERROR);
    assert_true(seen->max_cost == 0 && seen->lambda == 12.5);
    assert_int_equal(seen->max_n, 4);
    assert_int_equal(seen->model_count, 2);
    assert_int_equal(seen->exclude_count, 1);
}

/* Each belongs to another kind, so no request carries two of them. */
static void test_the_field_of_each_kind_arrives(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    static const br_client_policy policies[] = {
        {.has_threshold = true, .threshold = 0.25},
        {.has_tolerance = true, .tolerance = 0.125},
        {.has_total_budget = true, .total_budget = 3},
    };
    static const br_policy_kind kinds[] = {BR_POLICY_THRESHOLD, BR_POLICY_TOLERANCE, BR_POLICY_POOL};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        br_client_query query = one_query;
        br_answer *answer;
        br_error error = {0};
        const br_client_call call = {.queries = &query, .query_count = 1, .policy = &policies[i]};
        assert_int_equal(br_client_route(client, &answer, &call, &error), BR_OK);
        br_answer_free(answer);
        const br_policy_spec *seen = &f.last_policy;
        assert_int_equal(seen->kind, kinds[i]);
        if (i == 0) assert_true(seen->threshold == 0.25);
        if (i == 1) assert_true(seen->tolerance == 0.125);
        if (i == 2) assert_true(seen->total_budget == 3);
    }
    br_client_close(client);
    fake_stop(&f);
}

static void test_each_error_code_becomes_its_status(void **state)
{
    (void)state;
    static const struct {
        br_code code;
        br_status status;
        const char *text;
    } cases[] = {
        {BR_CODE_BAD_REQUEST, BR_EINVAL, "bad_request: as the script says"},
        {BR_CODE_TOO_LARGE, BR_ETOOBIG, "too_large: as the script says"},
        {BR_CODE_OVERLOADED, BR_EBUSY, "overloaded: as the script says"},
        {BR_CODE_DEADLINE, BR_ETIMEDOUT, "deadline: as the script says"},
        {BR_CODE_NOT_READY, BR_ENOTREADY, "not_ready: as the script says"},
        {BR_CODE_UNSUPPORTED, BR_ENOTSUP, "unsupported: as the script says"},
        {BR_CODE_INFEASIBLE, BR_EINFEASIBLE, "infeasible: as the script says"},
        {BR_CODE_INTERNAL, BR_EINTERNAL, "internal: as the script says"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake f = {.refusal = cases[i].code, .refusals = -1};
        fake_start(&f);
        br_client *client = connect_to(f.url, 5000, 0);
        br_answer *answer = (br_answer *)&f;
        br_error error = {0};
        assert_int_equal(br_client_route(client, &answer, &one_call, &error), cases[i].status);
        assert_null(answer);
        assert_string_equal(error.text, cases[i].text);
        assert_int_equal(error.status, cases[i].status);
        assert_int_equal(br_client_ping(client, NULL), cases[i].status);
        br_client_close(client);
        fake_stop(&f);
    }
}

static void test_what_is_no_reply_is_a_format_error(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *bytes;
        size_t size;
    } cases[] = {
        {"nothing", "", 0},
        {"text", "hello", 5},
        {"an array", "\x90", 1},
        {"cut off", "\x82\xa1v\x01\xa2ok", 7},
        {"trailing bytes", "\x82\xa1v\x01\xa2ok\xc3\x00", 9},
        {"another version", "\x82\xa1v\x02\xa2ok\xc3", 8},
        {"neither results nor error", "\x82\xa1v\x01\xa2ok\xc2", 8},
        {"no results", "\x82\xa1v\x01\xa2ok\xc3", 8},
        {"a huge count", "\x83\xa1v\x01\xa2ok\xc3\xa7results\xdd\xff\xff\xff\xff", 21},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake f = {.bytes = cases[i].bytes, .byte_count = cases[i].size};
        fake_start(&f);
        br_client *client = connect_to(f.url, 5000, 0);
        br_answer *answer;
        br_error error = {0};
        const br_status status = br_client_route(client, &answer, &one_call, &error);
        if (status != BR_EFORMAT) fail_msg("%s: %s %s", cases[i].name, br_status_name(status), error.text);
        assert_null(answer);
        assert_true(error.text[0] != '\0');
        br_client_close(client);
        fake_stop(&f);
    }
}

static void test_more_results_than_queries_is_a_format_error(void **state)
{
    (void)state;
    fake f = {.extra_results = 1};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    br_answer *answer;
    br_error error = {0};
    assert_int_equal(br_client_route(client, &answer, &one_call, &error), BR_EFORMAT);
    assert_string_equal(error.text, "2 results for 1 queries");
    br_client_close(client);
    fake_stop(&f);
}

static void test_silence_times_out_and_is_asked_once(void **state)
{
    (void)state;
    fake f = {.silent = true};
    fake_start(&f);
    br_client *client = connect_to(f.url, 300, 5);
    br_answer *answer;
    br_error error = {0};
    const uint64_t start = br_clock_now_ns();
    assert_int_equal(br_client_route(client, &answer, &one_call, &error), BR_ETIMEDOUT);
    assert_true(ms_since(start) >= 299 && ms_since(start) < 5000);
    assert_non_null(strstr(error.text, "within 300 ms"));
    assert_int_equal(atomic_load(&f.requests), 1);
    br_client_close(client);
    fake_stop(&f);
}

static void test_a_slow_answer_within_the_timeout_is_an_answer(void **state)
{
    (void)state;
    fake f = {.delay_ms = 400};
    fake_start(&f);
    br_client *client = connect_to(f.url, 10000, 0);
    br_error error = {0};
    assert_int_equal(br_client_ping(client, &error), BR_OK);
    assert_int_equal(atomic_load(&f.requests), 1);
    br_client_close(client);
    fake_stop(&f);
}

static void test_nobody_there_is_told_after_connect_ms(void **state)
{
    (void)state;
    br_client *client;
    br_error error = {0};
    const br_client_options options = {.url = "tcp://127.0.0.1:9", .timeout_ms = 60000, .connect_ms = 200};
    assert_int_equal(br_client_connect(&client, &options, &error), BR_OK);
    const uint64_t start = br_clock_now_ns();
    assert_int_equal(br_client_ping(client, &error), BR_EIO);
    assert_true(ms_since(start) >= 199 && ms_since(start) < 10000);
    assert_string_equal(error.text, "no connection to tcp://127.0.0.1:9 within 200 ms");
    br_client_close(client);
}

static void test_a_service_that_comes_up_during_the_call_is_found(void **state)
{
    (void)state;
    char folder[] = "/tmp/bestroute-client-XXXXXX";
    assert_non_null(mkdtemp(folder));
    fake f = {0};
    snprintf(f.url, sizeof f.url, "ipc://%s/socket", folder);
    br_client *client = connect_to(f.url, 200, 0);
    br_error error = {0};
    assert_int_equal(br_client_ping(client, &error), BR_EIO);
    br_client_close(client);

    client = connect_to(f.url, 20000, 0);
    fake_start(&f);
    assert_int_equal(br_client_ping(client, &error), BR_OK);
    assert_int_equal(error.status, BR_OK);
    fake_stop(&f);
    fake_start(&f); /* and again after a restart */
    assert_int_equal(br_client_ping(client, &error), BR_OK);
    br_client_close(client);
    fake_stop(&f);
    unlink(f.url + 6);
    rmdir(folder);
}

static void test_a_lost_connection_is_asked_again_but_not_for_ever(void **state)
{
    (void)state;
    static const struct {
        int closes;
        br_status status;
        int requests;
    } cases[] = {{1, BR_OK, 2}, {2, BR_OK, 3}, {-1, BR_EIO, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake f = {.closes = cases[i].closes};
        fake_start(&f);
        br_client *client = connect_to(f.url, 20000, 0);
        br_error error = {0};
        assert_int_equal(br_client_ping(client, &error), cases[i].status);
        assert_int_equal(atomic_load(&f.requests), cases[i].requests);
        if (cases[i].status != BR_OK) assert_non_null(strstr(error.text, "broke"));
        br_client_close(client);
        fake_stop(&f);
    }
}

static void test_overloaded_is_tried_again_after_retry_ms(void **state)
{
    (void)state;
    fake f = {.refusal = BR_CODE_OVERLOADED, .refusals = 2, .retry_ms = 60};
    fake_start(&f);
    br_client *client = connect_to(f.url, 10000, 2);
    br_answer *answer;
    br_error error = {0};
    const br_client_call call = {
        .queries = &one_query, .query_count = 1, .has_deadline = true, .deadline_ms = 5000};
    const uint64_t start = br_clock_now_ns();
    assert_int_equal(br_client_route(client, &answer, &call, &error), BR_OK);
    assert_true(ms_since(start) >= 119);
    assert_int_equal(error.status, BR_OK);
    assert_int_equal(atomic_load(&f.requests), 3);
    /* The deadline counts from the first arrival. */
    assert_true(atomic_load(&f.last_deadline_ms) <= 5000 - 120);
    br_answer_free(answer);
    br_client_close(client);
    fake_stop(&f);
}

static void test_overloaded_stays_so_when_retries_timeout_or_deadline_end(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t retries;
        uint32_t timeout_ms;
        uint32_t deadline_ms; /* 0: none */
        uint64_t retry_ms;
        int requests;
    } cases[] = {
        {"retries end", 2, 20000, 0, 1, 3},
        {"no retries wanted", 0, 20000, 0, 1, 1},
        {"the timeout would pass", 9, 300, 0, 400, 1},
        {"the deadline would pass", 9, 20000, 100, 200, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake f = {.refusal = BR_CODE_OVERLOADED, .refusals = -1, .retry_ms = cases[i].retry_ms};
        fake_start(&f);
        br_client *client = connect_to(f.url, cases[i].timeout_ms, cases[i].retries);
        br_answer *answer;
        br_error error = {0};
        const br_client_call call = {.queries = &one_query,
                                     .query_count = 1,
                                     .has_deadline = cases[i].deadline_ms > 0,
                                     .deadline_ms = cases[i].deadline_ms};
        assert_int_equal(br_client_route(client, &answer, &call, &error), BR_EBUSY);
        if (atomic_load(&f.requests) != cases[i].requests)
            fail_msg("%s: %d requests", cases[i].name, atomic_load(&f.requests));
        br_client_close(client);
        fake_stop(&f);
    }
}

static void test_wrong_options_are_refused_at_connect(void **state)
{
    (void)state;
    static const struct {
        br_client_options options;
        br_status status;
    } cases[] = {
        {{.url = NULL}, BR_EINVAL},
        {{.url = ""}, BR_EINVAL},
        {{.url = "nonsense"}, BR_EINVAL},
        {{.url = "tcp://127.0.0.1"}, BR_EINVAL},
        {{.url = "gopher://127.0.0.1:70"}, BR_ENOTSUP},
        {{.url = "inproc://x", .timeout_ms = 1u << 31}, BR_EINVAL},
        {{.url = "tcp://127.0.0.1:9", .tls_ca = "ca.pem"}, BR_EINVAL},
        {{.url = "tls+tcp://127.0.0.1:9"}, BR_EINVAL},
        {{.url = "tls+tcp://127.0.0.1:9", .tls_ca = "/does/not/exist.pem"}, BR_EIO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_client *client = (br_client *)(uintptr_t)1;
        br_error error = {0};
        const br_status status = br_client_connect(&client, &cases[i].options, &error);
        if (status != cases[i].status) fail_msg("case %zu: %s %s", i, br_status_name(status), error.text);
        assert_null(client);
        assert_true(error.text[0] != '\0');
    }
}

static void test_a_wrong_call_names_the_query_and_the_field(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    const uint32_t tokens[] = {1};
    const br_client_count count = {.model = "small", .tokens = 1};
    const struct {
        br_client_query query;
        br_client_policy policy;
        size_t query_count;
        const char *text;
    } cases[] = {
        {{.text = "x", .text_bytes = 1}, {0}, 0, "queries: there are none"},
        {{0}, {0}, 1, "queries[0].text: neither text nor tokens"},
        {{.text = "x", .text_bytes = 1, .tokens = tokens, .token_count = 1},
         {0},
         1,
         "queries[0].text: given together with tokens"},
        {{.text = "x", .text_bytes = 1, .has_max_cost = true, .max_cost = (double)NAN},
         {0},
         1,
         "queries[0].max_cost: not a finite number"},
        {{.text = "x",
          .text_bytes = 1,
          .has_prompt_tokens = true,
          .prompt_tokens_by_model = &count,
          .prompt_tokens_by_model_count = 1},
         {0},
         1,
         "queries[0].prompt_tokens: both one number and numbers by model"},
        {one_query, {.kind = "cheapest"}, 1, "policy.kind: no kind of that name"},
        {one_query, {.fallback = "never"}, 1, "policy.fallback: no fallback of that name"},
        {one_query,
         {.has_lambda = true, .lambda = (double)INFINITY},
         1,
         "policy.lambda: not a finite number"},
        {one_query, {.model_count = 1}, 1, "policy.models: a name is NULL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_answer *answer;
        br_error error = {0};
        const br_client_call call = {
            .queries = &cases[i].query, .query_count = cases[i].query_count, .policy = &cases[i].policy};
        assert_int_equal(br_client_route(client, &answer, &call, &error), BR_EINVAL);
        assert_string_equal(error.text, cases[i].text);
    }
    assert_int_equal(atomic_load(&f.requests), 0);
    br_client_close(client);
    fake_stop(&f);
}

static void test_a_message_larger_than_any_service_takes_is_refused_here(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 5000, 0);
    const size_t size = BR_MESSAGE_BYTES_MAX;
    char *text = malloc(size);
    memset(text, 'a', size);
    br_answer *answer;
    br_error error = {0};
    const br_client_query query = {.text = text, .text_bytes = size};
    assert_int_equal(
        br_client_route(client, &answer, &(br_client_call){.queries = &query, .query_count = 1}, &error),
        BR_ETOOBIG);
    assert_int_equal(atomic_load(&f.requests), 0);
    free(text);
    br_client_close(client);
    fake_stop(&f);
}

typedef struct caller {
    br_client *client;
    size_t size;
    int wrong;
} caller;

static void *call_often(void *context)
{
    caller *c = context;
    char text[CALL_THREADS + 1];
    memset(text, 'x', sizeof text);
    const br_client_query query = {.text = text, .text_bytes = c->size};
    for (int i = 0; i < CALLS_PER_THREAD; i++) {
        br_answer *answer;
        br_error error = {0};
        const br_status status = br_client_route(
            c->client, &answer, &(br_client_call){.queries = &query, .query_count = 1}, &error);
        if (status != BR_OK || answer->results[0].n != c->size) c->wrong++;
        br_answer_free(answer);
    }
    return NULL;
}

static void test_many_threads_each_get_their_own_answers(void **state)
{
    (void)state;
    fake f = {0};
    fake_start(&f);
    br_client *client = connect_to(f.url, 60000, 0);
    pthread_t threads[CALL_THREADS];
    caller callers[CALL_THREADS];
    for (size_t i = 0; i < CALL_THREADS; i++) {
        callers[i] = (caller){.client = client, .size = i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, call_often, &callers[i]), 0);
    }
    for (size_t i = 0; i < CALL_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].wrong, 0);
    }
    assert_int_equal(atomic_load(&f.requests), CALL_THREADS * CALLS_PER_THREAD);
    br_client_close(client);
    fake_stop(&f);
}

static void test_connecting_survives_every_failing_allocation(void **state)
{
    (void)state;
    static const char *const urls[] = {"inproc://nobody", "inproc://nobody-else"};
    const br_client_options options = {.urls = urls, .url_count = 2};
    br_status status = BR_ENOMEM;
    BR_OOM_SWEEP({
        br_client *client;
        br_error error = {0};
        status = br_client_connect(&client, &options, &error);
        if (status != BR_OK) {
            assert_int_equal(status, BR_ENOMEM);
            assert_null(client);
        }
        br_client_close(client);
    });
    assert_int_equal(status, BR_OK);
}

/* Replies recorded beforehand, so that nobody but the client allocates while allocations fail. */
static void test_calls_survive_every_failing_allocation(void **state)
{
    (void)state;
    static fake_reply recorded;
    fake script = {0};
    br_arena arena;
    br_arena_init(&arena);
    br_query query = {.has_text = true, .text = BR_STR_LITERAL("four"), .max_cost = INFINITY};
    fake_answer(&script, &recorded,
                &(br_request){.op = BR_OP_ROUTE, .explain = true, .queries = &query, .query_count = 1},
                &arena);
    br_arena_deinit(&arena);

    fake f = {.bytes = recorded.bytes, .byte_count = recorded.used};
    fake_start(&f);
    const char *names[] = {"small"};
    const br_client_policy policy = {.kind = "threshold", .models = names, .model_count = 1};
    const br_client_call call = {.queries = &one_query, .query_count = 1, .policy = &policy, .explain = true};
    size_t failures = 0;
    for (size_t n = 1;; n++) {
        br_client *client = connect_to(f.url, 10000, 0);
        br_answer *answer;
        br_error error = {0};
        br_oom_fail_at(n);
        const br_status status = br_client_route(client, &answer, &call, &error);
        const bool failed = br_oom_off();
        if (status == BR_OK) {
            assert_int_equal(answer->results[0].n, 4);
        } else {
            assert_int_equal(status, BR_ENOMEM);
            assert_null(answer);
            failures++;
        }
        br_answer_free(answer);
        assert_int_equal(br_client_route(client, &answer, &call, &error), BR_OK); /* the client still works */
        br_answer_free(answer);
        br_client_close(client);
        if (!failed) break;
    }
    assert_true(failures >= 3);
    fake_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_route_brings_every_field_in_order),
        cmocka_unit_test(test_a_score_brings_the_qualities),
        cmocka_unit_test(test_info_brings_candidates_prices_policy_and_limits),
        cmocka_unit_test(test_reload_names_the_folder_and_the_bundle),
        cmocka_unit_test(test_every_policy_field_arrives),
        cmocka_unit_test(test_the_field_of_each_kind_arrives),
        cmocka_unit_test(test_each_error_code_becomes_its_status),
        cmocka_unit_test(test_what_is_no_reply_is_a_format_error),
        cmocka_unit_test(test_more_results_than_queries_is_a_format_error),
        cmocka_unit_test(test_silence_times_out_and_is_asked_once),
        cmocka_unit_test(test_a_slow_answer_within_the_timeout_is_an_answer),
        cmocka_unit_test(test_nobody_there_is_told_after_connect_ms),
        cmocka_unit_test(test_a_service_that_comes_up_during_the_call_is_found),
        cmocka_unit_test(test_a_lost_connection_is_asked_again_but_not_for_ever),
        cmocka_unit_test(test_overloaded_is_tried_again_after_retry_ms),
        cmocka_unit_test(test_overloaded_stays_so_when_retries_timeout_or_deadline_end),
        cmocka_unit_test(test_wrong_options_are_refused_at_connect),
        cmocka_unit_test(test_a_wrong_call_names_the_query_and_the_field),
        cmocka_unit_test(test_a_message_larger_than_any_service_takes_is_refused_here),
        cmocka_unit_test(test_many_threads_each_get_their_own_answers),
        cmocka_unit_test(test_connecting_survives_every_failing_allocation),
        cmocka_unit_test(test_calls_survive_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
