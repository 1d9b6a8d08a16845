/* test_reload.c - switching bundles: under load, with bad ones, and what is freed. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/clock.h"
#include "serve/service.h"
#include "support/service_fixture.h"

/* The second bundle's reference is 3 times as expensive, so its replies are known by their costs. */
static const char cheap_price[] = "\"output_price\": 1.5e-05";
static const char dear_price[] = "\"output_price\": 4.5e-05";
static const double first_cost = 1.5e-5 * 294.0;
static const double second_cost = 4.5e-5 * 294.0;

typedef struct asker {
    const char *url;
    atomic_bool *leave;
    atomic_int *answers;
    atomic_int *mixed;
    char first_hash[65];
    atomic_int *seen_first;
    atomic_int *seen_second;
} asker;

static br_request dear_request(br_query *queries, size_t count)
{
    br_request request = {.op = BR_OP_ROUTE, .queries = queries, .query_count = count};
    request.policy = (br_policy_spec){
        .has = BR_HAS_KIND | BR_HAS_THRESHOLD, .kind = BR_POLICY_THRESHOLD, .threshold = 1.0};
    return request;
}

static void *ask_until_told(void *argument)
{
    asker *k = argument;
    peer p;
    peer_open(&p, k->url);
    peer_answer a = {0};
    br_query queries[4];
    for (int i = 0; i < 4; i++) {
        queries[i] = text_query("hello");
        queries[i].prompt_tokens = (br_counts){.form = BR_COUNTS_ALL, .all = 0};
    }
    while (!atomic_load(k->leave)) {
        br_request request = dear_request(queries, 4);
        peer_ask(&p, &a, &request);
        const bool first = a.reply.ok && memcmp(a.reply.bundle_hash.data, k->first_hash, 64) == 0;
        bool good = a.reply.ok && a.reply.result_count == 4;
        for (size_t i = 0; good && i < 4; i++)
            good = fabs(a.reply.results[i].cost - (first ? first_cost : second_cost)) < 1e-9;
        if (!good) atomic_fetch_add(k->mixed, 1);
        atomic_fetch_add(first ? k->seen_first : k->seen_second, 1);
        atomic_fetch_add(k->answers, 1);
    }
    answer_free(&a);
    peer_close(&p);
    return NULL;
}

/* Reloads through the admin socket; true when it was accepted. */
static bool reload_to(peer *admin, peer_answer *a, const char *folder)
{
    const br_request request = {.op = BR_OP_RELOAD, .bundle = br_str_from(folder)};
    peer_ask(admin, a, &request);
    return a->reply.ok;
}

static void wait_for(atomic_int *counter, int more)
{
    const int target = atomic_load(counter) + more;
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (atomic_load(counter) < target) assert_true(br_clock_now_ns() < until_ns);
}

static void test_every_reply_under_load_comes_from_one_bundle(void **state)
{
    (void)state;
    enum { ASKERS = 2, SWITCHES = 4 };
    char other[64];
    bundle_copy(other, sizeof other, cheap_price, dear_price);
    service s;
    service_start(&s, (const char *const[]){"--workers=2", NULL});
    peer admin;
    peer_open(&admin, s.admin);
    peer_answer a = {0};
    assert_true(reload_to(&admin, &a, ""));

    atomic_bool leave = false;
    atomic_int answers = 0;
    atomic_int mixed = 0;
    atomic_int seen_first = 0;
    atomic_int seen_second = 0;
    asker k = {.url = s.url,
               .leave = &leave,
               .answers = &answers,
               .mixed = &mixed,
               .seen_first = &seen_first,
               .seen_second = &seen_second};
    memcpy(k.first_hash, a.reply.bundle_hash.data, 64);
    pthread_t threads[ASKERS];
    for (int i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_until_told, &k), 0);
    for (int i = 0; i < SWITCHES; i++) {
        wait_for(&seen_first, 2);
        assert_true(reload_to(&admin, &a, other));
        wait_for(&seen_second, 2);
        assert_true(reload_to(&admin, &a, s.bundle));
    }
    wait_for(&seen_first, 2);
    atomic_store(&leave, true);
    for (int i = 0; i < ASKERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&mixed), 0);
    assert_int_equal(br_metrics_get(&s.server->metrics, BR_COUNTER_reloads), 2 * SWITCHES + 1);

    answer_free(&a);
    peer_close(&admin);
    service_stop(&s);
    folder_remove(other);
}

static void test_a_request_in_flight_keeps_the_bundle_it_began_with(void **state)
{
    (void)state;
    char other[64];
    bundle_copy(other, sizeof other, cheap_price, dear_price);
    service s;
    service_start(&s, NULL);
    peer p;
    peer admin;
    peer_open(&p, s.url);
    peer_open(&admin, s.admin);
    peer_answer a = {0};
    br_query query = text_query("hello");
    query.prompt_tokens = (br_counts){.form = BR_COUNTS_ALL, .all = 0};
    br_request request = dear_request(&query, 1);
    gate g;
    gate_close(&g, &s);
    pending before;
    pending reload;
    pending_send(&before, &p, &request);
    service_wait_for_waiting(&s, 1);
    const br_request to_other = {.op = BR_OP_RELOAD, .bundle = br_str_from(other)};
    gate_open(&g);
    pending_send(&reload, &admin, &to_other);
    pending_wait(&before, &a);
    assert_true(fabs(a.reply.results[0].cost - first_cost) < 1e-9);
    pending_wait(&reload, &a);
    assert_true(a.reply.ok);
    peer_ask(&p, &a, &request);
    assert_true(fabs(a.reply.results[0].cost - second_cost) < 1e-9);
    answer_free(&a);
    peer_close(&p);
    peer_close(&admin);
    service_stop(&s);
    folder_remove(other);
}

typedef struct spoiler {
    char path[96];
    char *bytes;
    size_t size;
    atomic_bool leave;
} spoiler;

/* Overwrites and shortens a bundle's weights until it is told to stop. */
static void *spoil(void *argument)
{
    spoiler *s = argument;
    for (unsigned turn = 0; !atomic_load(&s->leave); turn++) {
        const int fd = open(s->path, O_WRONLY);
        assert_true(fd >= 0);
        if (turn % 3 == 0) (void)!ftruncate(fd, (off_t)(turn * 977 % s->size));
        if (turn % 3 == 1) (void)!pwrite(fd, "spoilt", 6, (off_t)(turn * 31337 % s->size));
        if (turn % 3 == 2) (void)!pwrite(fd, s->bytes, s->size, 0);
        (void)close(fd);
    }
    return NULL;
}

static void test_weights_that_change_during_a_reload_harm_nobody(void **state)
{
    (void)state;
    enum { RELOADS = 60 };
    char other[64];
    bundle_copy(other, sizeof other, cheap_price, dear_price);
    spoiler spoils = {.leave = false};
    (void)snprintf(spoils.path, sizeof spoils.path, "%s/model.safetensors", other);
    FILE *file = fopen(spoils.path, "rb");
    assert_non_null(file);
    spoils.bytes = malloc(1 << 24);
    assert_non_null(spoils.bytes);
    spoils.size = fread(spoils.bytes, 1, 1 << 24, file);
    (void)fclose(file);

    service s;
    service_start(&s, NULL);
    peer p;
    peer admin;
    peer_open(&p, s.url);
    peer_open(&admin, s.admin);
    peer_answer a = {0};
    br_query query = text_query("hello");
    br_request request = dear_request(&query, 1);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, spoil, &spoils), 0);
    for (int i = 0; i < RELOADS; i++) {
        /* Refused while it is read; or, with numbers that are none, by the probe. */
        if (!reload_to(&admin, &a, other))
            assert_true(a.reply.code == BR_CODE_BAD_REQUEST || a.reply.code == BR_CODE_INTERNAL);
        peer_ask(&p, &a, &request);
        assert_true(a.reply.ok);
    }
    atomic_store(&spoils.leave, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    answer_free(&a);
    peer_close(&p);
    peer_close(&admin);
    service_stop(&s);
    folder_remove(other);
    free(spoils.bytes);
}

static void damage(const char *folder, const char *file, const char *content)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    (void)fputs(content, out);
    (void)fclose(out);
}

static void test_a_bad_bundle_leaves_the_old_one_serving(void **state)
{
    (void)state;
    char truncated[64];
    char garbled[64];
    char too_long[64];
    char undecided[64];
    bundle_copy(undecided, sizeof undecided, "\"threshold\": 0.5", "\"max_n\": 5");
    bundle_copy(truncated, sizeof truncated, cheap_price, dear_price);
    damage(truncated, "model.safetensors", "short");
    bundle_copy(garbled, sizeof garbled, cheap_price, dear_price);
    damage(garbled, "config.json", "{}");
    bundle_copy(too_long, sizeof too_long, "\"max_tokens\": 128", "\"max_tokens\": 256");
    const struct {
        const char *folder;
        const char *says;
    } cases[] = {
        {truncated, "model.safetensors"},
        {garbled, "config.json"},
        {too_long, "started for prompts of at most 128"},
        {undecided, "policy: it cannot decide"},
        {"/nowhere", "/nowhere"},
    };
    service s;
    service_start(&s, (const char *const[]){"--batch-tokens=128", NULL});
    peer p;
    peer admin;
    peer_open(&p, s.url);
    peer_open(&admin, s.admin);
    peer_answer a = {0};
    br_query query = text_query("hello");
    query.prompt_tokens = (br_counts){.form = BR_COUNTS_ALL, .all = 0};
    br_request request = dear_request(&query, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_false(reload_to(&admin, &a, cases[i].folder));
        assert_int_equal(a.reply.code, BR_CODE_BAD_REQUEST);
        if (memmem(a.reply.message.data, a.reply.message.size, cases[i].says, strlen(cases[i].says)) == NULL)
            fail_msg("%.*s", (int)a.reply.message.size, a.reply.message.data);
        peer_ask(&p, &a, &request);
        assert_true(a.reply.ok);
        assert_true(fabs(a.reply.results[0].cost - first_cost) < 1e-9);
    }
    assert_int_equal(br_metrics_get(&s.server->metrics, BR_COUNTER_reloads_failed), 5);
    answer_free(&a);
    peer_close(&p);
    peer_close(&admin);
    service_stop(&s);
    folder_remove(truncated);
    folder_remove(garbled);
    folder_remove(too_long);
    folder_remove(undecided);
}

static void test_a_signal_loads_the_same_folder_again(void **state)
{
    (void)state;
    char folder[64];
    char flag[96];
    bundle_copy(folder, sizeof folder, cheap_price, dear_price);
    (void)snprintf(flag, sizeof flag, "--bundle=%s", folder);
    service s;
    service_start(&s, (const char *const[]){flag, NULL});
    br_server_reload(s.server);
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (br_metrics_get(&s.server->metrics, BR_COUNTER_reloads) == 0)
        assert_true(br_clock_now_ns() < until_ns);
    service_stop(&s);
    folder_remove(folder);
}

static void test_a_first_bundle_that_is_bad_is_an_error_of_loading(void **state)
{
    (void)state;
    service s;
    service_listen(&s, (const char *const[]){"--bundle=/nowhere", NULL});
    br_error error = {0};
    assert_int_equal(br_server_load(s.server, &error), BR_EIO);
    assert_non_null(strstr(error.text, "/nowhere"));
    service_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reply_under_load_comes_from_one_bundle),
        cmocka_unit_test(test_a_request_in_flight_keeps_the_bundle_it_began_with),
        cmocka_unit_test(test_weights_that_change_during_a_reload_harm_nobody),
        cmocka_unit_test(test_a_bad_bundle_leaves_the_old_one_serving),
        cmocka_unit_test(test_a_signal_loads_the_same_folder_again),
        cmocka_unit_test(test_a_first_bundle_that_is_bad_is_an_error_of_loading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
