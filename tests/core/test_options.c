/* test_options.c - core/options.h: every kind of value, every source, every way to be wrong, and the help. */
#include "core/options.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/oom.h"

enum { SHOW = 1, MOVE = 2, HAS_WIDE = 4 };

typedef struct settings {
    const char *text;
    int32_t narrow;
    int64_t whole;
    uint32_t plain;
    uint64_t wide;
    double real;
    double share;
    bool verbose;
    bool help;
    int32_t engine;
    const char *policy;
    br_option_list urls;
    br_option_list files;
    bool has_real;
    uint32_t has;
    int pair[2];
} settings;

static br_status read_pair(void *target, const br_option_value *value, br_error *error)
{
    settings *s = target;
    if (sscanf(value->text.data, "%dx%d", &s->pair[0], &s->pair[1]) == 2) return BR_OK;
    return br_option_refuse(value, error, "two numbers such as %dx%d", 3, 4);
}

#define AT(field) BR_OPTION_AT(settings, field)
#define ANYWHERE(field) AT(field), .places = BR_OPTION_ENVIRONMENT | BR_OPTION_FILE

static const br_option_row rows[] = {
    {.heading = "Numbers"},
    {"narrow", "N", "a narrow number", AT(narrow), BR_RANGE(0, INT32_MAX)},
    {"whole-number", "N", "a whole number", ANYWHERE(whole), BR_RANGE(1, 100), .initial = "7"},
    {"plain", "N", "an unsigned number", AT(plain), BR_RANGE(0, UINT32_MAX)},
    {"wide", "N", "a wide number", AT(wide), BR_RANGE(0, 0x1p53), BR_OPTION_HAS(settings, has),
     .has_bit = HAS_WIDE},
    {"real", "X", "a real number", AT(real), BR_RANGE(0, HUGE_VAL), BR_OPTION_HAS(settings, has_real)},
    {"share", "X", "a share, for showing alone", AT(share), BR_RANGE(0, 1), .commands = SHOW},
    {.heading = "Texts"},
    {"text", "TEXT", "a text", ANYWHERE(text), .initial = ""},
    {"engine", NULL, "a word that becomes its index", ANYWHERE(engine), .words = "auto|cpu|cuda",
     .initial = "cpu"},
    {"policy", "KIND", "a word that stays a text", AT(policy), .words = "threshold|budget"},
    {"url", "URL", "several, or commas between them", ANYWHERE(urls), .most = 3},
    {"file", "FILE", "several, with commas in their names", AT(files), .commas = true},
    {"pair", "AxB", "two numbers, for moving alone", BR_OPTION_READ(read_pair), .commands = MOVE},
    {.heading = "The program"},
    {"verbose", NULL, "tell more", AT(verbose)},
    {"help", NULL, "print this and exit", AT(help), .letter = 'h'},
};

static const br_option_table table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .takes_arguments = true};
static const br_option_table strict_table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .once = true, .empty_is_unset = true};

enum { WORDS_MAX = 12 };

/* `words` excludes the program's name and ends with NULL. */
static br_status read_words(br_options *options, settings *s, const br_option_table *with,
                            const char *const *words, br_error *error)
{
    char *argv[WORDS_MAX + 1] = {(char *)"program"};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++) argv[argc] = (char *)(uintptr_t)words[argc - 1];
    *s = (settings){0};
    br_options_init(options, with, s);
    return br_options_read_arguments(options, argc, argv, error);
}

#define WORDS(...) ((const char *const[WORDS_MAX]){__VA_ARGS__, NULL})

static void test_each_kind_of_value_reaches_its_field(void **state)
{
    (void)state;
    settings s;
    br_options o;
    br_error error = {0};
    if (read_words(&o, &s, &table,
                   WORDS("--narrow", "2147483647", "--whole-number=100", "--plain=4294967295", "--wide",
                         "9007199254740992", "--real=1e300", "--text", "-x", "--engine=cuda"),
                   &error) != BR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(s.narrow, INT32_MAX);
    assert_int_equal(s.whole, 100);
    assert_int_equal(s.plain, UINT32_MAX);
    assert_int_equal(s.wide, 1ull << 53);
    assert_true(s.real == 1e300);
    assert_string_equal(s.text, "-x"); /* what stands behind an option is its value, whatever it looks like */
    assert_int_equal(s.engine, 2);
    assert_true(s.has_real);
    assert_int_equal(s.has, HAS_WIDE);
    br_options_deinit(&o);

    assert_int_equal(
        read_words(&o, &s, &table, WORDS("--policy=budget", "--pair=3x4", "--verbose", "-h"), NULL), BR_OK);
    assert_string_equal(s.policy, "budget");
    assert_int_equal(s.pair[1], 4);
    assert_true(s.verbose);
    assert_true(s.help);
    assert_false(s.has_real);
    br_options_deinit(&o);
}

static void test_arguments_stand_anywhere_and_alone_behind_two_dashes(void **state)
{
    (void)state;
    settings s;
    br_options o;
    assert_int_equal(
        read_words(&o, &s, &table, WORDS("show", "--verbose", "-", "--", "--help", "-5", "--"), NULL), BR_OK);
    assert_true(s.verbose);
    assert_false(s.help);
    static const char *const expected[] = {"show", "-", "--help", "-5", "--"};
    assert_int_equal(o.argument_count, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < o.argument_count; i++) assert_string_equal(o.arguments[i], expected[i]);
    br_options_deinit(&o);
}

static void test_lists_take_commas_and_repetition(void **state)
{
    (void)state;
    settings s;
    br_options o;
    assert_int_equal(read_words(&o, &s, &strict_table,
                                WORDS("--url", "a, b", "--url=c", "--file=x,y", "--file", "z"), NULL),
                     BR_OK);
    assert_int_equal(s.urls.count, 3);
    assert_string_equal(s.urls.items[1], "b");
    assert_string_equal(s.urls.items[2], "c");
    assert_int_equal(s.files.count, 2);
    assert_string_equal(s.files.items[0], "x,y");
    br_options_deinit(&o);
}

static void test_a_later_value_replaces_an_earlier_one_unless_the_table_forbids(void **state)
{
    (void)state;
    settings s;
    br_options o;
    br_error error = {0};
    assert_int_equal(read_words(&o, &s, &table, WORDS("--narrow=1", "--narrow=2"), NULL), BR_OK);
    assert_int_equal(s.narrow, 2);
    br_options_deinit(&o);
    assert_int_equal(read_words(&o, &s, &strict_table, WORDS("--narrow=1", "--narrow=2"), &error), BR_EINVAL);
    assert_string_equal(error.text, "--narrow is given a second time");
    br_options_deinit(&o);
    assert_int_equal(read_words(&o, &s, &strict_table, WORDS("--verbose", "--verbose"), NULL), BR_OK);
    br_options_deinit(&o);
}

static void test_each_error_says_where_what_and_what_instead(void **state)
{
    (void)state;
    static const struct {
        const char *words[3];
        const char *says;
    } cases[] = {
        {{"--narrow=x"}, "--narrow: found \"x\", expected a whole number from 0 to 2147483647"},
        {{"--narrow", "-1"}, "--narrow: found \"-1\", expected a whole number from 0 to 2147483647"},
        {{"--narrow=+1"}, "--narrow: found \"+1\", expected a whole number from 0 to 2147483647"},
        {{"--narrow=2147483648"},
         "--narrow: found \"2147483648\", expected a whole number from 0 to 2147483647"},
        {{"--whole-number=0"}, "--whole-number: found \"0\", expected a whole number from 1 to 100"},
        {{"--whole-number="}, "--whole-number: found \"\", expected a whole number from 1 to 100"},
        {{"--whole-number=99999999999999999999"},
         "--whole-number: found \"99999999999999999999\", expected a whole number from 1 to 100"},
        {{"--share=1.5"}, "--share: found \"1.5\", expected a number from 0 to 1"},
        {{"--share=nan"}, "--share: found \"nan\", expected a number from 0 to 1"},
        {{"--real=-1"}, "--real: found \"-1\", expected a number of at least 0"},
        {{"--real=inf"}, "--real: found \"inf\", expected a number of at least 0"},
        {{"--real=1e"}, "--real: found \"1e\", expected a number of at least 0"},
        {{"--engine=gpu"}, "--engine: found \"gpu\", expected one of auto|cpu|cuda"},
        {{"--engine=cp"}, "--engine: found \"cp\", expected one of auto|cpu|cuda"},
        {{"--url=a,,b"}, "--url: found \"a,,b\", expected values with commas between them, none empty"},
        {{"--url="}, "--url: found \"\", expected values with commas between them, none empty"},
        {{"--url=a,b,c,d"}, "--url: found \"a,b,c,d\", expected no more than 3 values"},
        {{"--url=a,b,c", "--url=d"}, "--url: found \"d\", expected no more than 3 values"},
        {{"--file="}, "--file: found \"\", expected a value that is not empty"},
        {{"--pair=3"}, "--pair: found \"3\", expected two numbers such as 3x4"},
        {{"--text"}, "--text: expected a value (TEXT) after it"},
        {{"--engine"}, "--engine: expected a value (auto|cpu|cuda) after it"},
        {{"--verbose=yes"}, "--verbose: found \"yes\", but it takes no value"},
        {{"--txet=a"}, "--txet=a: no such option; nearest is --text"},
        {{"--whole"}, "--whole: no such option; --help lists them"},
        {{"--nonsense"}, "--nonsense: no such option; --help lists them"},
        {{"-v"}, "-v: no such option; --help lists them"},
        {{"-hv"}, "-hv: no such option; --help lists them"},
        {{"-help"}, "-help: no such option; nearest is --help"},
        {{"--=1"}, "--=1: no such option; --help lists them"},
        {{"stray"}, "found \"stray\", which belongs to no option; --help lists them"},
        {{"-"}, "found \"-\", which belongs to no option; --help lists them"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        settings s;
        br_options o;
        br_error error = {0};
        const br_status status = read_words(&o, &s, &strict_table, cases[i].words, &error);
        if (status != BR_EINVAL) fail_msg("%s was accepted", cases[i].words[0]);
        assert_string_equal(error.text, cases[i].says);
        br_options_deinit(&o);
    }
}

static void test_a_program_may_say_what_to_do_with_a_dash(void **state)
{
    (void)state;
    br_option_table hinting = table;
    hinting.dash_hint = "a prompt goes after --";
    settings s;
    br_options o;
    br_error error = {0};
    assert_int_equal(read_words(&o, &s, &hinting, WORDS("--nonsense"), &error), BR_EINVAL);
    assert_string_equal(error.text, "--nonsense: no such option; a prompt goes after --");
    br_options_deinit(&o);
    assert_int_equal(read_words(&o, &s, &hinting, WORDS("--txet"), &error), BR_EINVAL);
    assert_string_equal(error.text, "--txet: no such option; nearest is --text; a prompt goes after --");
    br_options_deinit(&o);
}

/* A file of the test's own. */
static void make_file(char *path, size_t size, const char *text)
{
    (void)snprintf(path, size, "/tmp/bestroute-options-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* The command line, then `environment`, then a file of `text`, then the table's own values. */
static br_status read_all(br_options *o, settings *s, const br_option_table *with, const char *const *words,
                          const char *const *environment, const char *text, br_error *error)
{
    char path[64];
    make_file(path, sizeof path, text);
    br_status status = read_words(o, s, with, words, error);
    if (status == BR_OK)
        status = br_options_read_environment(o, (char *const *)(uintptr_t)environment, error);
    if (status == BR_OK) status = br_options_read_file(o, path, error);
    if (status == BR_OK) status = br_options_read_initial(o, error);
    unlink(path);
    return status;
}

static void test_a_stronger_source_wins_and_is_named(void **state)
{
    (void)state;
    static const char file[] = "# comment\n\nwhole_number = 3 # why\r\ntext=from file\nurl = f, g\nurl = h\n";
    static const char *const environment[] = {"OTHER=1", "BESTROUTE_WHOLE_NUMBER=2", "BESTROUTE_NARROW=9",
                                              "BESTROUTE_URL=e", NULL};
    settings s;
    br_options o;
    br_error error = {0};
    if (read_all(&o, &s, &table, WORDS("--whole-number=1"), environment, file, &error) != BR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(s.whole, 1);
    assert_string_equal(br_options_source(&o, offsetof(settings, whole)), "--whole-number");
    assert_int_equal(s.narrow, 0); /* not for the environment */
    assert_null(br_options_source(&o, offsetof(settings, narrow)));
    assert_int_equal(s.urls.count, 1);
    assert_string_equal(s.urls.items[0], "e");
    assert_string_equal(br_options_source(&o, offsetof(settings, urls)), "BESTROUTE_URL");
    assert_string_equal(s.text, "from file");
    assert_non_null(strstr(br_options_source(&o, offsetof(settings, text)), ":4"));
    assert_int_equal(s.engine, 1);
    assert_string_equal(br_options_source(&o, offsetof(settings, engine)), "default");
    assert_null(s.policy);
    br_options_deinit(&o);

    if (read_all(&o, &s, &table, WORDS("x"), NULL, file, &error) != BR_OK) fail_msg("%s", error.text);
    assert_int_equal(s.whole, 3);
    assert_int_equal(s.urls.count, 3);
    assert_false(s.has_real);
    br_options_deinit(&o);
}

static void test_an_empty_variable_is_a_value_unless_the_table_says_otherwise(void **state)
{
    (void)state;
    static const char *const environment[] = {"BESTROUTE_TEXT=", NULL};
    settings s;
    br_options o;
    assert_int_equal(read_all(&o, &s, &table, WORDS("x"), environment, "text = file", NULL), BR_OK);
    assert_string_equal(s.text, "");
    br_options_deinit(&o);
    assert_int_equal(read_all(&o, &s, &strict_table, WORDS("--verbose"), environment, "text = file", NULL),
                     BR_OK);
    assert_string_equal(s.text, "file");
    br_options_deinit(&o);
}

static void test_a_wrong_value_is_refused_also_where_a_stronger_source_replaces_it(void **state)
{
    (void)state;
    static const struct {
        const char *environment[2];
        const char *file;
        const char *says;
    } cases[] = {
        {{"BESTROUTE_WHOLE_NUMBER=x"}, "", "BESTROUTE_WHOLE_NUMBER: found \"x\", expected a whole number"},
        {{0}, "\nwhole_number = 0", ":2: whole_number: found \"0\", expected a whole number from 1 to 100"},
        {{0}, "engine = gpu", ":1: engine: found \"gpu\", expected one of auto|cpu|cuda"},
        {{0}, "url = a, , b", ":1: url: found \"a, , b\", expected values with commas"},
        {{0}, "whole-number = 1", ":1: \"whole-number\" is no option; nearest is whole_number"},
        {{0}, "whole_nubmer = 1", ":1: \"whole_nubmer\" is no option; nearest is whole_number"},
        {{0}, "nonsense = 1", ":1: \"nonsense\" is no option"},
        {{0}, "whole_number 1", ":1: found \"whole_number 1\", expected name = value"},
        {{0}, "verbose = 1", ":1: verbose cannot be set in a file; --verbose is its flag"},
        {{0}, "whole_number = 1\nwhole_number = 2", ":2: whole_number is given a second time"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        settings s;
        br_options o;
        br_error error = {0};
        const br_status status = read_all(&o, &s, &strict_table, WORDS("--whole-number=1"),
                                          cases[i].environment, cases[i].file, &error);
        if (status != BR_EINVAL) fail_msg("case %zu was accepted", i);
        if (strstr(error.text, cases[i].says) == NULL)
            fail_msg("\"%s\" lacks \"%s\"", error.text, cases[i].says);
        assert_int_equal(s.whole, 1);
        br_options_deinit(&o);
    }
    settings s;
    br_options o;
    br_error error = {0};
    br_options_init(&o, &table, &s);
    assert_int_equal(br_options_read_file(&o, "/does/not/exist", &error), BR_EIO);
    assert_string_equal(error.text, "/does/not/exist: cannot open: No such file or directory");
    br_options_deinit(&o);
}

static void test_an_option_of_another_command_is_refused(void **state)
{
    (void)state;
    settings s;
    br_options o;
    br_error error = {0};
    assert_int_equal(read_words(&o, &s, &table, WORDS("--share=0.5", "--verbose"), NULL), BR_OK);
    assert_int_equal(br_options_check_command(&o, SHOW, "show", NULL), BR_OK);
    assert_int_equal(br_options_check_command(&o, MOVE, "move", &error), BR_EINVAL);
    assert_string_equal(error.text, "--share is not for this command, move");
    br_options_deinit(&o);
}

static char *help_of(uint32_t command)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    br_options_print_help(&table, command, stream);
    (void)fclose(stream);
    return text;
}

static void test_the_help_groups_options_and_aligns_them(void **state)
{
    (void)state;
    static const br_option_row some[] = {
        {.heading = "First"},
        {"n", "N", "short", AT(narrow), BR_RANGE(0, 1), .initial = "1"},
        {"engine", NULL, "words are too long for the column", AT(engine),
         .words = "automatic|reference|cpu|cuda"},
        {.heading = "Second"},
        {"verbose", NULL,
         "a text that is longer than one line, so that it continues on the next one below where it began, "
         "by words",
         AT(verbose)},
    };
    static const br_option_table small = {.rows = some, .row_count = sizeof some / sizeof *some};
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    br_options_print_help(&small, 0, stream);
    (void)fclose(stream);
    assert_string_equal(
        text, "\nFirst\n"
              "  --n N      short [1]\n"
              "  --engine automatic|reference|cpu|cuda\n"
              "             words are too long for the column\n"
              "\nSecond\n"
              "  --verbose  a text that is longer than one line, so that it continues on the next one "
              "below where\n"
              "             it began, by words\n");
    free(text);
}

static void test_the_help_of_a_command_leaves_the_others_out(void **state)
{
    (void)state;
    char *all = help_of(0);
    assert_non_null(strstr(all, "--share"));
    assert_non_null(strstr(all, "--pair"));
    assert_non_null(strstr(all, "-h, --help"));
    free(all);
    char *show = help_of(SHOW);
    assert_non_null(strstr(show, "--share"));
    assert_null(strstr(show, "--pair"));
    assert_non_null(strstr(show, "--verbose"));
    free(show);
}

static void test_every_failing_allocation_is_survived(void **state)
{
    (void)state;
    static const char *const environment[] = {"BESTROUTE_WHOLE_NUMBER=2", "BESTROUTE_TEXT=t", NULL};
    br_status status = BR_EINTERNAL;
    BR_OOM_SWEEP({
        settings s;
        br_options o;
        status =
            read_all(&o, &s, &table, WORDS("x", "--url=a,b", "--real=1"), environment, "engine = cuda", NULL);
        br_options_deinit(&o);
    });
    assert_int_equal(status, BR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_value_reaches_its_field),
        cmocka_unit_test(test_arguments_stand_anywhere_and_alone_behind_two_dashes),
        cmocka_unit_test(test_lists_take_commas_and_repetition),
        cmocka_unit_test(test_a_later_value_replaces_an_earlier_one_unless_the_table_forbids),
        cmocka_unit_test(test_each_error_says_where_what_and_what_instead),
        cmocka_unit_test(test_a_program_may_say_what_to_do_with_a_dash),
        cmocka_unit_test(test_a_stronger_source_wins_and_is_named),
        cmocka_unit_test(test_an_empty_variable_is_a_value_unless_the_table_says_otherwise),
        cmocka_unit_test(test_a_wrong_value_is_refused_also_where_a_stronger_source_replaces_it),
        cmocka_unit_test(test_an_option_of_another_command_is_refused),
        cmocka_unit_test(test_the_help_groups_options_and_aligns_them),
        cmocka_unit_test(test_the_help_of_a_command_leaves_the_others_out),
        cmocka_unit_test(test_every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
