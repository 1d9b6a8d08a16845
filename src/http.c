/*
 * http.c - what monitors read, over nng's HTTP server: /metrics for Prometheus, /healthz, /readyz.
 *
 * Served on nng's threads from counters that are atomic, and the state lock for a moment: a slow reader holds up
 * no scoring. Nothing here changes anything.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <nng/nng.h> /* first: the next needs it */

#include <nng/supplemental/http/http.h>

#include "service.h"

enum { TEXT_BYTES = 1 << 14 };

struct br_http {
    nng_url *url;
    nng_http_server *server;
    bool started;
};

/* Prometheus' text format, version 0.0.4. */
typedef struct page {
    char text[TEXT_BYTES];
    size_t size;
} page;

static void write_line(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void write_line(page *p, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(p->text + p->size, sizeof p->text - p->size, format, arguments);
    va_end(arguments);
    /* The page is sized for all counters; a line that did not fit would be left out whole. */
    if (length > 0 && (size_t)length < sizeof p->text - p->size) p->size += (size_t)length;
}

static void write_gauge(page *p, const char *name, const char *help, int64_t value)
{
    write_line(p, "# HELP bestroute_%s %s\n# TYPE bestroute_%s gauge\nbestroute_%s %lld\n", name, help, name,
               name, (long long)value);
}

static void write_counters(page *p, const br_metrics *metrics)
{
    for (br_counter i = 0; i < BR_COUNTER_COUNT; i++) {
        const char *name = br_counter_name(i);
        const size_t length = strlen(name);
        const uint64_t value = br_metrics_get(metrics, i);
        if (length > 3 && strcmp(name + length - 3, "_ns") == 0)
            write_line(p, "# TYPE bestroute_%.*s_seconds_total counter\nbestroute_%.*s_seconds_total %.9f\n",
                       (int)length - 3, name, (int)length - 3, name, (double)value / 1e9);
        else
            write_line(p, "# TYPE bestroute_%s_total counter\nbestroute_%s_total %llu\n", name, name,
                       (unsigned long long)value);
    }
}

static bool is_ready(br_server *server, int64_t *in_flight)
{
    (void)pthread_mutex_lock(&server->state_lock);
    const bool ready = server->phase == PHASE_READY;
    *in_flight = server->in_flight;
    (void)pthread_mutex_unlock(&server->state_lock);
    return ready;
}

/* The workers exist from before the first time the service is ready. */
static int32_t devices_in(br_server *server, bool ready)
{
    if (!ready) return 0;
    return server->devices.count - __builtin_popcount(br_workers_out(server->workers));
}

static void write_page(page *p, br_server *server)
{
    int64_t in_flight;
    const bool ready = is_ready(server, &in_flight);
    write_line(p, "# TYPE bestroute_build_info gauge\nbestroute_build_info{version=\"%s\"} 1\n",
               br_server_version());
    write_gauge(p, "ready", "1 while a bundle is loaded and the service is not draining", ready ? 1 : 0);
    write_gauge(p, "requests_in_flight", "admitted and not yet answered", in_flight);
    write_gauge(p, "queries_waiting", "admitted and not yet scored", atomic_load(&server->admitted));
    write_gauge(p, "queries_limit", "most queries admitted at a time", server->config->queue_max);
    write_gauge(p, "devices", "devices that compute", devices_in(server, ready));
    write_counters(p, &server->metrics);
}

/* Handlers. The server of bestroute is their data. */

static void answer(nng_aio *aio, uint16_t status, const char *type, const char *text, size_t size)
{
    nng_http_res *res;
    int failed = nng_http_res_alloc(&res);
    if (failed == 0) failed = nng_http_res_set_status(res, status);
    if (failed == 0) failed = nng_http_res_set_header(res, "Content-Type", type);
    if (failed == 0) failed = nng_http_res_copy_data(res, text, size);
    if (failed == 0) nng_aio_set_output(aio, 0, res);
    nng_aio_finish(aio, failed);
}

static br_server *server_of(nng_aio *aio)
{
    return nng_http_handler_get_data(nng_aio_get_input(aio, 1));
}

static void on_metrics(nng_aio *aio)
{
    page p = {.size = 0};
    write_page(&p, server_of(aio));
    answer(aio, NNG_HTTP_STATUS_OK, "text/plain; version=0.0.4; charset=utf-8", p.text, p.size);
}

static void on_health(nng_aio *aio)
{
    answer(aio, NNG_HTTP_STATUS_OK, "text/plain", "alive\n", 6);
}

static void on_ready(nng_aio *aio)
{
    int64_t in_flight;
    if (is_ready(server_of(aio), &in_flight))
        answer(aio, NNG_HTTP_STATUS_OK, "text/plain", "ready\n", 6);
    else
        answer(aio, NNG_HTTP_STATUS_SERVICE_UNAVAILABLE, "text/plain", "not ready\n", 10);
}

static int add_handler(br_http *http, br_server *server, const char *path, void (*handle)(nng_aio *))
{
    nng_http_handler *handler;
    int failed = nng_http_handler_alloc(&handler, path, handle);
    if (failed != 0) return failed;
    failed = nng_http_handler_set_data(handler, server, NULL);
    if (failed == 0) failed = nng_http_handler_set_method(handler, "GET");
    if (failed == 0) failed = nng_http_server_add_handler(http->server, handler);
    if (failed != 0) nng_http_handler_free(handler);
    return failed;
}

br_status br_http_open(br_http **out, br_server *server, const char *url, br_error *error)
{
    br_http *http = calloc(1, sizeof *http);
    *out = http;
    if (http == NULL) return br_fail(error, BR_ENOMEM, "out of memory");
    int failed = nng_url_parse(&http->url, url);
    if (failed == 0) failed = nng_http_server_hold(&http->server, http->url);
    if (failed == 0) failed = add_handler(http, server, "/metrics", on_metrics);
    if (failed == 0) failed = add_handler(http, server, "/healthz", on_health);
    if (failed == 0) failed = add_handler(http, server, "/readyz", on_ready);
    if (failed == 0) failed = nng_http_server_start(http->server);
    http->started = failed == 0;
    if (failed != 0)
        return br_fail(error, failed == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "metrics: cannot serve \"%s\": %s",
                       url, nng_strerror(failed));
    BR_LOG(server->log, BR_LOG_INFO, "metrics_listening", BR_STR("url", url));
    return BR_OK;
}

void br_http_close(br_http *http)
{
    if (http == NULL) return;
    if (http->started) nng_http_server_stop(http->server);
    if (http->server != NULL) nng_http_server_release(http->server);
    if (http->url != NULL) nng_url_free(http->url);
    free(http);
}
