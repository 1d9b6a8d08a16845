/* weights_file.c - see weights_file.h. */
#include "weights_file.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "core/memory.h"

enum {
    SIZE_BYTES = 8,        /* of the header's size, in front of it */
    PIECE_BYTES = 1 << 20, /* read and hashed at a time */
};

/* The bytes of the file up to the tensors' data, or as many as the table's parser looks at. */
static size_t header_bytes(const unsigned char *start, size_t file_bytes)
{
    uint64_t size = 0;
    for (int i = SIZE_BYTES - 1; i >= 0; i--) size = size << 8 | start[i];
    if (size > BR_SAFETENSORS_HEADER_BYTES_MAX) size = BR_SAFETENSORS_HEADER_BYTES_MAX + 1;
    if (size == 0) size = 1;
    const size_t most = file_bytes - SIZE_BYTES;
    return SIZE_BYTES + (size < most ? (size_t)size : most);
}

static br_status read_header(weights_file *w, br_error *error)
{
    const size_t start = w->file.size < SIZE_BYTES ? w->file.size : SIZE_BYTES;
    br_status status = br_file_read_at(&w->file, w->memory, 0, start, error);
    if (status != BR_OK || start < SIZE_BYTES) return status;
    w->header_bytes = header_bytes(w->memory, w->file.size);
    return br_file_read_at(&w->file, w->memory + start, start, w->header_bytes - start, error);
}

br_status weights_file_open(weights_file *out, const char *path, br_error *error)
{
    out->file.fd = -1;
    br_status status = br_file_open(&out->file, path, error);
    if (status != BR_OK) return status;
    const size_t size = out->file.size;
    if (size == 0) return br_fail(error, BR_EFORMAT, "%s: found an empty file, expected safetensors", path);
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return br_no_memory(error, "%s", path);
    out->memory = memory;
    status = read_header(out, error);
    if (status == BR_OK) status = br_safetensors_create(&out->tensors, memory, size, path, error);
    if (status != BR_OK) return status;
    out->kept = calloc(br_safetensors_count(out->tensors) + 1, sizeof *out->kept);
    return out->kept != NULL ? BR_OK : br_no_memory(error, "%s", path);
}

void weights_file_close(weights_file *w)
{
    if (w->file.path != NULL) br_file_close(&w->file);
    br_safetensors_destroy(w->tensors);
    weights_file_free(w->memory, w->file.size);
    free(w->kept);
    *w = (weights_file){0};
}

void weights_file_free(void *memory, size_t bytes)
{
    if (memory != NULL) (void)munmap(memory, bytes);
}

void weights_file_keep(weights_file *w, const br_tensor *tensor)
{
    w->kept[tensor - br_safetensors_at(w->tensors, 0)] = true;
}

/* The pass over the file. */
typedef struct reading {
    weights_file *file;
    weights_file_hash add;
    void *hash;
    const atomic_bool *stop;
    unsigned char *scratch; /* PIECE_BYTES */
    br_error *error;
} reading;

static br_status add_to_hash(const reading *r, const void *bytes, size_t size)
{
    if (r->add(r->hash, bytes, size)) return BR_OK;
    return br_fail(r->error, BR_ENOMEM, "%s: cannot compute its SHA-256", r->file->file.path);
}

static br_status read_tensor(const reading *r, size_t offset, size_t bytes, bool kept)
{
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        if (r->stop != NULL && atomic_load(r->stop))
            return br_fail(r->error, BR_ECLOSED, "%s: reading was stopped", r->file->file.path);
        const size_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        unsigned char *to = kept ? r->file->memory + offset + at : r->scratch;
        br_status status = br_file_read_at(&r->file->file, to, offset + at, piece, r->error);
        if (status == BR_OK) status = add_to_hash(r, to, piece);
        if (status != BR_OK) return status;
    }
    return BR_OK;
}

/* The table has no holes: tensors follow one another from the header to the end of the file. */
static br_status read_tensors(const reading *r)
{
    const weights_file *w = r->file;
    br_status status = BR_OK;
    for (size_t i = 0; status == BR_OK && i < br_safetensors_count(w->tensors); i++) {
        const br_tensor *tensor = br_safetensors_at(w->tensors, i);
        const size_t offset = (size_t)((const unsigned char *)tensor->data - w->memory);
        status = read_tensor(r, offset, tensor->bytes, w->kept[i]);
    }
    return status;
}

br_status weights_file_read(weights_file *w, weights_file_hash add, void *hash, const atomic_bool *stop,
                            br_error *error)
{
    reading r = {.file = w, .add = add, .hash = hash, .stop = stop, .error = error};
    r.scratch = malloc(PIECE_BYTES);
    if (r.scratch == NULL) return br_no_memory(error, "%s", w->file.path);
    br_status status = add_to_hash(&r, w->memory, w->header_bytes);
    if (status == BR_OK) status = read_tensors(&r);
    if (status == BR_OK) status = br_file_check_unchanged(&w->file, error);
    free(r.scratch);
    return status;
}
