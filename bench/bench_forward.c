/*
 * bench_forward.c - queries per second of the encoder alone, by prompt length.
 *
 *   bench_forward --bundle DIR [options]
 *
 * --help lists the options.
 *
 * Prompts are seeded random ids. GFLOP/s counts what the algorithm needs: the
 * last layer for one token per prompt, position scores for the distances that exist.
 */
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bundle/bundle.h"
#include "core/clock.h"
#include "core/limits.h"
#include "core/options.h"
#include "core/thread.h"
#include "encoder/encoder.h"
#include "engine/engines.h"

enum { LENGTHS_MAX = 16, LATENCY_RUNS_MAX = 1000, CHECK_TOKENS = 24, CHECK_SEQS = 2 };

typedef struct options {
    bool help;
    const char *bundle;
    br_engine engine;
    br_precision precision;
    int32_t streams; /* 0: the engine's own number, until they are complete */
    int32_t lengths[LENGTHS_MAX];
    int32_t lengths_count;
    int32_t batch_tokens;
    int32_t batch; /* 0: as many as batch_tokens allow */
    double seconds;
    bool plain;
    bool no_check;
    bool dump;
    bool json;
} options;

typedef struct result {
    int32_t length;
    int32_t batch; /* prompts per pass */
    double queries_per_s;
    double queries_per_core_s; /* by processor time, so that other programs on the machine matter less */
    double tokens_per_s;
    double gflops;
    double latency_ms; /* one prompt on one stream, median */
    double latency_p99_ms;
} result;

/* One thread and its encoder. */
typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *start;
    const br_encoder_weights *weights;
    const br_bundle *bundle;
    int32_t length;
    int32_t batch;
    double seconds;
    uint64_t passes;
    double elapsed_s;
    double core_s; /* processor time of this thread */
    br_status status;
    br_error error;
} worker;

static double core_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds_since(uint64_t then)
{
    return (double)(br_clock_now_ns() - then) * 1e-9;
}

/* Prompts of seeded ids: [CLS], the source token, anything but special ids, [SEP]. */
static void fill_prompts(br_packing *batch, const br_bundle *bundle, int32_t length, int32_t count)
{
    uint64_t state = 0x9e3779b97f4a7c15u + (uint64_t)length;
    int32_t ids[BR_SEQ_TOKENS_MAX];
    const int32_t pieces = br_tokenizer_piece_count(bundle->tokenizer) - 4; /* above the special ones */
    br_packing_clear(batch);
    for (int32_t b = 0; b < count; b++) {
        for (int32_t t = 0; t < length; t++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            ids[t] = 4 + (int32_t)((state >> 33) %
                                   (uint64_t)(bundle->source_id > 4 ? bundle->source_id - 4 : pieces));
        }
        ids[0] = br_tokenizer_cls(bundle->tokenizer);
        if (bundle->source_id >= 0) ids[BR_POOL_INDEX] = bundle->source_id;
        ids[length - 1] = br_tokenizer_sep(bundle->tokenizer);
        (void)br_packing_add(batch, ids, length);
    }
}

/* An encoder with a batch and room for its qualities. */
typedef struct rig {
    br_encoder *encoder;
    br_packing batch;
    float *quality;
} rig;

static void rig_close(rig *r)
{
    br_encoder_destroy(r->encoder);
    br_packing_deinit(&r->batch);
    free(r->quality);
}

static br_status rig_open(rig *r, const br_encoder_weights *weights, const br_bundle *bundle, int32_t length,
                          int32_t seqs, br_error *error)
{
    *r = (rig){0};
    const int32_t tokens = length * seqs;
    const br_encoder_options encoder_options = {
        .tokens_max = tokens > bundle->router.max_tokens ? tokens : bundle->router.max_tokens,
        .seqs_max = seqs,
    };
    br_status status = br_encoder_create(&r->encoder, weights, &encoder_options, error);
    if (status == BR_OK) status = br_packing_init(&r->batch, encoder_options.tokens_max, seqs);
    r->quality = calloc((size_t)seqs * (size_t)bundle->router.head_count, sizeof *r->quality);
    if (status == BR_OK && r->quality == NULL) status = BR_ENOMEM;
    if (status == BR_OK) fill_prompts(&r->batch, bundle, length, seqs);
    if (status != BR_OK) rig_close(r);
    return status;
}

/* Qualities of a few prompts by another engine's weights. */
static br_status score(const br_encoder_weights *weights, const br_bundle *bundle, int32_t length,
                       int32_t seqs, float *quality, br_error *error)
{
    rig r;
    br_status status = rig_open(&r, weights, bundle, length, seqs, error);
    if (status != BR_OK) return status;
    status = br_encoder_run(r.encoder, &r.batch, r.quality);
    const size_t count = (size_t)seqs * (size_t)bundle->router.head_count;
    if (status == BR_OK) memcpy(quality, r.quality, count * sizeof *quality);
    rig_close(&r);
    return status;
}

/* Sets *worst to the largest difference in quality from the reference engine. */
static br_status check(const br_encoder_weights *weights, const br_bundle *bundle, double *worst,
                       br_error *error)
{
    float got[CHECK_SEQS * BR_CANDIDATES_MAX];
    float expected[CHECK_SEQS * BR_CANDIDATES_MAX];
    br_backend *backend = NULL;
    br_encoder_weights *oracle = NULL;
    br_status status = br_backend_open(&backend, BR_ENGINE_REFERENCE, BR_PRECISION_F32, 0, error);
    if (status == BR_OK) status = br_encoder_weights_create(&oracle, backend, bundle, error);
    if (status == BR_OK) status = score(oracle, bundle, CHECK_TOKENS, CHECK_SEQS, expected, error);
    if (status == BR_OK) status = score(weights, bundle, CHECK_TOKENS, CHECK_SEQS, got, error);
    *worst = 0;
    for (int32_t i = 0; status == BR_OK && i < CHECK_SEQS * bundle->router.head_count; i++) {
        const double difference = fabs((double)got[i] - (double)expected[i]);
        if (!(difference <= *worst)) *worst = difference;
    }
    br_encoder_weights_destroy(oracle);
    br_backend_close(backend);
    return status;
}

/* The largest difference that rounding explains, with room; EXACTNESS.md has the differences measured. */
static double quality_bar(br_precision precision)
{
    switch (precision) {
    case BR_PRECISION_F32:
        return 1e-5;
    case BR_PRECISION_FP8:
        return 3e-1;
    default:
        return 5e-2;
    }
}

static br_status dump(const br_encoder_weights *weights, const br_bundle *bundle, const options *o,
                      br_error *error)
{
    for (int32_t i = 0; i < o->lengths_count; i++) {
        const int32_t length = o->lengths[i];
        const int32_t seqs = o->batch_tokens > length ? o->batch_tokens / length : 1;
        rig r;
        br_status status = rig_open(&r, weights, bundle, length, seqs, error);
        if (status != BR_OK) return status;
        status = br_encoder_run(r.encoder, &r.batch, r.quality);
        for (int32_t b = 0; b < seqs && status == BR_OK; b++) {
            printf("{\"ids\":[");
            for (int32_t t = 0; t < length; t++)
                printf("%s%d", t > 0 ? "," : "", (int)r.batch.ids[b * length + t]);
            printf("],\"quality\":[");
            for (int32_t k = 0; k < bundle->router.head_count; k++)
                printf("%s%.9g", k > 0 ? "," : "", (double)r.quality[b * bundle->router.head_count + k]);
            printf("]}\n");
        }
        rig_close(&r);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

/* What one prompt of n tokens needs. */
static double flops_per_query(const br_model *m, double n)
{
    const double c = m->width;
    const double f = m->ffn_width;
    const double position_terms = m->relative_attention ? (m->c2p ? 1 : 0) + (m->p2c ? 1 : 0) : 0;
    const double attention_per_token = 2 * n * c * (2 + position_terms);
    const double dense_but_qkv = 2 * (c * c + 2 * c * f);
    const double full_layer = n * (6 * c * c + dense_but_qkv + attention_per_token);
    const double last_layer = n * 4 * c * c + 2 * c * c + dense_but_qkv + attention_per_token;
    return (m->layers - 1) * full_layer + last_layer;
}

static void *work(void *context)
{
    worker *w = context;
    rig r;
    w->status = rig_open(&r, w->weights, w->bundle, w->length, w->batch, &w->error);
    if (w->status == BR_OK) w->status = br_encoder_run(r.encoder, &r.batch, r.quality); /* warm */
    (void)pthread_barrier_wait(w->start);
    const uint64_t begin = br_clock_now_ns();
    const double core_begin = core_seconds();
    while (w->status == BR_OK && w->elapsed_s < w->seconds) {
        w->status = br_encoder_run(r.encoder, &r.batch, r.quality);
        w->passes++;
        w->elapsed_s = seconds_since(begin);
    }
    w->core_s = core_seconds() - core_begin;
    rig_close(&r);
    return NULL;
}

/* All streams at once; the sum of their rates. */
static br_status measure_throughput(const br_encoder_weights *weights, const br_bundle *bundle,
                                    const options *o, result *out, br_error *error)
{
    worker workers[BR_WORKERS_MAX] = {0};
    pthread_barrier_t start;
    (void)pthread_barrier_init(&start, NULL, (unsigned)o->streams);
    for (int32_t i = 0; i < o->streams; i++) {
        workers[i] = (worker){
            .start = &start,
            .weights = weights,
            .bundle = bundle,
            .length = out->length,
            .batch = out->batch,
            .seconds = o->seconds,
        };
        if (!br_thread_start(&workers[i].thread, work, &workers[i])) {
            fprintf(stderr, "cannot start a thread\n");
            exit(1);
        }
    }
    br_status status = BR_OK;
    double queries = 0;
    double core_s = 0;
    for (int32_t i = 0; i < o->streams; i++) {
        br_thread_join(workers[i].thread);
        if (workers[i].status != BR_OK) {
            status = workers[i].status;
            *error = workers[i].error;
            continue;
        }
        out->queries_per_s += (double)workers[i].passes * out->batch / workers[i].elapsed_s;
        queries += (double)workers[i].passes * out->batch;
        core_s += workers[i].core_s;
    }
    out->queries_per_core_s = core_s > 0 ? queries / core_s : 0;
    (void)pthread_barrier_destroy(&start);
    out->tokens_per_s = out->queries_per_s * out->length;
    out->gflops = out->queries_per_s * flops_per_query(&bundle->model, out->length) * 1e-9;
    return status;
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One prompt at a time on one stream: half of the seconds, at least three runs. */
static br_status measure_latency(const br_encoder_weights *weights, const br_bundle *bundle, const options *o,
                                 result *out, br_error *error)
{
    static double runs[LATENCY_RUNS_MAX];
    int32_t count = 0;
    rig r;
    br_status status = rig_open(&r, weights, bundle, out->length, 1, error);
    if (status != BR_OK) return status;
    status = br_encoder_run(r.encoder, &r.batch, r.quality); /* warm */
    const uint64_t begin = br_clock_now_ns();
    while (status == BR_OK && count < LATENCY_RUNS_MAX &&
           (count < 3 || seconds_since(begin) < o->seconds / 2)) {
        const uint64_t before = br_clock_now_ns();
        status = br_encoder_run(r.encoder, &r.batch, r.quality);
        runs[count++] = seconds_since(before) * 1e3;
    }
    qsort(runs, (size_t)count, sizeof *runs, compare_doubles);
    out->latency_ms = count > 0 ? runs[count / 2] : 0;
    out->latency_p99_ms = count > 0 ? runs[(count * 99 - 1) / 100] : 0;
    rig_close(&r);
    return status;
}

static void print_table(const options *o, const br_backend *backend, const result *results)
{
    printf("engine %s, %s (%s), %d streams, %d tokens per pass\n\n", backend->table->engine,
           br_precision_name(backend->precision), backend->device, (int)o->streams, (int)o->batch_tokens);
    printf("| tokens | prompts per pass | queries/s | tokens/s | GFLOP/s | one prompt, ms | "
           "queries per core second |\n");
    printf("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (int32_t i = 0; i < o->lengths_count; i++)
        printf("| %d | %d | %.1f | %.0f | %.0f | %.2f | %.1f |\n", (int)results[i].length,
               (int)results[i].batch, results[i].queries_per_s, results[i].tokens_per_s, results[i].gflops,
               results[i].latency_ms, results[i].queries_per_core_s);
}

static void print_json(const options *o, const br_backend *backend, const result *results, double load_s)
{
    printf("{\"engine\":\"%s\",\"precision\":\"%s\",\"device\":\"%s\",\"streams\":%d,\"load_s\":%.3f,"
           "\"results\":[",
           backend->table->engine, br_precision_name(backend->precision), backend->device, (int)o->streams,
           load_s);
    for (int32_t i = 0; i < o->lengths_count; i++)
        printf("%s{\"tokens\":%d,\"batch\":%d,\"queries_per_s\":%.3f,\"queries_per_core_s\":%.3f,"
               "\"gflops\":%.2f,\"latency_ms\":%.4f,\"latency_p99_ms\":%.4f}",
               i > 0 ? "," : "", (int)results[i].length, (int)results[i].batch, results[i].queries_per_s,
               results[i].queries_per_core_s, results[i].gflops, results[i].latency_ms,
               results[i].latency_p99_ms);
    printf("]}\n");
}

static br_option_read read_lengths;

#define AT(field) BR_OPTION_AT(options, field)

static const br_option_row rows[] = {
    {.heading = "Options"},
    {"bundle", "DIR", "the bundle whose encoder is measured; required", AT(bundle)},
    {"engine", NULL, "what computes", AT(engine), .words = BR_ENGINE_WORDS, .initial = "auto"},
    {"precision", NULL, "the numbers it computes with", AT(precision), .words = BR_PRECISION_WORDS,
     .initial = "auto"},
    {"streams", "N", "encoders at once, each on its own thread; the engine's own number where not given",
     AT(streams), BR_RANGE(1, BR_WORKERS_MAX)},
    {"lengths", "A,B", "tokens per prompt, each at most the bundle's max_tokens",
     BR_OPTION_READ(read_lengths), .initial = "32,64,128,512"},
    {"batch-tokens", "T", "tokens per pass; at least one prompt is in a batch", AT(batch_tokens),
     BR_RANGE(1, BR_BATCH_TOKENS_MAX), .initial = "2048"},
    {"batch", "N", "prompts per pass, whatever their length, instead", AT(batch),
     BR_RANGE(1, BR_BATCH_SEQS_MAX)},
    {"seconds", "S", "how long each length is measured", AT(seconds), BR_RANGE(1e-3, 1e6), .initial = "3"},
    {"plain", NULL, "enqueue every pass anew, also where the engine would replay a recorded one", AT(plain)},
    {"no-check", NULL, "skip the comparison with the reference engine that comes first", AT(no_check)},
    {"dump", NULL, "print the qualities of --batch-tokens' worth of seeded prompts of each length, and end",
     AT(dump)},
    {"json", NULL, "one JSON object instead of a table", AT(json)},
    {"help", NULL, "this text", AT(help), .letter = 'h'},
};

static const br_option_table table = {.rows = rows, .row_count = sizeof rows / sizeof *rows};

static br_status read_lengths(void *target, const br_option_value *value, br_error *error)
{
    options *o = target;
    o->lengths_count = 0;
    for (const char *at = value->text.data;; at++) {
        char *end;
        const long length = strtol(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0') || length < BR_SEQ_TOKENS_MIN ||
            length > BR_SEQ_TOKENS_MAX)
            return br_option_refuse(value, error, "numbers from %d to %d with commas between them",
                                    BR_SEQ_TOKENS_MIN, BR_SEQ_TOKENS_MAX);
        if (o->lengths_count == LENGTHS_MAX)
            return br_option_refuse(value, error, "no more than %d lengths", LENGTHS_MAX);
        o->lengths[o->lengths_count++] = (int32_t)length;
        if (*end == '\0') return BR_OK;
        at = end;
    }
}

static br_status complete(options *o, br_error *error)
{
    if (o->help) return BR_OK;
    if (o->bundle == NULL) return br_fail(error, BR_EINVAL, "--bundle is missing");
    if (o->streams == 0) o->streams = br_engine_streams(o->engine);
    if (o->streams > BR_WORKERS_MAX) o->streams = BR_WORKERS_MAX;
    return BR_OK;
}

/* BR_EINTERNAL: the results differ from the reference engine's by more than the precision explains. */
static br_status check_first(const br_encoder_weights *weights, const br_bundle *bundle,
                             br_precision precision, br_error *error)
{
    double worst = 0;
    const br_status status = check(weights, bundle, &worst, error);
    if (status != BR_OK) return status;
    fprintf(stderr, "largest |quality - reference|: %.2g\n", worst);
    if (worst <= quality_bar(precision)) return BR_OK;
    return br_fail(error, BR_EINTERNAL, "the results differ from the reference engine's: not timed");
}

static int32_t prompts_per_pass(const options *o, int32_t length)
{
    int32_t prompts = o->batch_tokens > length ? o->batch_tokens / length : 1;
    if (o->batch > 0) prompts = o->batch;
    if (prompts > BR_BATCH_TOKENS_MAX / length) prompts = BR_BATCH_TOKENS_MAX / length;
    return prompts < BR_BATCH_SEQS_MAX ? prompts : BR_BATCH_SEQS_MAX;
}

static br_status measure_lengths(const br_encoder_weights *weights, const br_bundle *bundle, const options *o,
                                 result *results, br_error *error)
{
    br_status status = BR_OK;
    for (int32_t i = 0; i < o->lengths_count && status == BR_OK; i++) {
        results[i].length = o->lengths[i];
        results[i].batch = prompts_per_pass(o, o->lengths[i]);
        status = measure_throughput(weights, bundle, o, &results[i], error);
        if (status == BR_OK) status = measure_latency(weights, bundle, o, &results[i], error);
    }
    return status;
}

static br_status bench(const options *o, const br_bundle *bundle, br_backend *backend, br_error *error)
{
    result results[LENGTHS_MAX] = {0};
    br_encoder_weights *weights = NULL;
    const uint64_t begin = br_clock_now_ns();
    br_status status = br_encoder_weights_create(&weights, backend, bundle, error);
    const double load_s = seconds_since(begin);
    if (status == BR_OK && o->dump) {
        status = dump(weights, bundle, o, error);
        goto done;
    }
    if (status == BR_OK && !o->no_check) status = check_first(weights, bundle, backend->precision, error);
    if (status == BR_OK) status = measure_lengths(weights, bundle, o, results, error);
    if (status == BR_OK && o->json) print_json(o, backend, results, load_s);
    if (status == BR_OK && !o->json) print_table(o, backend, results);

done:
    br_encoder_weights_destroy(weights);
    return status;
}

static br_status check_lengths(const options *o, const br_bundle *bundle, br_error *error)
{
    for (int32_t i = 0; i < o->lengths_count; i++)
        if (o->lengths[i] > bundle->router.max_tokens)
            return br_fail(error, BR_EINVAL, "--lengths: %d is over the bundle's max_tokens, %d",
                           (int)o->lengths[i], (int)bundle->router.max_tokens);
    return BR_OK;
}

static br_status run(const options *o, br_error *error)
{
    br_bundle *bundle = NULL;
    br_backend *backend = NULL;
    br_status status = br_bundle_open(&bundle, o->bundle, error);
    if (status == BR_OK) status = check_lengths(o, bundle, error);
    if (status == BR_OK) status = br_backend_open(&backend, o->engine, o->precision, 0, error);
    br_backend_table plain;
    if (status == BR_OK && o->plain) {
        plain = *backend->table;
        plain.pass_shapes = NULL;
        backend->table = &plain;
    }
    if (status == BR_OK) status = bench(o, bundle, backend, error);
    br_backend_close(backend);
    br_bundle_close(bundle);
    return status;
}

int main(int argc, char **argv)
{
    options o = {0};
    br_options read;
    br_error error = {0};
    br_options_init(&read, &table, &o);
    br_status status = br_options_read(&read, argc, argv, NULL, &error);
    if (status == BR_OK) status = complete(&o, &error);
    int code = status == BR_OK ? 0 : 2;
    if (status == BR_OK && o.help) {
        (void)puts("usage: bench_forward --bundle DIR [OPTION]...");
        br_options_print_help(&table, 0, stdout);
    } else if (status == BR_OK) {
        status = run(&o, &error);
        code = status == BR_OK ? 0 : 1;
    }
    if (status != BR_OK) fprintf(stderr, "bench_forward: %s: %s\n", br_status_name(status), error.text);
    br_options_deinit(&read);
    return code;
}
