/* options.c - the commands and options of `bestroute`: one table for reading and for the help. */
#include "options.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "core/nearest.h"
#include "policy/spec.h"

enum {
    PROMPTS = CLI_ROUTE | CLI_SCORE,
    RECORDS = CLI_EVAL | CLI_CALIBRATE,
    REQUESTS = PROMPTS | RECORDS,
};

#define AT(field) BR_OPTION_AT(cli_options, field)
#define HAS(field) BR_OPTION_HAS(cli_options, field)
#define FOR(bits) .commands = (bits)

static const br_option_row rows[] = {
    {.heading = "Connection"},
    {"url", "URL", "the service (tcp://, ipc://, tls+tcp://), several with commas; or BESTROUTE_URL",
     AT(urls), .most = CLI_URLS_MAX, FOR(REQUESTS | CLI_INFO | CLI_PING), .places = BR_OPTION_ENVIRONMENT,
     .initial = "tcp://127.0.0.1:5555"},
    {"admin", "URL", "the admin socket, for reload; or BESTROUTE_ADMIN", AT(admin), FOR(CLI_RELOAD),
     .places = BR_OPTION_ENVIRONMENT},
    {"timeout-ms", "N", "longest wait for one request, retries included", AT(timeout_ms),
     BR_RANGE(1, INT_MAX), .initial = "30000"},
    {"hedge-ms", "N", "several urls: a request unanswered after this goes to a second one too", AT(hedge_ms),
     BR_RANGE(1, INT_MAX), FOR(REQUESTS)},
    {"endpoints", NULL, "at the end, count the requests to each url and their outcomes, on standard error",
     AT(endpoints), FOR(REQUESTS)},
    {"wait-ms", "N", "longest wait for a service that is not up yet; ping: or not ready", AT(wait_ms),
     BR_RANGE(1, INT_MAX), .initial = "2000"},
    {"tls-ca", "FILE", "tls+tcp: PEM file of the authorities to trust", AT(tls_ca)},
    {"tls-cert", "FILE", "tls+tcp: PEM file with our certificate and its key", AT(tls_cert)},
    {"tls-name", "NAME", "tls+tcp: the name in the service's certificate (the url's host)", AT(tls_name)},

    {.heading = "Prompts (route, score; --batch also eval, calibrate)"},
    {"file", "FILE", "one prompt per line; JSON lines if it ends in .jsonl or .ndjson; - is standard input",
     AT(file), FOR(PROMPTS)},
    {"jsonl", NULL,
     "each line is a JSON object: text or tokens, prompt_tokens, output_tokens, max_cost, policy, id",
     AT(jsonl), FOR(PROMPTS)},
    {"batch", "N", "prompts per request, at most what the service takes", AT(batch),
     BR_RANGE(1, CLI_BATCH_MAX), FOR(REQUESTS), .initial = "64"},
    {"parallel", "N", "requests in flight", AT(parallel), BR_RANGE(1, CLI_PARALLEL_MAX), FOR(PROMPTS),
     .initial = "4"},
    {"deadline-ms", "N", "the service gives up on a prompt after this", AT(deadline_ms), HAS(has_deadline),
     BR_RANGE(0, UINT32_MAX), FOR(PROMPTS)},

    {.heading = "Policy (route; what is not given is the service's default)"},
    {"policy", "KIND", "threshold, budget, utility, tolerance or pool; calibrate: threshold or utility",
     AT(policy.kind), .words = BR_POLICY_KIND_WORDS, FOR(CLI_ROUTE | CLI_CALIBRATE)},
    {"threshold", "Q", "threshold: the cheapest candidate of at least this quality; implies the kind",
     AT(policy.threshold), HAS(policy.has_threshold), BR_RANGE(0, 1), FOR(CLI_ROUTE)},
    {"lambda", "X", "utility: quality per USD; implies the kind", AT(policy.lambda), HAS(policy.has_lambda),
     BR_RANGE(0, HUGE_VAL), FOR(CLI_ROUTE)},
    {"tolerance", "X", "tolerance: share of the best quality that may be lost; implies the kind",
     AT(policy.tolerance), HAS(policy.has_tolerance), BR_RANGE(0, 1), FOR(CLI_ROUTE)},
    {"total-budget", "USD", "pool: for all prompts together, in one request; implies the kind",
     AT(policy.total_budget), HAS(policy.has_total_budget), BR_RANGE(0, HUGE_VAL), FOR(CLI_ROUTE)},
    {"max-cost", "USD", "cap for each prompt, with every kind; budget needs it", AT(policy.max_cost),
     HAS(policy.has_max_cost), BR_RANGE(0, HUGE_VAL), FOR(CLI_ROUTE)},
    {"models", "A,B", "only these models", AT(models), FOR(CLI_ROUTE)},
    {"exclude", "A,B", "not these models", AT(exclude), FOR(CLI_ROUTE)},
    {"max-n", "N", "no candidate with more samples", AT(policy.max_n), BR_RANGE(1, UINT32_MAX),
     FOR(CLI_ROUTE)},
    {"fallback", "WORD", "when nothing satisfies the policy: best, reference or error", AT(policy.fallback),
     .words = BR_FALLBACK_WORDS, FOR(CLI_ROUTE)},

    {.heading = "Records (eval, calibrate)"},
    {"data", "FILE", "measured answers, JSON lines, may be gzip; several times: one traffic mix", AT(data),
     .commas = true, .most = CLI_DATA_MAX, FOR(RECORDS)},
    {"split", "NAME", "only records of this split; all takes every one", AT(split), FOR(RECORDS),
     .initial = "val"},
    {"scores", "FILE", "qualities from this file, as `score --json` writes them, by id: not the service's",
     AT(scores), FOR(RECORDS)},
    {"selector", "R", "how well the best of n is found: 1 always, 0 by chance", AT(selector), BR_RANGE(0, 1),
     FOR(RECORDS), .initial = "1"},
    {"single", NULL, "admit candidates of which one answer alone was measured", AT(single), FOR(RECORDS)},
    {"second-half", NULL, "judge by the samples outside k_a alone, for records that trained on the others",
     AT(second_half), FOR(RECORDS)},
    {"by-task", NULL, "each task weighs the same, instead of each record", AT(by_task), FOR(RECORDS)},
    {"bootstrap", "N", "samples behind the intervals", AT(bootstrap), BR_RANGE(10, 100000), FOR(RECORDS),
     .initial = "1000"},
    {"seed", "N", "of the bootstrap", AT(seed), BR_RANGE(0, UINT32_MAX), FOR(RECORDS), .initial = "1"},
    {"plot", "STEM", "draw STEM.svg and STEM.png, eval also STEM-calibration; needs bestroute-plot", AT(plot),
     FOR(RECORDS)},
    {"bundle", "DIR", "the folder of the bundle served; its router.json gets the policy", AT(bundle),
     FOR(CLI_CALIBRATE)},
    {"reduce-cost", "SHARE", "calibrate's target: share of the reference's cost saved", AT(reduce_cost),
     HAS(has_reduce_cost), BR_RANGE(0, 1), FOR(CLI_CALIBRATE)},
    {"reference-share", "SHARE", "calibrate's target: at most this share of prompts to the reference",
     AT(reference_share), HAS(has_reference_share), BR_RANGE(0, 1), FOR(CLI_CALIBRATE)},
    {"quality", "SHARE", "calibrate's target: at least this share of the reference's quality",
     AT(target_quality), HAS(has_target_quality), BR_RANGE(0, 10), FOR(CLI_CALIBRATE)},
    {"dry-run", NULL, "calibrate: write nothing", AT(dry_run), FOR(CLI_CALIBRATE)},

    {.heading = "Output"},
    {"explain", NULL, "the whole table of candidates of each prompt", AT(explain), FOR(CLI_ROUTE)},
    {"json", NULL, "one JSON object per line and prompt, in order", AT(json)},
    {"no-progress", NULL, "no progress bar on standard error", AT(no_progress), FOR(PROMPTS)},
    {"help", NULL, "this text, or the options of the command before it", AT(help), .letter = 'h'},
    {"version", NULL, "the program's version", AT(version)},
};

static const br_option_table table = {
    .rows = rows,
    .row_count = sizeof rows / sizeof *rows,
    .takes_arguments = true,
    .empty_is_unset = true,
    .strict_environment = true,
    .dash_hint = "a prompt that starts with '-' goes after --",
};

static const struct {
    cli_command command;
    const char *name;
    const char *arguments;
    const char *help;
} commands[] = {
    {CLI_ROUTE, "route", " [PROMPT]...", "choose a model and a number of samples for each prompt"},
    {CLI_SCORE, "score", " [PROMPT]...", "the predicted quality of every candidate for each prompt"},
    {CLI_INFO, "info", "", "the service's candidates, prices, default policy and limits"},
    {CLI_PING, "ping", "", "is the service ready?"},
    {CLI_RELOAD, "reload", " [FOLDER]", "load the bundle again, or the one in another folder"},
    {CLI_EVAL, "eval", "", "replay policies on measured answers: savings, baselines, calibration"},
    {CLI_CALIBRATE, "calibrate", "",
     "the threshold or lambda that meets a target on measured answers, written into a bundle"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static const char prompts_help[] =
    "\nPrompts are the arguments, or the lines of --file, or of standard input. Blank lines are skipped.\n";

static void print_command_help(FILE *to, size_t index)
{
    fprintf(to, "usage: bestroute %s [OPTION]...%s\n\n%s\n", commands[index].name, commands[index].arguments,
            commands[index].help);
    if ((commands[index].command & PROMPTS) != 0) fputs(prompts_help, to);
    br_options_print_help(&table, commands[index].command, to);
}

static void print_whole_help(FILE *to)
{
    fputs("usage: bestroute COMMAND [OPTION]... [PROMPT]...\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++) fprintf(to, "  %-9s  %s\n", commands[i].name, commands[i].help);
    fputs("  help       this text, or with a command its options: bestroute help route\n", to);
    fputs(prompts_help, to);
    br_options_print_help(&table, 0, to);
    fputs("\n"
          "Exit code: 0 all well; 1 some prompts have an error for a result; 2 wrong usage; 3 the service "
          "cannot\n"
          "be reached or gave no answer in time; 4 the service refused; 5 the program itself failed (output, "
          "memory).\n"
          "Examples:\n"
          "  bestroute route \"What is 2 + 2?\" --threshold 0.6\n"
          "  bestroute route --policy budget --max-cost 0.0008 --json --file prompts.txt > decisions.jsonl\n",
          to);
}

void cli_help_print(FILE *to, const cli_options *options)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (options->command == commands[i].command) {
            print_command_help(to, i);
            return;
        }
    print_whole_help(to);
}

/* The rule of the wire: br_policy_spec_settle, with flags for keys. */
static br_status settle_policy(cli_options *options, br_error *error)
{
    br_client_policy *policy = &options->policy;
    br_policy_spec spec = {
        .has = (policy->kind != NULL ? BR_HAS_KIND : 0u) | (policy->has_threshold ? BR_HAS_THRESHOLD : 0u) |
               (policy->has_lambda ? BR_HAS_LAMBDA : 0u) | (policy->has_tolerance ? BR_HAS_TOLERANCE : 0u) |
               (policy->has_total_budget ? BR_HAS_TOTAL_BUDGET : 0u),
    };
    if (policy->kind != NULL) (void)br_policy_kind_parse(&spec.kind, br_str_from(policy->kind));
    br_policy_clash clash;
    if (!br_policy_spec_settle(&spec, &clash))
        return br_fail(error, BR_EINVAL, "--%s belongs to the policy %s, not to %s",
                       strcmp(clash.key, "total_budget") == 0 ? "total-budget" : clash.key,
                       br_policy_kind_name(clash.owner), br_policy_kind_name(clash.kind));
    if ((spec.has & BR_HAS_KIND) != 0) policy->kind = br_policy_kind_name(spec.kind);
    policy->models = options->models.items;
    policy->model_count = options->models.count;
    policy->exclude = options->exclude.items;
    policy->exclude_count = options->exclude.count;
    options->has_policy = policy->kind != NULL || policy->fallback != NULL || policy->has_max_cost ||
                          policy->max_n != 0 || policy->model_count != 0 || policy->exclude_count != 0;
    return BR_OK;
}

static br_status check_records(const cli_options *options, br_error *error)
{
    if (options->data.count == 0) return br_fail(error, BR_EINVAL, "there are no records: --data FILE");
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

/* "-" alone stands for standard input. */
static br_status check_prompts(cli_options *options, br_error *error)
{
    const bool is_dash = options->argument_count == 1 && strcmp(options->arguments[0], "-") == 0;
    if (is_dash && options->file == NULL) {
        options->file = "-";
        options->argument_count = 0;
    }
    if (options->argument_count > 0 && (options->file != NULL || options->jsonl))
        return br_fail(error, BR_EINVAL, "prompts come either as arguments or from a file");
    return BR_OK;
}

static br_status check_reload(const cli_options *options, br_error *error)
{
    if (options->argument_count > 1) return br_fail(error, BR_EINVAL, "reload takes one folder");
    if (options->admin == NULL)
        return br_fail(error, BR_EINVAL, "reload needs the admin socket: --admin URL");
    return BR_OK;
}

static br_status check_no_arguments(const cli_options *options, br_error *error)
{
    if (options->argument_count == 0) return BR_OK;
    return br_fail(error, BR_EINVAL, "'%s': this command takes no arguments", options->arguments[0]);
}

static br_status check(cli_options *options, br_error *error)
{
    switch (options->command) {
    case CLI_ROUTE:
    case CLI_SCORE:
        return check_prompts(options, error);
    case CLI_RELOAD:
        return check_reload(options, error);
    case CLI_EVAL:
    case CLI_CALIBRATE: {
        const br_status status = check_records(options, error);
        return status == BR_OK ? check_no_arguments(options, error) : status;
    }
    case CLI_INFO:
    case CLI_PING:
        break;
    }
    return check_no_arguments(options, error);
}

static br_status refuse_command(const char *word, br_error *error)
{
    br_nearest nearest = br_nearest_to(br_str_from(word));
    char names[128] = "";
    for (size_t i = 0; i < COMMANDS; i++) {
        br_nearest_offer(&nearest, commands[i].name);
        const size_t used = strlen(names);
        (void)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", commands[i].name);
    }
    if (*word == '\0') return br_fail(error, BR_EINVAL, "there is no command: %s", names);
    if (nearest.best != NULL)
        return br_fail(error, BR_EINVAL, "'%.100s' is no command; nearest is %s", word, nearest.best);
    return br_fail(error, BR_EINVAL, "'%.100s' is no command: %s", word, names);
}

/* The first word that is no option is the command. "help" before it asks for its help. */
static br_status take_command(cli_options *options, br_error *error)
{
    options->arguments = options->read.arguments;
    options->argument_count = options->read.argument_count;
    while (options->argument_count > 0) {
        const char *word = *options->arguments++;
        options->argument_count--;
        for (size_t i = 0; i < COMMANDS; i++) {
            if (strcmp(word, commands[i].name) != 0) continue;
            options->command = commands[i].command;
            return br_options_check_command(&options->read, commands[i].command, word, error);
        }
        if (options->help || strcmp(word, "help") != 0) return refuse_command(word, error);
        options->help = true;
    }
    return options->help ? BR_OK : refuse_command("", error);
}

br_status cli_options_read(cli_options *out, int argc, char *const *argv, char *const *environment,
                           br_error *error)
{
    *out = (cli_options){0};
    br_options_init(&out->read, &table, out);
    br_status status = br_options_read_arguments(&out->read, argc, argv, error);
    if (status != BR_OK || out->version) return status;
    status = take_command(out, error);
    if (status != BR_OK || out->help) return status;
    status = br_options_read_environment(&out->read, environment, error);
    if (status == BR_OK) status = br_options_read_initial(&out->read, error);
    if (status == BR_OK) status = check(out, error);
    if (status == BR_OK) status = settle_policy(out, error);
    return status;
}

void cli_options_deinit(cli_options *options)
{
    br_options_deinit(&options->read);
}
