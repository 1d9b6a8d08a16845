/* curve.c - see curve.h. */
#include "curve.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/plot.h"
#include "core/memory.h"
#include "report.h"

static const struct {
    const char *path;
    const char *label;
    unsigned color;
} lines[] = {
    {"latency_ms.p99", "p99", 0xb03030},
    {"latency_ms.p90", "p90", 0xe08a1e},
    {"latency_ms.p50", "p50", 0x2a6fb0},
};

enum { LINES = sizeof lines / sizeof *lines, TEXT_BYTES = 32, TITLE_BYTES = 256 };

typedef struct curve {
    plot_series series[LINES];
    double *values; /* [1 + LINES, runs]: x, then each line's y */
    char *texts;    /* [runs, TEXT_BYTES] */
    const char **text_of;
    char title[TITLE_BYTES];
    char subtitle[TITLE_BYTES];
} curve;

/* Beside each run's topmost dot: the requests in flight, or what was answered where that is less than offered. */
static void write_text(char *out, const json_t *run, bool open, double offered)
{
    const double answered = report_figure(run, "queries_per_s");
    *out = '\0';
    if (!open)
        (void)snprintf(out, TEXT_BYTES, "%g", report_figure(run, "in_flight"));
    else if (answered < 0.9 * offered)
        (void)snprintf(out, TEXT_BYTES, "%.4g/s", answered);
}

static void fill(curve *c, const json_t *report, bool open)
{
    json_t *runs = json_object_get(report, "runs");
    const size_t count = json_array_size(runs);
    const double queries = report_figure(json_object_get(report, "load"), "queries");
    for (size_t i = 0; i < count; i++) {
        const json_t *run = json_array_get(runs, i);
        c->values[i] = open ? report_figure(run, "rate") * queries : report_figure(run, "queries_per_s");
        for (size_t l = 0; l < LINES; l++) c->values[(l + 1) * count + i] = report_figure(run, lines[l].path);
        c->text_of[i] = c->texts + i * TEXT_BYTES;
        write_text(c->texts + i * TEXT_BYTES, run, open, c->values[i]);
    }
    for (size_t l = 0; l < LINES; l++)
        c->series[l] = (plot_series){
            .label = lines[l].label,
            .kind = PLOT_MARKED,
            .color = lines[l].color,
            .x = c->values,
            .y = c->values + (l + 1) * count,
            .texts = l == 0 ? c->text_of : NULL,
            .count = count,
        };
}

static void name(curve *c, const json_t *report)
{
    const json_t *machine = json_object_get(report, "machine");
    const json_t *service = json_object_get(report, "service");
    const json_t *load = json_object_get(report, "load");
    const double queries = report_figure(load, "queries");
    (void)snprintf(c->title, sizeof c->title, "Latency against throughput: %.80s, %.20s %.10s",
                   report_text(service, "bundle"), report_text(service, "engine"),
                   report_text(service, "precision"));
    (void)snprintf(c->subtitle, sizeof c->subtitle, "%.60s, %g cores; %.40s, %g prompt%s a request %.60s",
                   report_text(machine, "cpu"), report_figure(machine, "cores"), report_text(load, "loop"),
                   queries, queries == 1 ? "" : "s", report_text(load, "prompts"));
}

br_status curve_plot(const json_t *report, const char *stem, br_error *error)
{
    const json_t *runs = json_object_get(report, "runs");
    const size_t count = json_array_size(runs);
    const bool open = report_figure(json_array_get(runs, 0), "rate") > 0;
    curve c = {
        .values = calloc((1 + LINES) * count + 1, sizeof *c.values),
        .texts = calloc(count + 1, TEXT_BYTES),
        .text_of = calloc(count + 1, sizeof *c.text_of),
    };
    br_status status = BR_ENOMEM;
    if (c.values != NULL && c.texts != NULL && c.text_of != NULL) {
        fill(&c, report, open);
        name(&c, report);
        const plot_chart chart = {
            .title = c.title,
            .subtitle = c.subtitle,
            .x_label = open ? "queries/s offered; beside a dot, what was answered where that is less"
                            : "queries/s answered; beside a dot, the requests in flight",
            .y_label = "latency, ms",
            .series = c.series,
            .series_count = LINES,
            .log_y = true,
            .legend_first = true,
        };
        status = plot_write(&chart, stem, error);
    } else {
        status = br_no_memory(error, "the plot");
    }
    free(c.values);
    free(c.texts);
    free(c.text_of);
    return status;
}
