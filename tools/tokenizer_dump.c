/*
 * tokenizer_dump.c - the tokenizer as a filter, for tools/compare_tokenizer.py.
 *
 *   tokenizer_dump SPM_MODEL [--bytes] < texts > ids
 *   tokenizer_dump VOCAB_TXT --uncased | --cased < texts > ids
 *
 * A text comes as its size (uint32, little endian) and its bytes; it is answered with the number of
 * its ids and the ids (int32), or -1 where it is not UTF-8. --bytes calls br_tokenizer_use_bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bundle/tokenizer/tokenizer.h"
#include "core/limits.h"

static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    char *bytes = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        const long end = ftell(file);
        rewind(file);
        bytes = end < 0 ? NULL : malloc((size_t)end + 1);
        *size = bytes == NULL ? 0 : fread(bytes, 1, (size_t)end, file);
    }
    (void)fclose(file);
    return bytes;
}

/* True until the input ends or does not make sense. */
static bool answer_one(const br_tokenizer *tokenizer, char *text, int32_t *ids, size_t ids_max)
{
    uint32_t size = 0;
    if (fread(&size, sizeof size, 1, stdin) != 1 || size > BR_TEXT_BYTES_MAX) return false;
    if (fread(text, 1, size, stdin) != size) return false;

    size_t count = 0;
    const br_status status = br_tokenizer_encode(tokenizer, (br_str){text, size}, ids, ids_max, &count);
    if (count > ids_max) return false;
    const int32_t reported = status == BR_OK ? (int32_t)count : -1;
    return fwrite(&reported, sizeof reported, 1, stdout) == 1 &&
           fwrite(ids, sizeof *ids, count, stdout) == count;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s SPM_MODEL [--bytes] < texts > ids\n", argv[0]);
        return 2;
    }
    size_t size = 0;
    char *model = read_file(argv[1], &size);
    br_error error = {0};
    br_tokenizer *tokenizer = NULL;
    int result = 1;
    const size_t ids_max = 8 * (size_t)BR_TEXT_BYTES_MAX;
    char *text = malloc(BR_TEXT_BYTES_MAX);
    int32_t *ids = malloc(ids_max * sizeof *ids);
    if (model == NULL || text == NULL || ids == NULL) goto done;

    const br_str file = {model, size};
    const bool uncased = argc > 2 && strcmp(argv[2], "--uncased") == 0;
    const bool wordpiece = uncased || (argc > 2 && strcmp(argv[2], "--cased") == 0);
    br_status status = wordpiece ? br_tokenizer_create_wordpiece(&tokenizer, file, uncased, argv[1], &error)
                                 : br_tokenizer_create(&tokenizer, file, argv[1], &error);
    if (status == BR_OK && argc > 2 && strcmp(argv[2], "--bytes") == 0)
        status = br_tokenizer_use_bytes(tokenizer);
    if (status != BR_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        goto done;
    }
    while (answer_one(tokenizer, text, ids, ids_max)) {
    }
    result = feof(stdin) && fflush(stdout) == 0 ? 0 : 1;

done:
    br_tokenizer_destroy(tokenizer);
    free(ids);
    free(text);
    free(model);
    return result;
}
