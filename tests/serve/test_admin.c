/* test_admin.c - the admin socket: who may connect, and each of its operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/util/platform.h>

#include "serve/service.h"
#include "support/service_fixture.h"

typedef struct both {
    service s;
    peer data;
    peer admin;
    peer_answer a;
} both;

static void open_both(both *b, const char *const *flags)
{
    memset(b, 0, sizeof *b);
    service_start(&b->s, flags);
    peer_open(&b->data, b->s.url);
    peer_open(&b->admin, b->s.admin);
}

static void close_both(both *b)
{
    answer_free(&b->a);
    peer_close(&b->data);
    peer_close(&b->admin);
    service_stop(&b->s);
}

static void test_an_ipc_admin_socket_is_for_its_owner_alone(void **state)
{
    (void)state;
    char path[64];
    char flag[96];
    (void)snprintf(path, sizeof path, "/tmp/bestroute-admin-%d", (int)getpid());
    (void)snprintf(flag, sizeof flag, "--admin=ipc://%s", path);
    service s;
    service_start(&s, (const char *const[]){flag, NULL});
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    service_stop(&s);
}

static void test_each_socket_knows_its_own_operations_only(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    br_query query = text_query("x");
    const br_request scoring[] = {{.op = BR_OP_ROUTE, .queries = &query, .query_count = 1},
                                  {.op = BR_OP_SCORE, .queries = &query, .query_count = 1}};
    for (int i = 0; i < 2; i++) {
        peer_ask(&b.admin, &b.a, &scoring[i]);
        assert_int_equal(b.a.reply.code, BR_CODE_UNSUPPORTED);
    }
    static const br_op changing[] = {BR_OP_RELOAD, BR_OP_DRAIN, BR_OP_SHUTDOWN, BR_OP_SET_DEFAULTS,
                                     BR_OP_STATS};
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++) {
        peer_ask(&b.data, &b.a, &(br_request){.op = changing[i]});
        assert_int_equal(b.a.reply.code, BR_CODE_UNSUPPORTED);
    }
    static const br_op reading[] = {BR_OP_PING, BR_OP_INFO};
    for (size_t i = 0; i < 2; i++) {
        peer_ask(&b.admin, &b.a, &(br_request){.op = reading[i]});
        assert_int_equal(b.a.reply.code, BR_CODE_UNSUPPORTED);
        peer_ask(&b.data, &b.a, &(br_request){.op = reading[i]});
        assert_true(b.a.reply.ok);
    }
    close_both(&b);
}

static br_str route_one(both *b)
{
    br_query query = text_query("hello");
    peer_ask(&b->data, &b->a, &(br_request){.op = BR_OP_ROUTE, .queries = &query, .query_count = 1});
    assert_true(b->a.reply.ok);
    return b->a.reply.results[0].model;
}

static void set(both *b, br_policy_spec policy)
{
    peer_ask(&b->admin, &b->a, &(br_request){.op = BR_OP_SET_DEFAULTS, .policy = policy});
}

static void test_set_defaults_changes_what_an_unwritten_policy_means(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    const br_str dear = BR_STR_LITERAL("gpt-4o");
    assert_false(br_str_equal(route_one(&b), dear));

    char name[] = "gpt-4o"; /* the service copies it */
    const br_str models[] = {{name, 6}};
    set(&b, (br_policy_spec){.has = BR_HAS_MODELS, .models = models, .model_count = 1});
    assert_true(b.a.reply.ok);
    memset(name, 'x', 6);
    assert_true(br_str_equal(route_one(&b), dear));
    peer_ask(&b.data, &b.a, &(br_request){.op = BR_OP_INFO});
    assert_int_equal(b.a.reply.info->policy.model_count, 1);
    assert_true(br_str_equal(b.a.reply.info->policy.models[0], dear));

    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_RELOAD}); /* they hold across a reload */
    assert_true(b.a.reply.ok);
    assert_true(br_str_equal(route_one(&b), dear));

    set(&b, (br_policy_spec){0}); /* back to the bundle's own */
    assert_true(b.a.reply.ok);
    assert_false(br_str_equal(route_one(&b), dear));
    close_both(&b);
}

static void test_defaults_that_do_not_resolve_are_refused_and_change_nothing(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    static const br_str nobody[] = {{"nobody", 6}};
    const br_policy_spec cases[] = {
        {.has = BR_HAS_KIND, .kind = BR_POLICY_BUDGET},
        {.has = BR_HAS_MODELS, .models = nobody, .model_count = 1},
        {.has = BR_HAS_THRESHOLD, .threshold = 2.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set(&b, cases[i]);
        assert_int_equal(b.a.reply.code, BR_CODE_BAD_REQUEST);
        (void)route_one(&b);
    }
    close_both(&b);
}

static void test_a_bundle_that_does_not_fit_the_defaults_is_refused(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    static const br_str models[] = {{"phi-3-mini", 10}};
    set(&b, (br_policy_spec){.has = BR_HAS_EXCLUDE, .exclude = models, .exclude_count = 1});
    assert_true(b.a.reply.ok);
    char folder[64];
    char command[256];
    bundle_copy(folder, sizeof folder, "tiny-random", "renamed");
    (void)snprintf(command, sizeof command, "sed -i s/phi-3-mini/phi-4/ %s/router.json", folder);
    assert_int_equal(system(command), 0);
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_RELOAD, .bundle = br_str_from(folder)});
    assert_int_equal(b.a.reply.code, BR_CODE_BAD_REQUEST);
    assert_non_null(memmem(b.a.reply.message.data, b.a.reply.message.size, "set_defaults", 12));
    set(&b, (br_policy_spec){0});
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_RELOAD, .bundle = br_str_from(folder)});
    assert_true(b.a.reply.ok);
    close_both(&b);
    folder_remove(folder);
}

static void test_stats_count_what_happened(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    (void)route_one(&b);
    peer_ask_bytes(&b.data, &b.a, "\xc1", 1);
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_STATS, .id = BR_STR_LITERAL("\x07")});
    assert_true(b.a.reply.ok);
    assert_memory_equal(b.a.reply.id.data, "\x07", 1);
    static const struct {
        const char *name;
        uint64_t count;
    } expected[] = {
        {"ready", 1},           {"draining", 0},       {"admitted", 0}, {"requests", 2},
        {"requests_failed", 1}, {"queries_scored", 1}, {"batches", 1},  {"bad_request", 1},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        bool found = false;
        for (size_t k = 0; k < b.a.reply.stat_count; k++) {
            const br_stat *stat = &b.a.reply.stats[k];
            if (!br_str_equal(stat->name, br_str_from(expected[i].name))) continue;
            assert_int_equal(stat->count, expected[i].count);
            found = true;
        }
        if (!found) fail_msg("no %s", expected[i].name);
    }
    close_both(&b);
}

static bool waits_for_the_keeper(br_server *server)
{
    (void)pthread_mutex_lock(&server->state.lock);
    const bool waits = server->reloads != NULL;
    (void)pthread_mutex_unlock(&server->state.lock);
    return waits;
}

/* The keeper comes to the reload when the service is already stopping: the bundle would take long to load and
 * never be used. */
static void test_a_reload_that_waits_when_the_service_stops_is_refused(void **state)
{
    (void)state;
    both b = {0};
    pending sent;
    service_listen(&b.s, NULL);
    peer_open(&b.admin, b.s.admin);
    pending_send(&sent, &b.admin, &(br_request){.op = BR_OP_RELOAD});
    while (!waits_for_the_keeper(b.s.server)) nng_msleep(1);
    br_server_stop(b.s.server);
    service_load(&b.s);
    pending_wait(&sent, &b.a);
    assert_false(b.a.reply.ok);
    assert_int_equal(b.a.reply.code, BR_CODE_NOT_READY);
    service_join(&b.s);
    assert_int_equal(service_counted(&b.s, BR_COUNTER_reloads), 0);
    answer_free(&b.a);
    peer_close(&b.admin);
    service_stop(&b.s);
}

/* The keeper does not run yet; it is as if it were busy loading a bundle. */
static void test_a_drain_waits_for_no_keeper(void **state)
{
    (void)state;
    both b = {0};
    br_error error = {0};
    service_listen(&b.s, NULL);
    assert_int_equal(br_server_load(b.s.server, &error), BR_OK);
    peer_open(&b.data, b.s.url);
    peer_ask(&b.data, &b.a, &(br_request){.op = BR_OP_PING});
    assert_true(b.a.reply.ok);
    br_server_drain(b.s.server);
    peer_ask(&b.data, &b.a, &(br_request){.op = BR_OP_PING});
    assert_int_equal(b.a.reply.code, BR_CODE_NOT_READY);
    answer_free(&b.a);
    peer_close(&b.data);
    service_stop(&b.s);
}

static void test_drain_refuses_new_work_and_shutdown_ends_the_service(void **state)
{
    (void)state;
    both b;
    open_both(&b, NULL);
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_DRAIN});
    assert_true(b.a.reply.ok);
    peer_ask(&b.data, &b.a, &(br_request){.op = BR_OP_PING});
    assert_int_equal(b.a.reply.code, BR_CODE_NOT_READY);
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_STATS}); /* it still runs */
    assert_true(b.a.reply.ok);
    peer_ask(&b.admin, &b.a, &(br_request){.op = BR_OP_SHUTDOWN});
    assert_true(b.a.reply.ok);
    service_join(&b.s);
    close_both(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_ipc_admin_socket_is_for_its_owner_alone),
        cmocka_unit_test(test_each_socket_knows_its_own_operations_only),
        cmocka_unit_test(test_set_defaults_changes_what_an_unwritten_policy_means),
        cmocka_unit_test(test_defaults_that_do_not_resolve_are_refused_and_change_nothing),
        cmocka_unit_test(test_a_bundle_that_does_not_fit_the_defaults_is_refused),
        cmocka_unit_test(test_stats_count_what_happened),
        cmocka_unit_test(test_a_reload_that_waits_when_the_service_stops_is_refused),
        cmocka_unit_test(test_a_drain_waits_for_no_keeper),
        cmocka_unit_test(test_drain_refuses_new_work_and_shutdown_ends_the_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
