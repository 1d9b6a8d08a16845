/* options.c - see options.h: the table of bestroute-bench, and what its options require of one another. */
#include "options.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/limits.h"

#define AT(field) BR_OPTION_AT(command, field)
#define POLICY(field, bit)                                                                                   \
    AT(prompts.policy.field), BR_OPTION_HAS(command, prompts.policy.has), .has_bit = (bit)

static br_option_read read_sweep;

static const br_option_row rows[] = {
    {.heading = "What is measured, one of"},
    {"url", "URL", "a service that runs; may be repeated, requests take turns", AT(load.urls),
     .most = LOAD_URLS_MAX},
    {"spawn", "BUNDLE", "a service of its own, on ipc, with --service-flags", AT(spawn)},
    {"noop", "BUNDLE", "the same without the encoder", AT(noop)},
    {"engine", "BUNDLE", "the encoder alone, without a service", AT(engine)},
    {"echo", "URL", "serve the bare transport there until killed; load it with --url and --raw", AT(echo)},
    {"hand-over", NULL, "of the echo: each message goes to another thread and back", AT(hand_over)},
    {"compare", NULL, "two reports written by --json, side by side: --compare A B", AT(compare)},

    {.heading = "How hard"},
    {"in-flight", "N", "requests under way: a closed loop [1]; with --rate the most [1024]",
     AT(load.in_flight), BR_RANGE(1, LOAD_IN_FLIGHT_MAX)},
    {"rate", "R", "requests/s, an open loop; latency counts from when a request was due", AT(load.rate),
     BR_RANGE(1e-3, 1e9)},
    {"poisson", NULL, "with --rate: at random distances, not even ones", AT(load.poisson)},
    {"sweep", "WHAT:LIST", "one run each: in-flight:1,2,4 or rate:10,20,40", BR_OPTION_READ(read_sweep)},
    {"seconds", "S", "measured time", AT(load.seconds), BR_RANGE(1e-3, 1e6), .initial = "10"},
    {"warmup", "S", "time before that, not measured", AT(load.warmup_s), BR_RANGE(0, 1e6), .initial = "1"},
    {"requests", "N", "measured requests at most", AT(load.requests), BR_RANGE(1, 0x1p50)},
    {"connections", "N", "to each url", AT(load.connections), BR_RANGE(1, 16), .initial = "1"},
    {"timeout-ms", "N", "of one request", AT(load.timeout_ms), BR_RANGE(1, INT_MAX), .initial = "30000"},

    {.heading = "With what"},
    {"queries", "N", "prompts of one request", AT(prompts.queries), BR_RANGE(1, BR_QUERIES_MAX),
     .initial = "1"},
    {"prompts", "FILE", "a prompt a line", AT(prompts.file)},
    {"lengths", "D", "synthetic prompts' words: 20, 8-64 (even) or 24~0.8 (log-normal)", AT(prompts.lengths),
     .initial = "20"},
    {"tokens", "BUNDLE", "send tokens of this bundle's vocabulary, not text", AT(prompts.bundle)},
    {"score", NULL, "instead of route", AT(prompts.score)},
    {"policy", "KIND", "threshold, budget, utility, tolerance or pool, with what it needs of the next five",
     POLICY(kind, BR_HAS_KIND), .words = BR_POLICY_KIND_WORDS},
    {"threshold", "X", "quality", POLICY(threshold, BR_HAS_THRESHOLD), BR_RANGE(0, HUGE_VAL)},
    {"max-cost", "X", "USD for each prompt", POLICY(max_cost, BR_HAS_MAX_COST), BR_RANGE(0, HUGE_VAL)},
    {"lambda", "X", "quality per USD", POLICY(lambda, BR_HAS_LAMBDA), BR_RANGE(0, HUGE_VAL)},
    {"tolerance", "X", "share of the best quality", POLICY(tolerance, BR_HAS_TOLERANCE),
     BR_RANGE(0, HUGE_VAL)},
    {"total-budget", "X", "USD for each request", POLICY(total_budget, BR_HAS_TOTAL_BUDGET),
     BR_RANGE(0, HUGE_VAL)},
    {"deadline-ms", "N", "of each request", AT(prompts.deadline_ms), BR_RANGE(1, UINT32_MAX)},
    {"seed", "N", "of synthetic prompts and random distances", AT(prompts.seed), BR_RANGE(0, 0x1p50),
     .initial = "1"},
    {"raw", NULL, "do not look into replies", AT(load.raw)},

    {.heading = "Where to"},
    {"json", "FILE", "a report for --compare and scripts", AT(json)},
    {"csv", "FILE", "a line for each run", AT(csv)},
    {"plot", "STEM", "STEM.svg and STEM.png, drawn by bestroute-plot: latency against load", AT(plot)},
    {"record", "FILE", "the arrivals that were sent: time, connection, tokens, deadline of each query",
     AT(record)},
    {"server-pid", "PID", "report the processor time of that process; a spawned service's always is",
     AT(load.server_pid), BR_RANGE(1, INT_MAX)},
    {"service-flags", "\"F\"", "for --spawn, --noop and --engine, as bestrouted takes them",
     AT(service_flags), .initial = ""},
    {"help", NULL, "this text", AT(help), .letter = 'h'},
};

static const br_option_table table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .takes_arguments = true};

static br_status read_sweep(void *target, const br_option_value *value, br_error *error)
{
    command *c = target;
    const char *text = value->text.data;
    const char *list = strchr(text, ':');
    c->sweep_rates = strncmp(text, "rate:", 5) == 0;
    c->sweep_count = 0;
    if (list == NULL || (!c->sweep_rates && strncmp(text, "in-flight:", 10) != 0))
        return br_option_refuse(value, error, "in-flight:1,2,4 or rate:10,20,40");
    const double most = c->sweep_rates ? 1e9 : LOAD_IN_FLIGHT_MAX;
    for (const char *at = list + 1; c->sweep_count < SWEEP_MAX;) {
        char *end;
        const double one = strtod(at, &end);
        if (end == at || (*end != ',' && *end != '\0') || !(one > 0) || one > most)
            return br_option_refuse(value, error, "numbers above 0 and up to %g in its list", most);
        c->sweep[c->sweep_count++] = one;
        if (*end == '\0') return BR_OK;
        at = end + 1;
    }
    return br_option_refuse(value, error, "no more than %d runs", SWEEP_MAX);
}

static br_status check_arguments(command *c, br_error *error)
{
    const size_t count = c->read.argument_count;
    if (c->compare && count != 2) return br_fail(error, BR_EINVAL, "--compare: expected two files");
    if (!c->compare && count > 0)
        return br_fail(error, BR_EINVAL, "found \"%.100s\", which belongs to no option",
                       c->read.arguments[0]);
    for (size_t i = 0; i < count; i++) c->files[i] = c->read.arguments[i];
    return BR_OK;
}

/* What follows from the rest. */
static br_status complete(command *c, br_error *error)
{
    if (c->load.in_flight == 0) c->load.in_flight = c->load.rate > 0 || c->sweep_rates ? 1024 : 1;
    c->load.queries = c->prompts.queries;
    c->load.seed = c->prompts.seed;
    const int modes = (c->load.urls.count > 0) + (c->spawn != NULL) + (c->noop != NULL) +
                      (c->engine != NULL) + (c->echo != NULL) + c->compare;
    if (modes != 1)
        return br_fail(error, BR_EINVAL,
                       "expected one of --url, --spawn, --noop, --engine, --echo, --compare; see --help");
    br_policy_clash clash;
    if (!br_policy_spec_settle(&c->prompts.policy, &clash))
        return br_fail(error, BR_EINVAL, "the option for %s belongs to the policy %s, not to %s", clash.key,
                       br_policy_kind_name(clash.owner), br_policy_kind_name(clash.kind));
    const br_status arguments = check_arguments(c, error);
    if (arguments != BR_OK) return arguments;
    if (c->plot != NULL && (c->engine != NULL || c->echo != NULL || c->compare))
        return br_fail(error, BR_EINVAL, "--plot: expected runs of a service: nothing else has latencies");
    if (c->record != NULL && (c->sweep_count > 0 || c->load.raw || c->engine != NULL))
        return br_fail(error, BR_EINVAL,
                       "--record: expected one run of a service, without --sweep, --raw or --engine");
    return BR_OK;
}

br_status command_read(command *out, int argc, char *const *argv, br_error *error)
{
    *out = (command){0};
    br_options_init(&out->read, &table, out);
    const br_status status = br_options_read(&out->read, argc, argv, NULL, error);
    return status == BR_OK && !out->help ? complete(out, error) : status;
}

void command_deinit(command *c)
{
    br_options_deinit(&c->read);
}

void command_print_help(FILE *to)
{
    (void)fputs("bestroute-bench: loads a bestroute service and measures it.\n", to);
    br_options_print_help(&table, 0, to);
}

void flags_split(char **argv, int *argc, char *flags)
{
    for (char *part; *argc < FLAGS_MAX && (part = strsep(&flags, " ")) != NULL;)
        if (*part != '\0') argv[(*argc)++] = part;
}
