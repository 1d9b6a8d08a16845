/*
 * loaded_weights.c - see loaded_weights.h.
 *
 *   rank 0    file -> first accelerator --ranks--> first accelerator of each rank
 *   each rank         first accelerator --local--> its other accelerators
 *             file -> host's cores
 *
 * Where NCCL is missing, or the devices are not alike, every device is filled from the file.
 */
#include "loaded_weights.h"

#include <assert.h>
#include <string.h>

enum { HAND_OUT_MS = 60000, HASH_WORDS = 4, LAYOUT_WORDS = 3 };

static_assert(sizeof((br_bundle *)0)->digest == HASH_WORDS * sizeof(uint64_t), "the whole hash is agreed on");

/* The accelerators that take part, the first of which is filled before the others. */
typedef struct crew {
    int32_t devices[BR_DEVICES_MAX];
    br_pieces pieces[BR_DEVICES_MAX];
    int32_t count;
} crew;

static bool takes_part(const br_loaded_options *options, int32_t device)
{
    return options->devices->items[device].backend != NULL && (options->without >> device & 1) == 0;
}

static void gather(crew *c, const br_loaded_options *options)
{
    for (int32_t i = 0; i < options->devices->count; i++)
        if (takes_part(options, i) && br_device_is_accelerator(&options->devices->items[i]))
            c->devices[c->count++] = i;
}

static br_backend *backend_of(const br_loaded_options *options, const crew *c, int32_t member)
{
    return options->devices->items[c->devices[member]].backend;
}

static bool are_alike(const br_pieces *a, const br_pieces *b)
{
    if (a->count != b->count) return false;
    for (int32_t i = 0; i < a->count; i++)
        if (a->items[i].bytes != b->items[i].bytes) return false;
    return true;
}

/* Checks that all ranks hold the same bundle, and lay it out alike. */
static br_status agree(br_comm *ranks, const br_bundle *bundle, const br_pieces *pieces,
                       br_precision precision, br_error *error)
{
    uint64_t words[HASH_WORDS + LAYOUT_WORDS] = {0};
    memcpy(words, bundle->digest, sizeof bundle->digest);
    words[HASH_WORDS] = (uint64_t)precision;
    words[HASH_WORDS + 1] = (uint64_t)pieces->count;
    for (int32_t i = 0; i < pieces->count; i++)
        words[HASH_WORDS + 2] = words[HASH_WORDS + 2] * 1099511628211u + pieces->items[i].bytes;
    const br_status status = br_comm_agree(ranks, words, HASH_WORDS + LAYOUT_WORDS, error);
    if (status != BR_EINVAL) return status;
    return br_fail(error, BR_EINVAL,
                   "ranks: another rank has another bundle, precision or kind of device; here it is %s in %s",
                   bundle->hash, br_precision_name(precision));
}

static br_status fill_first(br_encoder_weights **weights, crew *c, const br_loaded_options *options,
                            const br_bundle *bundle, br_error *error)
{
    br_comm *ranks = options->ranks;
    br_backend *backend = backend_of(options, c, 0);
    const bool empty = ranks != NULL && br_comm_rank(ranks) > 0;
    br_status status =
        br_encoder_weights_collect(&weights[c->devices[0]], backend, bundle, &c->pieces[0], empty, error);
    if (status != BR_OK || ranks == NULL) return status;
    status = agree(ranks, bundle, &c->pieces[0], backend->precision, error);
    if (status != BR_OK) return status;
    const br_pieces *lists[] = {&c->pieces[0]};
    return br_comm_broadcast(ranks, lists, error);
}

static br_status reserve_others(br_encoder_weights **weights, crew *c, const br_loaded_options *options,
                                const br_bundle *bundle, br_error *error)
{
    for (int32_t m = 1; m < c->count; m++) {
        const br_status status = br_encoder_weights_collect(
            &weights[c->devices[m]], backend_of(options, c, m), bundle, &c->pieces[m], true, error);
        if (status != BR_OK) return status;
        if (!are_alike(&c->pieces[0], &c->pieces[m]))
            return br_fail(error, BR_ENOTSUP, "the devices lay weights out differently");
    }
    return BR_OK;
}

static br_status copy_to_others(const crew *c, const br_loaded_options *options, br_error *error)
{
    br_backend *backends[BR_DEVICES_MAX];
    const br_pieces *lists[BR_DEVICES_MAX];
    for (int32_t m = 0; m < c->count; m++) {
        backends[m] = backend_of(options, c, m);
        lists[m] = &c->pieces[m];
    }
    br_comm *local;
    br_status status = br_comm_open(
        &local,
        &(br_comm_options){.backends = backends, .count = c->count, .ranks = 1, .timeout_ms = HAND_OUT_MS},
        error);
    if (status != BR_OK) return status;
    status = br_comm_broadcast(local, lists, error);
    br_comm_close(local);
    return status;
}

static br_status hand_out(br_encoder_weights **weights, crew *c, const br_loaded_options *options,
                          const br_bundle *bundle)
{
    br_error why = {0}; /* not reported: the weights are read from the file instead */
    br_status status = reserve_others(weights, c, options, bundle, &why);
    if (status == BR_OK) status = copy_to_others(c, options, &why);
    for (int32_t m = 1; status != BR_OK && m < c->count; m++) {
        br_encoder_weights_destroy(weights[c->devices[m]]);
        weights[c->devices[m]] = NULL;
    }
    return status;
}

static br_status make_accelerators(br_encoder_weights **weights, int32_t *handed_out, crew *c,
                                   const br_loaded_options *options, const br_bundle *bundle, br_error *error)
{
    br_status status = fill_first(weights, c, options, bundle, error);
    if (status != BR_OK || c->count == 1) return status;
    if (hand_out(weights, c, options, bundle) == BR_OK) {
        *handed_out = c->count - 1;
        return BR_OK;
    }
    for (int32_t m = 1; status == BR_OK && m < c->count; m++)
        status = br_encoder_weights_create(&weights[c->devices[m]], backend_of(options, c, m), bundle, error);
    return status;
}

br_status loaded_weights_make(br_encoder_weights **weights, int32_t *handed_out,
                              const br_loaded_options *options, const br_bundle *bundle, br_error *error)
{
    crew c = {.count = 0};
    gather(&c, options);
    *handed_out = 0;
    br_status status = BR_OK;
    if (c.count > 0) status = make_accelerators(weights, handed_out, &c, options, bundle, error);
    for (int32_t i = 0; status == BR_OK && i < options->devices->count; i++) {
        const br_device *device = &options->devices->items[i];
        if (takes_part(options, i) && !br_device_is_accelerator(device))
            status = br_encoder_weights_create(&weights[i], device->backend, bundle, error);
    }
    for (int32_t m = 0; m < c.count; m++) br_pieces_deinit(&c.pieces[m]);
    return status;
}
