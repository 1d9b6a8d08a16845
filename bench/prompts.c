/* prompts.c - see prompts.h. */
#include "prompts.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "bundle/bundle.h"
#include "core/memory.h"
#include "core/random.h"
#include "protocol/request.h"

enum { REQUESTS = 256, TEXTS_MAX = 1 << 16, WORDS_MAX = 100000, WORD_BYTES_MAX = 16 };

/* A number of the standard normal distribution. */
static double normal(uint64_t *random)
{
    return sqrt(-2 * log(1 - br_random_unit(random))) * cos(6.283185307179586 * br_random_unit(random));
}

/* The number of words of the next prompt. False: `lengths` is no distribution. */
static bool draw_words(int *out, const char *lengths, uint64_t *random)
{
    char *end;
    const double first = strtod(lengths, &end);
    double words = first;
    if (*end == '-') {
        const double last = strtod(end + 1, &end);
        if (last < first) return false;
        words = first + floor(br_random_unit(random) * (last - first + 1));
    } else if (*end == '~') {
        const double sigma = strtod(end + 1, &end);
        words = first * exp(sigma * normal(random));
    }
    if (*end != '\0' || end == lengths || !(first >= 1) || !(first <= WORDS_MAX)) return false;
    *out = words < 1 ? 1 : words > WORDS_MAX ? WORDS_MAX : (int)words;
    return true;
}

static char *make_text(int words, uint64_t *random)
{
    static const char *const vocabulary[] = {"route", "this",  "prompt", "please", "number", "seven",
                                             "what",  "is",    "the",    "sum",    "of",     "two",
                                             "and",   "three", "how",    "many"};
    char *text = malloc((size_t)words * WORD_BYTES_MAX + 1);
    size_t size = 0;
    for (int w = 0; text != NULL && w < words; w++)
        size +=
            (size_t)sprintf(text + size, "%s%s", w == 0 ? "" : " ", vocabulary[br_random_bits(random) % 16]);
    return text;
}

static br_status read_texts(char **texts, int *count, const char *path, br_error *error)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) return br_fail(error, BR_EIO, "prompts: cannot open \"%s\": %s", path, strerror(errno));
    br_status status = BR_OK;
    char *line = NULL;
    size_t room = 0;
    for (ssize_t size; status == BR_OK && *count < TEXTS_MAX && (size = getline(&line, &room, file)) >= 0;) {
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r')) line[--size] = '\0';
        if (size == 0) continue;
        texts[*count] = strdup(line);
        if (texts[(*count)++] == NULL) status = br_no_memory(error, "the prompts");
    }
    free(line);
    (void)fclose(file);
    if (status == BR_OK && *count == 0)
        status = br_fail(error, BR_EINVAL, "prompts: \"%s\" holds none", path);
    return status;
}

static br_status make_texts(char **texts, int *count, const prompts_options *o, br_error *error)
{
    uint64_t random = o->seed;
    for (int i = 0; i < REQUESTS * o->queries && i < TEXTS_MAX; i++) {
        int words;
        if (!draw_words(&words, o->lengths, &random))
            return br_fail(error, BR_EINVAL, "lengths: \"%s\" is none of 20, 8-64, 24~0.8", o->lengths);
        texts[*count] = make_text(words, &random);
        if (texts[(*count)++] == NULL) return br_no_memory(error, "the prompts");
    }
    return BR_OK;
}

void prompts_free_texts(char **texts, int count)
{
    for (int i = 0; texts != NULL && i < count; i++) free(texts[i]);
    free(texts);
}

br_status prompts_texts(char ***out, int *count, const prompts_options *options, br_error *error)
{
    *out = calloc(TEXTS_MAX, sizeof **out);
    *count = 0;
    if (*out == NULL) return br_no_memory(error, "the prompts");
    const br_status status = options->file != NULL ? read_texts(*out, count, options->file, error)
                                                   : make_texts(*out, count, options, error);
    if (status == BR_OK) return BR_OK;
    prompts_free_texts(*out, *count);
    *out = NULL;
    return status;
}

/* The sink of the encoder: a message that grows. -1: no memory. */
static int append(void *sink, const char *bytes, size_t size)
{
    br_str *message = sink;
    char *grown = realloc((void *)(uintptr_t)message->data, message->size + size);
    if (grown == NULL) return -1;
    memcpy(grown + message->size, bytes, size);
    *message = (br_str){grown, message->size + size};
    return 0;
}

/* The pieces of a text, without the special tokens a bundle adds. */
static br_status tokenize(br_query *query, const br_bundle *bundle, br_arena *arena, br_error *error)
{
    const size_t room = query->text.size + 8;
    int32_t *ids = br_arena_array(arena, room, sizeof *ids);
    size_t count = 0;
    if (ids == NULL) return br_no_memory(error, "the prompts");
    const br_status status = br_tokenizer_encode(bundle->tokenizer, query->text, ids, room, &count);
    if (status != BR_OK) return br_fail(error, status, "prompts: a line is not UTF-8");
    query->has_text = false;
    query->tokens = (const uint32_t *)ids;
    query->token_count = count;
    return BR_OK;
}

static br_status encode(br_str *out, const prompts_options *o, char *const *texts, int count, int first,
                        const br_bundle *bundle, br_error *error)
{
    br_arena arena;
    br_arena_init(&arena);
    br_query *queries = calloc((size_t)o->queries, sizeof *queries);
    br_status status = queries != NULL ? BR_OK : br_no_memory(error, "the prompts");
    for (int q = 0; status == BR_OK && q < o->queries; q++) {
        queries[q] = (br_query){
            .has_text = true, .text = br_str_from(texts[(first + q) % count]), .max_cost = INFINITY};
        if (bundle != NULL) status = tokenize(&queries[q], bundle, &arena, error);
    }
    const br_request request = {
        .op = o->score ? BR_OP_SCORE : BR_OP_ROUTE,
        .policy = o->policy,
        .has_deadline = o->deadline_ms > 0,
        .deadline_ms = o->deadline_ms,
        .queries = queries,
        .query_count = (size_t)o->queries,
    };
    if (status == BR_OK && br_request_encode(&request, out, append) != 0)
        status = br_no_memory(error, "the prompts");
    free(queries);
    br_arena_deinit(&arena);
    return status;
}

br_status prompts_init(prompts *out, const prompts_options *options, br_error *error)
{
    *out = (prompts){.requests = calloc(REQUESTS, sizeof *out->requests)};
    char **texts = NULL;
    int count = 0;
    br_bundle *bundle = NULL;
    br_status status = out->requests != NULL ? BR_OK : br_no_memory(error, "the prompts");
    if (status == BR_OK) status = prompts_texts(&texts, &count, options, error);
    if (status == BR_OK && options->bundle != NULL) status = br_bundle_open(&bundle, options->bundle, error);
    for (int i = 0; status == BR_OK && i < REQUESTS; i++) {
        status = encode(&out->requests[i], options, texts, count, i * options->queries, bundle, error);
        out->count = i + 1;
    }
    br_bundle_close(bundle);
    prompts_free_texts(texts, count);
    if (status != BR_OK) prompts_deinit(out);
    return status;
}

void prompts_deinit(prompts *p)
{
    for (int i = 0; i < p->count; i++) free((void *)(uintptr_t)p->requests[i].data);
    free(p->requests);
    *p = (prompts){0};
}
