/* main.c - the command line: reads the options, connects, runs one command. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bestroute/client.h"
#include "calibrate.h"
#include "core/clock.h"
#include "eval.h"
#include "json_out.h"
#include "options.h"
#include "output.h"
#include "report.h"
#include "run.h"
#include "text.h"

extern char **environ;

enum {
    OVERLOAD_RETRIES = 1000000, /* the timeout ends them */
    READY_POLL_MS = 50,
};

static cli_exit run_info(const cli_options *options, br_client *client)
{
    br_answer *info;
    br_error error = {0};
    const br_status status = br_client_info(client, &info, &error);
    if (status != BR_OK) return cli_report(options, cli_exit_of(status), &error);
    cli_output_info(options, info);
    br_answer_free(info);
    return CLI_EXIT_OK;
}

/* Asks again while the service answers not_ready, for as long as a call would wait for a connection. */
static br_status ping_until_ready(const cli_options *options, br_client *client, double *ms, br_error *error)
{
    const uint64_t end_ns = br_clock_now_ns() + (uint64_t)options->wait_ms * BR_NS_PER_MS;
    for (;;) {
        const uint64_t start_ns = br_clock_now_ns();
        const br_status status = br_client_ping(client, error);
        *ms = (double)(br_clock_now_ns() - start_ns) / BR_NS_PER_MS;
        if (status != BR_ENOTREADY || br_clock_now_ns() >= end_ns) return status;
        nanosleep(&(struct timespec){.tv_nsec = (long)READY_POLL_MS * BR_NS_PER_MS}, NULL);
    }
}

static cli_exit print_ping(const cli_options *options, const char *url, double ms)
{
    if (!options->json) {
        printf("%s is ready; answered in %.2f ms\n", url, ms);
        return CLI_EXIT_OK;
    }
    json_t *line = json_pack("{sb so}", "ok", 1, "ms", json_real(ms));
    if (options->urls.count > 1) json_object_set_new(line, "url", cli_json_text(url));
    cli_json_print(stdout, line);
    return CLI_EXIT_OK;
}

static br_client_options connection_to(const cli_options *options, const char *const *urls, size_t count)
{
    return (br_client_options){
        .urls = urls,
        .url_count = count,
        .timeout_ms = options->timeout_ms,
        .connect_ms = options->wait_ms,
        .retries = OVERLOAD_RETRIES,
        .hedge_ms = options->hedge_ms,
        .tls_ca = options->tls_ca,
        .tls_cert = options->tls_cert,
        .tls_name = options->tls_name,
    };
}

static cli_exit try_open(const cli_options *options, br_client **client, const char *const *urls,
                         size_t count, br_error *error)
{
    const br_client_options connection = connection_to(options, urls, count);
    const br_status status = br_client_connect(client, &connection, error);
    if (status == BR_OK) return CLI_EXIT_OK;
    return status == BR_ENOMEM ? CLI_EXIT_BROKEN : CLI_EXIT_USAGE;
}

static cli_exit open_client(const cli_options *options, br_client **client, const char *const *urls,
                            size_t count)
{
    br_error error = {0};
    const cli_exit code = try_open(options, client, urls, count, &error);
    return code == CLI_EXIT_OK ? code : cli_report(options, code, &error);
}

static cli_exit ping_one(const cli_options *options, const char *url)
{
    br_client *client;
    double ms;
    br_error error = {0};
    cli_exit code = try_open(options, &client, &url, 1, &error);
    if (code == CLI_EXIT_OK) {
        const br_status status = ping_until_ready(options, client, &ms, &error);
        br_client_close(client);
        if (status == BR_OK) return print_ping(options, url, ms);
        code = cli_exit_of(status);
    }
    const char *which = options->urls.count > 1 ? url : NULL;
    cli_report_error(options->json, cli_code_of(code, error.status), error.text, which);
    return code;
}

/* Each of the urls; the first failure is the exit code. */
static cli_exit run_ping(const cli_options *options)
{
    cli_exit code = CLI_EXIT_OK;
    for (size_t i = 0; i < options->urls.count; i++) {
        const cli_exit one = ping_one(options, options->urls.items[i]);
        if (code == CLI_EXIT_OK) code = one;
    }
    return code;
}

static void print_reloaded(const cli_options *options, const br_answer *answer)
{
    if (options->json) {
        json_t *bundle = json_object();
        json_object_set_new(bundle, "name", cli_json_text(answer->bundle_name));
        json_object_set_new(bundle, "hash", cli_json_text(answer->bundle_hash));
        cli_json_print(stdout, json_pack("{sb so}", "ok", 1, "bundle", bundle));
    } else {
        printf("reloaded: %s  %s\n", answer->bundle_name, answer->bundle_hash);
    }
}

static cli_exit run_reload(const cli_options *options, br_client *client)
{
    br_error error = {0};
    char *folder = NULL;
    if (options->argument_count > 0) {
        folder = realpath(options->arguments[0], NULL); /* the service runs in another folder */
        if (folder == NULL) {
            (void)!br_fail(&error, BR_EINVAL, "%s: %s", options->arguments[0], strerror(errno));
            return cli_report(options, CLI_EXIT_USAGE, &error);
        }
    }
    br_answer *answer;
    const br_status status = br_client_reload(client, &answer, folder, &error);
    free(folder);
    if (status != BR_OK) return cli_report(options, cli_exit_of(status), &error);
    print_reloaded(options, answer);
    br_answer_free(answer);
    return CLI_EXIT_OK;
}

static cli_exit run_command(const cli_options *options, br_client *client)
{
    switch (options->command) {
    case CLI_ROUTE:
    case CLI_SCORE:
        return cli_run(options, client);
    case CLI_INFO:
        return run_info(options, client);
    case CLI_RELOAD:
        return run_reload(options, client);
    case CLI_EVAL:
        return cli_eval(options, client);
    case CLI_CALIBRATE:
        return cli_calibrate(options, client);
    case CLI_PING: /* has clients of its own */
        break;
    }
    return CLI_EXIT_USAGE;
}

static void print_endpoints(br_client *client)
{
    br_client_totals totals;
    br_client_endpoint all[CLI_URLS_MAX];
    const size_t count = br_client_stats(client, &totals, all, CLI_URLS_MAX);
    fprintf(stderr, "%9s %9s %9s %9s %9s %9s  %s\n", "sent", "answered", "refused", "failed", "abandoned",
            "ejected", "endpoint");
    for (size_t i = 0; i < count; i++) {
        const br_client_endpoint *e = &all[i];
        fprintf(stderr,
                "%9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 "  %s%s\n",
                e->sent, e->answered, e->refused, e->failed, e->abandoned, e->ejections, e->url,
                !e->connected ? " (not connected)"
                : e->ejected  ? " (ejected)"
                              : "");
    }
    fprintf(stderr, "%" PRIu64 " calls, %" PRIu64 " retries, %" PRIu64 " hedges, of which %" PRIu64 " won\n",
            totals.calls, totals.retries, totals.hedges, totals.hedges_won);
}

static cli_exit connect_and_run(const cli_options *options)
{
    if (options->command == CLI_PING) return run_ping(options);
    const bool is_admin = options->command == CLI_RELOAD;
    br_client *client;
    const cli_exit connected = open_client(options, &client, is_admin ? &options->admin : options->urls.items,
                                           is_admin ? 1 : options->urls.count);
    if (connected != CLI_EXIT_OK) return connected;
    const cli_exit code = run_command(options, client);
    if (options->endpoints) print_endpoints(client);
    br_client_close(client);
    return code;
}

static cli_exit run(int argc, char *const *argv, cli_options *options)
{
    br_error error = {0};
    if (cli_options_read(options, argc, argv, environ, &error) != BR_OK) {
        cli_report(options, CLI_EXIT_USAGE, &error);
        fputs("Try 'bestroute help'.\n", stderr);
        return CLI_EXIT_USAGE;
    }
    if (options->help) {
        cli_help_print(stdout, options);
        return CLI_EXIT_OK;
    }
    if (options->version) {
        puts("bestroute " BESTROUTE_VERSION);
        return CLI_EXIT_OK;
    }
    return connect_and_run(options);
}

int main(int argc, char **argv)
{
    cli_text_setup();
    cli_options options;
    const cli_exit code = run(argc, argv, &options);
    cli_options_deinit(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "bestroute: standard output: %s\n", strerror(errno));
        return CLI_EXIT_BROKEN;
    }
    return code;
}
