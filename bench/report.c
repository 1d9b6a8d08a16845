/* report.c - see report.h. */
#include "report.h"

#include <math.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

json_t *report_machine(void)
{
    struct utsname system;
    const double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE) / 0x1p30;
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
    (void)uname(&system); /* cannot fail with room for it */
    return json_pack("{s:s, s:I, s:f, s:s}", "cpu", model, "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN),
                     "memory_gib", floor(gib * 10 + 0.5) / 10, "kernel", system.release);
}

json_t *report_load(const load_options *load, const prompts_options *source)
{
    const bool open = load->rate > 0;
    const char *policy = (source->policy.has & BR_HAS_KIND) != 0 ? br_policy_kind_name(source->policy.kind)
                                                                 : "the bundle's policy";
    char asks[64];
    char texts[512];
    (void)snprintf(asks, sizeof asks, source->score ? "score" : "route by %s", policy);
    if (source->file != NULL)
        (void)snprintf(texts, sizeof texts, "from %.500s", source->file);
    else
        (void)snprintf(texts, sizeof texts, "of %.40s words", source->lengths);
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:b, s:i, s:f, s:I}", "url", load->urls.items[0], "loop",
                     !open           ? "closed loop"
                     : load->poisson ? "open loop, Poisson"
                                     : "open loop, constant rate",
                     "asks", asks, "queries", load->queries, "prompts", texts, "as_tokens",
                     source->bundle != NULL, "connections", load->connections * (int)load->urls.count,
                     "warmup_s", load->warmup_s, "deadline_ms", (json_int_t)source->deadline_ms);
}

static json_t *ms_of(const histogram *h, double unit)
{
    const double to_ms = unit / 1e6;
    return json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "mean", histogram_mean(h) * to_ms, "p50",
        (double)histogram_percentile(h, 0.5) * to_ms, "p90", (double)histogram_percentile(h, 0.9) * to_ms,
        "p95", (double)histogram_percentile(h, 0.95) * to_ms, "p99",
        (double)histogram_percentile(h, 0.99) * to_ms, "p99_9",
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

/* How many requests were computed in a pass of 1, 2-3, 4-7, ... queries; the largest of their passes
 * counts. */
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

const char *const report_figures[] = {
    "in_flight",
    "rate",
    "sent",
    "ok",
    "requests_per_s",
    "queries_per_s",
    "tokens_per_s",
    "latency_ms.mean",
    "latency_ms.p50",
    "latency_ms.p90",
    "latency_ms.p99",
    "latency_ms.p99_9",
    "latency_ms.max",
    "tokenize_ms.p50",
    "queue_ms.p50",
    "queue_ms.p99",
    "compute_ms.p50",
    "compute_ms.p99",
    "total_ms.p50",
    "total_ms.p99",
    "late_ms.p99",
    "refusal_ms.p99",
    "server_cores",
    "client_cores",
    "errors.overloaded",
    "errors.deadline",
    "errors.timed_out",
    "errors.broken",
    "one_ms",
    NULL,
};

double report_figure(const json_t *run, const char *path)
{
    char part[64];
    const char *dot = strchr(path, '.');
    if (dot == NULL) {
        const json_t *value = json_object_get(run, path);
        return json_is_number(value) ? json_number_value(value) : NAN;
    }
    (void)snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
    return report_figure(json_object_get(run, part), dot + 1);
}

const char *report_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "-";
}

void report_label(char *out, size_t size, const json_t *run)
{
    const double rate = report_figure(run, "rate");
    const double in_flight = report_figure(run, "in_flight");
    if (rate > 0)
        (void)snprintf(out, size, "%g/s", rate);
    else if (isfinite(in_flight))
        (void)snprintf(out, size, "%g in flight", in_flight);
    else
        (void)snprintf(out, size, "full passes");
}

void report_csv(FILE *stream, const json_t *report)
{
    for (size_t c = 0; report_figures[c] != NULL; c++)
        (void)fprintf(stream, "%s%s", c == 0 ? "" : ",", report_figures[c]);
    (void)fputc('\n', stream);
    size_t i;
    json_t *run;
    json_array_foreach(json_object_get(report, "runs"), i, run)
    {
        for (size_t c = 0; report_figures[c] != NULL; c++) {
            const double value = report_figure(run, report_figures[c]);
            if (c > 0) (void)fputc(',', stream);
            if (isfinite(value)) (void)fprintf(stream, "%.9g", value);
        }
        (void)fputc('\n', stream);
    }
}
