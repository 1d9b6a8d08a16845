/* loaded.c - see loaded.h. */
#include "loaded.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/memory.h"
#include "encoder/encoder.h"
#include "loaded_weights.h"

struct br_loaded {
    atomic_int references;
    br_loaded *link;
    br_loaded_options options;
    char *folder;
    br_bundle *bundle;
    br_encoder_weights *weights[BR_DEVICES_MAX]; /* NULL: no backend, or the device is out */
    int32_t handed_out;
    br_encoder *encoders[BR_WORKERS_MAX]; /* each touched by its worker's thread alone */
};

static char *copy_text(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy != NULL) memcpy(copy, text, size);
    return copy;
}

static br_status check_tokens_max(const br_loaded *loaded, br_error *error)
{
    const int32_t tokens_max = br_devices_tokens_min(loaded->options.devices);
    const int32_t needed = loaded->bundle->router.max_tokens;
    if (tokens_max == 0 || tokens_max >= needed) return BR_OK;
    return br_fail(error, BR_EINVAL,
                   "%s/router.json: max_tokens is %d, but the service was started for prompts of at most %d",
                   loaded->folder, (int)needed, (int)tokens_max);
}

static const br_device *device_of(const br_loaded *loaded, int32_t worker)
{
    const br_devices *devices = loaded->options.devices;
    return &devices->items[devices->device_of[worker]];
}

br_status br_loaded_create(br_loaded **out, const br_loaded_options *options, br_error *error)
{
    assert(options->devices->count >= 1);
    *out = NULL;
    br_loaded *loaded = calloc(1, sizeof *loaded);
    if (loaded == NULL) return br_no_memory(error, "a loaded bundle");
    atomic_init(&loaded->references, 1);
    loaded->options = *options;

    br_status status = BR_ENOMEM;
    loaded->folder = copy_text(options->folder);
    if (loaded->folder == NULL) status = br_no_memory(error, "a loaded bundle");
    if (loaded->folder == NULL) goto fail;
    loaded->options.folder = loaded->folder;

    status = br_bundle_open_unless(&loaded->bundle, loaded->folder, options->stop, error);
    if (status != BR_OK) goto fail;
    status = check_tokens_max(loaded, error);
    if (status != BR_OK) goto fail;
    status = loaded_weights_make(loaded->weights, &loaded->handed_out, options, loaded->bundle, error);
    loaded->options.ranks = NULL;
    if (status != BR_OK) goto fail;
    br_bundle_drop_weights(loaded->bundle);

    *out = loaded;
    return BR_OK;

fail:
    br_loaded_destroy(loaded);
    return status;
}

void br_loaded_destroy(br_loaded *loaded)
{
    if (loaded == NULL) return;
    for (int32_t i = 0; i < BR_WORKERS_MAX; i++) assert(loaded->encoders[i] == NULL);
    for (int32_t i = 0; i < BR_DEVICES_MAX; i++) br_loaded_drop(loaded, i);
    br_bundle_close(loaded->bundle);
    free(loaded->folder);
    free(loaded);
}

void br_loaded_retain(br_loaded *loaded)
{
    atomic_fetch_add_explicit(&loaded->references, 1, memory_order_relaxed);
}

bool br_loaded_release(br_loaded *loaded)
{
    const int before = atomic_fetch_sub_explicit(&loaded->references, 1, memory_order_acq_rel);
    assert(before >= 1);
    return before == 1;
}

br_loaded **br_loaded_link(br_loaded *loaded)
{
    return &loaded->link;
}

void br_loaded_drop(br_loaded *loaded, int32_t device)
{
    br_encoder_weights_destroy(loaded->weights[device]);
    loaded->weights[device] = NULL;
}

bool br_loaded_is_on(const br_loaded *loaded, int32_t device)
{
    return loaded->weights[device] != NULL;
}

br_status br_loaded_restore(br_loaded *loaded, int32_t device, br_error *error)
{
    assert(loaded->weights[device] == NULL);
    br_bundle *bundle;
    br_status status = br_bundle_open_unless(&bundle, loaded->folder, loaded->options.stop, error);
    if (status != BR_OK) return status;
    if (strcmp(bundle->hash, loaded->bundle->hash) == 0)
        status = br_encoder_weights_create(&loaded->weights[device],
                                           loaded->options.devices->items[device].backend, bundle, error);
    else
        status = br_fail(error, BR_EINVAL, "%s: the bundle has changed since it was loaded", loaded->folder);
    br_bundle_close(bundle);
    return status;
}

static const char *const probe_texts[] = {
    "What is the capital of France?",
    "Prove that the square root of 2 is irrational, and say which step fails for the square root of 4.",
    "x",
};

enum { PROBES = sizeof probe_texts / sizeof *probe_texts };

/* How far a prompt's quality may differ alone and in a batch: by rounding, with room for any bundle. */
static float probe_tolerance(br_precision precision)
{
    return precision == BR_PRECISION_F32 ? 1e-3f : 5e-2f;
}

static br_status check_qualities(const float *quality, const float *other, int32_t heads,
                                 br_precision precision, br_error *error)
{
    const float tolerance = probe_tolerance(precision);
    for (int32_t k = 0; k < heads; k++) {
        if (!(quality[k] >= 0.0f && quality[k] <= 1.0f))
            return br_fail(error, BR_EDEVICE,
                           "probe: head %d answers %g in precision %s, expected a quality in [0, 1]%s",
                           (int)k, (double)quality[k], br_precision_name(precision),
                           precision == BR_PRECISION_F16 ? "; bf16 has the range of f32" : "");
        if (!(fabsf(quality[k] - other[k]) <= tolerance))
            return br_fail(error, BR_EDEVICE, "probe: head %d answers %g alone and %g in a batch", (int)k,
                           (double)quality[k], (double)other[k]);
    }
    return BR_OK;
}

typedef struct probe {
    br_packing together;
    br_packing alone;
    float *together_quality; /* [PROBES, heads] */
    float *alone_quality;    /* [PROBES, heads] */
    int32_t *ids;            /* [max_tokens] */
} probe;

static br_status probe_init(probe *p, const br_loaded *loaded)
{
    const int32_t tokens = loaded->bundle->router.max_tokens;
    const size_t heads = (size_t)loaded->bundle->router.head_count;
    *p = (probe){0};
    br_status status = br_packing_init(&p->together, PROBES * tokens, PROBES);
    if (status != BR_OK) return status;
    status = br_packing_init(&p->alone, tokens, 1);
    if (status != BR_OK) return status;
    p->together_quality = br_alloc_array(PROBES * heads, sizeof *p->together_quality);
    p->alone_quality = br_alloc_array(PROBES * heads, sizeof *p->alone_quality);
    p->ids = br_alloc_array((size_t)tokens, sizeof *p->ids);
    return p->together_quality == NULL || p->alone_quality == NULL || p->ids == NULL ? BR_ENOMEM : BR_OK;
}

static void probe_deinit(probe *p)
{
    br_packing_deinit(&p->together);
    br_packing_deinit(&p->alone);
    free(p->together_quality);
    free(p->alone_quality);
    free(p->ids);
}

static br_status probe_run(probe *p, br_loaded *loaded, int32_t worker, br_error *error)
{
    const int32_t heads = loaded->bundle->router.head_count;
    br_status status = BR_OK;
    for (int32_t i = 0; i < PROBES; i++) {
        br_prompt prompt;
        status = br_bundle_prompt_from_text(loaded->bundle, br_str_from(probe_texts[i]), p->ids, &prompt);
        if (status != BR_OK)
            return br_fail(error, status, "probe: tokenising failed: %s", br_status_text(status));
        br_packing_clear(&p->alone);
        if (!br_packing_add(&p->alone, p->ids, prompt.tokens))
            return br_fail(error, BR_EINTERNAL, "probe: no room in the batch");
        /* A small batch budget may not hold all probes at once: then fewer go together. */
        const bool fits = p->together.seqs < loaded->options.seqs_max &&
                          p->together.tokens + prompt.tokens <= device_of(loaded, worker)->tokens_max;
        if (fits && !br_packing_add(&p->together, p->ids, prompt.tokens))
            return br_fail(error, BR_EINTERNAL, "probe: no room in the batch");
        status = br_loaded_run(loaded, worker, &p->alone, p->alone_quality + (ptrdiff_t)i * heads);
        if (status != BR_OK) return br_fail(error, status, "probe: %s", br_status_text(status));
        if (!fits) break;
    }
    status = br_loaded_run(loaded, worker, &p->together, p->together_quality);
    if (status != BR_OK) return br_fail(error, status, "probe: %s", br_status_text(status));

    const br_precision precision = device_of(loaded, worker)->backend->precision;
    for (int32_t i = 0; i < p->together.seqs && status == BR_OK; i++)
        status = check_qualities(p->alone_quality + (ptrdiff_t)i * heads,
                                 p->together_quality + (ptrdiff_t)i * heads, heads, precision, error);
    return status;
}

br_status br_loaded_open(br_loaded *loaded, int32_t worker, br_error *error)
{
    assert(worker >= 0);
    assert(worker < loaded->options.devices->worker_count);
    assert(loaded->encoders[worker] == NULL);
    const br_device *device = device_of(loaded, worker);
    if (device->backend == NULL) return BR_OK;
    const br_encoder_weights *weights = loaded->weights[device - loaded->options.devices->items];
    assert(weights != NULL);

    const br_encoder_options options = {
        .tokens_max = device->tokens_max,
        .seqs_max = loaded->options.seqs_max,
    };
    br_status status = br_encoder_create(&loaded->encoders[worker], weights, &options, error);
    if (status != BR_OK) return status;

    probe p;
    status = probe_init(&p, loaded);
    if (status == BR_OK)
        status = probe_run(&p, loaded, worker, error);
    else
        status = br_no_memory(error, "the probe");
    probe_deinit(&p);
    if (status != BR_OK) br_loaded_close(loaded, worker);
    return status;
}

void br_loaded_close(br_loaded *loaded, int32_t worker)
{
    br_encoder_destroy(loaded->encoders[worker]);
    loaded->encoders[worker] = NULL;
}

br_status br_loaded_run(br_loaded *loaded, int32_t worker, const br_packing *batch, float *quality)
{
    if (loaded->encoders[worker] != NULL) return br_encoder_run(loaded->encoders[worker], batch, quality);
    assert(device_of(loaded, worker)->backend == NULL);
    const int32_t count = batch->seqs * loaded->bundle->router.head_count;
    for (int32_t i = 0; i < count; i++) quality[i] = BR_NOOP_QUALITY;
    return BR_OK;
}

const br_bundle *br_loaded_bundle(const br_loaded *loaded)
{
    return loaded->bundle;
}

const char *br_loaded_folder(const br_loaded *loaded)
{
    return loaded->folder;
}

int32_t br_loaded_handed_out(const br_loaded *loaded)
{
    return loaded->handed_out;
}

size_t br_loaded_weights_bytes(const br_loaded *loaded)
{
    for (int32_t i = 0; i < BR_DEVICES_MAX; i++)
        if (loaded->weights[i] != NULL) return br_encoder_weights_bytes(loaded->weights[i]);
    return 0;
}

size_t br_loaded_encoders_bytes(const br_loaded *loaded)
{
    size_t total = 0;
    for (int32_t i = 0; i < BR_WORKERS_MAX; i++)
        if (loaded->encoders[i] != NULL) total += br_encoder_bytes(loaded->encoders[i]);
    return total;
}
