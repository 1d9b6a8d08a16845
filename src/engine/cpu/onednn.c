/*
 * onednn.c - see onednn.h.
 *
 * oneDNN's versions differ in how descriptors are made: version 2 fills structs of the caller and needs an
 * operation descriptor, version 3 returns opaque pointers. The lines between #if and #endif hide this
 * difference; the rest is written once.
 */
#include "onednn.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/memory.h"

#include <oneapi/dnnl/dnnl.h>

/* Of the OpenMP runtime that oneDNN uses. Declared here because omp.h belongs to one compiler. */
extern void omp_set_num_threads(int threads);
extern int omp_get_max_threads(void);

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t layout;          /* owned */
typedef const_dnnl_memory_desc_t layout_in; /* borrowed */

static void layout_free(layout *desc)
{
    if (*desc != NULL) (void)dnnl_memory_desc_destroy(*desc);
    *desc = NULL;
}

static layout_in layout_view(const layout *desc)
{
    return *desc;
}

static dnnl_status_t layout_make(layout *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(out, rank, dims, type, tag);
}

static dnnl_status_t layout_copy(layout *out, layout_in source)
{
    return dnnl_memory_desc_clone(out, source);
}

static layout_in layout_of(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(desc, what, 0);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *x,
                                     const layout *weight, const layout *bias, const layout *y,
                                     const_dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(out, engine, *x, *weight, *bias, *y, attributes);
}

#else

typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_in;

static void layout_free(layout *desc)
{
    (void)desc;
}

static layout_in layout_view(const layout *desc)
{
    return desc;
}

static dnnl_status_t layout_make(layout *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                                 dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(out, rank, dims, type, tag);
}

static dnnl_status_t layout_copy(layout *out, layout_in source)
{
    *out = *source;
    return dnnl_success;
}

static layout_in layout_of(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return dnnl_primitive_desc_query_md(desc, what, 0);
}

static dnnl_status_t append_sum(dnnl_post_ops_t ops)
{
    return dnnl_post_ops_append_sum(ops, 1.0f);
}

static dnnl_status_t describe_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const layout *x,
                                     const layout *weight, const layout *bias, const layout *y,
                                     const_dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t operation;
    const dnnl_status_t status = dnnl_matmul_desc_init(&operation, x, weight, bias, y);
    if (status != dnnl_success) return status;
    return dnnl_primitive_desc_create(out, &operation, attributes, engine, NULL);
}

#endif

enum {
    TYPICAL_ROWS = ONEDNN_ROWS_EXACT,
    SLOT_COUNT = ONEDNN_ROWS_EXACT + (ONEDNN_ROWS_MAX - ONEDNN_ROWS_EXACT) / ONEDNN_ROWS_STEP,
};

/* Compiled row counts, numbered from 0. */
static int32_t rows_of_slot(int32_t slot)
{
    if (slot < ONEDNN_ROWS_EXACT) return slot + 1;
    return ONEDNN_ROWS_EXACT + (slot - ONEDNN_ROWS_EXACT + 1) * ONEDNN_ROWS_STEP;
}

static int32_t slot_of_rows(int32_t rows)
{
    if (rows <= ONEDNN_ROWS_EXACT) return rows - 1;
    return ONEDNN_ROWS_EXACT + (rows - ONEDNN_ROWS_EXACT) / ONEDNN_ROWS_STEP - 1;
}

int32_t onednn_block(int32_t rows, int32_t rows_max)
{
    assert(rows >= 1);
    assert(rows_max >= 1);
    assert(rows_max <= ONEDNN_ROWS_MAX);
    const int32_t blocks = (rows + rows_max - 1) / rows_max;
    const int32_t fair = rows / blocks;
    if (fair <= ONEDNN_ROWS_EXACT) return fair;
    if (blocks > 1 || fair % ONEDNN_ROWS_STEP == 0) return fair / ONEDNN_ROWS_STEP * ONEDNN_ROWS_STEP;
    return fair / 2;
}

typedef struct shape shape;
struct shape {
    shape *next;
    int32_t outputs;
    int32_t inputs;
    onednn_result result;
    int32_t users;  /* matrices of this shape */
    int32_t number; /* its place in the runners' tables */
    bool has_weight;
    layout weight; /* the packed one, equal for all row counts */
    size_t scratch_bytes;
    char implementation[64];
    dnnl_primitive_t products[SLOT_COUNT];
};

struct onednn {
    dnnl_engine_t engine;
    shape *shapes;
    int32_t numbers; /* of shapes, given so far */
    bool bf16;
    char implementation[64];
};

struct onednn_weights {
    shape *shape;
    void *packed; /* 64-byte aligned */
    float *bias;
    dnnl_memory_t packed_memory;
    dnnl_memory_t bias_memory;
};

static br_status fail(br_error *error, dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory) return br_no_memory(error, "oneDNN: %s", what);
    return br_fail(error, BR_EDEVICE, "oneDNN: %s failed with status %d", what, (int)status);
}

static dnnl_data_type_t input_type(const onednn *dnn)
{
    return dnn->bf16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_data_type_t output_type(const onednn *dnn, const shape *s)
{
    return s->result == ONEDNN_STORE ? input_type(dnn) : dnnl_f32;
}

static dnnl_status_t make_attributes(dnnl_primitive_attr_t *out, bool accumulate)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && accumulate) {
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success) status = append_sum(ops);
        if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*out, ops);
        if (ops != NULL) (void)dnnl_post_ops_destroy(ops);
    }
    return status;
}

/* Describes the product for `rows`; the first time, lets oneDNN choose how weights are packed. */
static dnnl_status_t describe(const onednn *dnn, const shape *s, int32_t rows, dnnl_primitive_desc_t *out)
{
    const dnnl_dims_t x_dims = {rows, s->inputs};
    const dnnl_dims_t weight_dims = {s->inputs, s->outputs};
    const dnnl_dims_t bias_dims = {1, s->outputs};
    const dnnl_dims_t y_dims = {rows, s->outputs};
    layout x = {0};
    layout weight = {0};
    layout bias = {0};
    layout y = {0};
    dnnl_primitive_attr_t attributes = NULL;

    *out = NULL;
    dnnl_status_t status = layout_make(&x, 2, x_dims, input_type(dnn), dnnl_ab);
    if (status == dnnl_success)
        status = s->has_weight ? layout_copy(&weight, layout_view(&s->weight))
                               : layout_make(&weight, 2, weight_dims, input_type(dnn), dnnl_format_tag_any);
    if (status == dnnl_success) status = layout_make(&bias, 2, bias_dims, dnnl_f32, dnnl_ab);
    if (status == dnnl_success) status = layout_make(&y, 2, y_dims, output_type(dnn, s), dnnl_ab);
    if (status == dnnl_success) status = make_attributes(&attributes, s->result == ONEDNN_ADD_WIDE);
    if (status == dnnl_success)
        status = describe_matmul(out, dnn->engine, &x, &weight, &bias, &y, attributes);

    if (attributes != NULL) (void)dnnl_primitive_attr_destroy(attributes);
    layout_free(&y);
    layout_free(&bias);
    layout_free(&weight);
    layout_free(&x);
    return status;
}

static dnnl_status_t compile(const onednn *dnn, shape *s, int32_t rows)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_status_t status = describe(dnn, s, rows, &desc);
    if (status != dnnl_success) return status;

    if (!s->has_weight) {
        const char *implementation = "?";
        (void)dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, (void *)&implementation);
        strncpy(s->implementation, implementation, sizeof s->implementation - 1);
        status = layout_copy(&s->weight, layout_of(desc, dnnl_query_weights_md));
        s->has_weight = status == dnnl_success;
    }
    const size_t scratch_bytes = dnnl_memory_desc_get_size(layout_of(desc, dnnl_query_scratchpad_md));
    if (scratch_bytes > s->scratch_bytes) s->scratch_bytes = scratch_bytes;
    if (status == dnnl_success) status = dnnl_primitive_create(&s->products[slot_of_rows(rows)], desc);
    (void)dnnl_primitive_desc_destroy(desc);
    return status;
}

static void shape_free(shape *s)
{
    if (s == NULL) return;
    for (int32_t slot = 0; slot < SLOT_COUNT; slot++)
        if (s->products[slot] != NULL) (void)dnnl_primitive_destroy(s->products[slot]);
    if (s->has_weight) layout_free(&s->weight);
    free(s);
}

static void shape_release(onednn *dnn, shape *s)
{
    if (s == NULL || --s->users > 0) return;
    for (shape **link = &dnn->shapes; *link != NULL; link = &(*link)->next) {
        if (*link != s) continue;
        *link = s->next;
        break;
    }
    shape_free(s);
}

/* Compiles for the typical row count first, which fixes the packing, then for the others. */
static dnnl_status_t compile_all(const onednn *dnn, shape *s)
{
    dnnl_status_t status = compile(dnn, s, TYPICAL_ROWS);
    for (int32_t slot = 0; slot < SLOT_COUNT && status == dnnl_success; slot++)
        if (rows_of_slot(slot) != TYPICAL_ROWS) status = compile(dnn, s, rows_of_slot(slot));
    return status;
}

static br_status shape_acquire(onednn *dnn, shape **out, const onednn_source *source, br_error *error)
{
    *out = NULL;
    for (shape *s = dnn->shapes; s != NULL; s = s->next) {
        if (s->outputs != source->outputs || s->inputs != source->inputs || s->result != source->result)
            continue;
        s->users++;
        *out = s;
        return BR_OK;
    }

    shape *s = calloc(1, sizeof *s);
    if (s == NULL) return br_no_memory(error, "oneDNN's matrix shape");
    s->outputs = source->outputs;
    s->inputs = source->inputs;
    s->result = source->result;
    s->users = 1;
    s->number = dnn->numbers;

    const dnnl_status_t status = compile_all(dnn, s);
    if (status != dnnl_success) {
        shape_free(s);
        return fail(error, status, "compiling a product");
    }
    dnn->numbers++;
    s->next = dnn->shapes;
    dnn->shapes = s;
    *out = s;
    return BR_OK;
}

/* Finds the implementation that a matrix of a real model would get. */
static dnnl_status_t probe(onednn *dnn)
{
    shape typical = {.outputs = 768, .inputs = 768};
    const dnnl_status_t status = compile(dnn, &typical, TYPICAL_ROWS);
    memcpy(dnn->implementation, typical.implementation, sizeof dnn->implementation);
    const dnnl_primitive_t product = typical.products[slot_of_rows(TYPICAL_ROWS)];
    if (product != NULL) (void)dnnl_primitive_destroy(product);
    if (typical.has_weight) layout_free(&typical.weight);
    return status;
}

br_status onednn_open(onednn **out, bool bf16, br_error *error)
{
    *out = NULL;
    onednn *dnn = calloc(1, sizeof *dnn);
    if (dnn == NULL) return br_no_memory(error, "oneDNN's engine");
    dnn->bf16 = bf16;

    dnnl_status_t status = dnnl_engine_create(&dnn->engine, dnnl_cpu, 0);
    if (status == dnnl_success) status = probe(dnn);
    if (status != dnnl_success) {
        onednn_close(dnn);
        return fail(error, status, "starting its engine");
    }
    *out = dnn;
    return BR_OK;
}

void onednn_close(onednn *dnn)
{
    if (dnn == NULL) return;
    assert(dnn->shapes == NULL);
    if (dnn->engine != NULL) (void)dnnl_engine_destroy(dnn->engine);
    free(dnn);
}

const char *onednn_implementation(const onednn *dnn)
{
    return dnn->implementation;
}

bool onednn_is_fast(const onednn *dnn)
{
    return strncmp(dnn->implementation, "brg", 3) == 0;
}

/* Converts to the type of the products and packs. */
static dnnl_status_t pack(const onednn *dnn, const onednn_weights *w, const float *plain)
{
    /* [outputs, inputs] stored by rows is [inputs, outputs] stored by columns. */
    const dnnl_dims_t dims = {w->shape->inputs, w->shape->outputs};
    layout plain_layout = {0};
    dnnl_memory_t plain_memory = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;

    dnnl_status_t status = layout_make(&plain_layout, 2, dims, dnnl_f32, dnnl_ba);
    if (status == dnnl_success)
        status = dnnl_memory_create(&plain_memory, layout_view(&plain_layout), dnn->engine,
                                    (void *)(uintptr_t)plain);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&desc, layout_view(&plain_layout), dnn->engine,
                                                    layout_view(&w->shape->weight), dnn->engine, NULL);
    if (status == dnnl_success) status = dnnl_primitive_create(&reorder, desc);
    if (status == dnnl_success) status = dnnl_stream_create(&stream, dnn->engine, dnnl_stream_default_flags);
    if (status == dnnl_success) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, plain_memory}, {DNNL_ARG_TO, w->packed_memory}};
        status = dnnl_primitive_execute(reorder, stream, 2, args);
    }
    if (status == dnnl_success) status = dnnl_stream_wait(stream);

    if (stream != NULL) (void)dnnl_stream_destroy(stream);
    if (reorder != NULL) (void)dnnl_primitive_destroy(reorder);
    if (desc != NULL) (void)dnnl_primitive_desc_destroy(desc);
    if (plain_memory != NULL) (void)dnnl_memory_destroy(plain_memory);
    layout_free(&plain_layout);
    return status;
}

static dnnl_status_t make_memories(const onednn *dnn, onednn_weights *w)
{
    const dnnl_dims_t bias_dims = {1, w->shape->outputs};
    layout bias = {0};
    dnnl_status_t status =
        dnnl_memory_create(&w->packed_memory, layout_view(&w->shape->weight), dnn->engine, w->packed);
    if (status == dnnl_success) status = layout_make(&bias, 2, bias_dims, dnnl_f32, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_create(&w->bias_memory, layout_view(&bias), dnn->engine, w->bias);
    layout_free(&bias);
    return status;
}

static br_status make_weights(onednn *dnn, onednn_weights **out, const onednn_source *source, br_error *error)
{
    *out = NULL;
    onednn_weights *w = calloc(1, sizeof *w);
    if (w == NULL) return br_no_memory(error, "oneDNN's matrix");

    br_status status = shape_acquire(dnn, &w->shape, source, error);
    if (status != BR_OK) goto fail;

    w->packed = br_alloc_array(dnnl_memory_desc_get_size(layout_view(&w->shape->weight)), 1);
    w->bias = br_alloc_array((size_t)source->outputs, sizeof *w->bias);
    if (w->packed == NULL || w->bias == NULL) {
        status = br_no_memory(error, "oneDNN's matrix of %d x %d", (int)source->outputs, (int)source->inputs);
        goto fail;
    }
    memcpy(w->bias, source->bias, (size_t)source->outputs * sizeof *w->bias);

    dnnl_status_t result = make_memories(dnn, w);
    if (result == dnnl_success) result = pack(dnn, w, source->weight);
    if (result != dnnl_success) {
        status = fail(error, result, "packing a matrix");
        goto fail;
    }
    *out = w;
    return BR_OK;

fail:
    onednn_weights_destroy(dnn, w);
    return status;
}

br_status onednn_weights_create(onednn *dnn, onednn_weights **out, const onednn_source *source,
                                br_error *error)
{
    /* When oneDNN compiles, it divides work among the OpenMP team that it finds, and runners have a team of
     * one. Packing starts no threads either: idle ones would spin and take time from the streams. */
    const int team = omp_get_max_threads();
    omp_set_num_threads(1);
    const br_status status = make_weights(dnn, out, source, error);
    omp_set_num_threads(team);
    return status;
}

void onednn_weights_destroy(onednn *dnn, onednn_weights *w)
{
    if (w == NULL) return;
    if (w->packed_memory != NULL) (void)dnnl_memory_destroy(w->packed_memory);
    if (w->bias_memory != NULL) (void)dnnl_memory_destroy(w->bias_memory);
    free(w->packed);
    free(w->bias);
    shape_release(dnn, w->shape);
    free(w);
}

/* A thread's handles for x and y of one shape. */
typedef struct handles {
    dnnl_memory_t x[SLOT_COUNT];
    dnnl_memory_t y[SLOT_COUNT];
    dnnl_memory_t scratch;
    void *scratch_bytes;
} handles;

struct onednn_runner {
    onednn *dnn;
    dnnl_stream_t stream;
    handles **shapes; /* by shape number; NULL before the first product of the shape */
    int32_t shapes_size;
};

static void handles_free(handles *h)
{
    if (h == NULL) return;
    for (int32_t slot = 0; slot < SLOT_COUNT; slot++) {
        if (h->x[slot] != NULL) (void)dnnl_memory_destroy(h->x[slot]);
        if (h->y[slot] != NULL) (void)dnnl_memory_destroy(h->y[slot]);
    }
    if (h->scratch != NULL) (void)dnnl_memory_destroy(h->scratch);
    free(h->scratch_bytes);
    free(h);
}

static dnnl_status_t make_handle(const onednn *dnn, dnnl_memory_t *out, int32_t rows, int32_t width,
                                 dnnl_data_type_t type)
{
    const dnnl_dims_t dims = {rows, width};
    layout plain = {0};
    dnnl_status_t status = layout_make(&plain, 2, dims, type, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_memory_create(out, layout_view(&plain), dnn->engine, DNNL_MEMORY_NONE);
    layout_free(&plain);
    return status;
}

static dnnl_status_t make_handles(const onednn *dnn, const shape *s, handles *h)
{
    dnnl_status_t status = dnnl_success;
    for (int32_t slot = 0; slot < SLOT_COUNT && status == dnnl_success; slot++) {
        const int32_t rows = rows_of_slot(slot);
        status = make_handle(dnn, &h->x[slot], rows, s->inputs, input_type(dnn));
        if (status == dnnl_success)
            status = make_handle(dnn, &h->y[slot], rows, s->outputs, output_type(dnn, s));
    }
    const dnnl_dims_t scratch_dims = {s->scratch_bytes > 0 ? (int64_t)s->scratch_bytes : 1};
    layout scratch = {0};
    if (status == dnnl_success) status = layout_make(&scratch, 1, scratch_dims, dnnl_u8, dnnl_a);
    if (status == dnnl_success)
        status = dnnl_memory_create(&h->scratch, layout_view(&scratch), dnn->engine, h->scratch_bytes);
    layout_free(&scratch);
    return status;
}

static br_status meet_shape(onednn_runner *runner, const shape *s)
{
    if (s->number >= runner->shapes_size) {
        const int32_t size = s->number + 1;
        handles **grown = realloc(runner->shapes, (size_t)size * sizeof(handles *));
        if (grown == NULL) return BR_ENOMEM;
        for (int32_t i = runner->shapes_size; i < size; i++) grown[i] = NULL;
        runner->shapes = grown;
        runner->shapes_size = size;
    }

    handles *h = calloc(1, sizeof *h);
    if (h == NULL) return BR_ENOMEM;
    h->scratch_bytes = br_alloc_array(s->scratch_bytes, 1);
    if (h->scratch_bytes == NULL) {
        handles_free(h);
        return BR_ENOMEM;
    }
    const dnnl_status_t status = make_handles(runner->dnn, s, h);
    if (status != dnnl_success) {
        handles_free(h);
        return status == dnnl_out_of_memory ? BR_ENOMEM : BR_EDEVICE;
    }
    runner->shapes[s->number] = h;
    return BR_OK;
}

br_status onednn_runner_create(onednn_runner **out, onednn *dnn, br_error *error)
{
    *out = NULL;
    omp_set_num_threads(1);
    onednn_runner *runner = calloc(1, sizeof *runner);
    if (runner == NULL) return br_no_memory(error, "oneDNN's stream");
    runner->dnn = dnn;

    br_status status = BR_OK;
    const dnnl_status_t result = dnnl_stream_create(&runner->stream, dnn->engine, dnnl_stream_default_flags);
    if (result != dnnl_success) {
        status = fail(error, result, "creating a stream");
        goto fail;
    }
    for (const shape *s = dnn->shapes; s != NULL; s = s->next) {
        status = meet_shape(runner, s);
        if (status != BR_OK) {
            status = br_fail(error, status, "oneDNN: cannot make the handles of a stream");
            goto fail;
        }
    }
    *out = runner;
    return BR_OK;

fail:
    onednn_runner_destroy(runner);
    return status;
}

void onednn_runner_destroy(onednn_runner *runner)
{
    if (runner == NULL) return;
    for (int32_t i = 0; i < runner->shapes_size; i++) handles_free(runner->shapes[i]);
    free(runner->shapes);
    if (runner->stream != NULL) (void)dnnl_stream_destroy(runner->stream);
    free(runner);
}

br_status onednn_multiply(onednn_runner *runner, const onednn_weights *w, const void *x, void *y,
                          int32_t rows)
{
    const int32_t slot = slot_of_rows(rows);
    assert(rows >= 1);
    assert(rows <= ONEDNN_ROWS_MAX);
    assert(rows_of_slot(slot) == rows);
    const shape *s = w->shape;
    if (s->number >= runner->shapes_size || runner->shapes[s->number] == NULL) {
        const br_status status = meet_shape(runner, s);
        if (status != BR_OK) return status;
    }

    handles *h = runner->shapes[s->number];
    dnnl_status_t status = dnnl_memory_set_data_handle(h->x[slot], (void *)(uintptr_t)x);
    if (status == dnnl_success) status = dnnl_memory_set_data_handle(h->y[slot], y);
    if (status != dnnl_success) return BR_EDEVICE;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, h->x[slot]}, {DNNL_ARG_WEIGHTS, w->packed_memory}, {DNNL_ARG_BIAS, w->bias_memory},
        {DNNL_ARG_DST, h->y[slot]}, {DNNL_ARG_SCRATCHPAD, h->scratch},
    };
    status = dnnl_primitive_execute(s->products[slot], runner->stream, 5, args);
    return status == dnnl_success ? BR_OK : BR_EDEVICE;
}
