/*
 * gemm.c - see gemm.h.
 *
 * cuBLASLt stores matrices by columns, so it computes the transpose of our product:
 *
 *   y^T [outputs, rows] = weight [outputs, inputs] x^T [inputs, rows] + bias down the rows (+ y^T)
 *
 * Our weight by rows is [inputs, outputs] by columns, hence op T; x and y by rows are x^T and y^T by columns.
 */
#include "gemm.h"
#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    WORKSPACE_BYTES = BR_GEMM_WORKSPACE_BYTES,
    GUESSES_MAX = 16, /* so many are measured, if any */
    MEASURED_RUNS = 8,
};

/* One shape, ready to run. */
typedef struct plan {
    struct plan *next;
    br_gemm_shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weight;
    cublasLtMatrixLayout_t x;
    cublasLtMatrixLayout_t y;
    cublasLtMatmulAlgo_t algo;
} plan;

struct br_gemm {
    cublasLtHandle_t handle;
    gemm_choices *choices;
    cudaDataType_t type;
    void *workspace;
    plan *plans;
};

static cudaDataType_t cuda_type(br_dtype type)
{
    switch (type) {
    case BR_F32:
        return CUDA_R_32F;
    case BR_F16:
        return CUDA_R_16F;
    case BR_BF16:
        return CUDA_R_16BF;
    }
    return CUDA_R_32F;
}

static br_status status_of(cublasStatus_t code)
{
    switch (code) {
    case CUBLAS_STATUS_SUCCESS:
        return BR_OK;
    case CUBLAS_STATUS_ALLOC_FAILED:
        return BR_ENOMEM;
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return BR_ENOTSUP;
    default:
        return BR_EDEVICE;
    }
}

static void plan_destroy(plan *p)
{
    if (p == NULL) return;
    if (p->product != NULL) (void)cublasLtMatmulDescDestroy(p->product);
    if (p->weight != NULL) (void)cublasLtMatrixLayoutDestroy(p->weight);
    if (p->x != NULL) (void)cublasLtMatrixLayoutDestroy(p->x);
    if (p->y != NULL) (void)cublasLtMatrixLayoutDestroy(p->y);
    free(p);
}

br_status br_gemm_create(br_gemm **out, br_dtype type, gemm_choices *choices, br_error *error)
{
    *out = NULL;
    br_gemm *g = calloc(1, sizeof *g);
    if (g == NULL) return br_no_memory(error, "a stream's products");
    g->type = cuda_type(type);
    g->choices = choices;
    br_status status = status_of(cublasLtCreate(&g->handle));
    if (status != BR_OK) {
        status = br_fail(error, status, "engine cuda: cublasLtCreate failed");
        goto fail;
    }
    if (cudaMalloc(&g->workspace, WORKSPACE_BYTES) != cudaSuccess) {
        g->workspace = NULL;
        status = br_no_memory(error, "a GEMM workspace of %d bytes on the device", (int)WORKSPACE_BYTES);
        goto fail;
    }
    *out = g;
    return BR_OK;

fail:
    br_gemm_destroy(g);
    return status;
}

void br_gemm_destroy(br_gemm *gemm)
{
    if (gemm == NULL) return;
    while (gemm->plans != NULL) {
        plan *next = gemm->plans->next;
        plan_destroy(gemm->plans);
        gemm->plans = next;
    }
    if (gemm->workspace != NULL) (void)cudaFree(gemm->workspace);
    if (gemm->handle != NULL) (void)cublasLtDestroy(gemm->handle);
    free(gemm);
}

static cublasStatus_t set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                          const void *value, size_t bytes)
{
    return cublasLtMatmulDescSetAttribute(product, attribute, value, bytes);
}

static cublasStatus_t describe(const br_gemm *g, plan *p)
{
    const uint64_t outputs = (uint64_t)p->shape.outputs;
    const uint64_t inputs = (uint64_t)p->shape.inputs;
    const uint64_t rows = (uint64_t)p->shape.rows;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    /* float32 products are computed in full: TF32 would keep only 10 bits of each factor. */
    cublasStatus_t code = cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(p->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = set(p->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &g->type, sizeof g->type);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&p->weight, g->type, inputs, outputs, (int64_t)inputs);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&p->x, g->type, inputs, rows, (int64_t)inputs);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&p->y, g->type, outputs, rows, (int64_t)outputs);
    return code;
}

static cublasStatus_t multiply(const br_gemm *g, const plan *p, const br_gemm_args *a,
                               const cublasLtMatmulAlgo_t *algo, cudaStream_t stream)
{
    const float one = 1;
    const float beta = p->shape.accumulate ? 1 : 0;
    const cublasStatus_t code = set(p->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a->bias, sizeof a->bias);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    return cublasLtMatmul(g->handle, p->product, &one, a->weight, p->weight, a->x, p->x, &beta, a->y, p->y,
                          a->y, p->y, algo, g->workspace, WORKSPACE_BYTES, stream);
}

/* Zero operands for the products of one shape, and the stream and events that time them. */
typedef struct trial {
    br_gemm_args args;
    void *memory[4]; /* x, weight, bias, y */
    cudaStream_t stream;
    cudaEvent_t events[2];
} trial;

static void trial_close(trial *t)
{
    for (int i = 0; i < 4; i++) (void)cudaFree(t->memory[i]);
    for (int i = 0; i < 2; i++)
        if (t->events[i] != NULL) (void)cudaEventDestroy(t->events[i]);
    if (t->stream != NULL) (void)cudaStreamDestroy(t->stream);
}

/* False: something failed. The caller closes it in any case. */
static bool trial_open(trial *t, const br_gemm *g, const br_gemm_shape *shape)
{
    const size_t element = g->type == CUDA_R_32F ? 4 : 2;
    const size_t outputs = (size_t)shape->outputs;
    const size_t inputs = (size_t)shape->inputs;
    const size_t rows = (size_t)shape->rows;
    const size_t bytes[4] = {rows * inputs * element, outputs * inputs * element, outputs * element,
                             rows * outputs * element};
    *t = (trial){0};
    bool ready = cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking) == cudaSuccess;
    for (int i = 0; i < 2; i++) ready = ready && cudaEventCreate(&t->events[i]) == cudaSuccess;
    for (int i = 0; i < 4; i++)
        ready = ready && cudaMalloc(&t->memory[i], bytes[i]) == cudaSuccess &&
                cudaMemsetAsync(t->memory[i], 0, bytes[i], t->stream) == cudaSuccess;
    t->args = (br_gemm_args){*shape, t->memory[0], t->memory[1], t->memory[2], t->memory[3]};
    return ready;
}

/* Milliseconds of MEASURED_RUNS products, or a negative number where one failed. */
static float measure_one(const br_gemm *g, const plan *p, const trial *t, const cublasLtMatmulAlgo_t *algo)
{
    float elapsed = -1;
    if (multiply(g, p, &t->args, algo, t->stream) != CUBLAS_STATUS_SUCCESS) return -1; /* warms up */
    bool sound = cudaEventRecord(t->events[0], t->stream) == cudaSuccess;
    for (int i = 0; i < MEASURED_RUNS && sound; i++)
        sound = multiply(g, p, &t->args, algo, t->stream) == CUBLAS_STATUS_SUCCESS;
    sound = sound && cudaEventRecord(t->events[1], t->stream) == cudaSuccess;
    sound = cudaStreamSynchronize(t->stream) == cudaSuccess && sound;
    if (!sound || cudaEventElapsedTime(&elapsed, t->events[0], t->events[1]) != cudaSuccess) return -1;
    return elapsed;
}

/* The fastest of `count` guesses; the first where measuring fails. */
static int fastest(const br_gemm *g, const plan *p, const cublasLtMatmulHeuristicResult_t *guesses, int count)
{
    trial t;
    int best = 0;
    float best_elapsed = -1;
    const bool ready = trial_open(&t, g, &p->shape);
    for (int i = 0; i < count && ready; i++) {
        const float elapsed = measure_one(g, p, &t, &guesses[i].algo);
        if (elapsed < 0 || (best_elapsed >= 0 && elapsed >= best_elapsed)) continue;
        best = i;
        best_elapsed = elapsed;
    }
    trial_close(&t);
    return best;
}

static void name_shape(const br_gemm *g, const plan *p, char out[GEMM_KEY_BYTES_MAX])
{
    (void)snprintf(out, GEMM_KEY_BYTES_MAX, "type%d:rows%d:outputs%d:inputs%d:%s", (int)g->type,
                   (int)p->shape.rows, (int)p->shape.outputs, (int)p->shape.inputs,
                   p->shape.accumulate ? "accumulate" : "store");
}

/* True if the file has a choice for the shape, and cuBLASLt still accepts it. */
static bool recall(const br_gemm *g, plan *p, const char *name)
{
    cublasLtMatmulHeuristicResult_t result;
    if (!gemm_choices_find(g->choices, name, &p->algo)) return false;
    return cublasLtMatmulAlgoCheck(g->handle, p->product, p->weight, p->x, p->y, p->y, &p->algo, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= WORKSPACE_BYTES;
}

static cublasStatus_t choose(const br_gemm *g, plan *p)
{
    char name[GEMM_KEY_BYTES_MAX];
    name_shape(g, p, name);
    if (g->choices != NULL && recall(g, p, name)) return CUBLAS_STATUS_SUCCESS;

    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t guesses[GUESSES_MAX];
    const size_t workspace_bytes = WORKSPACE_BYTES;
    int count = 0;
    cublasStatus_t code = cublasLtMatmulPreferenceCreate(&preference);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    code = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                &workspace_bytes, sizeof workspace_bytes);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulAlgoGetHeuristic(g->handle, p->product, p->weight, p->x, p->y, p->y, preference,
                                              g->choices != NULL ? GUESSES_MAX : 1, guesses, &count);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    if (code != CUBLAS_STATUS_SUCCESS) return code;
    if (count == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    p->algo = guesses[0].algo;
    if (g->choices == NULL) return CUBLAS_STATUS_SUCCESS;
    p->algo = guesses[fastest(g, p, guesses, count)].algo;
    gemm_choices_add(g->choices, name, &p->algo);
    return CUBLAS_STATUS_SUCCESS;
}

static bool same(const br_gemm_shape *a, const br_gemm_shape *b)
{
    return a->rows == b->rows && a->outputs == b->outputs && a->inputs == b->inputs &&
           a->accumulate == b->accumulate;
}

static br_status find_or_make(br_gemm *g, const br_gemm_shape *shape, plan **out)
{
    for (plan *p = g->plans; p != NULL; p = p->next) {
        *out = p;
        if (same(&p->shape, shape)) return BR_OK;
    }
    plan *p = calloc(1, sizeof *p);
    if (p == NULL) return BR_ENOMEM;
    p->shape = *shape;
    cublasStatus_t code = describe(g, p);
    if (code == CUBLAS_STATUS_SUCCESS) code = choose(g, p);
    if (code != CUBLAS_STATUS_SUCCESS) {
        plan_destroy(p);
        return status_of(code);
    }
    p->next = g->plans;
    g->plans = p;
    *out = p;
    return BR_OK;
}

br_status br_gemm_prepare(br_gemm *gemm, const br_gemm_shape *shape)
{
    plan *p;
    return shape->rows == 0 ? BR_OK : find_or_make(gemm, shape, &p);
}

br_status br_gemm_run(br_gemm *gemm, const br_gemm_args *args, cudaStream_t stream)
{
    if (args->shape.rows == 0) return BR_OK;
    plan *p;
    const br_status status = find_or_make(gemm, &args->shape, &p);
    return status == BR_OK ? status_of(multiply(gemm, p, args, &p->algo, stream)) : status;
}
