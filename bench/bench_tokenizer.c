/*
 * bench_tokenizer.c - how fast one core turns lines of text into ids.
 *
 *   bench_tokenizer SPM_MODEL [TEXT_FILE]
 *
 * Without a file the text is English sentences in lines of about 100 bytes. All lines are encoded again and
 * again for about a second, five times; the best of the five is reported. Then comes the time of one text of
 * 1 MiB of each hostile kind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bundle/tokenizer/tokenizer.h"
#include "core/file.h"
#include "core/limits.h"
#include "core/options.h"

enum { RUNS = 5, IDS_MAX = 512 };

static const char *const sentences[] = {
    "The committee will review the proposal next Tuesday and publish its decision within a fortnight.",
    "If a train covers 120 kilometres in 90 minutes, what is its average speed in metres per second?",
    "Write a short story about a lighthouse keeper who finds an unusual letter washed up on the shore.",
    "Explain, in plain words and with one example, why comparison sorts need n log n comparisons.",
    "Please translate this paragraph into French, keeping the tone formal and the paragraphs apart.",
    "She packed three shirts, two pairs of trousers, an umbrella (just in case) and her old camera.",
};

typedef struct text_lines {
    char *bytes;
    size_t size;
    br_str *lines;
    size_t count;
} text_lines;

static double seconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The sentences, in an order that a branch predictor cannot learn by heart. */
static char *make_text(size_t *size)
{
    enum { LINES = 20000, LINE_MAX_BYTES = 128 };
    char *bytes = malloc((size_t)LINES * LINE_MAX_BYTES);
    if (bytes == NULL) return NULL;
    size_t at = 0;
    uint32_t random = 1;
    for (int i = 0; i < LINES; i++) {
        random = random * 1664525u + 1013904223u;
        const char *sentence = sentences[(random >> 16) % (sizeof sentences / sizeof sentences[0])];
        at +=
            (size_t)sprintf(bytes + at, "%.*s %u\n", LINE_MAX_BYTES - 16, sentence, (unsigned)(random >> 20));
    }
    *size = at;
    return bytes;
}

static bool split(text_lines *text)
{
    size_t count = 1;
    for (size_t i = 0; i < text->size; i++) count += text->bytes[i] == '\n';
    text->lines = calloc(count, sizeof *text->lines);
    if (text->lines == NULL) return false;
    const char *end = text->bytes + text->size;
    for (char *at = text->bytes; at < end;) {
        char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *last = stop == NULL ? end : stop;
        if (last > at) text->lines[text->count++] = (br_str){at, (size_t)(last - at)};
        at += (size_t)(last - at) + 1;
    }
    return text->count > 0;
}

/* Seconds for one pass over the lines, measured over about a second; the best of RUNS. */
static double pass_seconds(const br_tokenizer *tokenizer, const text_lines *text, size_t *ids_total)
{
    static const double run_seconds = 1.0;
    double best = 1e9;
    int32_t ids[IDS_MAX];
    for (int run = 0; run < RUNS; run++) {
        const double start = seconds_now();
        double spent = 0.0;
        int passes = 0;
        while (spent < run_seconds) {
            *ids_total = 0;
            for (size_t i = 0; i < text->count; i++) {
                size_t count = 0;
                if (br_tokenizer_encode(tokenizer, text->lines[i], ids, IDS_MAX, &count) == BR_OK)
                    *ids_total += count;
            }
            passes++;
            spent = seconds_now() - start;
        }
        if (spent / passes < best) best = spent / passes;
    }
    return best;
}

static void bench_lines(const br_tokenizer *tokenizer, const text_lines *text)
{
    size_t ids = 0;
    const double seconds = pass_seconds(tokenizer, text, &ids);
    size_t bytes = 0;
    for (size_t i = 0; i < text->count; i++) bytes += text->lines[i].size;
    (void)printf("lines            %zu of %.0f bytes and %.1f ids on average\n", text->count,
                 (double)bytes / (double)text->count, (double)ids / (double)text->count);
    (void)printf("one core         %.0f lines/s  %.1f MB/s  %.2f M ids/s  %.2f us/line\n",
                 (double)text->count / seconds, (double)bytes / seconds * 1e-6, (double)ids / seconds * 1e-6,
                 seconds / (double)text->count * 1e6);
}

static void bench_hostile(const br_tokenizer *tokenizer)
{
    static const struct {
        const char *name;
        const char *unit;
    } kinds[] = {
        {"one word", "a"},
        {"spaces", " "},
        {"combining marks", "\xCC\x81"},
        {"unseen", "\xD8\x96"},
        {"expanding", "\xEF\xB7\xBA"},
        {"expanding, no space", "\xE3\x8C\x96"},
        {"[SEP]", "[SEP]"},
        {"NUL", "\0"},
    };
    char *text = malloc(BR_TEXT_BYTES_MAX);
    if (text == NULL) return;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        const size_t unit = kinds[k].unit[0] == '\0' ? 1 : strlen(kinds[k].unit);
        size_t size = 0;
        for (; size + unit <= BR_TEXT_BYTES_MAX; size += unit) memcpy(text + size, kinds[k].unit, unit);
        int32_t ids[IDS_MAX];
        size_t count = 0;
        const double start = seconds_now();
        const br_status status = br_tokenizer_encode(tokenizer, (br_str){text, size}, ids, IDS_MAX, &count);
        (void)printf("1 MiB of %-20s %7.1f ms  %8zu ids  %s\n", kinds[k].name, (seconds_now() - start) * 1e3,
                     count, br_status_name(status));
    }
    free(text);
}

typedef struct options {
    bool help;
} options;

static const br_option_row rows[] = {
    {.heading = "Options"},
    {"help", NULL, "this text", BR_OPTION_AT(options, help), .letter = 'h'},
};

static const br_option_table table = {
    .rows = rows, .row_count = sizeof rows / sizeof *rows, .takes_arguments = true};

static br_status read_text(text_lines *text, const char *path, br_error *error)
{
    if (path != NULL) {
        const br_status status = br_file_read(&text->bytes, &text->size, path, error);
        if (status != BR_OK) return status;
    } else {
        text->bytes = make_text(&text->size);
    }
    return text->bytes != NULL && split(text) ? BR_OK : br_no_memory(error, "the text");
}

/* `text_path` NULL: the sentences above. */
static br_status run(const char *model_path, const char *text_path, br_error *error)
{
    size_t size;
    char *model;
    br_tokenizer *tokenizer = NULL;
    text_lines text = {0};
    const double start = seconds_now();
    br_status status = br_file_read(&model, &size, model_path, error);
    if (status == BR_OK) status = br_tokenizer_create(&tokenizer, (br_str){model, size}, model_path, error);
    const double loaded = seconds_now();
    if (status == BR_OK) status = read_text(&text, text_path, error);
    if (status == BR_OK) {
        (void)printf("load             %.0f ms\n", (loaded - start) * 1e3);
        bench_lines(tokenizer, &text);
        bench_hostile(tokenizer);
    }
    br_tokenizer_destroy(tokenizer);
    free(text.lines);
    free(text.bytes);
    free(model);
    return status;
}

int main(int argc, char **argv)
{
    options o = {0};
    br_options read;
    br_error error = {0};
    br_options_init(&read, &table, &o);
    br_status status = br_options_read(&read, argc, argv, NULL, &error);
    const size_t count = read.argument_count;
    if (status == BR_OK && !o.help && (count < 1 || count > 2))
        status = br_fail(&error, BR_EINVAL, "expected a tokenizer's model, and a file of text or none");
    int code = status == BR_OK ? 0 : 2;
    if (status == BR_OK && o.help) {
        (void)puts("usage: bench_tokenizer SPM_MODEL [TEXT_FILE]");
        br_options_print_help(&table, 0, stdout);
    } else if (status == BR_OK) {
        status = run(read.arguments[0], count > 1 ? read.arguments[1] : NULL, &error);
        code = status == BR_OK ? 0 : 1;
    }
    if (status != BR_OK) fprintf(stderr, "bench_tokenizer: %s\n", error.text);
    br_options_deinit(&read);
    return code;
}
