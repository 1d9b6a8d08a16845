/* records.c - JSON lines to tables of what was measured. */
#include "records.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/memory.h"
#include "json_lines.h"

enum {
    COUNT_MAX = 1 << 20, /* samples of one pair */
};

double br_records_best_of(int64_t k, int64_t c, int64_t n)
{
    double none = 1;
    for (int64_t i = 0; i < n; i++) {
        if (k - c - i <= 0) return 1;
        none *= (double)(k - c - i) / (double)(k - i);
    }
    return 1 - none;
}

/* Room for one more in an array that doubles. */
static br_status reserve(void **items, size_t count, size_t size, br_error *error)
{
    if (count != 0 && (count & (count - 1)) != 0) return BR_OK;
    void *larger = realloc(*items, (count == 0 ? 1 : 2 * count) * size);
    if (larger == NULL) return br_no_memory(error, "records");
    *items = larger;
    return BR_OK;
}

static br_status find_task(br_records *r, int32_t *task, const char *name, br_error *error)
{
    for (size_t i = 0; i < r->task_count; i++) {
        *task = (int32_t)i;
        if (strcmp(r->tasks[i], name) == 0) return BR_OK;
    }
    const br_status status = reserve((void **)&r->tasks, r->task_count, sizeof *r->tasks, error);
    if (status != BR_OK) return status;
    r->tasks[r->task_count] = strdup(name);
    if (r->tasks[r->task_count] == NULL) return br_no_memory(error, "records");
    *task = (int32_t)r->task_count++;
    return BR_OK;
}

static br_status require_text(const br_json *scope, const char *key, const json_t **out)
{
    *out = json_object_get(scope->object, key);
    if (json_is_string(*out) && json_string_length(*out) > 0) return BR_OK;
    return br_json_refuse(scope, *out == NULL ? BR_EINVAL : BR_EFORMAT, key, *out,
                          "a string that is not empty");
}

/* Counts of samples: k in all, of which c are right; with `half` only those outside k_a. Not *known: there
 * are none. */
static br_status read_counts(const br_json *scope, bool half, bool *known, int64_t *k, int64_t *c)
{
    *known = br_json_has(scope, "k") && br_json_has(scope, "c") &&
             (!half || (br_json_has(scope, "k_a") && br_json_has(scope, "c_a")));
    if (!*known) return BR_OK;
    int64_t k_a = 0;
    int64_t c_a = 0;
    br_status status = br_json_int(scope, "k", 0, COUNT_MAX, k);
    if (status == BR_OK) status = br_json_int(scope, "c", 0, *k, c);
    if (status == BR_OK && half) status = br_json_int(scope, "k_a", 0, *k, &k_a);
    if (status == BR_OK && half) status = br_json_int(scope, "c_a", 0, k_a < *c ? k_a : *c, &c_a);
    if (status != BR_OK) return status;
    *k -= k_a;
    *c -= c_a;
    if (*c > *k)
        return br_json_refuse(scope, BR_EINVAL, "c_a", json_object_get(scope->object, "c_a"),
                              "no more right answers outside k_a than there are answers");
    *known = *k > 0;
    return BR_OK;
}

static bool is_single(const json_t *candidate)
{
    const json_t *basis = json_object_get(candidate, "basis");
    return json_is_string(basis) && strcmp(json_string_value(basis), "single") == 0;
}

/* The n = 1 entry of a model in the record's list, or NULL. */
static const json_t *first_of(const json_t *list, const char *model)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const json_t *name = json_object_get(entry, "model");
        const json_t *n = json_object_get(entry, "n");
        if (json_is_string(name) && json_is_integer(n) && json_integer_value(n) == 1 &&
            strcmp(json_string_value(name), model) == 0)
            return entry;
    }
    return NULL;
}

/* Quality of the best of n samples of the second half. Not *known: the record does not count that half. */
static br_status second_half_quality(const json_t *list, const br_json *scope, const char *model, int64_t n,
                                     bool *known, double *quality)
{
    *known = false;
    const json_t *first = first_of(list, model);
    if (first == NULL) return BR_OK;
    const br_json counts = {.object = first, .file = scope->file, .path = scope->path, .error = scope->error};
    int64_t k = 0;
    int64_t c = 0;
    const br_status status = read_counts(&counts, true, known, &k, &c);
    if (status != BR_OK || !*known) return status;
    *known = n <= k;
    if (*known) *quality = br_records_best_of(k, c, n);
    return BR_OK;
}

static br_status read_measure(br_records_measure *measure, const json_t *list, const br_json *scope,
                              int64_t n, const char *model, const br_records_options *options,
                              double reference_quality)
{
    double quality = NAN;
    double match = NAN;
    br_status status = br_json_number(scope, "quality", 0, 1, &quality);
    if (status == BR_OK) status = br_json_number(scope, "match", 0, 1, &match);
    if (status == BR_OK) status = br_json_number(scope, "output_tokens", 0, 1e9, &measure->output_tokens);
    if (status != BR_OK) return status;
    bool known = isfinite(quality);
    double first_quality = quality;
    if (options->second_half) {
        status = second_half_quality(list, scope, model, n, &known, &quality);
        if (status == BR_OK && known)
            status = second_half_quality(list, scope, model, 1, &known, &first_quality);
        if (status != BR_OK) return status;
        match = NAN;
    } else if (n > 1) {
        const json_t *first = first_of(list, model);
        const json_t *value = first == NULL ? NULL : json_object_get(first, "quality");
        if (json_is_number(value)) first_quality = json_number_value(value);
    }
    measure->measured = known;
    measure->quality = quality;
    measure->first_quality = first_quality;
    measure->match = isfinite(match) ? match : 1 - (1 - quality) * reference_quality;
    return BR_OK;
}

static br_status read_candidate(br_records_row *row, const json_t *list, const br_json *scope,
                                const br_records_options *options)
{
    const json_t *model = NULL;
    int64_t n = 0;
    br_status status = require_text(scope, "model", &model);
    if (status == BR_OK) status = br_json_require(scope, "n", "an integer");
    if (status == BR_OK) status = br_json_int(scope, "n", 1, COUNT_MAX, &n);
    if (status != BR_OK) return status;
    if (!options->single && is_single(scope->object)) return BR_OK;
    for (size_t p = 0; p < options->pair_count; p++) {
        const br_records_pair *pair = &options->pairs[p];
        if (pair->n != n || strcmp(pair->model, json_string_value(model)) != 0) continue;
        return read_measure(&row->measures[p], list, scope, n, pair->model, options, row->reference_quality);
    }
    return BR_OK;
}

/* The reference's own quality, and the length of its answers from its entry among the candidates. Not *known:
 * the second half is to judge, and the record does not count it for the reference. */
static br_status read_reference(br_records_row *row, bool *known, const json_t *list, const br_json *top,
                                const json_t *reference, const br_records_options *options)
{
    *known = true;
    const br_json scope = {.object = reference, .file = top->file, .path = "reference.", .error = top->error};
    const json_t *model = NULL;
    br_status status = require_text(&scope, "model", &model);
    if (status == BR_OK) status = br_json_require(&scope, "quality", "a number in 0..1");
    if (status == BR_OK) status = br_json_number(&scope, "quality", 0, 1, &row->reference_quality);
    if (status != BR_OK) return status;
    if (options->second_half) {
        status =
            second_half_quality(list, &scope, json_string_value(model), 1, known, &row->reference_quality);
        if (status != BR_OK || !*known) return status;
    }
    const json_t *entry = first_of(list, json_string_value(model));
    if (entry == NULL) return BR_OK;
    const br_json own = {
        .object = entry, .file = top->file, .path = "candidates[reference].", .error = top->error};
    return br_json_number(&own, "output_tokens", 0, 1e9, &row->reference_output_tokens);
}

/* A whole number is taken for its digits. */
static br_status read_id(br_records_row *row, const br_json *top)
{
    const json_t *id = json_object_get(top->object, "id");
    char digits[32];
    if (json_is_integer(id)) {
        (void)snprintf(digits, sizeof digits, "%lld", (long long)json_integer_value(id));
    } else {
        const br_status status = require_text(top, "id", &id);
        if (status != BR_OK) return status;
    }
    row->id = strdup(json_is_integer(id) ? digits : json_string_value(id));
    return row->id == NULL ? br_no_memory(top->error, "records") : BR_OK;
}

static br_status read_texts(br_records *r, br_records_row *row, const br_json *top)
{
    const json_t *task = NULL;
    const json_t *prompt = NULL;
    br_status status = read_id(row, top);
    if (status == BR_OK) status = require_text(top, "task", &task);
    /* A file of prompts for `route` says "text". */
    const bool text = !br_json_has(top, "prompt") && br_json_has(top, "text");
    if (status == BR_OK) status = require_text(top, text ? "text" : "prompt", &prompt);
    if (status != BR_OK) return status;
    int64_t tokens = 0;
    status = br_json_require(top, "prompt_tokens", "an integer");
    if (status == BR_OK) status = br_json_int(top, "prompt_tokens", 0, INT32_MAX, &tokens);
    if (status != BR_OK) return status;
    row->prompt_tokens = (uint64_t)tokens;
    row->prompt = strdup(json_string_value(prompt));
    if (row->prompt == NULL) return br_no_memory(top->error, "records");
    row->prompt_bytes = strlen(row->prompt);
    return find_task(r, &row->task, json_string_value(task), top->error);
}

static br_status read_row(br_records *r, br_records_row *row, bool *known, const br_json *top,
                          const json_t *reference, const br_records_options *options)
{
    br_status status = read_texts(r, row, top);
    if (status != BR_OK) return status;
    const json_t *list = json_object_get(top->object, "candidates");
    if (!json_is_array(list)) return br_json_refuse(top, BR_EFORMAT, "candidates", list, "an array");
    row->reference_output_tokens = NAN;
    row->measures = calloc(options->pair_count + 1, sizeof *row->measures);
    if (row->measures == NULL) return br_no_memory(top->error, "records");
    for (size_t p = 0; p < options->pair_count; p++) row->measures[p].output_tokens = NAN;
    status = read_reference(row, known, list, top, reference, options);
    for (size_t i = 0; i < json_array_size(list) && status == BR_OK && *known; i++) {
        char path[BR_JSON_PATH_BYTES];
        br_json scope;
        status = br_json_item(&scope, path, top, "candidates", list, i);
        if (status == BR_OK) status = read_candidate(row, list, &scope, options);
    }
    return status;
}

static void release(br_records_row *row)
{
    free(row->id);
    free(row->prompt);
    free(row->measures);
}

static br_status read_line(br_records *r, br_str line, const char *where, const br_records_options *options,
                           br_error *error)
{
    json_t *object;
    br_status status = br_json_parse(&object, line, JSON_LINES_BYTES_MAX, where, error);
    if (status != BR_OK) return status;
    const br_json top = {.object = object, .file = where, .path = "", .error = error};
    const json_t *split = json_object_get(object, "split");
    const json_t *reference = json_object_get(object, "reference");
    const bool other = options->split != NULL &&
                       (!json_is_string(split) || strcmp(json_string_value(split), options->split) != 0);
    if (other || reference == NULL) {
        r->passed_over++;
        goto done;
    }
    if (!json_is_object(reference)) {
        status = br_json_refuse(&top, BR_EFORMAT, "reference", reference, "an object");
        goto done;
    }
    status = reserve((void **)&r->rows, r->row_count, sizeof *r->rows, error);
    if (status != BR_OK) goto done;
    br_records_row row = {0};
    bool known = true;
    status = read_row(r, &row, &known, &top, reference, options);
    if (status == BR_OK && known)
        r->rows[r->row_count++] = row;
    else
        release(&row);
    r->passed_over += status == BR_OK && !known;

done:
    json_decref(object);
    return status;
}

typedef struct reading {
    br_records *out;
    const br_records_options *options;
} reading;

static br_status take_line(void *context, br_str line, const char *where, br_error *error)
{
    const reading *r = context;
    return read_line(r->out, line, where, r->options, error);
}

br_status br_records_read(br_records *out, const char *path, const br_records_options *options,
                          br_error *error)
{
    reading r = {out, options};
    return json_lines_read(path, take_line, &r, error);
}

void br_records_deinit(br_records *r)
{
    for (size_t i = 0; i < r->row_count; i++) release(&r->rows[i]);
    for (size_t i = 0; i < r->task_count; i++) free(r->tasks[i]);
    free(r->rows);
    free(r->tasks);
    *r = (br_records){0};
}
