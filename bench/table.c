/* table.c - see table.h. */
#include "table.h"

#include <math.h>
#include <string.h>

#include "report.h"

void table_service(FILE *stream, const json_t *report)
{
    const json_t *machine = json_object_get(report, "machine");
    const json_t *service = json_object_get(report, "service");
    (void)fprintf(stream, "machine  %s, %.0f cores, %.1f GiB, Linux %s\n", report_text(machine, "cpu"),
                  report_figure(machine, "cores"), report_figure(machine, "memory_gib"),
                  report_text(machine, "kernel"));
    if (json_object_size(service) == 0) return; /* a bare transport */
    (void)fprintf(stream, "service  %s, engine %s, precision %s, %s\n", report_text(service, "version"),
                  report_text(service, "engine"), report_text(service, "precision"),
                  report_text(service, "devices"));
    (void)fprintf(stream, "bundle   %s %.12s\n", report_text(service, "bundle"),
                  report_text(service, "hash"));
}

void table_head(FILE *stream, const json_t *report)
{
    const json_t *load = json_object_get(report, "load");
    const double queries = report_figure(load, "queries");
    const double connections = report_figure(load, "connections");
    table_service(stream, report);
    (void)fprintf(stream, "load     %s, %s, %g prompt%s a request %s%s\n", report_text(load, "url"),
                  report_text(load, "asks"), queries, queries == 1 ? "" : "s", report_text(load, "prompts"),
                  json_is_true(json_object_get(load, "as_tokens")) ? " as tokens" : "");
    (void)fprintf(stream, "         %s, %g connection%s, warm-up %g s\n\n", report_text(load, "loop"),
                  connections, connections == 1 ? "" : "s", report_figure(load, "warmup_s"));
    (void)fprintf(stream, "%15s %10s %10s %10s %9s %9s %9s %9s %9s %8s %8s\n", "load", "requests/s",
                  "queries/s", "tokens/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "server",
                  "client");
    (void)fprintf(stream, "%115s %8s\n", "cores", "cores");
    (void)fflush(stream);
}

/* "-" for what is not known. */
static void print_number(FILE *stream, int width, int digits, double value)
{
    if (isfinite(value))
        (void)fprintf(stream, " %*.*f", width, digits, value);
    else
        (void)fprintf(stream, " %*s", width, "-");
}

static void print_times(FILE *stream, const json_t *run)
{
    static const char *const parts[] = {"tokenize", "queue", "compute", "total"};
    if (json_object_get(run, "total_ms") == NULL) return;
    (void)fputs("    in the service, p50/p99 ms:", stream);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char path[2][32];
        (void)snprintf(path[0], sizeof path[0], "%s_ms.p50", parts[i]);
        (void)snprintf(path[1], sizeof path[1], "%s_ms.p99", parts[i]);
        (void)fprintf(stream, "%s %s %.3f/%.3f", i > 0 ? "," : "", parts[i], report_figure(run, path[0]),
                      report_figure(run, path[1]));
    }
    (void)fputc('\n', stream);
}

static void print_counts(FILE *stream, const json_t *run, const char *key, const char *title)
{
    const char *name;
    json_t *value;
    json_t *object = json_object_get(run, key);
    if (json_object_size(object) == 0) return;
    (void)fprintf(stream, "    %s:", title);
    const char *comma = "";
    json_object_foreach(object, name, value)
    {
        (void)fprintf(stream, "%s %s: %lld", comma, name, (long long)json_integer_value(value));
        comma = ",";
    }
    (void)fputc('\n', stream);
}

void table_row(FILE *stream, const json_t *run)
{
    static const struct {
        const char *path;
        int width;
        int digits;
    } columns[] = {
        {"requests_per_s", 10, 1},  {"queries_per_s", 10, 1}, {"tokens_per_s", 10, 0},
        {"latency_ms.p50", 9, 3},   {"latency_ms.p90", 9, 3}, {"latency_ms.p99", 9, 3},
        {"latency_ms.p99_9", 9, 3}, {"latency_ms.max", 9, 3}, {"server_cores", 8, 2},
        {"client_cores", 8, 2},
    };
    char label[32];
    report_label(label, sizeof label, run);
    (void)fprintf(stream, "%15s", label);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
        print_number(stream, columns[i].width, columns[i].digits, report_figure(run, columns[i].path));
    (void)fputc('\n', stream);
    print_times(stream, run);
    print_counts(stream, run, "batches", "requests by queries in their pass");
    print_counts(stream, run, "errors", "errors");
    if (report_figure(run, "refusal_ms.p99") >= 0)
        (void)fprintf(stream, "    refused within: p50 %.3f ms, p99 %.3f ms, max %.3f ms\n",
                      report_figure(run, "refusal_ms.p50"), report_figure(run, "refusal_ms.p99"),
                      report_figure(run, "refusal_ms.max"));
    if (report_figure(run, "rate") > 0 && report_figure(run, "late_ms.p99") > 1)
        (void)fprintf(stream, "    sent late: p50 %.3f ms, p99 %.3f ms, max %.3f ms; it counts as latency\n",
                      report_figure(run, "late_ms.p50"), report_figure(run, "late_ms.p99"),
                      report_figure(run, "late_ms.max"));
    (void)fflush(stream);
}

static const json_t *find_run(const json_t *report, const char *label)
{
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(report, "runs"), i, run)
    {
        char other[32];
        report_label(other, sizeof other, run);
        if (strcmp(label, other) == 0) return run;
    }
    return NULL;
}

void table_compare(FILE *stream, const json_t *a, const json_t *b)
{
    (void)fputs("A\n", stream);
    table_service(stream, a);
    (void)fputs("B\n", stream);
    table_service(stream, b);
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(a, "runs"), i, run)
    {
        char label[32];
        report_label(label, sizeof label, run);
        (void)fprintf(stream, "\n%-20s %14s %14s %9s\n", label, "A", "B", "B / A");
        const json_t *other = find_run(b, label);
        if (other == NULL) (void)fputs("  B has no such run\n", stream);
        for (const char *const *path = report_figures; *path != NULL && other != NULL; path++) {
            if (strcmp(*path, "in_flight") == 0 || strcmp(*path, "rate") == 0) continue;
            const double left = report_figure(run, *path);
            const double right = report_figure(other, *path);
            if (!isfinite(left) || !isfinite(right)) continue;
            (void)fprintf(stream, "  %-18s", *path);
            print_number(stream, 14, 3, left);
            print_number(stream, 14, 3, right);
            print_number(stream, 9, 3, left != 0 ? right / left : NAN);
            (void)fputc('\n', stream);
        }
    }
}
