/* options.c - flags and environment of `bestroute`: one table for reading and for --help. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANY = CLI_ROUTE | CLI_SCORE | CLI_INFO | CLI_PING | CLI_RELOAD | CLI_EVAL | CLI_CALIBRATE,
    PROMPTS = CLI_ROUTE | CLI_SCORE,
    RECORDS = CLI_EVAL | CLI_CALIBRATE,
    EVERY_DATA = ANY & ~CLI_RELOAD,
    FLAG_BASE = 256, /* getopt's value of row 0; above every character */
};

typedef enum kind { HEADING, FLAG, TEXT, COUNT, REAL, NAMES, URLS, FILES, KIND, FALLBACK } kind;

typedef struct row {
    const char *name;
    const char *value; /* what --help calls it */
    const char *help;
    kind kind;
    int commands;      /* that take it */
    size_t offset;     /* in cli_options */
    size_t has_offset; /* of the bool set along; 0: none */
    double least;
    double most;
} row;

#define AT(field) offsetof(cli_options, field)
#define POLICY(field) AT(policy.field)

static const row rows[] = {
    {.name = "Connection", .kind = HEADING},
    {"url", "URL", "the service (tcp://, ipc://, tls+tcp://); or BESTROUTE_URL; tcp://127.0.0.1:5555", URLS,
     EVERY_DATA, AT(urls), 0, 0, 0},
    {"admin", "URL", "the admin socket, for reload; or BESTROUTE_ADMIN", TEXT, CLI_RELOAD, AT(admin), 0, 0,
     0},
    {"timeout-ms", "N", "patience for one request, retries included (30000)", COUNT, ANY, AT(timeout_ms), 0,
     1, INT32_MAX},
    {"hedge-ms", "N", "several urls: what is unanswered after this goes to a second one too", COUNT,
     PROMPTS | RECORDS, AT(hedge_ms), 0, 1, INT32_MAX},
    {"endpoints", NULL, "in the end, what became of the requests to each url, on standard error", FLAG,
     PROMPTS | RECORDS, AT(endpoints), 0, 0, 0},
    {"wait-ms", "N", "how long to wait for a service that is not up yet; ping: or not ready (2000)", COUNT,
     ANY, AT(wait_ms), 0, 1, INT32_MAX},
    {"tls-ca", "FILE", "tls+tcp: PEM file of the authorities to trust", TEXT, ANY, AT(tls_ca), 0, 0, 0},
    {"tls-cert", "FILE", "tls+tcp: PEM file with our certificate and its key", TEXT, ANY, AT(tls_cert), 0, 0,
     0},
    {"tls-name", "NAME", "tls+tcp: the name in the service's certificate (the url's host)", TEXT, ANY,
     AT(tls_name), 0, 0, 0},

    {.name = "Prompts (route, score)", .kind = HEADING},
    {"file", "FILE", "one prompt per line; JSON lines if it ends in .jsonl or .ndjson; - is standard input",
     TEXT, PROMPTS, AT(file), 0, 0, 0},
    {"jsonl", NULL,
     "each line is a JSON object: text or tokens, prompt_tokens, output_tokens, max_cost, policy, id", FLAG,
     PROMPTS, AT(jsonl), 0, 0, 0},
    {"batch", "N", "prompts per request, at most what the service takes (64)", COUNT, PROMPTS | RECORDS,
     AT(batch), 0, 1, CLI_BATCH_MAX},
    {"parallel", "N", "requests in flight (4)", COUNT, PROMPTS, AT(parallel), 0, 1, CLI_PARALLEL_MAX},
    {"deadline-ms", "N", "the service gives up on a prompt after this", COUNT, PROMPTS, AT(deadline_ms),
     AT(has_deadline), 0, UINT32_MAX},

    {.name = "Policy (route; what is not given is the service's default)", .kind = HEADING},
    {"policy", "KIND", "threshold, budget, utility, tolerance or pool; calibrate: threshold or utility", KIND,
     CLI_ROUTE | CLI_CALIBRATE, POLICY(kind), 0, 0, 0},
    {"threshold", "Q", "threshold: the cheapest candidate of at least this quality; implies the kind", REAL,
     CLI_ROUTE, POLICY(threshold), POLICY(has_threshold), 0, 1},
    {"lambda", "X", "utility: quality per USD; implies the kind", REAL, CLI_ROUTE, POLICY(lambda),
     POLICY(has_lambda), 0, HUGE_VAL},
    {"tolerance", "X", "tolerance: share of the best quality that may be lost; implies the kind", REAL,
     CLI_ROUTE, POLICY(tolerance), POLICY(has_tolerance), 0, 1},
    {"total-budget", "USD", "pool: for all prompts together, in one request; implies the kind", REAL,
     CLI_ROUTE, POLICY(total_budget), POLICY(has_total_budget), 0, HUGE_VAL},
    {"max-cost", "USD", "cap for each prompt, with every kind; budget needs it", REAL, CLI_ROUTE,
     POLICY(max_cost), POLICY(has_max_cost), 0, HUGE_VAL},
    {"models", "A,B", "only these models", NAMES, CLI_ROUTE, POLICY(models), 0, 0, 0},
    {"exclude", "A,B", "not these models", NAMES, CLI_ROUTE, POLICY(exclude), 0, 0, 0},
    {"max-n", "N", "no candidate with more samples", COUNT, CLI_ROUTE, POLICY(max_n), 0, 1, UINT32_MAX},
    {"fallback", "WORD", "when nothing satisfies the policy: best, reference or error", FALLBACK, CLI_ROUTE,
     POLICY(fallback), 0, 0, 0},

    {.name = "Records (eval, calibrate)", .kind = HEADING},
    {"data", "FILE", "measured answers, JSON lines, may be gzip; several times: one traffic mix", FILES,
     RECORDS, AT(data), 0, 0, 0},
    {"split", "NAME", "only records of this split; all takes every one (val)", TEXT, RECORDS, AT(split), 0, 0,
     0},
    {"scores", "FILE", "qualities from this file, as `score --json` writes them, by id: not the service's",
     TEXT, RECORDS, AT(scores), 0, 0, 0},
    {"selector", "R", "how well the best of n is found: 1 always, 0 by chance (1)", REAL, RECORDS,
     AT(selector), 0, 0, 1},
    {"single", NULL, "admit candidates of which one answer alone was measured", FLAG, RECORDS, AT(single), 0,
     0, 0},
    {"second-half", NULL, "judge by the samples outside k_a alone, for records that trained on the others",
     FLAG, RECORDS, AT(second_half), 0, 0, 0},
    {"by-task", NULL, "each task weighs the same, instead of each record", FLAG, RECORDS, AT(by_task), 0, 0,
     0},
    {"bootstrap", "N", "samples behind the intervals (1000)", COUNT, RECORDS, AT(bootstrap), 0, 10, 100000},
    {"seed", "N", "of the bootstrap (1)", COUNT, RECORDS, AT(seed), 0, 0, UINT32_MAX},
    {"plot", "STEM", "draw STEM.svg and STEM.png, eval also STEM-calibration; needs bestroute-plot", TEXT,
     RECORDS, AT(plot), 0, 0, 0},
    {"bundle", "DIR", "calibrate: the folder of the bundle served; its router.json gets the policy", TEXT,
     CLI_CALIBRATE, AT(bundle), 0, 0, 0},
    {"reduce-cost", "SHARE", "calibrate: target, share of the reference's cost saved", REAL, CLI_CALIBRATE,
     AT(reduce_cost), AT(has_reduce_cost), 0, 1},
    {"reference-share", "SHARE", "calibrate: target, at most this share of prompts to the reference", REAL,
     CLI_CALIBRATE, AT(reference_share), AT(has_reference_share), 0, 1},
    {"quality", "SHARE", "calibrate: target, at least this share of the reference's quality", REAL,
     CLI_CALIBRATE, AT(target_quality), AT(has_target_quality), 0, 10},
    {"dry-run", NULL, "calibrate: write nothing", FLAG, CLI_CALIBRATE, AT(dry_run), 0, 0, 0},

    {.name = "Output", .kind = HEADING},
    {"explain", NULL, "the whole table of candidates of each prompt", FLAG, CLI_ROUTE, AT(explain), 0, 0, 0},
    {"json", NULL, "one JSON object per line and prompt, in order", FLAG, ANY, AT(json), 0, 0, 0},
    {"no-progress", NULL, "no progress bar on standard error", FLAG, PROMPTS, AT(no_progress), 0, 0, 0},
    {"help", NULL, "this text", FLAG, ANY, AT(help), 0, 0, 0},
    {"version", NULL, "the program's version", FLAG, ANY, AT(version), 0, 0, 0},
};

enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

static const struct {
    const char *name;
    cli_command command;
} commands[] = {
    {"route", CLI_ROUTE},   {"score", CLI_SCORE}, {"info", CLI_INFO},           {"ping", CLI_PING},
    {"reload", CLI_RELOAD}, {"eval", CLI_EVAL},   {"calibrate", CLI_CALIBRATE},
};

void cli_help_print(FILE *to)
{
    fputs(
        "usage: bestroute COMMAND [OPTION]... [PROMPT]...\n"
        "\n"
        "  route      choose a model and a number of samples for each prompt\n"
        "  score      the predicted quality of every candidate for each prompt\n"
        "  info       the service's candidates, prices, default policy and limits\n"
        "  ping       is the service ready?\n"
        "  reload     load the bundle again, or another: bestroute reload --admin URL [FOLDER]\n"
        "  eval       replay policies on measured answers: savings, baselines, calibration\n"
        "  calibrate  the threshold or lambda that meets a target on measured answers, written into a bundle\n"
        "\n"
        "Prompts are the arguments, or the lines of --file, or of standard input. Blank lines are skipped.\n",
        to);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const row *r = &rows[i];
        if (r->kind == HEADING) {
            fprintf(to, "\n%s\n", r->name);
            continue;
        }
        char left[40];
        snprintf(left, sizeof left, "--%s%s%s", r->name, r->value == NULL ? "" : " ",
                 r->value == NULL ? "" : r->value);
        fprintf(to, "  %-19s %s\n", left, r->help);
    }
    fputs(
        "\n"
        "Exit code: 0 all well; 1 some prompts have an error for a result; 2 wrong usage; 3 the service cannot\n"
        "be reached or gave no answer in time; 4 the service refused; 5 the program itself failed (output, memory).\n"
        "Examples:\n"
        "  bestroute route \"What is 2 + 2?\" --threshold 0.6\n"
        "  bestroute route --policy budget --max-cost 0.0008 --json --file prompts.txt > decisions.jsonl\n",
        to);
}

static void *at_offset(cli_options *options, size_t offset)
{
    return (char *)options + offset;
}

static br_status read_count(cli_options *options, const row *r, const char *text, br_error *error)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    const bool is_number = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    if (!is_number || (double)value < r->least || (double)value > r->most)
        return br_fail(error, BR_EINVAL, "--%s: '%s' is no whole number from %.0f to %.0f", r->name, text,
                       r->least, r->most);
    *(uint32_t *)at_offset(options, r->offset) = (uint32_t)value;
    return BR_OK;
}

static br_status read_real(cli_options *options, const row *r, const char *text, br_error *error)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value))
        return br_fail(error, BR_EINVAL, "--%s: '%s' is no number", r->name, text);
    if (value < r->least || value > r->most) {
        if (isinf(r->most))
            return br_fail(error, BR_EINVAL, "--%s: '%s' is below %g", r->name, text, r->least);
        return br_fail(error, BR_EINVAL, "--%s: '%s' is not from %g to %g", r->name, text, r->least, r->most);
    }
    *(double *)at_offset(options, r->offset) = value;
    return BR_OK;
}

/* Cuts `text` at its commas, and appends the pieces. */
static br_status cut_names(const char **names, size_t *count, size_t most, char *text, const char *flag,
                           br_error *error)
{
    for (char *rest = text; rest != NULL;) {
        char *name = strsep(&rest, ",");
        if (name[0] == '\0') return br_fail(error, BR_EINVAL, "--%s: a name is empty", flag);
        if (*count == most) return br_fail(error, BR_EINVAL, "--%s: more than %zu names", flag, most);
        names[(*count)++] = name;
    }
    return BR_OK;
}

static br_status read_names(cli_options *options, const row *r, char *text, br_error *error)
{
    const bool excludes = r->offset == POLICY(exclude);
    const char **names = excludes ? options->exclude_names : options->model_names;
    size_t *count = excludes ? &options->policy.exclude_count : &options->policy.model_count;
    const br_status status = cut_names(names, count, CLI_NAMES_MAX, text, r->name, error);
    if (status != BR_OK) return status;
    if (excludes) {
        options->policy.exclude = names;
    } else {
        options->policy.models = names;
    }
    return BR_OK;
}

static br_status add_file(cli_options *options, const row *r, const char *text, br_error *error)
{
    if (options->data_count == CLI_DATA_MAX)
        return br_fail(error, BR_EINVAL, "--%s: more than %d files", r->name, CLI_DATA_MAX);
    options->data[options->data_count++] = text;
    return BR_OK;
}

static br_status read_word(cli_options *options, const row *r, const char *text, br_error *error)
{
    static const char *const kinds[] = {"threshold", "budget", "utility", "tolerance", "pool", NULL};
    static const char *const fallbacks[] = {"best", "reference", "error", NULL};
    for (const char *const *word = r->kind == KIND ? kinds : fallbacks; *word != NULL; word++) {
        if (strcmp(text, *word) != 0) continue;
        *(const char **)at_offset(options, r->offset) = *word;
        return BR_OK;
    }
    return br_fail(error, BR_EINVAL, "--%s: '%s' is none of %s", r->name, text,
                   r->kind == KIND ? "threshold, budget, utility, tolerance, pool"
                                   : "best, reference, error");
}

static br_status read_row(cli_options *options, const row *r, char *text, br_error *error)
{
    if (r->has_offset != 0) *(bool *)at_offset(options, r->has_offset) = true;
    switch (r->kind) {
    case FLAG:
        *(bool *)at_offset(options, r->offset) = true;
        return BR_OK;
    case TEXT:
        *(const char **)at_offset(options, r->offset) = text;
        return BR_OK;
    case COUNT:
        return read_count(options, r, text, error);
    case REAL:
        return read_real(options, r, text, error);
    case NAMES:
        return read_names(options, r, text, error);
    case URLS:
        return cut_names(options->urls, &options->url_count, CLI_URLS_MAX, text, r->name, error);
    case FILES:
        return add_file(options, r, text, error);
    case KIND:
    case FALLBACK:
        return read_word(options, r, text, error);
    case HEADING:
        break;
    }
    return BR_EINTERNAL;
}

/* A field that belongs to one kind names it; one that belongs to another kind is a mistake. */
static br_status settle_kind(cli_options *options, br_error *error)
{
    br_client_policy *policy = &options->policy;
    const struct {
        bool given;
        const char *kind;
        const char *flag;
    } fields[] = {
        {policy->has_threshold, "threshold", "threshold"},
        {policy->has_lambda, "utility", "lambda"},
        {policy->has_tolerance, "tolerance", "tolerance"},
        {policy->has_total_budget, "pool", "total-budget"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (!fields[i].given) continue;
        if (policy->kind == NULL) policy->kind = fields[i].kind;
        if (strcmp(policy->kind, fields[i].kind) != 0)
            return br_fail(error, BR_EINVAL, "--%s belongs to the policy %s, not to %s", fields[i].flag,
                           fields[i].kind, policy->kind);
    }
    options->has_policy = policy->kind != NULL || policy->fallback != NULL || policy->has_max_cost ||
                          policy->max_n != 0 || policy->model_count != 0 || policy->exclude_count != 0;
    return BR_OK;
}

static br_status check_records(const cli_options *options, br_error *error)
{
    if ((RECORDS & (int)options->command) == 0) return BR_OK;
    if (options->data_count == 0) return br_fail(error, BR_EINVAL, "there are no records: --data FILE");
    if (options->command == CLI_EVAL) return BR_OK;
    const int targets = options->has_reduce_cost + options->has_reference_share + options->has_target_quality;
    if (targets != 1)
        return br_fail(error, BR_EINVAL,
                       "calibrate needs one target: --reduce-cost, --reference-share or --quality");
    if (options->bundle == NULL && !options->dry_run)
        return br_fail(error, BR_EINVAL, "calibrate needs --bundle DIR, or --dry-run");
    const char *policy = options->policy.kind;
    if (policy != NULL && strcmp(policy, "threshold") != 0 && strcmp(policy, "utility") != 0)
        return br_fail(error, BR_EINVAL, "--policy: calibrate sets threshold or utility, not %s", policy);
    return BR_OK;
}

static br_status check(cli_options *options, const bool *given, br_error *error)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (given[i] && (rows[i].commands & (int)options->command) == 0)
            return br_fail(error, BR_EINVAL, "--%s is not for this command", rows[i].name);
    }
    const bool takes_prompts = (PROMPTS & (int)options->command) != 0;
    if (takes_prompts && options->argument_count == 1 && strcmp(options->arguments[0], "-") == 0 &&
        options->file == NULL) {
        options->file = "-";
        options->argument_count = 0;
    }
    if (takes_prompts && options->argument_count > 0 && (options->file != NULL || options->jsonl))
        return br_fail(error, BR_EINVAL, "prompts come either as arguments or from a file");
    if (options->command == CLI_RELOAD && options->argument_count > 1)
        return br_fail(error, BR_EINVAL, "reload takes one folder");
    if (options->command == CLI_RELOAD && options->admin == NULL)
        return br_fail(error, BR_EINVAL, "reload needs the admin socket: --admin URL");
    const br_status records = check_records(options, error);
    if (records != BR_OK) return records;
    if ((options->command & (CLI_INFO | CLI_PING | RECORDS)) != 0 && options->argument_count > 0)
        return br_fail(error, BR_EINVAL, "'%s': this command takes no arguments", options->arguments[0]);
    return settle_kind(options, error);
}

static br_status take_command(cli_options *options, const char *word, br_error *error)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(word, commands[i].name) != 0) continue;
        options->command = commands[i].command;
        return BR_OK;
    }
    return br_fail(error, BR_EINVAL, "'%s' is no command: route, score, info, ping, reload, eval, calibrate",
                   word);
}

static const char *from_environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value == NULL || value[0] == '\0' ? otherwise : value;
}

static br_status settle_urls(cli_options *options, br_error *error)
{
    if (options->url_count > 0) return BR_OK;
    const char *text = from_environment("BESTROUTE_URL", "tcp://127.0.0.1:5555");
    if (strlen(text) >= sizeof options->environment_urls)
        return br_fail(error, BR_EINVAL, "BESTROUTE_URL is longer than %zu bytes",
                       sizeof options->environment_urls - 1);
    strcpy(options->environment_urls, text);
    return cut_names(options->urls, &options->url_count, CLI_URLS_MAX, options->environment_urls, "url",
                     error);
}

br_status cli_options_read(cli_options *out, int argc, char **argv, br_error *error)
{
    *out = (cli_options){
        .admin = from_environment("BESTROUTE_ADMIN", NULL),
        .timeout_ms = 30000,
        .wait_ms = 2000,
        .batch = 64,
        .parallel = 4,
        .split = "val",
        .selector = 1,
        .bootstrap = 1000,
        .seed = 1,
    };
    struct option flags[ROW_COUNT + 1] = {0};
    size_t flag_count = 0;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].kind == HEADING) continue;
        flags[flag_count++] =
            (struct option){.name = rows[i].name,
                            .has_arg = rows[i].kind == FLAG ? no_argument : required_argument,
                            .val = FLAG_BASE + (int)i};
    }

    bool given[ROW_COUNT] = {false};
    opterr = 0;
    for (int value; (value = getopt_long(argc, argv, ":h", flags, NULL)) != -1;) {
        if (value == 'h') {
            out->help = true;
        } else if (value == ':') {
            return br_fail(error, BR_EINVAL, "%s needs a value", argv[optind - 1]);
        } else if (value < FLAG_BASE) {
            return br_fail(error, BR_EINVAL,
                           "%s: no such option (a prompt that starts with '-' goes after --)",
                           argv[optind - 1]);
        } else {
            given[value - FLAG_BASE] = true;
            const br_status status = read_row(out, &rows[value - FLAG_BASE], optarg, error);
            if (status != BR_OK) return status;
        }
    }
    if (out->help || out->version) return BR_OK;
    if (optind == argc)
        return br_fail(error, BR_EINVAL,
                       "there is no command: route, score, info, ping, reload, eval, calibrate");
    br_status status = take_command(out, argv[optind], error);
    if (status == BR_OK) status = settle_urls(out, error);
    if (status != BR_OK) return status;
    out->arguments = argv + optind + 1;
    out->argument_count = (size_t)(argc - optind - 1);
    return check(out, given, error);
}
