/* report.c - see report.h. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plot.h"

/* Making. */

json_t *report_machine(void)
{
    char line[512];
    char model[256] = "unknown";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        (void)snprintf(model, sizeof model, "%.200s", colon + 2);
        model[strcspn(model, "\n")] = '\0';
        break;
    }
    if (file != NULL) (void)fclose(file);
    return json_pack("{s:s, s:I}", "cpu", model, "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN));
}

static json_t *ms_of(const histogram *h, double unit)
{
    const double to_ms = unit / 1e6;
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f}", "mean", histogram_mean(h) * to_ms, "p50",
        (double)histogram_percentile(h, 0.5) * to_ms, "p90", (double)histogram_percentile(h, 0.9) * to_ms,
        "p99", (double)histogram_percentile(h, 0.99) * to_ms, "p99_9",
        (double)histogram_percentile(h, 0.999) * to_ms, "max", (double)histogram_percentile(h, 1) * to_ms);
}

static json_t *errors_of(const load_result *r)
{
    json_t *errors = json_object();
    for (int code = 1; code < LOAD_CODES; code++) {
        const uint64_t whole = atomic_load(&r->refused[code]);
        const uint64_t single = atomic_load(&r->query_errors[code]);
        char name[64];
        (void)snprintf(name, sizeof name, "query_%s", br_code_name((br_code)code));
        if (whole > 0)
            (void)json_object_set_new(errors, br_code_name((br_code)code), json_integer((json_int_t)whole));
        if (single > 0) (void)json_object_set_new(errors, name, json_integer((json_int_t)single));
    }
    if (r->timed_out > 0)
        (void)json_object_set_new(errors, "timed_out", json_integer((json_int_t)r->timed_out));
    if (r->broken > 0) (void)json_object_set_new(errors, "broken", json_integer((json_int_t)r->broken));
    return errors;
}

/* How many requests had their largest pass shared by 1, 2-3, 4-7, ... queries. */
static json_t *batches_of(const load_result *r)
{
    json_t *batches = json_object();
    for (int from = 1; from <= LOAD_BATCH_MAX; from *= 2) {
        uint64_t sum = 0;
        for (int i = from; i < 2 * from && i <= LOAD_BATCH_MAX; i++) sum += atomic_load(&r->batches[i]);
        char name[32];
        (void)snprintf(name, sizeof name, from == 1 ? "1" : "%d-%d", from, 2 * from - 1);
        if (sum > 0) (void)json_object_set_new(batches, name, json_integer((json_int_t)sum));
    }
    return batches;
}

json_t *report_run(const load_options *o, const load_result *r)
{
    json_t *run =
        json_pack("{s:I, s:f, s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "in_flight", (json_int_t)o->in_flight,
                  "rate", o->rate, "seconds", r->seconds, "sent", (json_int_t)r->sent, "answered",
                  (json_int_t)r->answered, "ok", (json_int_t)r->ok, "requests_per_s",
                  (double)r->ok / r->seconds, "queries_per_s", (double)r->queries / r->seconds,
                  "tokens_per_s", (double)r->tokens / r->seconds, "client_cores", r->client_cpu);
    (void)json_object_set_new(run, "server_cores",
                              r->server_cpu >= 0 ? json_real(r->server_cpu) : json_null());
    (void)json_object_set_new(run, "latency_ms", ms_of(&r->latency, 1));
    if (atomic_load(&r->refusal.total) > 0)
        (void)json_object_set_new(run, "refusal_ms", ms_of(&r->refusal, 1));
    (void)json_object_set_new(run, "late_ms", ms_of(&r->late, 1));
    if (!o->raw) {
        (void)json_object_set_new(run, "tokenize_ms", ms_of(&r->tokenize, 1000));
        (void)json_object_set_new(run, "queue_ms", ms_of(&r->queue, 1000));
        (void)json_object_set_new(run, "compute_ms", ms_of(&r->compute, 1000));
        (void)json_object_set_new(run, "total_ms", ms_of(&r->total, 1000));
        (void)json_object_set_new(run, "batches", batches_of(r));
    }
    (void)json_object_set_new(run, "errors", errors_of(r));
    return run;
}

/* Reading. */

/* "latency_ms.p50" of a run; NAN when it is not there. */
static double figure(const json_t *run, const char *path)
{
    char part[64];
    const char *dot = strchr(path, '.');
    if (dot == NULL) {
        const json_t *value = json_object_get(run, path);
        return json_is_number(value) ? json_number_value(value) : NAN;
    }
    (void)snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
    return figure(json_object_get(run, part), dot + 1);
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "-";
}

static const char *const columns[] = {
    "in_flight",
    "rate",
    "sent",
    "ok",
    "requests_per_s",
    "queries_per_s",
    "tokens_per_s",
    "latency_ms.p50",
    "latency_ms.p90",
    "latency_ms.p99",
    "latency_ms.p99_9",
    "latency_ms.max",
    "queue_ms.p50",
    "compute_ms.p50",
    "tokenize_ms.p50",
    "late_ms.p99",
    "refusal_ms.p99",
    "server_cores",
    "client_cores",
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void print_objects(FILE *stream, const json_t *run, const char *key)
{
    const char *name;
    json_t *value;
    json_t *object = json_object_get(run, key);
    if (json_object_size(object) == 0) return;
    (void)fprintf(stream, "    %s:", key);
    json_object_foreach(object, name, value)(void)
        fprintf(stream, " %s %lld", name, (long long)json_integer_value(value));
    (void)fputc('\n', stream);
}

static void print_row(FILE *stream, const json_t *run)
{
    const double rate = figure(run, "rate");
    if (rate > 0)
        (void)fprintf(stream, "%10.4g/s", rate);
    else
        (void)fprintf(stream, "%12.0f", figure(run, "in_flight"));
    (void)fprintf(stream, " %11.1f %11.1f %11.0f %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f %7.2f\n",
                  figure(run, "requests_per_s"), figure(run, "queries_per_s"), figure(run, "tokens_per_s"),
                  figure(run, "latency_ms.p50"), figure(run, "latency_ms.p90"), figure(run, "latency_ms.p99"),
                  figure(run, "latency_ms.p99_9"), figure(run, "latency_ms.max"), figure(run, "queue_ms.p50"),
                  figure(run, "compute_ms.p50"), figure(run, "server_cores"));
    print_objects(stream, run, "batches");
    print_objects(stream, run, "errors");
    if (figure(run, "refusal_ms.p99") >= 0)
        (void)fprintf(stream, "    refused within: p50 %.3f ms, p99 %.3f ms, max %.3f ms\n",
                      figure(run, "refusal_ms.p50"), figure(run, "refusal_ms.p99"),
                      figure(run, "refusal_ms.max"));
}

void report_table(FILE *stream, const json_t *report)
{
    const json_t *machine = json_object_get(report, "machine");
    const json_t *service = json_object_get(report, "service");
    const json_t *load = json_object_get(report, "load");
    (void)fprintf(stream, "machine  %s, %.0f cores\n", text(machine, "cpu"), figure(machine, "cores"));
    (void)fprintf(stream, "service  %s, engine %s, precision %s, %s\n", text(service, "version"),
                  text(service, "engine"), text(service, "precision"), text(service, "devices"));
    (void)fprintf(stream, "bundle   %s %.12s\n", text(service, "bundle"), text(service, "hash"));
    (void)fprintf(stream, "load     %s, %.0f queries a request, %s\n\n", text(load, "url"),
                  figure(load, "queries"), text(load, "prompts"));
    (void)fprintf(stream, "%12s %11s %11s %11s %9s %9s %9s %9s %9s %9s %9s %7s\n", "in flight", "requests/s",
                  "queries/s", "tokens/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "queue p50",
                  "comp. p50", "cores");
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(report, "runs"), i, run) print_row(stream, run);
}

void report_csv(FILE *stream, const json_t *report)
{
    for (size_t c = 0; c < COLUMNS; c++) (void)fprintf(stream, "%s%s", c == 0 ? "" : ",", columns[c]);
    (void)fputc('\n', stream);
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(report, "runs"), i, run)
    {
        for (size_t c = 0; c < COLUMNS; c++) {
            const double value = figure(run, columns[c]);
            if (c > 0) (void)fputc(',', stream);
            if (isfinite(value)) (void)fprintf(stream, "%.9g", value);
        }
        (void)fputc('\n', stream);
    }
}

br_status report_plot(const json_t *report, const char *stem, br_error *error)
{
    static const struct {
        const char *path;
        const char *label;
        unsigned color;
    } lines[] = {{"latency_ms.p50", "p50", 0x2a6fb0},
                 {"latency_ms.p90", "p90", 0xe08a1e},
                 {"latency_ms.p99", "p99", 0xb03030}};
    enum { LINES = sizeof lines / sizeof *lines };
    json_t *runs = json_object_get(report, "runs");
    const size_t count = json_array_size(runs);
    double *values = calloc((LINES + 1) * (count > 0 ? count : 1), sizeof *values);
    if (values == NULL) return br_fail(error, BR_ENOMEM, "out of memory");
    plot_series series[LINES];
    for (size_t i = 0; i < count; i++) {
        values[i] = figure(json_array_get(runs, i), "queries_per_s");
        for (size_t l = 0; l < LINES; l++)
            values[(l + 1) * count + i] = figure(json_array_get(runs, i), lines[l].path);
    }
    for (size_t l = 0; l < LINES; l++)
        series[l] = (plot_series){.label = lines[l].label,
                                  .kind = PLOT_LINE,
                                  .color = lines[l].color,
                                  .x = values,
                                  .y = values + (l + 1) * count,
                                  .count = count};
    const json_t *service = json_object_get(report, "service");
    char title[256];
    (void)snprintf(title, sizeof title, "Latency against throughput: %.60s, %.20s %.10s",
                   text(service, "bundle"), text(service, "engine"), text(service, "precision"));
    const plot_chart chart = {.title = title,
                              .x_label = "queries/s answered",
                              .y_label = "latency, ms",
                              .series = series,
                              .series_count = LINES};
    const br_status status = plot_write(&chart, stem, error);
    free(values);
    return status;
}

/* Comparing. */

static const json_t *partner(const json_t *runs, const json_t *run)
{
    size_t i;
    json_t *other;
    json_array_foreach((json_t *)(uintptr_t)runs, i, other)
    {
        const bool open = figure(run, "rate") > 0;
        const char *key = open ? "rate" : "in_flight";
        if (figure(other, key) == figure(run, key) && (figure(other, "rate") > 0) == open) return other;
    }
    return NULL;
}

void report_compare(FILE *stream, const json_t *a, const json_t *b)
{
    (void)fprintf(stream, "A: %s %s, B: %s %s\n", text(json_object_get(a, "service"), "engine"),
                  text(json_object_get(a, "service"), "version"),
                  text(json_object_get(b, "service"), "engine"),
                  text(json_object_get(b, "service"), "version"));
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(a, "runs"), i, run)
    {
        const json_t *other = partner(json_object_get(b, "runs"), run);
        const double rate = figure(run, "rate");
        (void)fprintf(stream, rate > 0 ? "\nrate %g/s\n" : "\n%g in flight\n",
                      rate > 0 ? rate : figure(run, "in_flight"));
        if (other == NULL) {
            (void)fputs("  B has no such run\n", stream);
            continue;
        }
        for (size_t c = 2; c < COLUMNS; c++) {
            const double left = figure(run, columns[c]);
            const double right = figure(other, columns[c]);
            if (isfinite(left) && isfinite(right))
                (void)fprintf(stream, "  %-18s %14.4f %14.4f   %7.3f\n", columns[c], left, right,
                              left != 0 ? right / left : NAN);
        }
    }
}
