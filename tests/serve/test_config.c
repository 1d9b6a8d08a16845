/* test_config.c - flags, environment, file and defaults, and every way to get them wrong. */
#include "serve/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/files.h"
#include "support/oom.h"

enum { ARGUMENTS_MAX = 12 };

static int count(const char *const *texts)
{
    int n = 0;
    while (n < ARGUMENTS_MAX && texts[n] != NULL) n++;
    return n;
}

/* `arguments` excludes the program's name; both lists end with NULL. */
static br_status load(br_config *config, const char *const *arguments, const char *const *environment,
                      br_error *error)
{
    char *argv[ARGUMENTS_MAX + 2] = {(char *)"bestrouted"};
    const int n = count(arguments);
    for (int i = 0; i < n; i++) argv[i + 1] = (char *)arguments[i];
    return br_config_load(config, n + 1, argv, (char *const *)environment, error);
}

/* A file of the test's own; removed by drop_file. */
static void make_file(char *path, size_t size, const char *text)
{
    (void)snprintf(path, size, "/tmp/bestroute-config-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void test_defaults_stand_where_nothing_is_said(void **state)
{
    (void)state;
    br_config c;
    br_error error = {0};
    assert_int_equal(load(&c, (const char *const[]){"--bundle", "b", NULL}, NULL, &error), BR_OK);
    assert_string_equal(c.bundle, "b");
    assert_int_equal(c.listen.count, 1);
    assert_string_equal(c.listen.items[0], "tcp://127.0.0.1:5555");
    assert_string_equal(c.admin, "");
    assert_int_equal(c.engine, BR_CONFIG_ENGINE_AUTO);
    assert_int_equal(c.queue_max, 1024);
    assert_int_equal(c.log_level, 1);
    assert_false(c.check);
    assert_string_equal(BR_CONFIG_SOURCE(&c, queue_max), "default");
    assert_string_equal(BR_CONFIG_SOURCE(&c, bundle), "--bundle");
    br_config_deinit(&c);
}

static void test_flags_win_over_environment_over_file_over_default(void **state)
{
    (void)state;
    char path[64];
    make_file(path, sizeof path,
              "# a comment\n\nbundle = from-file\r\nqueue_max = 300 # why\nbatch_seqs=7\nworkers = 3\n"
              "listen = tcp://a:1, ipc:///b\nlisten = tcp://c:2\n");
    char variable[96];
    (void)snprintf(variable, sizeof variable, "BESTROUTE_CONFIG=%s", path);
    br_config c;
    br_error error = {0};
    const char *const arguments[] = {"--queue-max=500", "--max-queries", "9", NULL};
    const char *const environment[] = {variable, "BESTROUTE_QUEUE_MAX=400", "BESTROUTE_WORKERS=4", NULL};
    if (load(&c, arguments, environment, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(c.queue_max, 500);
    assert_int_equal(c.workers, 4);
    assert_int_equal(c.batch_seqs, 7);
    assert_int_equal(c.max_queries, 9);
    assert_string_equal(c.bundle, "from-file");
    assert_int_equal(c.listen.count, 3);
    assert_string_equal(c.listen.items[1], "ipc:///b");
    assert_string_equal(c.listen.items[2], "tcp://c:2");
    assert_string_equal(BR_CONFIG_SOURCE(&c, queue_max), "--queue-max");
    assert_string_equal(BR_CONFIG_SOURCE(&c, workers), "BESTROUTE_WORKERS");
    char source[96];
    (void)snprintf(source, sizeof source, "%s:5", path);
    assert_string_equal(BR_CONFIG_SOURCE(&c, batch_seqs), source);
    br_config_deinit(&c);
    unlink(path);
}

static void test_a_stronger_list_replaces_a_weaker_one(void **state)
{
    (void)state;
    br_config c;
    const char *const arguments[] = {"--bundle", "b", "--listen", "tcp://x:1", "--listen=ipc:///y", NULL};
    const char *const environment[] = {"BESTROUTE_LISTEN=tcp://e:1,tcp://e:2,tcp://e:3", NULL};
    assert_int_equal(load(&c, arguments, environment, NULL), BR_OK);
    assert_int_equal(c.listen.count, 2);
    assert_string_equal(c.listen.items[0], "tcp://x:1");
    assert_string_equal(c.listen.items[1], "ipc:///y");
    br_config_deinit(&c);
}

static void test_words_become_their_index(void **state)
{
    (void)state;
    br_config c;
    const char *const arguments[] = {"--bundle=b", "--engine=noop", "--precision=bf16", "--log-level=error",
                                     NULL};
    assert_int_equal(load(&c, arguments, NULL, NULL), BR_OK);
    assert_int_equal(c.engine, BR_CONFIG_ENGINE_NOOP);
    assert_int_equal(c.precision, 2);
    assert_int_equal(c.log_level, 3);
    br_config_deinit(&c);
}

static void test_help_and_version_need_nothing_else(void **state)
{
    (void)state;
    br_config c;
    assert_int_equal(load(&c, (const char *const[]){"--help", NULL}, NULL, NULL), BR_OK);
    assert_true(c.help);
    br_config_deinit(&c);
    assert_int_equal(load(&c, (const char *const[]){"--version", NULL}, NULL, NULL), BR_OK);
    assert_true(c.version);
    br_config_deinit(&c);
}

/* Each row is refused, and the text says the option, where it came from, what was found,
 * what was expected. */
static void test_each_error_names_option_source_value_and_expectation(void **state)
{
    (void)state;
    static const struct {
        const char *arguments[6];
        const char *environment[2];
        const char *file;
        const char *says[4];
    } cases[] = {
        {{"--bundle=b", "--queue-max=0"}, {0}, NULL, {"--queue-max", "\"0\"", "1 to 65536"}},
        {{"--bundle=b", "--queue-max=65537"}, {0}, NULL, {"65537", "1 to 65536"}},
        {{"--bundle=b", "--queue-max=-1"}, {0}, NULL, {"\"-1\""}},
        {{"--bundle=b", "--queue-max=1x"}, {0}, NULL, {"\"1x\""}},
        {{"--bundle=b", "--queue-max="}, {0}, NULL, {"\"\"", "a whole number"}},
        {{"--bundle=b", "--queue-max=99999999999999999999"}, {0}, NULL, {"a whole number"}},
        {{"--bundle=b", "--queue-max"}, {0}, NULL, {"--queue-max", "expected a value"}},
        {{"--bundle=b", "--workers=1", "--workers=2"}, {0}, NULL, {"--workers", "second time"}},
        {{"--bundle=b", "--nonsense"}, {0}, NULL, {"--nonsense", "no such option", "--help"}},
        {{"--bundle=b", "--queue-maximum=1"}, {0}, NULL, {"--queue-maximum", "nearest is --queue-max"}},
        {{"--bundle=b", "stray"}, {0}, NULL, {"\"stray\""}},
        {{"--bundle=b", "--check=yes"}, {0}, NULL, {"--check", "no value", "yes"}},
        {{"--bundle=b", "--engine=gpu"}, {0}, NULL, {"--engine", "\"gpu\"", "auto|reference|cpu|cuda|noop"}},
        {{"--bundle=b", "--engine="}, {0}, NULL, {"--engine", "one of"}},
        {{"--bundle=b", "--listen=http://x"}, {0}, NULL, {"listen", "--listen", "http://x", "tcp://"}},
        {{"--bundle=b", "--listen=tcp://x,,"}, {0}, NULL, {"--listen", "commas"}},
        {{"--bundle=b", "--listen=tls+tcp://x:1"}, {0}, NULL, {"listen", "tls_cert and tls_key"}},
        {{"--bundle=b", "--admin=tcp://x:1"}, {0}, NULL, {"admin", "tcp://x:1", "ipc://"}},
        {{"--bundle=b", "--queue-max=8"}, {0}, NULL, {"max_queries", "queue_max", "8", "default"}},
        {{"--bundle=b", "--max-message-bytes=2000"}, {0}, NULL, {"max_text_bytes", "max_message_bytes"}},
        {{NULL}, {0}, NULL, {"bundle", "--bundle FOLDER"}},
        {{"--bundle=b"}, {"BESTROUTE_WORKERS=many"}, NULL, {"BESTROUTE_WORKERS", "many", "0 to 64"}},
        {{"--bundle=b"},
         {"BESTROUTE_LISTN=x"},
         NULL,
         {"BESTROUTE_LISTN: no variable", "is BESTROUTE_LISTEN"}},
        {{"--bundle=b"}, {"BESTROUTE_="}, NULL, {"BESTROUTE_: no variable"}},
        {{"--bundle=b"}, {NULL}, "listn = tcp://x:1", {"\"listn\" is no option; nearest is listen"}},
        {{"--bundle=b", "--workers=1"}, {"BESTROUTE_WORKERS=many"}, NULL, {"BESTROUTE_WORKERS"}},
        {{"--bundle=b"},
         {"BESTROUTE_CONFIG=/nowhere/x"},
         NULL,
         {"/nowhere/x", "BESTROUTE_CONFIG", "No such file"}},
        {{"--bundle=b"}, {0}, "\nqueue_max 5\n", {":2", "name = value"}},
        {{"--bundle=b"}, {0}, "queue-max = 5", {":1", "\"queue-max\""}},
        {{"--bundle=b"}, {0}, "workers = 1\nworkers = 2", {":2", "workers", "second time"}},
        {{"--bundle=b"}, {0}, "check = 1", {"check", "flag"}},
        {{"--bundle=b"}, {0}, "config = x", {"config"}},
        {{"--bundle=b"}, {0}, "log_level = loud", {"log_level", ":1", "loud", "debug|info|warn|error"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[64] = "";
        const char *arguments[ARGUMENTS_MAX] = {NULL};
        int n = 0;
        for (; n < 6 && cases[i].arguments[n] != NULL; n++) arguments[n] = cases[i].arguments[n];
        char flag[96];
        if (cases[i].file != NULL) {
            make_file(path, sizeof path, cases[i].file);
            (void)snprintf(flag, sizeof flag, "--config=%s", path);
            arguments[n] = flag;
        }
        const char *const environment[] = {cases[i].environment[0], NULL};
        br_config c;
        br_error error = {0};
        const br_status status = load(&c, arguments, environment, &error);
        if (status == BR_OK) fail_msg("case %zu was accepted", i);
        for (int k = 0; k < 4 && cases[i].says[k] != NULL; k++)
            if (strstr(error.text, cases[i].says[k]) == NULL)
                fail_msg("case %zu: \"%s\" lacks \"%s\"", i, error.text, cases[i].says[k]);
        br_config_deinit(&c);
        if (*path != '\0') unlink(path);
    }
}

static void test_a_seventeenth_listener_is_refused(void **state)
{
    (void)state;
    char list[BR_LISTENERS_MAX * 16 + 32] = "--listen=tcp://h:0";
    for (int i = 1; i < BR_LISTENERS_MAX; i++) (void)strcat(list, ",tcp://h:1");
    br_config c;
    br_error error = {0};
    assert_int_equal(load(&c, (const char *const[]){"--bundle=b", list, NULL}, NULL, &error), BR_OK);
    assert_int_equal(c.listen.count, BR_LISTENERS_MAX);
    br_config_deinit(&c);
    (void)strcat(list, ",tcp://h:2");
    assert_int_equal(load(&c, (const char *const[]){"--bundle=b", list, NULL}, NULL, &error), BR_EINVAL);
    assert_non_null(strstr(error.text, "no more than 16"));
    br_config_deinit(&c);
}

static void test_a_file_over_its_limit_is_refused(void **state)
{
    (void)state;
    enum { BYTES = (1 << 16) + 1 };
    char *text = malloc(BYTES + 1);
    assert_non_null(text);
    memset(text, '\n', BYTES);
    text[BYTES] = '\0';
    char path[64];
    char flag[96];
    for (int over = 0; over < 2; over++) {
        make_file(path, sizeof path, text + 1 - over);
        (void)snprintf(flag, sizeof flag, "--config=%s", path);
        br_config c;
        assert_int_equal(load(&c, (const char *const[]){"--bundle=b", flag, NULL}, NULL, NULL),
                         over ? BR_EINVAL : BR_OK);
        br_config_deinit(&c);
        unlink(path);
    }
    free(text);
}

static void test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    static const char *const arguments[] = {"--bundle=b", "--listen=tcp://a:1,ipc:///b", "--config=/dev/null",
                                            NULL};
    static const char *const environment[] = {"BESTROUTE_WORKERS=2", NULL};
    br_status status = BR_EINTERNAL;
    BR_OOM_SWEEP({
        br_config c;
        status = load(&c, arguments, environment, NULL);
        br_config_deinit(&c);
    });
    assert_int_equal(status, BR_OK);
}

/* The page holds the table exactly as the list of options prints it. */
static void test_the_documentation_has_the_table_of_options(void **state)
{
    (void)state;
    const char *source = getenv("BESTROUTE_SOURCE");
    if (source == NULL) skip();
    char path[512];
    (void)snprintf(path, sizeof path, "%s/docs/CONFIGURATION.md", source);
    size_t size = 0;
    char *page = read_whole(path, &size);
    char *table = NULL;
    FILE *stream = open_memstream(&table, &size);
    assert_non_null(stream);
    br_config_print_table(stream);
    (void)fclose(stream);
    if (strstr(page, table) == NULL) fail_msg("docs/CONFIGURATION.md should hold:\n%s", table);
    free(table);
    free(page);
}

/* One environment serves the daemon and the command, and Kubernetes adds names of its own to it. */
static void test_variables_of_others_are_left_alone(void **state)
{
    (void)state;
    static const char *const environment[] = {"BESTROUTE_URL=tcp://x:1",
                                              "BESTROUTE_SOURCE=/s",
                                              "BESTROUTE_SERVICE_HOST=10.0.0.1",
                                              "BESTROUTE_SERVICE_PORT_DATA=5555",
                                              "BESTROUTE_PORT_5555_TCP_ADDR=10.0.0.1",
                                              "BESTROUTES=1",
                                              NULL};
    static const char *const arguments[] = {"--bundle=b", NULL};
    br_config c;
    br_error error = {0};
    if (load(&c, arguments, environment, &error) != BR_OK) fail_msg("%s", error.text);
    br_config_deinit(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_stand_where_nothing_is_said),
        cmocka_unit_test(test_flags_win_over_environment_over_file_over_default),
        cmocka_unit_test(test_a_stronger_list_replaces_a_weaker_one),
        cmocka_unit_test(test_words_become_their_index),
        cmocka_unit_test(test_help_and_version_need_nothing_else),
        cmocka_unit_test(test_variables_of_others_are_left_alone),
        cmocka_unit_test(test_each_error_names_option_source_value_and_expectation),
        cmocka_unit_test(test_a_seventeenth_listener_is_refused),
        cmocka_unit_test(test_a_file_over_its_limit_is_refused),
        cmocka_unit_test(test_every_failing_allocation_is_survived),
        cmocka_unit_test(test_the_documentation_has_the_table_of_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
