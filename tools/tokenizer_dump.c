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
#include "core/file.h"
#include "core/limits.h"
#include "core/options.h"

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

typedef struct options {
    bool bytes;
    bool uncased;
    bool cased;
    bool help;
} options;

#define AT(field) BR_OPTION_AT(options, field)

static const br_option_row rows[] = {
    {.heading = "Options"},
    {"bytes", NULL, "SPM_MODEL: call br_tokenizer_use_bytes", AT(bytes)},
    {"uncased", NULL, "the file is a VOCAB_TXT of lower case", AT(uncased)},
    {"cased", NULL, "the file is a VOCAB_TXT", AT(cased)},
    {"help", NULL, "this text", AT(help), .letter = 'h'},
};

static const br_option_table table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .takes_arguments = true};

static br_status create(br_tokenizer **out, br_str file, const char *path, const options *o, br_error *error)
{
    if (o->uncased || o->cased) return br_tokenizer_create_wordpiece(out, file, o->uncased, path, error);
    br_status status = br_tokenizer_create(out, file, path, error);
    if (status == BR_OK && o->bytes) status = br_tokenizer_use_bytes(*out);
    return status;
}

static int run(const char *path, const options *o)
{
    size_t size;
    char *model;
    br_error error = {0};
    br_tokenizer *tokenizer = NULL;
    int result = 1;
    const size_t ids_max = 8 * (size_t)BR_TEXT_BYTES_MAX;
    char *text = malloc(BR_TEXT_BYTES_MAX);
    int32_t *ids = malloc(ids_max * sizeof *ids);
    if (br_file_read(&model, &size, path, &error) != BR_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        goto done;
    }
    if (text == NULL || ids == NULL) goto done;
    if (create(&tokenizer, (br_str){model, size}, path, o, &error) != BR_OK) {
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

int main(int argc, char **argv)
{
    options o = {0};
    br_options read;
    br_error error = {0};
    br_options_init(&read, &table, &o);
    const br_status status = br_options_read(&read, argc, argv, NULL, &error);
    int code = 2;
    if (status == BR_OK && !o.help && read.argument_count == 1) {
        code = run(read.arguments[0], &o);
    } else {
        (void)fprintf(stderr, "%s\nusage: tokenizer_dump FILE [OPTION] < texts > ids\n", error.text);
        br_options_print_help(&table, 0, stderr);
    }
    br_options_deinit(&read);
    return code;
}
