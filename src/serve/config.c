/* config.c - the table of the service's options, and what they require of one another. */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

#define SWITCH(field) BR_OPTION_AT(br_config, field)
#define VARIABLE(field) BR_OPTION_AT(br_config, field), .places = BR_OPTION_ENVIRONMENT
#define AT(field) BR_OPTION_AT(br_config, field), .places = BR_OPTION_ENVIRONMENT | BR_OPTION_FILE

enum { HOUR_MS = 3600000 };

static const br_option_row rows[] = {
    {.heading = "Serving"},
    {"bundle", "FOLDER", "the bundle to serve; required", AT(bundle), .initial = ""},
    {"listen", "URL", "where to listen: tcp://, ipc://, tls+tcp:// or inproc://; may be repeated", AT(listen),
     .most = BR_LISTENERS_MAX, .initial = "tcp://127.0.0.1:5555"},
    {"admin", "URL", "the admin socket, ipc:// (mode 0600) or inproc://; empty: none", AT(admin),
     .initial = ""},
    {"tls-cert", "FILE", "PEM file with the certificate of tls+tcp:// listeners", AT(tls_cert),
     .initial = ""},
    {"tls-key", "FILE", "PEM file with its private key", AT(tls_key), .initial = ""},
    {"tls-ca", "FILE", "PEM file with authorities; clients must then show a certificate of theirs",
     AT(tls_ca), .initial = ""},
    {"drain-timeout-ms", "MS", "longest wait for requests in flight before exiting", AT(drain_timeout_ms),
     BR_RANGE(0, HOUR_MS), .initial = "10000"},

    {.heading = "Engine"},
    {"engine", NULL,
     "what computes; noop answers constant qualities without an encoder, to measure the service alone",
     AT(engine), .words = "auto|reference|cpu|cuda|noop", .initial = "auto"},
    {"precision", NULL, "the numbers it computes with; auto: the fastest that are exact enough",
     AT(precision), .words = BR_PRECISION_WORDS, .initial = "auto"},
    {"devices", "LIST",
     "which devices compute: auto (all the engine has), or such as 0,2 or 0,1,cpu; cpu may stand beside "
     "engine cuda's, and be repeated: a copy of the weights each",
     AT(devices), .initial = "auto"},
    {"workers", "N", "scoring threads of each device, one stream each; 0: the engine's own number",
     AT(workers), BR_RANGE(0, BR_WORKERS_MAX), .initial = "0"},
    {"tokenizer-threads", "N", "threads that turn text into tokens; 0: as many as the engine needs",
     AT(tokenizer_threads), BR_RANGE(0, BR_WORKERS_MAX), .initial = "0"},
    {"gemm-cache", "FILE",
     "engine cuda: measure how each matrix product is computed fastest, and remember it here; empty: guess",
     AT(gemm_cache), .initial = ""},
    {"pass-timeout-ms", "MS", "longest encoder pass; a device that takes longer counts as hung; 0: no limit",
     AT(pass_timeout_ms), BR_RANGE(0, HOUR_MS), .initial = "30000"},

    {.heading = "Batching"},
    {"batch-tokens", "N",
     "most tokens of one encoder pass, unless a single prompt is longer; 0: what suits the engine",
     AT(batch_tokens), BR_RANGE(0, BR_BATCH_TOKENS_MAX), .initial = "0"},
    {"batch-seqs", "N", "most queries of one encoder pass", AT(batch_seqs), BR_RANGE(1, BR_BATCH_SEQS_MAX),
     .initial = "256"},
    {"score-cache-mb", "MB",
     "memory for the scores of earlier prompts, found again by their exact tokens; 0: none",
     AT(score_cache_mb), BR_RANGE(0, 65536), .initial = "0"},

    {.heading = "Limits"},
    {"queue-max", "N", "most queries admitted and not yet scored; further ones are answered `overloaded`",
     AT(queue_max), BR_RANGE(1, BR_QUEUE_QUERIES_MAX), .initial = "1024"},
    {"max-queries", "N", "most queries of one request; at most queue_max", AT(max_queries),
     BR_RANGE(1, BR_QUERIES_MAX), .initial = "256"},
    {"max-text-bytes", "BYTES", "longest prompt", AT(max_text_bytes), BR_RANGE(1, BR_TEXT_BYTES_MAX),
     .initial = "1048576"},
    {"max-message-bytes", "BYTES", "longest message", AT(max_message_bytes),
     BR_RANGE(1024, BR_MESSAGE_BYTES_MAX), .initial = "4194304"},

    {.heading = "Several processes, as ranks"},
    {"ranks", "N",
     "processes that load bundles together, over NCCL: a reload through rank 0 switches all of them or none",
     AT(ranks), BR_RANGE(1, BR_RANKS_MAX), .initial = "1"},
    {"rank", "N", "which of them this process is; rank 0 sends the weights", AT(rank),
     BR_RANGE(0, BR_RANKS_MAX - 1), .initial = "0"},
    {"ranks-id", "FILE",
     "where rank 0 leaves NCCL's unique id for the others; not needed where NCCL_COMM_ID is set",
     AT(ranks_id), .initial = ""},
    {"ranks-timeout-ms", "MS", "longest wait for the other ranks", AT(ranks_timeout_ms),
     BR_RANGE(100, HOUR_MS), .initial = "30000"},

    {.heading = "Observability"},
    {"metrics", "URL", "http:// address for /metrics (Prometheus), /healthz and /readyz; empty: none",
     AT(metrics), .initial = ""},
    {"log-level", NULL, "the least important events to log", AT(log_level), .words = "debug|info|warn|error",
     .initial = "info"},

    {.heading = "The program"},
    {"config", "FILE", "file with further options, `name = value` a line", VARIABLE(config), .initial = ""},
    {"check", NULL, "validate the configuration and the bundle, then exit: 0 good, 1 not", SWITCH(check)},
    {"version", NULL, "print the version and exit", SWITCH(version)},
    {"help", NULL, "print this help and exit", SWITCH(help), .letter = 'h'},
};

static const br_option_table table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .once = true, .strict_environment = true};

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static br_status check_listen(const br_config *config, br_error *error)
{
    static const char *const schemes[] = {"tcp://", "ipc://", "tls+tcp://", "inproc://"};
    for (size_t i = 0; i < config->listen.count; i++) {
        const char *url = config->listen.items[i];
        bool known = false;
        for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++)
            known = known || starts_with(url, schemes[k]);
        if (!known)
            return br_fail(
                error, BR_EINVAL,
                "listen (from %s): found \"%.200s\", expected tcp://, ipc://, tls+tcp:// or inproc://",
                BR_CONFIG_SOURCE(config, listen), url);
        if (starts_with(url, "tls+tcp://") && (*config->tls_cert == '\0' || *config->tls_key == '\0'))
            return br_fail(error, BR_EINVAL, "listen (from %s): \"%.200s\" needs tls_cert and tls_key",
                           BR_CONFIG_SOURCE(config, listen), url);
    }
    return BR_OK;
}

static br_status check_ranks(const br_config *config, br_error *error)
{
    if (config->rank >= config->ranks)
        return br_fail(
            error, BR_EINVAL,
            "rank (from %s): found %" PRId64 ", expected less than ranks, which is %" PRId64 " (from %s)",
            BR_CONFIG_SOURCE(config, rank), config->rank, config->ranks, BR_CONFIG_SOURCE(config, ranks));
    if (config->ranks > 1 && *config->ranks_id == '\0' && getenv("NCCL_COMM_ID") == NULL)
        return br_fail(
            error, BR_EINVAL,
            "ranks (from %s): needs ranks_id, or NCCL_COMM_ID in the environment, for the ranks to meet",
            BR_CONFIG_SOURCE(config, ranks));
    return BR_OK;
}

static br_status check_relations(const br_config *config, br_error *error)
{
    br_status status = check_listen(config, error);
    if (status == BR_OK) status = check_ranks(config, error);
    if (status != BR_OK) return status;
    if (*config->bundle == '\0')
        return br_fail(error, BR_EINVAL, "bundle: no value was given, expected a folder (--bundle FOLDER)");
    if (*config->metrics != '\0' && !starts_with(config->metrics, "http://"))
        return br_fail(error, BR_EINVAL, "metrics (from %s): found \"%.200s\", expected http://address:port",
                       BR_CONFIG_SOURCE(config, metrics), config->metrics);
    if (*config->admin != '\0' && !starts_with(config->admin, "ipc://") &&
        !starts_with(config->admin, "inproc://"))
        return br_fail(error, BR_EINVAL,
                       "admin (from %s): found \"%.200s\", expected an ipc:// or inproc:// URL",
                       BR_CONFIG_SOURCE(config, admin), config->admin);
    if (config->max_queries > config->queue_max)
        return br_fail(error, BR_EINVAL,
                       "max_queries (from %s): found %" PRId64
                       ", expected at most queue_max, which is %" PRId64
                       " (from %s): a larger request could never be admitted",
                       BR_CONFIG_SOURCE(config, max_queries), config->max_queries, config->queue_max,
                       BR_CONFIG_SOURCE(config, queue_max));
    if (config->max_text_bytes > config->max_message_bytes)
        return br_fail(error, BR_EINVAL,
                       "max_text_bytes (from %s): found %" PRId64
                       ", expected at most max_message_bytes, which is %" PRId64 " (from %s)",
                       BR_CONFIG_SOURCE(config, max_text_bytes), config->max_text_bytes,
                       config->max_message_bytes, BR_CONFIG_SOURCE(config, max_message_bytes));
    return BR_OK;
}

static br_status read_file(br_config *config, br_error *error)
{
    if (config->config == NULL || *config->config == '\0') return BR_OK;
    br_error why = {0};
    const br_status status = br_options_read_file(&config->options, config->config, &why);
    if (status != BR_EIO) return status == BR_OK ? status : br_fail(error, status, "%s", why.text);
    return br_fail(error, status, "config (from %s): %.400s", BR_CONFIG_SOURCE(config, config), why.text);
}

br_status br_config_load(br_config *out, int argc, char *const *argv, char *const *environment,
                         br_error *error)
{
    *out = (br_config){0};
    br_options *options = &out->options;
    br_options_init(options, &table, out);
    br_status status = br_options_read_arguments(options, argc, argv, error);
    if (status != BR_OK || out->help || out->version) return status;
    status = br_options_read_environment(options, environment, error);
    if (status == BR_OK) status = read_file(out, error);
    if (status == BR_OK) status = br_options_read_initial(options, error);
    if (status == BR_OK) status = check_relations(out, error);
    return status;
}

void br_config_deinit(br_config *config)
{
    br_options_deinit(&config->options);
}

void br_config_print_help(FILE *stream)
{
    (void)fputs(
        "bestrouted: scores prompts and answers which model, sampled how often, should serve them.\n\n"
        "usage: bestrouted --bundle FOLDER [options]\n",
        stream);
    br_options_print_help(&table, 0, stream);
    (void)fputs(
        "\nEvery option but the last three can also be set in the environment (BESTROUTE_QUEUE_MAX=1024)\n"
        "and, but for config, in the file (queue_max = 1024). Flags win over the environment, the\n"
        "environment over the file.\n",
        stream);
}

/* A vertical bar would end the cell. */
static void print_text(FILE *stream, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') (void)fputc('\\', stream);
        (void)fputc(*text, stream);
    }
}

static void print_code(FILE *stream, const char *text)
{
    if (*text != '\0') (void)fprintf(stream, "`%s`", text);
    (void)fputs(" | ", stream);
}

static void print_row(FILE *stream, const br_option_row *row)
{
    char variable[BR_OPTION_NAME_BYTES] = "";
    char key[BR_OPTION_NAME_BYTES] = "";
    if ((row->places & BR_OPTION_ENVIRONMENT) != 0) br_option_variable(variable, row);
    if ((row->places & BR_OPTION_FILE) != 0) br_option_key(key, row);
    (void)fprintf(stream, "| `--%s` | ", row->name);
    print_code(stream, variable);
    print_code(stream, key);
    print_text(stream, row->words != NULL ? row->words : row->value != NULL ? row->value : "");
    if (row->kind == BR_OPTION_INT64) (void)fprintf(stream, " %.0f..%.0f", row->least, row->most);
    (void)fprintf(stream, " | %s | ", row->initial != NULL ? row->initial : "");
    print_text(stream, row->help);
    (void)fputs(" |\n", stream);
}

void br_config_print_table(FILE *stream)
{
    (void)fputs("| flag | variable | file | value | default | meaning |\n"
                "| --- | --- | --- | --- | --- | --- |\n",
                stream);
    for (size_t i = 0; i < table.row_count; i++) {
        const br_option_row *row = &rows[i];
        if (row->name == NULL)
            (void)fprintf(stream, "| **%s** | | | | | |\n", row->heading);
        else
            print_row(stream, row);
    }
}
