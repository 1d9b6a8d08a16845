/*
 * prompt.c - one prompt: from a text as it is, or from a line of JSON, key by key.
 */
#include "prompt.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "policy/spec.h"

enum { KEEP_BYTES_MAX = 1 << 16 }; /* an empty prompt's arena */

void cli_prompt_clear(cli_prompt *prompt)
{
    json_decref(prompt->id);
    br_arena arena = prompt->arena;
    br_arena_reset(&arena, KEEP_BYTES_MAX);
    *prompt = (cli_prompt){.arena = arena};
}

void cli_prompt_deinit(cli_prompt *prompt)
{
    json_decref(prompt->id);
    br_arena_deinit(&prompt->arena);
    *prompt = (cli_prompt){0};
}

void cli_prompt_refuse(cli_prompt *prompt, const char *code, const char *format, ...)
{
    br_error error = {0};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error.text, sizeof error.text, format, arguments);
    va_end(arguments);

    const size_t bytes = strlen(error.text) + 1;
    char *copy = br_arena_array(&prompt->arena, bytes, 1);
    if (copy != NULL) memcpy(copy, error.text, bytes);
    prompt->error = code;
    prompt->message = copy != NULL ? copy : "out of memory";
}

br_status cli_prompt_from_text(cli_prompt *prompt, const char *text, size_t bytes)
{
    char *copy = br_arena_array(&prompt->arena, bytes + 1, 1);
    if (copy == NULL) return BR_ENOMEM;
    memcpy(copy, text, bytes);
    prompt->query.text = copy;
    prompt->query.text_bytes = bytes;
    return BR_OK;
}

/* Reads one object key by key; the first thing wrong is the prompt's error. */
typedef struct reader {
    cli_prompt *prompt;
    bool out_of_memory;
} reader;

static const json_t *expect(reader *r, const json_t *object, const char *key, bool (*is)(const json_t *),
                            const char *what)
{
    const json_t *value = json_object_get(object, key);
    if (value == NULL || r->prompt->error != NULL) return NULL;
    if (is(value)) return value;
    cli_prompt_refuse(r->prompt, "bad_request", "\"%s\": expected %s", key, what);
    return NULL;
}

static bool is_text(const json_t *value)
{
    return json_is_string(value);
}

static bool is_number(const json_t *value)
{
    return json_is_number(value);
}

static bool is_count(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool is_array(const json_t *value)
{
    return json_is_array(value);
}

static bool is_object(const json_t *value)
{
    return json_is_object(value);
}

static bool is_counts(const json_t *value)
{
    return is_count(value) || json_is_object(value);
}

static bool is_scalar(const json_t *value)
{
    return !json_is_array(value) && !json_is_object(value);
}

static void *take_array(reader *r, size_t count, size_t size)
{
    void *array = br_arena_array(&r->prompt->arena, count, size);
    if (array == NULL) r->out_of_memory = true;
    return array;
}

static const char *take_string(reader *r, const char *text, size_t bytes)
{
    char *copy = take_array(r, bytes + 1, 1);
    if (copy != NULL) memcpy(copy, text, bytes);
    return copy;
}

static void read_real(reader *r, const json_t *object, const char *key, double *out, bool *has)
{
    const json_t *value = expect(r, object, key, is_number, "a number");
    if (value == NULL) return;
    *out = json_number_value(value);
    *has = true;
}

static void read_word(reader *r, const json_t *object, const char *key, const char **out)
{
    const json_t *value = expect(r, object, key, is_text, "a string");
    if (value != NULL) *out = take_string(r, json_string_value(value), json_string_length(value));
}

static void read_names(reader *r, const json_t *object, const char *key, const char *const **out,
                       size_t *count)
{
    const json_t *value = expect(r, object, key, is_array, "an array of strings");
    if (value == NULL) return;
    const size_t size = json_array_size(value);
    const char **names = take_array(r, size, sizeof *names);
    for (size_t i = 0; names != NULL && i < size; i++) {
        const json_t *name = json_array_get(value, i);
        if (!json_is_string(name)) {
            cli_prompt_refuse(r->prompt, "bad_request", "\"%s\"[%zu]: expected a string", key, i);
            return;
        }
        names[i] = take_string(r, json_string_value(name), json_string_length(name));
    }
    if (size == 0) cli_prompt_refuse(r->prompt, "bad_request", "\"%s\": is empty", key);
    *out = names;
    *count = size;
}

/* An unknown word is an error of this prompt alone. If it were sent, the client library would refuse the
 * whole request. */
static void check_words(reader *r, const br_client_policy *policy)
{
    br_policy_kind kind;
    br_fallback fallback;
    if (policy->kind != NULL && !br_policy_kind_parse(&kind, br_str_from(policy->kind)))
        cli_prompt_refuse(r->prompt, "bad_request", "\"kind\": '%s' is no policy", policy->kind);
    if (policy->fallback != NULL && !br_fallback_parse(&fallback, br_str_from(policy->fallback)))
        cli_prompt_refuse(r->prompt, "bad_request", "\"fallback\": '%s' is no fallback", policy->fallback);
}

static void read_policy(reader *r, const json_t *object)
{
    const json_t *value = expect(r, object, "policy", is_object, "an object");
    if (value == NULL) return;
    static const char *const known[] = {"kind",      "threshold",    "max_cost", "lambda",
                                        "tolerance", "total_budget", "models",   "exclude",
                                        "max_n",     "fallback",     NULL};
    br_error error = {0};
    const br_json scope = {.object = value, .file = "\"policy\"", .path = "", .error = &error};
    if (br_json_known(&scope, &(br_json_keys){.known = known}) != BR_OK) {
        cli_prompt_refuse(r->prompt, "bad_request", "%s", error.text);
        return;
    }
    br_client_policy *policy = take_array(r, 1, sizeof *policy);
    if (policy == NULL) return;
    read_word(r, value, "kind", &policy->kind);
    read_word(r, value, "fallback", &policy->fallback);
    read_real(r, value, "threshold", &policy->threshold, &policy->has_threshold);
    read_real(r, value, "max_cost", &policy->max_cost, &policy->has_max_cost);
    read_real(r, value, "lambda", &policy->lambda, &policy->has_lambda);
    read_real(r, value, "tolerance", &policy->tolerance, &policy->has_tolerance);
    read_real(r, value, "total_budget", &policy->total_budget, &policy->has_total_budget);
    read_names(r, value, "models", &policy->models, &policy->model_count);
    read_names(r, value, "exclude", &policy->exclude, &policy->exclude_count);
    const json_t *max_n = expect(r, value, "max_n", is_count, "a whole number of 1 or more");
    if (max_n != NULL) {
        const json_int_t n = json_integer_value(max_n);
        if (n < 1 || n > UINT32_MAX) {
            cli_prompt_refuse(r->prompt, "bad_request", "\"max_n\": expected a whole number of 1 or more");
        } else {
            policy->max_n = (uint32_t)n;
        }
    }
    check_words(r, policy);
    r->prompt->query.policy = policy;
}

static void read_tokens(reader *r, const json_t *object)
{
    const json_t *value = expect(r, object, "tokens", is_array, "an array of whole numbers");
    if (value == NULL) return;
    const size_t count = json_array_size(value);
    uint32_t *tokens = take_array(r, count + 1, sizeof *tokens);
    for (size_t i = 0; tokens != NULL && i < count; i++) {
        const json_t *token = json_array_get(value, i);
        if (!is_count(token) || json_integer_value(token) > UINT32_MAX) {
            cli_prompt_refuse(r->prompt, "bad_request", "\"tokens\"[%zu]: expected a token's number", i);
            return;
        }
        tokens[i] = (uint32_t)json_integer_value(token);
    }
    r->prompt->query.tokens = tokens;
    r->prompt->query.token_count = count;
}

static void read_counts(reader *r, const json_t *object, const char *key, uint64_t *all, bool *has,
                        const br_client_count **by_model, size_t *count)
{
    json_t *value = json_object_get(object, key);
    if (expect(r, object, key, is_counts, "a whole number, or an object of them by model") == NULL) return;
    if (json_is_integer(value)) {
        *all = (uint64_t)json_integer_value(value);
        *has = true;
        return;
    }
    br_client_count *counts = take_array(r, json_object_size(value) + 1, sizeof *counts);
    if (counts == NULL) return;
    const char *model;
    json_t *number;
    json_object_foreach(value, model, number)
    {
        if (!is_count(number)) {
            cli_prompt_refuse(r->prompt, "bad_request", "\"%s\".\"%s\": expected a whole number", key, model);
            return;
        }
        counts[*count].model = take_string(r, model, strlen(model));
        counts[*count].tokens = (uint64_t)json_integer_value(number);
        (*count)++;
    }
    *by_model = counts;
}

static void read_text(reader *r, const json_t *value)
{
    r->prompt->query.text = take_string(r, json_string_value(value), json_string_length(value));
    r->prompt->query.text_bytes = json_string_length(value);
}

static void read_object(reader *r, const json_t *object)
{
    br_client_query *query = &r->prompt->query;
    const json_t *id = expect(r, object, "id", is_scalar, "a scalar");
    if (id != NULL) r->prompt->id = json_incref((json_t *)id);
    const json_t *text = expect(r, object, "text", is_text, "a string");
    if (text != NULL) read_text(r, text);
    read_tokens(r, object);
    read_counts(r, object, "prompt_tokens", &query->prompt_tokens, &query->has_prompt_tokens,
                &query->prompt_tokens_by_model, &query->prompt_tokens_by_model_count);
    read_counts(r, object, "output_tokens", &query->output_tokens, &query->has_output_tokens,
                &query->output_tokens_by_model, &query->output_tokens_by_model_count);
    read_real(r, object, "max_cost", &query->max_cost, &query->has_max_cost);
    read_policy(r, object);
    if (r->prompt->error != NULL || r->out_of_memory) return;
    if ((query->text != NULL) == (query->tokens != NULL))
        cli_prompt_refuse(r->prompt, "bad_request", "expected either \"text\" or \"tokens\"");
}

br_status cli_prompt_from_json(cli_prompt *prompt, const char *line, size_t bytes)
{
    json_error_t why;
    json_t *value = json_loadb(line, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    if (value == NULL) {
        cli_prompt_refuse(prompt, "bad_request", "not JSON: %s (column %d)", why.text, why.column);
        return BR_OK;
    }
    reader r = {.prompt = prompt};
    if (json_is_string(value)) {
        read_text(&r, value);
    } else if (json_is_object(value)) {
        read_object(&r, value);
    } else {
        cli_prompt_refuse(prompt, "bad_request", "expected a JSON object with \"text\" or \"tokens\"");
    }
    json_decref(value);
    return r.out_of_memory ? BR_ENOMEM : BR_OK;
}
