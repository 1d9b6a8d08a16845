/*
 * forward_dump.c - runs an engine over given sequences and writes what it computes, for check_44m.py.
 *
 *   forward_dump BUNDLE ENGINE PRECISION INPUT OUTPUT
 *
 * INPUT    int32: count, then for each sequence its length and its ids
 * OUTPUT   float32: for each sequence, run alone with all tokens computed: hidden [length, C], quality [K];
 *          then for each sequence, run alone as the service does: quality [K];
 *          then for each sequence, run as the service does in batches of many: quality [K]
 *
 * Prints the device, and the seconds that loading and each way of running took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/file.h"
#include "core/limits.h"
#include "core/memory.h"
#include "encoder/encoder.h"
#include "engine/engines.h"

enum { TOKENS_MAX = 2816, SEQS_MAX = 64 };

typedef struct dump {
    br_backend *backend;
    br_bundle *bundle;
    br_encoder_weights *weights;
    int32_t *input;
    size_t input_count;
    FILE *output;
} dump;

static double seconds_since(uint64_t start_ns)
{
    return (double)(br_clock_now_ns() - start_ns) * 1e-9;
}

static br_status read_input(dump *d, const char *path, br_error *error)
{
    char *bytes;
    size_t size;
    br_status status = br_file_read(&bytes, &size, path, error);
    if (status != BR_OK) return status;
    d->input_count = size / sizeof *d->input;
    d->input = br_alloc_array(d->input_count, sizeof *d->input);
    if (d->input == NULL) {
        status = br_no_memory(error, "%s", path);
    } else if (d->input_count < 1) {
        status = br_fail(error, BR_EINVAL, "%s: is empty", path);
    } else {
        memcpy(d->input, bytes, d->input_count * sizeof *d->input);
    }
    free(bytes);
    return status;
}

/* The sequences are checked here, since the encoder only asserts them. */
static br_status check_input(const dump *d, br_error *error)
{
    size_t at = 1;
    for (int32_t i = 0; i < d->input[0]; i++) {
        const int32_t length = at < d->input_count ? d->input[at] : 0;
        if (length < BR_SEQ_TOKENS_MIN || length > d->bundle->router.max_tokens ||
            at + (size_t)length >= d->input_count)
            return br_fail(error, BR_EINVAL, "sequence %d has a length out of range", (int)i);
        for (int32_t t = 0; t < length; t++) {
            const int32_t id = d->input[at + 1 + (size_t)t];
            if (id < 0 || id >= d->bundle->model.vocab)
                return br_fail(error, BR_EINVAL, "sequence %d has an id out of range", (int)i);
        }
        at += 1 + (size_t)length;
    }
    return BR_OK;
}

static br_status write_floats(const dump *d, const float *values, size_t count, br_error *error)
{
    if (fwrite(values, sizeof *values, count, d->output) == count) return BR_OK;
    return br_fail(error, BR_EIO, "the output cannot be written");
}

typedef struct pass {
    br_encoder *encoder;
    br_packing batch;
    float *hidden; /* NULL: not wanted */
    float quality[SEQS_MAX * BR_CANDIDATES_MAX];
} pass;

static br_status flush(const dump *d, pass *p, br_error *error)
{
    if (p->batch.seqs == 0) return BR_OK;
    br_status status = br_encoder_run(p->encoder, &p->batch, p->quality);
    if (status == BR_OK && p->hidden != NULL) {
        status = br_encoder_hidden(p->encoder, p->hidden);
        const size_t count = (size_t)p->batch.tokens * (size_t)d->bundle->model.width;
        if (status == BR_OK) status = write_floats(d, p->hidden, count, error);
    }
    const size_t qualities = (size_t)p->batch.seqs * (size_t)d->bundle->router.head_count;
    if (status == BR_OK) status = write_floats(d, p->quality, qualities, error);
    br_packing_clear(&p->batch);
    return status == BR_OK ? BR_OK : br_fail(error, status, "the engine failed: %s", br_status_text(status));
}

/* All sequences once, `together` at most in one batch. */
static br_status run_all(const dump *d, const char *name, int32_t together, bool all_tokens, br_error *error)
{
    const br_encoder_options options = {
        .tokens_max = TOKENS_MAX, .seqs_max = together, .all_tokens = all_tokens};
    pass *p = calloc(1, sizeof *p);
    if (p == NULL) return br_fail(error, BR_ENOMEM, "no memory");
    br_status status = br_encoder_create(&p->encoder, d->weights, &options, error);
    if (status == BR_OK) status = br_packing_init(&p->batch, TOKENS_MAX, together);
    if (status == BR_OK && all_tokens) {
        p->hidden = br_alloc_array((size_t)TOKENS_MAX * (size_t)d->bundle->model.width, sizeof *p->hidden);
        if (p->hidden == NULL) status = br_fail(error, BR_ENOMEM, "no memory");
    }
    const uint64_t start = br_clock_now_ns();
    const int32_t *at = d->input + 1;
    for (int32_t i = 0; i < d->input[0] && status == BR_OK; i++) {
        if (!br_packing_add(&p->batch, at + 1, at[0])) {
            status = flush(d, p, error);
            if (status == BR_OK && !br_packing_add(&p->batch, at + 1, at[0]))
                status = br_fail(error, BR_ETOOBIG, "sequence %d does not fit a batch", (int)i);
        }
        at += 1 + at[0];
    }
    if (status == BR_OK) status = flush(d, p, error);
    if (status == BR_OK) printf("%s: %.2f s\n", name, seconds_since(start));
    br_packing_deinit(&p->batch);
    br_encoder_destroy(p->encoder);
    free(p->hidden);
    free(p);
    return status;
}

static br_status parse_engine(br_engine *engine, br_precision *precision, char **arguments, br_error *error)
{
    for (*engine = BR_ENGINE_AUTO; *engine <= BR_ENGINE_CUDA; (*engine)++)
        if (strcmp(arguments[2], br_engine_name(*engine)) == 0) break;
    for (*precision = BR_PRECISION_AUTO; *precision <= BR_PRECISION_FP8; (*precision)++)
        if (strcmp(arguments[3], br_precision_name(*precision)) == 0) break;
    if (*engine <= BR_ENGINE_CUDA && *precision <= BR_PRECISION_FP8) return BR_OK;
    return br_fail(error, BR_EINVAL, "engine %s or precision %s does not exist", arguments[2], arguments[3]);
}

static br_status work(dump *d, char **arguments, br_error *error)
{
    br_engine engine;
    br_precision precision;
    br_status status = parse_engine(&engine, &precision, arguments, error);
    if (status == BR_OK) status = br_backend_open(&d->backend, engine, precision, 0, error);
    if (status == BR_OK) status = br_bundle_open(&d->bundle, arguments[1], error);
    if (status != BR_OK) return status;

    printf("device: %s\n", d->backend->device);
    const uint64_t start = br_clock_now_ns();
    status = br_encoder_weights_create(&d->weights, d->backend, d->bundle, error);
    if (status != BR_OK) return status;
    printf("load: %.2f s, %.1f MB of weights\n", seconds_since(start),
           (double)br_encoder_weights_bytes(d->weights) * 1e-6);

    status = read_input(d, arguments[4], error);
    if (status == BR_OK) status = check_input(d, error);
    if (status != BR_OK) return status;
    d->output = fopen(arguments[5], "wb");
    if (d->output == NULL) return br_fail(error, BR_EIO, "%s: cannot be created", arguments[5]);
    status = run_all(d, "alone, all tokens", 1, true, error);
    if (status == BR_OK) status = run_all(d, "alone", 1, false, error);
    if (status == BR_OK) status = run_all(d, "together", SEQS_MAX, false, error);
    if (fclose(d->output) != 0 && status == BR_OK)
        status = br_fail(error, BR_EIO, "%s: cannot be written", arguments[5]);
    return status;
}

int main(int argument_count, char **arguments)
{
    if (argument_count != 6) {
        fprintf(stderr, "usage: forward_dump BUNDLE ENGINE PRECISION INPUT OUTPUT\n");
        return 2;
    }
    dump d = {0};
    br_error error = {0};
    const br_status status = work(&d, arguments, &error);
    if (status != BR_OK) fprintf(stderr, "forward_dump: %s\n", error.text);
    br_encoder_weights_destroy(d.weights);
    br_backend_close(d.backend);
    br_bundle_close(d.bundle);
    free(d.input);
    if (status == BR_OK) return 0;
    return status == BR_ENOTSUP ? 77 : 1;
}
