/* options.c - see options.h: one table of options, each with where its value goes. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/limits.h"

static const char usage[] =
    "bestroute-bench: loads a bestroute service and measures it.\n\n"
    "What is measured, one of\n"
    "  --url URL            a service that runs; may be repeated, requests take turns\n"
    "  --spawn BUNDLE       a service of its own, on ipc, with --service-flags\n"
    "  --noop BUNDLE        the same without the encoder\n"
    "  --engine BUNDLE      the encoder alone, without a service\n"
    "  --echo URL           serve the bare transport there until killed; load it with --url and --raw\n"
    "  --hand-over          of the echo: each message goes to another thread and back\n"
    "  --compare A B        two reports written by --json, side by side\n\n"
    "How hard\n"
    "  --in-flight N        requests under way: a closed loop [1]; with --rate the most, [1024]\n"
    "  --rate R             requests/s, an open loop; latency counts from when a request was due\n"
    "  --poisson            at random distances, not even ones\n"
    "  --sweep WHAT:LIST    one run each: in-flight:1,2,4 or rate:10,20,40\n"
    "  --seconds S          measured time [10]\n"
    "  --warmup S           before that [1]\n"
    "  --requests N         measured requests at most\n"
    "  --connections N      to each url [1]\n"
    "  --timeout-ms N       of one request [30000]\n\n"
    "With what\n"
    "  --queries N          prompts of one request [1]\n"
    "  --prompts FILE       a prompt a line\n"
    "  --lengths D          synthetic prompts' words: 20, 8-64 (even) or 24~0.8 (log-normal) [20]\n"
    "  --tokens BUNDLE      send tokens of this bundle's vocabulary, not text\n"
    "  --score              instead of route\n"
    "  --policy KIND        threshold, budget, utility, tolerance or pool, with\n"
    "  --threshold X, --max-cost X, --lambda X, --tolerance X, --total-budget X\n"
    "  --deadline-ms N      of each request\n"
    "  --seed N             [1]\n"
    "  --raw                do not look into replies\n\n"
    "Where to\n"
    "  --json FILE, --csv FILE\n"
    "  --plot STEM          STEM.svg and STEM.png, drawn by bestroute-plot: latency against load\n"
    "  --record FILE        the arrivals that were sent: time, connection, tokens, deadline of each query\n"
    "  --server-pid PID     report the processor time of that process; a spawned service's always is\n"
    "  --service-flags \"F\"  for --spawn, --noop and --engine, as bestrouted takes them\n";

typedef enum kind { FLAG, TEXT, REAL, INT, WIDE, POLICY_REAL, POLICY_KIND, URL, SWEEP, HELP } kind;

typedef struct row {
    const char *name;
    kind kind;
    size_t offset; /* in command: bool, const char *, double, int, uint64_t, double */
    double least;
    double most;
    uint32_t has; /* POLICY_REAL: the bit that says it is there */
} row;

#define AT(field) offsetof(command, field)

static const row rows[] = {
    {.name = "url", .kind = URL},
    {.name = "spawn", .kind = TEXT, .offset = AT(spawn)},
    {.name = "noop", .kind = TEXT, .offset = AT(noop)},
    {.name = "engine", .kind = TEXT, .offset = AT(engine)},
    {.name = "echo", .kind = TEXT, .offset = AT(echo)},
    {.name = "hand-over", .kind = FLAG, .offset = AT(hand_over)},
    {.name = "compare", .kind = FLAG, .offset = AT(compare)},
    {"in-flight", INT, AT(load.in_flight), 1, LOAD_IN_FLIGHT_MAX, 0},
    {"rate", REAL, AT(load.rate), 1e-3, 1e9, 0},
    {.name = "poisson", .kind = FLAG, .offset = AT(load.poisson)},
    {.name = "sweep", .kind = SWEEP},
    {"seconds", REAL, AT(load.seconds), 1e-3, 1e6, 0},
    {"warmup", REAL, AT(load.warmup_s), 0, 1e6, 0},
    {"requests", WIDE, AT(load.requests), 1, 0x1p50, 0},
    {"connections", INT, AT(load.connections), 1, 16, 0},
    {"timeout-ms", INT, AT(load.timeout_ms), 1, INT_MAX, 0},
    {"queries", INT, AT(prompts.queries), 1, BR_QUERIES_MAX, 0},
    {.name = "prompts", .kind = TEXT, .offset = AT(prompts.file)},
    {.name = "lengths", .kind = TEXT, .offset = AT(prompts.lengths)},
    {.name = "tokens", .kind = TEXT, .offset = AT(prompts.bundle)},
    {.name = "score", .kind = FLAG, .offset = AT(prompts.score)},
    {.name = "policy", .kind = POLICY_KIND},
    {"threshold", POLICY_REAL, AT(prompts.policy.threshold), 0, 1e300, BR_HAS_THRESHOLD},
    {"max-cost", POLICY_REAL, AT(prompts.policy.max_cost), 0, 1e300, BR_HAS_MAX_COST},
    {"lambda", POLICY_REAL, AT(prompts.policy.lambda), 0, 1e300, BR_HAS_LAMBDA},
    {"tolerance", POLICY_REAL, AT(prompts.policy.tolerance), 0, 1e300, BR_HAS_TOLERANCE},
    {"total-budget", POLICY_REAL, AT(prompts.policy.total_budget), 0, 1e300, BR_HAS_TOTAL_BUDGET},
    {"deadline-ms", WIDE, AT(prompts.deadline_ms), 1, UINT32_MAX, 0},
    {"seed", WIDE, AT(prompts.seed), 0, 0x1p50, 0},
    {.name = "raw", .kind = FLAG, .offset = AT(load.raw)},
    {.name = "json", .kind = TEXT, .offset = AT(json)},
    {.name = "csv", .kind = TEXT, .offset = AT(csv)},
    {.name = "plot", .kind = TEXT, .offset = AT(plot)},
    {.name = "record", .kind = TEXT, .offset = AT(record)},
    {"server-pid", INT, AT(load.server_pid), 1, INT_MAX, 0},
    {.name = "service-flags", .kind = TEXT, .offset = AT(service_flags)},
    {.name = "help", .kind = HELP},
};

enum { ROWS = sizeof rows / sizeof *rows, FIRST = 256 /* getopt's value of row 0 */ };

static br_status number(double *out, const char *name, const char *value, double least, double most,
                        br_error *error)
{
    char *end;
    errno = 0;
    *out = strtod(value, &end);
    if (*end == '\0' && end != value && *out >= least && *out <= most) return BR_OK;
    return br_fail(error, BR_EINVAL, "--%s: found \"%.100s\", expected a number from %g to %g", name, value,
                   least, most);
}

static br_status whole(double *out, const row *r, const char *value, br_error *error)
{
    const br_status status = number(out, r->name, value, r->least, r->most, error);
    if (status != BR_OK || *out == floor(*out)) return status;
    return br_fail(error, BR_EINVAL, "--%s: found \"%.100s\", expected a whole number", r->name, value);
}

static br_status set_sweep(command *c, const char *value, br_error *error)
{
    const char *list = strchr(value, ':');
    c->sweep_rates = strncmp(value, "rate:", 5) == 0;
    if (list == NULL || (!c->sweep_rates && strncmp(value, "in-flight:", 10) != 0))
        return br_fail(error, BR_EINVAL,
                       "--sweep: found \"%.100s\", expected in-flight:1,2,4 or rate:10,20,40", value);
    for (const char *at = list + 1; c->sweep_count < SWEEP_MAX;) {
        char *end;
        const double one = strtod(at, &end);
        const double most = c->sweep_rates ? 1e9 : LOAD_IN_FLIGHT_MAX;
        if (end == at || (*end != ',' && *end != '\0') || !(one > 0) || one > most)
            return br_fail(error, BR_EINVAL,
                           "--sweep: found \"%.50s\" in its list, expected a number above 0", at);
        c->sweep[c->sweep_count++] = one;
        if (*end == '\0') return BR_OK;
        at = end + 1;
    }
    return br_fail(error, BR_EINVAL, "--sweep: more than %d runs", SWEEP_MAX);
}

static br_status add_url(command *c, const char *value, br_error *error)
{
    if (c->load.url_count == LOAD_URLS_MAX)
        return br_fail(error, BR_EINVAL, "--url: more than %d", LOAD_URLS_MAX);
    c->load.urls[c->load.url_count++] = value;
    return BR_OK;
}

static br_status set_policy_kind(command *c, const char *value, br_error *error)
{
    c->prompts.policy.has |= BR_HAS_KIND;
    if (br_policy_kind_parse(&c->prompts.policy.kind, br_str_from(value))) return BR_OK;
    return br_fail(error, BR_EINVAL,
                   "--policy: found \"%.100s\", expected threshold, budget, utility, tolerance or pool",
                   value);
}

static br_status set(command *c, const row *r, const char *value, br_error *error)
{
    void *field = (char *)c + r->offset;
    double read = 0;
    br_status status = BR_OK;
    switch (r->kind) {
    case FLAG:
        *(bool *)field = true;
        return BR_OK;
    case TEXT:
        *(const char **)field = value;
        return BR_OK;
    case POLICY_REAL:
        c->prompts.policy.has |= r->has;
        return number(field, r->name, value, r->least, r->most, error);
    case REAL:
        return number(field, r->name, value, r->least, r->most, error);
    case INT:
        status = whole(&read, r, value, error);
        if (status == BR_OK) *(int *)field = (int)read;
        return status;
    case WIDE:
        status = whole(&read, r, value, error);
        if (status == BR_OK) *(uint64_t *)field = (uint64_t)read;
        return status;
    case POLICY_KIND:
        return set_policy_kind(c, value, error);
    case URL:
        return add_url(c, value, error);
    case SWEEP:
        return set_sweep(c, value, error);
    case HELP:
        (void)fputs(usage, stdout);
        exit(0);
    }
    return BR_EINTERNAL;
}

/* What follows from the rest. */
static br_status complete(command *c, int argc, char **argv, br_error *error)
{
    if (c->load.in_flight == 0) c->load.in_flight = c->load.rate > 0 || c->sweep_rates ? 1024 : 1;
    c->load.queries = c->prompts.queries;
    c->load.seed = c->prompts.seed;
    const int modes = (c->load.url_count > 0) + (c->spawn != NULL) + (c->noop != NULL) + (c->engine != NULL) +
                      (c->echo != NULL) + c->compare;
    if (modes != 1)
        return br_fail(error, BR_EINVAL,
                       "expected one of --url, --spawn, --noop, --engine, --echo, --compare; see --help");
    if (c->compare != (optind + 2 == argc) || (!c->compare && optind != argc))
        return br_fail(error, BR_EINVAL,
                       c->compare ? "--compare: expected two files"
                                  : "found \"%.100s\", which belongs to no option",
                       argv[optind < argc ? optind : 0]);
    for (int i = 0; c->compare && i < 2; i++) c->files[i] = argv[optind + i];
    if (c->plot != NULL && (c->engine != NULL || c->echo != NULL || c->compare))
        return br_fail(error, BR_EINVAL, "--plot: expected runs of a service: nothing else has latencies");
    if (c->record != NULL && (c->sweep_count > 0 || c->load.raw || c->engine != NULL))
        return br_fail(error, BR_EINVAL,
                       "--record: expected one run of a service, without --sweep, --raw or --engine");
    return BR_OK;
}

br_status command_read(command *out, int argc, char **argv, br_error *error)
{
    *out = (command){
        .load = {.connections = 1, .seconds = 10, .warmup_s = 1, .timeout_ms = 30000},
        .prompts = {.lengths = "20", .queries = 1, .seed = 1},
        .service_flags = "",
    };
    struct option options[ROWS + 1] = {{0}};
    for (int i = 0; i < ROWS; i++) {
        const bool bare = rows[i].kind == FLAG || rows[i].kind == HELP;
        options[i] = (struct option){rows[i].name, bare ? no_argument : required_argument, NULL, FIRST + i};
    }
    opterr = 0;
    for (int which; (which = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (which == '?')
            return br_fail(error, BR_EINVAL,
                           "found \"%.100s\", which is no option, or its value is missing; see --help",
                           argv[optind - 1]);
        const br_status status = set(out, &rows[which - FIRST], optarg, error);
        if (status != BR_OK) return status;
    }
    return complete(out, argc, argv, error);
}

void flags_split(char **argv, int *argc, char *flags)
{
    for (char *part; *argc < FLAGS_MAX && (part = strsep(&flags, " ")) != NULL;)
        if (*part != '\0') argv[(*argc)++] = part;
}
