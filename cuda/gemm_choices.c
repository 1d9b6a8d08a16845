/*
 * gemm_choices.c - see gemm_choices.h.
 */
#include "gemm_choices.h"
#include "core/memory.h"
#include "core/thread.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALGO_BYTES = sizeof(cublasLtMatmulAlgo_t),
    DEVICE_BYTES_MAX = 256,
    LINE_BYTES_MAX = DEVICE_BYTES_MAX + GEMM_KEY_BYTES_MAX + 2 * ALGO_BYTES + 8,
};

typedef struct choice {
    char shape[GEMM_KEY_BYTES_MAX];
    cublasLtMatmulAlgo_t algo;
} choice;

struct gemm_choices {
    pthread_mutex_t lock; /* guards the list and the file */
    char *file;
    char device[DEVICE_BYTES_MAX];
    choice *list;
    size_t count;
    size_t room;
};

/* Two hexadecimal digits per byte. False: other characters, or another number of them. */
static bool read_hex(unsigned char *bytes, size_t count, const char *text)
{
    if (strlen(text) != 2 * count) return false;
    for (size_t i = 0; i < count; i++) {
        unsigned byte;
        if (sscanf(text + 2 * i, "%2x", &byte) != 1) return false;
        bytes[i] = (unsigned char)byte;
    }
    return true;
}

/* False: no memory. */
static bool append(gemm_choices *c, const char *shape, const cublasLtMatmulAlgo_t *algo)
{
    if (c->count == c->room) {
        const size_t room = c->room == 0 ? 64 : 2 * c->room;
        choice *list = realloc(c->list, room * sizeof *list);
        if (list == NULL) return false;
        c->list = list;
        c->room = room;
    }
    choice *added = &c->list[c->count++];
    (void)snprintf(added->shape, sizeof added->shape, "%s", shape);
    added->algo = *algo;
    return true;
}

/* device TAB shape TAB digits */
static void read_line(gemm_choices *c, char *line)
{
    char *rest = line;
    const char *device = strsep(&rest, "\t");
    const char *shape = strsep(&rest, "\t");
    const char *digits = strsep(&rest, "\n");
    if (shape == NULL || digits == NULL || strcmp(device, c->device) != 0) return;
    cublasLtMatmulAlgo_t algo;
    unsigned char bytes[ALGO_BYTES];
    if (!read_hex(bytes, sizeof bytes, digits)) return;
    memcpy(&algo, bytes, sizeof algo);
    (void)append(c, shape, &algo); /* if there is no memory, it will be measured again */
}

br_status gemm_choices_create(gemm_choices **out, const char *file, const char *device, br_error *error)
{
    *out = NULL;
    gemm_choices *c = calloc(1, sizeof *c);
    if (c == NULL) return br_no_memory(error, "the choices of GEMM algorithms");
    br_mutex_init(&c->lock);
    c->file = strdup(file);
    if (c->file == NULL) {
        gemm_choices_destroy(c);
        return br_no_memory(error, "the choices of GEMM algorithms");
    }
    (void)snprintf(c->device, sizeof c->device, "%s", device);
    for (char *at = c->device; *at != '\0'; at++)
        if (*at == '\t' || *at == '\n') *at = ' ';

    FILE *stream = fopen(file, "r");
    if (stream != NULL) {
        char line[LINE_BYTES_MAX];
        while (fgets(line, sizeof line, stream) != NULL) read_line(c, line);
        (void)fclose(stream);
    }
    *out = c;
    return BR_OK;
}

void gemm_choices_destroy(gemm_choices *choices)
{
    if (choices == NULL) return;
    br_mutex_destroy(&choices->lock);
    free(choices->list);
    free(choices->file);
    free(choices);
}

bool gemm_choices_find(gemm_choices *choices, const char *shape, cublasLtMatmulAlgo_t *algo)
{
    br_lock(&choices->lock);
    bool found = false;
    for (size_t i = 0; i < choices->count && !found; i++) {
        found = strcmp(choices->list[i].shape, shape) == 0;
        if (found) *algo = choices->list[i].algo;
    }
    br_unlock(&choices->lock);
    return found;
}

void gemm_choices_add(gemm_choices *choices, const char *shape, const cublasLtMatmulAlgo_t *algo)
{
    unsigned char bytes[ALGO_BYTES];
    memcpy(bytes, algo, sizeof bytes);
    br_lock(&choices->lock);
    (void)append(choices, shape, algo);
    FILE *stream = fopen(choices->file, "a");
    if (stream != NULL) {
        (void)fprintf(stream, "%s\t%s\t", choices->device, shape);
        for (size_t i = 0; i < sizeof bytes; i++) (void)fprintf(stream, "%02x", bytes[i]);
        (void)fputc('\n', stream);
        (void)fclose(stream);
    }
    br_unlock(&choices->lock);
}
