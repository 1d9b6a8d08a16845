/*
 * bestroute_bench.c - the command: what to load, how hard, and where the figures go.
 *
 *   a service that runs    --url URL ...
 *   one of its own         --spawn BUNDLE, --noop BUNDLE
 *   no service             --engine BUNDLE, --echo URL, --compare A.json B.json
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "bestroute/client.h"
#include "child.h"
#include "cli/plot.h"
#include "echo.h"
#include "engine.h"
#include "options.h"
#include "report.h"
#include "serve/server.h"
#include "table.h"

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

static br_status save_json(const command *c, const json_t *report, br_error *error)
{
    if (c->json == NULL || json_dump_file(report, c->json, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) == 0)
        return BR_OK;
    return br_fail(error, BR_EIO, "--json: cannot write \"%.300s\": %s", c->json, strerror(errno));
}

static br_status save(const command *c, const json_t *report, br_error *error)
{
    br_status status = save_json(c, report, error);
    if (status != BR_OK) return status;
    FILE *csv = c->csv != NULL ? fopen(c->csv, "w") : NULL;
    if (c->csv != NULL && csv == NULL)
        return br_fail(error, BR_EIO, "--csv: cannot write \"%.300s\": %s", c->csv, strerror(errno));
    if (csv != NULL) {
        report_csv(csv, report);
        (void)fclose(csv);
    }
    return c->plot != NULL ? br_plot_draw(report, c->plot, error) : BR_OK;
}

static br_status save_record(const recorder *r, const char *path, br_error *error)
{
    size_t missing;
    const br_status status = recorder_write(r, path, &missing, error);
    if (status == BR_OK && missing > 0)
        (void)fprintf(stderr,
                      "bestroute-bench: --record: %zu queries are missing: never answered, or too many\n",
                      missing);
    return status;
}

static br_status run_one(json_t *runs, load_options *load, const prompts *source, br_error *error)
{
    load_result result;
    const br_status status = load_run(&result, load, source, error);
    if (status == BR_OK) {
        json_t *run = report_run(load, &result);
        table_row(stdout, run);
        (void)json_array_append_new(runs, run);
    }
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
    load.live = isatty(STDERR_FILENO) != 0;
    prompts source;
    br_status status = prompts_init(&source, &c->prompts, error);
    if (status != BR_OK) return status;
    if (c->sweep_rates) load.rate = c->sweep[0]; /* an open loop, as its description says */
    json_t *report = json_pack("{s:o, s:o, s:o, s:[]}", "machine", report_machine(), "service",
                               load.raw ? json_object() : describe_service(load.urls.items[0]), "load",
                               report_load(&load, &c->prompts), "runs");
    table_head(stdout, report);
    if (c->record != NULL)
        status = recorder_create(&load.recorder, source.count, load.queries, c->prompts.deadline_ms, error);
    if (status == BR_OK) status = run_all(json_object_get(report, "runs"), c, &load, &source, error);
    if (status == BR_OK) status = save(c, report, error);
    if (status == BR_OK && c->record != NULL) status = save_record(load.recorder, c->record, error);
    recorder_destroy(load.recorder);
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
    const char *bundle = c->noop != NULL ? c->noop : c->spawn;
    char daemon[PATH_MAX + 16];
    char flags[2048];
    child service;
    find_daemon(daemon, sizeof daemon);
    (void)snprintf(flags, sizeof flags, "%s %s", c->noop != NULL ? "--engine noop" : "", c->service_flags);
    br_status status = child_start(&service, daemon, bundle, flags, error);
    if (status != BR_OK) return status;
    c->load.urls.items[c->load.urls.count++] = service.url;
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
    json_t *report = json_pack("{s:o, s:{s:s, s:s, s:s, s:s, s:s, s:s}, s:[{s:i, s:f, s:f, s:f}]}", "machine",
                               report_machine(), "service", "version", br_server_version(), "engine",
                               r.engine, "precision", r.precision, "devices", r.device, "bundle", r.bundle,
                               "hash", r.hash, "runs", "workers", r.workers, "queries_per_s", r.queries_per_s,
                               "tokens_per_s", r.tokens_per_s, "one_ms", r.one_ms);
    table_service(stdout, report);
    (void)printf("\n%.1f queries/s, %.0f tokens/s in full passes of %d workers; %.3f ms for a prompt alone\n",
                 r.queries_per_s, r.tokens_per_s, r.workers, r.one_ms);
    const br_status saved = save_json(c, report, error);
    json_decref(report);
    return saved;
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
    if (status == BR_OK) table_compare(stdout, reports[0], reports[1]);
    for (int i = 0; i < 2; i++) json_decref(reports[i]);
    return status;
}

static br_status run(command *c, br_error *error)
{
    if (c->help) {
        command_print_help(stdout);
        return BR_OK;
    }
    if (c->echo != NULL) return echo_run(c->echo, c->hand_over, error);
    if (c->compare) return compare(c->files, error);
    if (c->engine != NULL) return run_engine(c, error);
    if (c->spawn != NULL || c->noop != NULL) return run_spawned(c, error);
    return run_load(c, error);
}

int main(int argc, char **argv)
{
    command c;
    br_error error = {0};
    br_status status = command_read(&c, argc, argv, &error);
    if (status == BR_OK && c.plot != NULL) status = br_plot_check(&error); /* before minutes of load */
    if (status == BR_OK) status = run(&c, &error);
    command_deinit(&c);
    if (status == BR_OK) return 0;
    (void)fprintf(stderr, "bestroute-bench: %s\n", error.text);
    return 1;
}
