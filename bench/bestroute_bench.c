/*
 * bestroute_bench.c - the command: what to load, how hard, and where the figures go.
 *
 *   a service that runs    --url URL ...
 *   one of its own         --spawn BUNDLE, --noop BUNDLE
 *   no service             --engine BUNDLE, --echo URL, --compare A.json B.json
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "bestroute/client.h"
#include "bestroute/limits.h"
#include "child.h"
#include "engine.h"
#include "report.h"

enum { SWEEP_MAX = 64 };

typedef struct command {
    load_options load;
    prompts_options prompts;
    const char *spawn; /* a bundle */
    bool noop;
    const char *engine; /* a bundle */
    const char *echo;
    bool compare;
    const char *service_flags;
    const char *json, *csv, *plot;
    double sweep[SWEEP_MAX];
    int sweep_count;
    bool sweep_rates;
} command;

static const char usage[] =
    "bestroute-bench: loads a bestroute service and measures it.\n\n"
    "What is measured, one of\n"
    "  --url URL            a service that runs; may be repeated, requests take turns\n"
    "  --spawn BUNDLE       a service of its own, on ipc, with --service-flags\n"
    "  --noop BUNDLE        the same without the encoder\n"
    "  --engine BUNDLE      the encoder alone, without a service\n"
    "  --echo URL           serve the bare transport there until killed; load it with --url and --raw\n"
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
    "  --json FILE, --csv FILE, --plot STEM (STEM.svg and STEM.png: latency against throughput)\n"
    "  --server-pid PID     report the processor time of that process; a spawned service's always is\n"
    "  --service-flags \"F\"  for --spawn, --noop and --engine, as bestrouted takes them\n";

static int complain(const br_error *error)
{
    (void)fprintf(stderr, "bestroute-bench: %s\n", error->text);
    return 1;
}

/* Options. */

enum {
    URL = 256,
    SPAWN,
    NOOP,
    ENGINE,
    ECHO_AT,
    COMPARE,
    IN_FLIGHT,
    RATE,
    POISSON,
    SWEEP,
    SECONDS,
    WARMUP,
    REQUESTS,
    CONNECTIONS,
    TIMEOUT,
    QUERIES,
    PROMPTS,
    LENGTHS,
    TOKENS,
    SCORE,
    POLICY,
    THRESHOLD,
    MAX_COST,
    LAMBDA,
    TOLERANCE,
    TOTAL_BUDGET,
    DEADLINE,
    SEED,
    RAW,
    JSON,
    CSV,
    PLOT,
    SERVER_PID,
    SERVICE_FLAGS,
    HELP,
};

static const struct option options[] = {
    {"url", 1, NULL, URL},
    {"spawn", 1, NULL, SPAWN},
    {"noop", 1, NULL, NOOP},
    {"engine", 1, NULL, ENGINE},
    {"echo", 1, NULL, ECHO_AT},
    {"compare", 0, NULL, COMPARE},
    {"in-flight", 1, NULL, IN_FLIGHT},
    {"rate", 1, NULL, RATE},
    {"poisson", 0, NULL, POISSON},
    {"sweep", 1, NULL, SWEEP},
    {"seconds", 1, NULL, SECONDS},
    {"warmup", 1, NULL, WARMUP},
    {"requests", 1, NULL, REQUESTS},
    {"connections", 1, NULL, CONNECTIONS},
    {"timeout-ms", 1, NULL, TIMEOUT},
    {"queries", 1, NULL, QUERIES},
    {"prompts", 1, NULL, PROMPTS},
    {"lengths", 1, NULL, LENGTHS},
    {"tokens", 1, NULL, TOKENS},
    {"score", 0, NULL, SCORE},
    {"policy", 1, NULL, POLICY},
    {"threshold", 1, NULL, THRESHOLD},
    {"max-cost", 1, NULL, MAX_COST},
    {"lambda", 1, NULL, LAMBDA},
    {"tolerance", 1, NULL, TOLERANCE},
    {"total-budget", 1, NULL, TOTAL_BUDGET},
    {"deadline-ms", 1, NULL, DEADLINE},
    {"seed", 1, NULL, SEED},
    {"raw", 0, NULL, RAW},
    {"json", 1, NULL, JSON},
    {"csv", 1, NULL, CSV},
    {"plot", 1, NULL, PLOT},
    {"server-pid", 1, NULL, SERVER_PID},
    {"service-flags", 1, NULL, SERVICE_FLAGS},
    {"help", 0, NULL, HELP},
    {NULL, 0, NULL, 0},
};

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

static br_status whole(int64_t *out, const char *name, const char *value, int64_t least, int64_t most,
                       br_error *error)
{
    double real;
    const br_status status = number(&real, name, value, (double)least, (double)most, error);
    if (status != BR_OK) return status;
    if (real != floor(real))
        return br_fail(error, BR_EINVAL, "--%s: found \"%.100s\", expected a whole number", name, value);
    *out = (int64_t)real;
    return BR_OK;
}

static br_status set_policy_number(command *c, int which, const char *name, const char *value,
                                   br_error *error)
{
    br_policy *policy = &c->prompts.policy;
    static const unsigned bits[] = {BR_HAS_THRESHOLD, BR_HAS_MAX_COST, BR_HAS_LAMBDA, BR_HAS_TOLERANCE,
                                    BR_HAS_TOTAL_BUDGET};
    double *const fields[] = {&policy->threshold, &policy->max_cost, &policy->lambda, &policy->tolerance,
                              &policy->total_budget};
    policy->has |= bits[which - THRESHOLD];
    return number(fields[which - THRESHOLD], name, value, 0, 1e300, error);
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

static br_status set_integer(command *c, int which, const char *name, const char *value, br_error *error)
{
    static const struct {
        int which;
        int64_t least, most;
    } bounds[] = {{IN_FLIGHT, 1, LOAD_IN_FLIGHT_MAX},
                  {REQUESTS, 1, INT64_C(1) << 50},
                  {CONNECTIONS, 1, 16},
                  {TIMEOUT, 1, INT_MAX},
                  {QUERIES, 1, BR_QUERIES_MAX},
                  {DEADLINE, 1, UINT32_MAX},
                  {SEED, 0, INT64_C(1) << 50},
                  {SERVER_PID, 1, INT_MAX}};
    int64_t read = 0;
    br_status status = BR_EINTERNAL;
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
        if (bounds[i].which == which)
            status = whole(&read, name, value, bounds[i].least, bounds[i].most, error);
    if (which == IN_FLIGHT) c->load.in_flight = (int)read;
    if (which == REQUESTS) c->load.requests = (uint64_t)read;
    if (which == CONNECTIONS) c->load.connections = (int)read;
    if (which == TIMEOUT) c->load.timeout_ms = (int)read;
    if (which == QUERIES) c->prompts.queries = c->load.queries = (int)read;
    if (which == DEADLINE) c->prompts.deadline_ms = read;
    if (which == SEED) c->prompts.seed = c->load.seed = (uint64_t)read;
    if (which == SERVER_PID) c->load.server_pid = (int)read;
    return status;
}

static br_status set(command *c, int which, const char *name, const char *value, br_error *error)
{
    switch (which) {
    case URL:
        if (c->load.url_count == LOAD_URLS_MAX)
            return br_fail(error, BR_EINVAL, "--url: more than %d", LOAD_URLS_MAX);
        c->load.urls[c->load.url_count++] = value;
        return BR_OK;
    case NOOP:
        c->noop = true;
        c->spawn = value;
        return BR_OK;
    case SPAWN:
        c->spawn = value;
        return BR_OK;
    case ENGINE:
        c->engine = value;
        return BR_OK;
    case ECHO_AT:
        c->echo = value;
        return BR_OK;
    case COMPARE:
        c->compare = true;
        return BR_OK;
    case RATE:
        return number(&c->load.rate, name, value, 1e-3, 1e9, error);
    case POISSON:
        c->load.poisson = true;
        return BR_OK;
    case SWEEP:
        return set_sweep(c, value, error);
    case SECONDS:
        return number(&c->load.seconds, name, value, 1e-3, 1e6, error);
    case WARMUP:
        return number(&c->load.warmup_s, name, value, 0, 1e6, error);
    case PROMPTS:
        c->prompts.file = value;
        return BR_OK;
    case LENGTHS:
        c->prompts.lengths = value;
        return BR_OK;
    case TOKENS:
        c->prompts.bundle = value;
        return BR_OK;
    case SCORE:
        c->prompts.score = true;
        return BR_OK;
    case POLICY:
        c->prompts.policy.has |= BR_HAS_KIND;
        if (br_policy_kind_parse(&c->prompts.policy.kind, br_str_from(value))) return BR_OK;
        return br_fail(error, BR_EINVAL,
                       "--policy: found \"%.100s\", expected threshold, budget, utility, tolerance or pool",
                       value);
    case THRESHOLD:
    case MAX_COST:
    case LAMBDA:
    case TOLERANCE:
    case TOTAL_BUDGET:
        return set_policy_number(c, which, name, value, error);
    case RAW:
        c->load.raw = true;
        return BR_OK;
    case JSON:
        c->json = value;
        return BR_OK;
    case CSV:
        c->csv = value;
        return BR_OK;
    case PLOT:
        c->plot = value;
        return BR_OK;
    case SERVICE_FLAGS:
        c->service_flags = value;
        return BR_OK;
    default:
        return set_integer(c, which, name, value, error);
    }
}

static br_status read_command(command *c, int argc, char **argv, br_error *error)
{
    *c = (command){
        .load =
            {.connections = 1, .queries = 1, .seconds = 10, .warmup_s = 1, .timeout_ms = 30000, .seed = 1},
        .prompts = {.lengths = "20", .queries = 1, .seed = 1},
        .service_flags = "",
    };
    opterr = 0;
    for (int which, index = 0; (which = getopt_long(argc, argv, "", options, &index)) != -1;) {
        if (which == HELP) {
            (void)fputs(usage, stdout);
            exit(0);
        }
        if (which == '?')
            return br_fail(error, BR_EINVAL,
                           "found \"%.100s\", which is no option, or its value is missing; see --help",
                           argv[optind - 1]);
        const br_status status = set(c, which, options[index].name, optarg, error);
        if (status != BR_OK) return status;
    }
    if (c->load.in_flight == 0) c->load.in_flight = c->load.rate > 0 || c->sweep_rates ? 1024 : 1;
    const int modes =
        (c->load.url_count > 0) + (c->spawn != NULL) + (c->engine != NULL) + (c->echo != NULL) + c->compare;
    if (modes != 1)
        return br_fail(error, BR_EINVAL,
                       "expected one of --url, --spawn, --noop, --engine, --echo, --compare; see --help");
    if (c->compare != (optind + 2 == argc) || (!c->compare && optind != argc))
        return br_fail(error, BR_EINVAL,
                       c->compare ? "--compare: expected two files"
                                  : "found \"%.100s\", which belongs to no option",
                       argv[optind < argc ? optind : 0]);
    return BR_OK;
}

/* Running. */

static json_t *describe_service(const char *url)
{
    br_client *client;
    br_answer *info;
    br_error error = {0};
    const br_client_options connection = {.url = url, .timeout_ms = 5000};
    if (br_client_connect(&client, &connection, &error) != BR_OK) return json_object();
    json_t *service = NULL;
    if (br_client_info(client, &info, &error) == BR_OK) {
        service = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "version", info->version, "engine",
                            info->engine, "precision", info->precision, "devices",
                            info->device_count > 0 ? info->devices[0] : "none", "bundle", info->bundle_name,
                            "hash", info->bundle_hash, "device_count", (json_int_t)info->device_count);
        br_answer_free(info);
    }
    br_client_close(client);
    return service != NULL ? service : json_object();
}

static br_status save(const command *c, const json_t *report, br_error *error)
{
    if (c->json != NULL && json_dump_file(report, c->json, JSON_INDENT(1)) != 0)
        return br_fail(error, BR_EIO, "--json: cannot write \"%.300s\": %s", c->json, strerror(errno));
    FILE *csv = c->csv != NULL ? fopen(c->csv, "w") : NULL;
    if (c->csv != NULL && csv == NULL)
        return br_fail(error, BR_EIO, "--csv: cannot write \"%.300s\": %s", c->csv, strerror(errno));
    if (csv != NULL) {
        report_csv(csv, report);
        (void)fclose(csv);
    }
    return c->plot != NULL ? report_plot(report, c->plot, error) : BR_OK;
}

static br_status run_one(json_t *runs, load_options *load, const prompts *source, br_error *error)
{
    load_result result;
    const br_status status = load_run(&result, load, source, error);
    if (status == BR_OK) (void)json_array_append_new(runs, report_run(load, &result));
    load_deinit(&result);
    return status;
}

static br_status run_all(json_t *runs, const command *c, load_options *load, const prompts *source,
                         br_error *error)
{
    if (c->sweep_count == 0) return run_one(runs, load, source, error);
    br_status status = BR_OK;
    for (int i = 0; i < c->sweep_count && status == BR_OK; i++) {
        if (c->sweep_rates)
            load->rate = c->sweep[i];
        else
            load->in_flight = (int)c->sweep[i];
        status = run_one(runs, load, source, error);
    }
    return status;
}

static br_status run_load(const command *c, br_error *error)
{
    load_options load = c->load;
    load.live = isatty(STDERR_FILENO) ? "" : NULL;
    prompts source;
    br_status status = prompts_init(&source, &c->prompts, error);
    if (status != BR_OK) return status;
    json_t *report = json_pack("{s:o, s:{s:s, s:i, s:s, s:f, s:b}, s:[]}", "machine", report_machine(),
                               "load", "url", load.urls[0], "queries", load.queries, "prompts",
                               c->prompts.file != NULL ? c->prompts.file : c->prompts.lengths, "warmup_s",
                               load.warmup_s, "poisson", load.poisson, "runs");
    (void)json_object_set_new(report, "service", load.raw ? json_object() : describe_service(load.urls[0]));
    status = run_all(json_object_get(report, "runs"), c, &load, &source, error);
    if (status == BR_OK) {
        report_table(stdout, report);
        status = save(c, report, error);
    }
    json_decref(report);
    prompts_deinit(&source);
    return status;
}

/* bestrouted, beside this program. */
static void find_daemon(char *out, size_t size)
{
    char own[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    own[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(own, '/');
    if (slash != NULL) slash[1] = '\0';
    (void)snprintf(out, size, "%sbestrouted", own);
}

static br_status run_spawned(command *c, br_error *error)
{
    char daemon[PATH_MAX + 16];
    char flags[2048];
    child service;
    find_daemon(daemon, sizeof daemon);
    (void)snprintf(flags, sizeof flags, "%s %s", c->noop ? "--engine noop" : "", c->service_flags);
    br_status status = child_start(&service, daemon, c->spawn, flags, error);
    if (status != BR_OK) return status;
    c->load.urls[c->load.url_count++] = service.url;
    c->load.server_pid = service.pid;
    status = run_load(c, error);
    child_stop(&service);
    return status;
}

static br_status run_engine(const command *c, br_error *error)
{
    engine_result r;
    const br_status status = engine_run(&r, c->engine, c->service_flags, c->load.seconds, &c->prompts, error);
    if (status != BR_OK) return status;
    (void)printf(
        "engine %s, precision %s, %s, %d workers; bundle %s %.12s\n%.1f queries/s, %.0f tokens/s in full passes; "
        "%.3f ms for a prompt alone\n",
        r.engine, r.precision, r.device, r.workers, r.bundle, r.hash, r.queries_per_s, r.tokens_per_s,
        r.one_ms);
    if (c->json == NULL) return BR_OK;
    json_t *report =
        json_pack("{s:o, s:{s:s, s:s, s:s, s:s, s:s}, s:i, s:f, s:f, s:f}", "machine", report_machine(),
                  "service", "engine", r.engine, "precision", r.precision, "devices", r.device, "bundle",
                  r.bundle, "hash", r.hash, "workers", r.workers, "queries_per_s", r.queries_per_s,
                  "tokens_per_s", r.tokens_per_s, "one_ms", r.one_ms);
    const int failed = json_dump_file(report, c->json, JSON_INDENT(1));
    json_decref(report);
    return failed == 0 ? BR_OK : br_fail(error, BR_EIO, "--json: cannot write \"%.300s\"", c->json);
}

static br_status compare(const char *const *files, br_error *error)
{
    json_t *reports[2] = {NULL, NULL};
    br_status status = BR_OK;
    for (int i = 0; i < 2 && status == BR_OK; i++) {
        json_error_t why;
        reports[i] = json_load_file(files[i], 0, &why);
        if (reports[i] == NULL)
            status = br_fail(error, BR_EFORMAT, "%.200s: line %d: %.200s", files[i], why.line, why.text);
        else if (!json_is_array(json_object_get(reports[i], "runs")))
            status = br_fail(error, BR_EFORMAT, "%.200s: no report of runs", files[i]);
    }
    if (status == BR_OK) report_compare(stdout, reports[0], reports[1]);
    for (int i = 0; i < 2; i++) json_decref(reports[i]);
    return status;
}

int main(int argc, char **argv)
{
    command c;
    br_error error = {0};
    br_status status = read_command(&c, argc, argv, &error);
    if (status != BR_OK) return complain(&error);
    if (c.echo != NULL)
        status = load_echo(c.echo, &error);
    else if (c.compare)
        status = compare((const char *const *)&argv[optind], &error);
    else if (c.engine != NULL)
        status = run_engine(&c, &error);
    else if (c.spawn != NULL)
        status = run_spawned(&c, &error);
    else
        status = run_load(&c, &error);
    return status == BR_OK ? 0 : complain(&error);
}
