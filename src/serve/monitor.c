/*
 * monitor.c - see monitor.h.
 *
 * Pages are written on the HTTP server's thread, from atomic counters and, for a moment, under the state's
 * lock: a slow reader delays no scoring. Nothing here changes the service.
 */
#include "monitor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "http.h"
#include "server.h"
#include "workers/workers.h"

enum { PATIENCE_MS = 5000 }; /* with one reader */

/* Prometheus' text format, version 0.0.4. */
static void write_head(http_page *p, const char *name, const char *type, const char *help)
{
    http_print(p, "# HELP bestroute_%s %s\n# TYPE bestroute_%s %s\n", name, help, name, type);
}

static void write_gauge(http_page *p, const char *name, const char *help, int64_t value)
{
    write_head(p, name, "gauge", help);
    http_print(p, "bestroute_%s %" PRId64 "\n", name, value);
}

static void write_counters(http_page *p, const br_metrics *metrics)
{
    for (br_counter i = 0; i < BR_COUNTER_COUNT; i++) {
        const char *counter = br_counter_name(i);
        const size_t length = strlen(counter);
        const bool time = length > 3 && strcmp(counter + length - 3, "_ns") == 0;
        char name[64];
        (void)snprintf(name, sizeof name, "%.*s%s_total", (int)(time ? length - 3 : length), counter,
                       time ? "_seconds" : "");
        write_head(p, name, "counter", br_counter_help(i));
        if (time)
            http_print(p, "bestroute_%s %.9f\n", name, (double)br_metrics_get(metrics, i) / 1e9);
        else
            http_print(p, "bestroute_%s %" PRIu64 "\n", name, br_metrics_get(metrics, i));
    }
}

/* `labels`: "" or `name="value",`. */
static void write_histogram(http_page *p, const char *name, const char *labels, const br_histogram *h)
{
    const bool time = h->scale == BR_SCALE_TIME;
    const double unit = time ? 1e-9 : 1;
    const char *suffix = time ? "_seconds" : "";
    int32_t bounds_count;
    const uint64_t *bounds = br_scale_bounds(h->scale, &bounds_count);
    const size_t all = strlen(labels);
    const int alone = (int)(all > 0 ? all - 1 : 0); /* without the comma */
    const char *open = all > 0 ? "{" : "";
    const char *shut = all > 0 ? "}" : "";
    uint64_t below = 0;
    for (int32_t i = 0; i < bounds_count; i++) {
        below += br_histogram_count(h, i);
        http_print(p, "bestroute_%s%s_bucket{%sle=\"%g\"} %" PRIu64 "\n", name, suffix, labels,
                   (double)bounds[i] * unit, below);
    }
    below += br_histogram_count(h, bounds_count);
    http_print(p, "bestroute_%s%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, suffix, labels, below);
    http_print(p, "bestroute_%s%s_sum%s%.*s%s %.9g\n", name, suffix, open, alone, labels, shut,
               (double)br_histogram_sum(h) * unit);
    http_print(p, "bestroute_%s%s_count%s%.*s%s %" PRIu64 "\n", name, suffix, open, alone, labels, shut,
               below);
}

static void write_request_histograms(http_page *p, const br_metrics *metrics)
{
#define WRITE(name, scale, help)                                                                             \
    write_head(p, #name "_seconds", "histogram", help);                                                      \
    write_histogram(p, #name, "", &metrics->requests[BR_HISTOGRAM_##name]);
    BR_REQUEST_HISTOGRAM_LIST(WRITE)
#undef WRITE
}

/* A device's histograms are labelled with its number in the service and its engine. */
static void write_pass_histograms(http_page *p, const br_server *server)
{
    static const struct {
        const char *name;
        const char *help;
    } rows[BR_PASS_HISTOGRAM_COUNT] = {
#define ROW(name, scale, help) [BR_HISTOGRAM_##name] = {#name, help},
        BR_PASS_HISTOGRAM_LIST(ROW)
#undef ROW
    };
    for (int i = 0; i < BR_PASS_HISTOGRAM_COUNT; i++) {
        char name[64];
        const bool time = server->metrics.passes[0][i].scale == BR_SCALE_TIME;
        (void)snprintf(name, sizeof name, "%s%s", rows[i].name, time ? "_seconds" : "");
        write_head(p, name, "histogram", rows[i].help);
        for (int32_t d = 0; d < server->devices.count; d++) {
            const br_backend *backend = server->devices.items[d].backend;
            char labels[64];
            (void)snprintf(labels, sizeof labels, "device=\"%d\",engine=\"%s\",", (int)d,
                           backend != NULL ? backend->table->engine : "noop");
            write_histogram(p, rows[i].name, labels, &server->metrics.passes[d][i]);
        }
    }
}

/* The workers are made before the service is ready for the first time. */
static int32_t devices_in(br_server *server, bool ready)
{
    if (!ready) return 0;
    return server->devices.count - __builtin_popcount(br_workers_out(server->workers));
}

static void write_metrics(http_page *p, br_server *server)
{
    int64_t calls_open;
    const bool ready = state_phase(&server->state, &calls_open) == PHASE_READY;
    http_begin(p, 200, "text/plain; version=0.0.4; charset=utf-8");
    write_head(p, "build_info", "gauge", "constant 1, with the version as its label");
    http_print(p, "bestroute_build_info{version=\"%s\"} 1\n", br_server_version());
    write_gauge(p, "ready", "1 while a bundle is loaded and the service is not draining, else 0",
                ready ? 1 : 0);
    write_gauge(p, "requests_in_flight", "requests admitted and not yet answered", calls_open);
    write_gauge(p, "queries_waiting", "queries admitted and not yet scored", atomic_load(&server->admitted));
    write_gauge(p, "queries_limit", "largest number of queries admitted at a time",
                server->config->queue_max);
    write_gauge(p, "devices", "devices that are not out", devices_in(server, ready));
    write_counters(p, &server->metrics);
    write_request_histograms(p, &server->metrics);
    write_pass_histograms(p, server);
}

static void write_ready(http_page *p, br_server *server)
{
    const bool ready = state_phase(&server->state, NULL) == PHASE_READY;
    http_begin(p, ready ? 200 : 503, "text/plain");
    http_print(p, "%s\n", ready ? "ready" : "not ready");
}

static void answer(void *context, br_str path, http_page *page)
{
    br_server *server = context;
    if (br_str_equal(path, BR_STR_LITERAL("/metrics"))) {
        write_metrics(page, server);
    } else if (br_str_equal(path, BR_STR_LITERAL("/readyz"))) {
        write_ready(page, server);
    } else if (br_str_equal(path, BR_STR_LITERAL("/healthz"))) {
        http_begin(page, 200, "text/plain");
        http_print(page, "alive\n");
    }
}

br_status monitor_open(br_server *server, const char *url, br_error *error)
{
    br_error why = {0};
    const br_status status = http_open(&server->monitor, url, PATIENCE_MS, answer, server, &why);
    if (status != BR_OK) return br_fail(error, status, "metrics: %.480s", why.text);
    BR_LOG(server->log, BR_LOG_INFO, "metrics_listening", BR_STR("url", url));
    return BR_OK;
}

void monitor_close(br_server *server)
{
    http_close(server->monitor);
    server->monitor = NULL;
}
