/*
 * fuzz_safetensors.c - any bytes as a safetensors file.
 *
 * What is accepted is true: tensors follow each other without holes up to the
 * last byte, every one is found by its name, and every byte can be read.
 */
#include <stdlib.h>

#include "bundle/safetensors.h"

static volatile unsigned char sink;

static void check_table(const br_safetensors *table, const uint8_t *data, size_t size)
{
    const uint8_t *at = NULL;
    for (size_t i = 0; i < br_safetensors_count(table); i++) {
        const br_tensor *tensor = br_safetensors_at(table, i);
        const uint8_t *bytes = tensor->data;
        if (i > 0 && bytes != at) abort();
        if (br_safetensors_find(table, tensor->name.data) != tensor) abort();
        if (tensor->rank < 0 || tensor->rank > BR_TENSOR_RANK_MAX) abort();
        size_t elements = 1;
        for (int32_t k = 0; k < tensor->rank; k++) elements *= (size_t)tensor->shape[k];
        if (tensor->readable && elements * br_dtype_bytes(tensor->type) != tensor->bytes) abort();
        for (size_t k = 0; k < tensor->bytes; k++) sink = bytes[k];
        at = bytes + tensor->bytes;
    }
    if (br_safetensors_count(table) > 0 && at != data + size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    br_safetensors *table;
    br_error error = {0};
    const br_status status = br_safetensors_create(&table, data, size, "fuzz", &error);
    if (status != error.status) abort();
    if ((status == BR_OK) != (table != NULL)) abort();
    if (table != NULL) check_table(table, data, size);
    br_safetensors_destroy(table);
    return 0;
}
