/* engine.c - see engine.h. */
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/thread.h"
#include "options.h"
#include "serve/config_devices.h"
#include "workers/loaded.h"

enum { ONE_RUNS = 30 };

typedef struct bench {
    br_config config;
    br_devices devices;
    br_loaded *loaded;
    char **texts;
    int text_count;
    double seconds;
} bench;

typedef struct runner {
    bench *all;
    int32_t worker;
    pthread_t thread;
    pthread_barrier_t *ready;
    br_status status;
    br_error error;
    uint64_t queries;
    uint64_t tokens;
    uint64_t ns;
    uint64_t one_ns;
} runner;

/* The next prompts in turn, as many as a pass should hold; at least one. */
static br_status pack(const bench *b, br_packing *packing, int *next, int32_t wanted, int seqs)
{
    int32_t ids[BR_SEQ_TOKENS_MAX];
    br_packing_clear(packing);
    while (packing->seqs < seqs) {
        br_prompt prompt;
        const br_status status = br_bundle_prompt_from_text(
            br_loaded_bundle(b->loaded), br_str_from(b->texts[*next % b->text_count]), ids, &prompt);
        if (status != BR_OK) return status;
        if (packing->seqs > 0 && packing->tokens + prompt.tokens > wanted) return BR_OK;
        if (!br_packing_add(packing, ids, prompt.tokens)) return BR_ETOOBIG;
        *next += 1;
    }
    return BR_OK;
}

static br_status time_one(runner *r, br_packing *packing, float *quality)
{
    int next = 0;
    for (int i = 0; i < ONE_RUNS; i++) {
        br_status status = pack(r->all, packing, &next, 1, 1);
        const uint64_t from_ns = br_clock_now_ns();
        if (status == BR_OK) status = br_loaded_run(r->all->loaded, r->worker, packing, quality);
        if (status != BR_OK) return status;
        r->one_ns += (br_clock_now_ns() - from_ns) / ONE_RUNS;
    }
    return BR_OK;
}

static br_status time_full(runner *r, br_packing *packing, float *quality, int32_t wanted, int seqs)
{
    int next = r->worker * 37;
    const uint64_t from_ns = br_clock_now_ns();
    while (br_clock_now_ns() - from_ns < (uint64_t)(r->all->seconds * 1e9)) {
        br_status status = pack(r->all, packing, &next, wanted, seqs);
        if (status == BR_OK) status = br_loaded_run(r->all->loaded, r->worker, packing, quality);
        if (status != BR_OK) return status;
        r->queries += (uint64_t)packing->seqs;
        r->tokens += (uint64_t)packing->tokens;
    }
    r->ns = br_clock_now_ns() - from_ns;
    return BR_OK;
}

static void *work(void *argument)
{
    runner *r = argument;
    const bench *b = r->all;
    const br_device *device = &b->devices.items[b->devices.device_of[r->worker]];
    const int seqs = (int)b->config.batch_seqs;
    br_packing packing = {0};
    float *quality = malloc((size_t)seqs * BR_CANDIDATES_MAX * sizeof *quality);
    r->status = quality != NULL ? br_packing_init(&packing, device->tokens_max, seqs) : BR_ENOMEM;
    if (r->status == BR_OK) r->status = br_loaded_open(b->loaded, r->worker, &r->error);
    const bool open = r->status == BR_OK;
    (void)pthread_barrier_wait(r->ready);
    if (open && r->worker == 0) r->status = time_one(r, &packing, quality);
    (void)pthread_barrier_wait(r->ready);
    if (r->status == BR_OK) r->status = time_full(r, &packing, quality, device->tokens_wanted, seqs);
    if (open) br_loaded_close(b->loaded, r->worker);
    br_packing_deinit(&packing);
    free(quality);
    return NULL;
}

static br_status run_all(bench *b, engine_result *out, br_error *error)
{
    const int32_t count = b->devices.worker_count;
    runner runners[BR_WORKERS_MAX];
    pthread_barrier_t ready;
    (void)pthread_barrier_init(&ready, NULL, (unsigned)count);
    for (int32_t i = 0; i < count; i++) {
        runners[i] = (runner){.all = b, .worker = i, .ready = &ready};
        if (!br_thread_start(&runners[i].thread, work, &runners[i])) abort();
    }
    br_status status = BR_OK;
    for (int32_t i = 0; i < count; i++) {
        br_thread_join(runners[i].thread);
        if (runners[i].status != BR_OK && status == BR_OK)
            status = br_fail(error, runners[i].status, "engine: %.400s", runners[i].error.text);
        if (runners[i].ns == 0) continue;
        out->queries_per_s += (double)runners[i].queries * 1e9 / (double)runners[i].ns;
        out->tokens_per_s += (double)runners[i].tokens * 1e9 / (double)runners[i].ns;
    }
    out->one_ms = (double)runners[0].one_ns / 1e6;
    out->workers = count;
    (void)pthread_barrier_destroy(&ready);
    return status;
}

static br_status configure(bench *b, const char *bundle, const char *flags, br_error *error)
{
    char *argv[FLAGS_MAX + 1] = {(char *)"bestroute-bench", (char *)"--bundle", (char *)(uintptr_t)bundle};
    int argc = 3;
    char *copy = strdup(flags);
    flags_split(argv, &argc, copy);
    const br_status status = br_config_load(&b->config, argc, argv, NULL, error);
    free(copy);
    return status;
}

static void describe(engine_result *out, const bench *b)
{
    const br_backend *backend = b->devices.items[0].backend;
    const br_bundle *bundle = br_loaded_bundle(b->loaded);
    (void)snprintf(out->engine, sizeof out->engine, "%s", backend != NULL ? backend->table->engine : "noop");
    (void)snprintf(out->precision, sizeof out->precision, "%s",
                   backend != NULL ? br_precision_name(backend->precision) : "none");
    (void)snprintf(out->device, sizeof out->device, "%s", backend != NULL ? backend->device : "none");
    (void)snprintf(out->bundle, sizeof out->bundle, "%s", bundle->router.name);
    (void)snprintf(out->hash, sizeof out->hash, "%s", bundle->hash);
}

br_status engine_run(engine_result *out, const char *bundle, const char *flags, double seconds,
                     const prompts_options *texts, br_error *error)
{
    *out = (engine_result){0};
    bench b = {.seconds = seconds};
    br_status status = configure(&b, bundle, flags, error);
    if (status == BR_OK) status = prompts_texts(&b.texts, &b.text_count, texts, error);
    if (status == BR_OK) {
        const br_devices_options asked = br_config_devices(&b.config);
        status = br_devices_open(&b.devices, &asked, error);
    }
    if (status == BR_OK) {
        const br_loaded_options options = {
            .folder = bundle, .devices = &b.devices, .seqs_max = (int32_t)b.config.batch_seqs};
        status = br_loaded_create(&b.loaded, &options, error);
        if (status == BR_OK)
            br_devices_fit(&b.devices, (int32_t)b.config.batch_tokens,
                           br_loaded_bundle(b.loaded)->router.max_tokens);
    }
    if (status == BR_OK) {
        describe(out, &b);
        status = run_all(&b, out, error);
    }
    if (b.loaded != NULL && br_loaded_release(b.loaded)) br_loaded_destroy(b.loaded);
    br_devices_close(&b.devices);
    prompts_free_texts(b.texts, b.text_count);
    br_config_deinit(&b.config);
    return status;
}
