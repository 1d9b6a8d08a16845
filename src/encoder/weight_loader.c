/* weight_loader.c - see weight_loader.h. */
#include "weight_loader.h"
#include "core/memory.h"

#include <assert.h>
#include <math.h>
#include <string.h>

size_t loader_elements(const br_tensor *tensor)
{
    size_t count = 1;
    for (int32_t i = 0; i < tensor->rank; i++) count *= (size_t)tensor->shape[i];
    return count;
}

br_status loader_check_finite(const weight_loader *l, const br_tensor *tensor, const float *values,
                              size_t first, size_t count)
{
    bool finite = true;
    for (size_t i = 0; i < count; i++) finite &= fabsf(values[i]) <= 3.402823466e+38F; /* false for NaN */
    if (finite) return BR_OK;

    size_t bad = 0;
    while (isfinite(values[bad])) bad++;
    return br_fail(
        l->error, BR_EINVAL, "model.safetensors: tensor '%.*s': element %zu is %s; weights must be finite",
        (int)tensor->name.size, tensor->name.data, first + bad, isnan(values[bad]) ? "NaN" : "infinite");
}

br_status loader_widen(const weight_loader *l, float *out, const br_tensor *tensor, size_t count)
{
    assert(tensor != NULL);
    assert(tensor->readable);
    assert(loader_elements(tensor) == count);
    if (l->empty) {
        memset(out, 0, count * sizeof *out);
        return BR_OK;
    }
    br_dtype_to_f32(out, tensor->data, tensor->type, count);
    return loader_check_finite(l, tensor, out, 0, count);
}

br_status loader_no_memory(const weight_loader *l, size_t floats)
{
    return br_no_memory(l->error, "%zu weights", floats);
}

br_status loader_make_vector(const weight_loader *l, float **out, const float *source, size_t count)
{
    l->w->bytes += count * sizeof *source;
    return l->backend->table->vector_create(l->backend, out, source, count, l->error);
}
