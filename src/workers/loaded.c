/* loaded.c - a loaded bundle with its weights and one encoder per worker. */
#include "loaded.h"

#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "encoder/encoder.h"
#include "loaded_weights.h"

struct br_replica {
    atomic_int references;
    br_replica *link;
    br_replica_options options;
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

static br_status check_tokens_max(const br_replica *replica, br_error *error)
{
    const int32_t tokens_max = br_devices_tokens_min(replica->options.devices);
    const int32_t needed = replica->bundle->router.max_tokens;
    if (tokens_max == 0 || tokens_max >= needed) return BR_OK;
    return br_fail(error, BR_EINVAL,
                   "%s/router.json: max_tokens is %d, but the service was started for prompts of at most %d",
                   replica->folder, (int)needed, (int)tokens_max);
}

static const br_device *device_of(const br_replica *replica, int32_t worker)
{
    const br_devices *devices = replica->options.devices;
    return &devices->items[devices->device_of[worker]];
}

br_status br_replica_create(br_replica **out, const br_replica_options *options, br_error *error)
{
    assert(options->devices->count >= 1);
    *out = NULL;
    br_replica *replica = calloc(1, sizeof *replica);
    if (replica == NULL) return br_fail(error, BR_ENOMEM, "out of memory");
    atomic_init(&replica->references, 1);
    replica->options = *options;

    br_status status = BR_ENOMEM;
    replica->folder = copy_text(options->folder);
    if (replica->folder == NULL) status = br_fail(error, BR_ENOMEM, "out of memory");
    if (replica->folder == NULL) goto fail;
    replica->options.folder = replica->folder;

    status = br_bundle_open(&replica->bundle, replica->folder, error);
    if (status != BR_OK) goto fail;
    status = check_tokens_max(replica, error);
    if (status != BR_OK) goto fail;
    status = br_replica_weights_make(replica->weights, &replica->handed_out, options, replica->bundle, error);
    replica->options.fleet = NULL;
    if (status != BR_OK) goto fail;
    br_bundle_drop_weights(replica->bundle);

    *out = replica;
    return BR_OK;

fail:
    br_replica_destroy(replica);
    return status;
}

void br_replica_destroy(br_replica *replica)
{
    if (replica == NULL) return;
    for (int32_t i = 0; i < BR_WORKERS_MAX; i++) assert(replica->encoders[i] == NULL);
    for (int32_t i = 0; i < BR_DEVICES_MAX; i++) br_replica_drop(replica, i);
    br_bundle_close(replica->bundle);
    free(replica->folder);
    free(replica);
}

void br_replica_retain(br_replica *replica)
{
    atomic_fetch_add_explicit(&replica->references, 1, memory_order_relaxed);
}

bool br_replica_release(br_replica *replica)
{
    const int before = atomic_fetch_sub_explicit(&replica->references, 1, memory_order_acq_rel);
    assert(before >= 1);
    return before == 1;
}

br_replica **br_replica_link(br_replica *replica)
{
    return &replica->link;
}

void br_replica_drop(br_replica *replica, int32_t device)
{
    br_encoder_weights_destroy(replica->weights[device]);
    replica->weights[device] = NULL;
}

bool br_replica_is_on(const br_replica *replica, int32_t device)
{
    return replica->weights[device] != NULL;
}

br_status br_replica_restore(br_replica *replica, int32_t device, br_error *error)
{
    assert(replica->weights[device] == NULL);
    br_bundle *bundle;
    br_status status = br_bundle_open(&bundle, replica->folder, error);
    if (status != BR_OK) return status;
    if (strcmp(bundle->hash, replica->bundle->hash) == 0)
        status = br_encoder_weights_create(&replica->weights[device],
                                           replica->options.devices->items[device].backend, bundle, error);
    else
        status = br_fail(error, BR_EINVAL, "%s: the bundle has changed since it was loaded", replica->folder);
    br_bundle_close(bundle);
    return status;
}

static const char *const probe_texts[] = {
    "What is the capital of France?",
    "Prove that the square root of 2 is irrational, and say which step fails for the square root of 4.",
    "x",
};

enum { PROBES = sizeof probe_texts / sizeof *probe_texts };

/* How far a prompt's quality may move with its company: rounding alone, with room for any bundle. */
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

static br_status probe_init(probe *p, const br_replica *replica)
{
    const int32_t tokens = replica->bundle->router.max_tokens;
    const size_t heads = (size_t)replica->bundle->router.head_count;
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

static br_status probe_run(probe *p, br_replica *replica, int32_t worker, br_error *error)
{
    const int32_t heads = replica->bundle->router.head_count;
    br_status status = BR_OK;
    for (int32_t i = 0; i < PROBES; i++) {
        br_prompt prompt;
        status = br_bundle_prompt_from_text(replica->bundle, br_str_from(probe_texts[i]), p->ids, &prompt);
        if (status != BR_OK)
            return br_fail(error, status, "probe: tokenising failed: %s", br_status_text(status));
        br_packing_clear(&p->alone);
        if (!br_packing_add(&p->alone, p->ids, prompt.tokens))
            return br_fail(error, BR_EINTERNAL, "probe: no room");
        /* A small batch budget may not hold all probes at once: then fewer go together. */
        const bool fits = p->together.seqs < replica->options.seqs_max &&
                          p->together.tokens + prompt.tokens <= device_of(replica, worker)->tokens_max;
        if (fits && !br_packing_add(&p->together, p->ids, prompt.tokens))
            return br_fail(error, BR_EINTERNAL, "probe: no room");
        status = br_replica_run(replica, worker, &p->alone, p->alone_quality + (ptrdiff_t)i * heads);
        if (status != BR_OK) return br_fail(error, status, "probe: %s", br_status_text(status));
        if (!fits) break;
    }
    status = br_replica_run(replica, worker, &p->together, p->together_quality);
    if (status != BR_OK) return br_fail(error, status, "probe: %s", br_status_text(status));

    const br_precision precision = device_of(replica, worker)->backend->precision;
    for (int32_t i = 0; i < p->together.seqs && status == BR_OK; i++)
        status = check_qualities(p->alone_quality + (ptrdiff_t)i * heads,
                                 p->together_quality + (ptrdiff_t)i * heads, heads, precision, error);
    return status;
}

br_status br_replica_open(br_replica *replica, int32_t worker, br_error *error)
{
    assert(worker >= 0);
    assert(worker < replica->options.devices->worker_count);
    assert(replica->encoders[worker] == NULL);
    const br_device *device = device_of(replica, worker);
    if (device->backend == NULL) return BR_OK;
    const br_encoder_weights *weights = replica->weights[device - replica->options.devices->items];
    assert(weights != NULL);

    const br_encoder_options options = {
        .tokens_max = device->tokens_max,
        .seqs_max = replica->options.seqs_max,
    };
    br_status status = br_encoder_create(&replica->encoders[worker], weights, &options, error);
    if (status != BR_OK) return status;

    probe p;
    status = probe_init(&p, replica);
    if (status == BR_OK)
        status = probe_run(&p, replica, worker, error);
    else
        status = br_fail(error, status, "out of memory");
    probe_deinit(&p);
    if (status != BR_OK) br_replica_close(replica, worker);
    return status;
}

void br_replica_close(br_replica *replica, int32_t worker)
{
    br_encoder_destroy(replica->encoders[worker]);
    replica->encoders[worker] = NULL;
}

br_status br_replica_run(br_replica *replica, int32_t worker, const br_packing *batch, float *quality)
{
    if (replica->encoders[worker] != NULL) return br_encoder_run(replica->encoders[worker], batch, quality);
    assert(device_of(replica, worker)->backend == NULL);
    const int32_t count = batch->seqs * replica->bundle->router.head_count;
    for (int32_t i = 0; i < count; i++) quality[i] = BR_NOOP_QUALITY;
    return BR_OK;
}

const br_bundle *br_replica_bundle(const br_replica *replica)
{
    return replica->bundle;
}

const char *br_replica_folder(const br_replica *replica)
{
    return replica->folder;
}

int32_t br_replica_handed_out(const br_replica *replica)
{
    return replica->handed_out;
}

size_t br_replica_weights_bytes(const br_replica *replica)
{
    for (int32_t i = 0; i < BR_DEVICES_MAX; i++)
        if (replica->weights[i] != NULL) return br_encoder_weights_bytes(replica->weights[i]);
    return 0;
}

size_t br_replica_encoders_bytes(const br_replica *replica)
{
    size_t total = 0;
    for (int32_t i = 0; i < BR_WORKERS_MAX; i++)
        if (replica->encoders[i] != NULL) total += br_encoder_bytes(replica->encoders[i]);
    return total;
}
