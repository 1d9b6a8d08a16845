/* router.c - router.json to candidates, prices, the default policy and what it was measured to give. */
#include "router.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/memory.h"
#include "core/nearest.h"

/* Bounds that keep every cost finite: price * tokens * n stays far below the largest double. */
static const double price_max = 1e6; /* USD per token */
/* Prices that are asked for twice: outside this range a price per million tokens is more likely. */
static const double usual_price_min = 1e-9;
static const double usual_price_max = 1e-3;
static const double tokens_max = 1e9; /* output tokens per sample */

/* Of a head's calibration. A scale above 0 keeps the order of prompts; larger numbers would move log odds to
 * where the sigmoid of a float is 0 or 1. */
static const double calibration_scale_min = 1e-3;
static const double calibration_scale_max = 1e3;
static const double calibration_bias_max = 100;

/* A cosine divided by a temperature in this range is far from the ends of float32. */
static const double temperature_min = 1e-4;
static const double temperature_max = 1e4;

static const char format_word[] = "bestroute-bundle/1";

/* Rows in the order of br_heads_kind. */
static const br_heads_rule heads_rules[BR_HEADS_KINDS] = {
    [BR_HEADS_BEST_ROUTE] = {.name = "best_route", .own_sigmoids = true},
    [BR_HEADS_HYBRID_LLM] = {.name = "hybrid_llm", .candidates = 2, .outputs = 1, .own_sigmoids = true},
    [BR_HEADS_N_LABEL] = {.name = "n_label", .own_sigmoids = true},
    [BR_HEADS_N_CLASS] = {.name = "n_class", .reference_scored = true},
    [BR_HEADS_ZOOTER] = {.name = "zooter", .reference_scored = true, .first_token = true},
    [BR_HEADS_ROUTER_DC] = {.name = "router_dc",
                            .reference_scored = true,
                            .first_token = true,
                            .has_temperature = true},
    [BR_HEADS_ROUTE_LLM_BERT] = {.name = "route_llm_bert",
                                 .candidates = 2,
                                 .outputs = 3,
                                 .first_token = true},
};
static const char *const pool_words[] = {"source_prefix", "first", NULL};
static const char *const truncate_words[] = {"right", "left", NULL};
static const char *const pooler_words[] = {[BR_POOLER_NONE] = "none",
                                           [BR_POOLER_TANH] = "tanh",
                                           [BR_POOLER_GELU] = "gelu",
                                           [BR_POOLER_RELU] = "relu",
                                           NULL};

static const char *const top_keys[] = {
    "format", "name",         "max_tokens",           "source_prefix", "heads",  "pool",
    "pooler", "truncate",     "temperature",          "lowercase",     "models", "candidates",
    "policy", "policy_table", "allow_unusual_prices", "optional",      NULL};
static const char *const model_keys[] = {"input_price", "output_price", "avg_output_tokens",
                                         "input_per_sample", NULL};
static const char *const candidate_keys[] = {"model", "n", "head", "reference", "calibration", NULL};
static const char *const calibration_keys[] = {"scale", "bias", NULL};
static const char *const policy_keys[] = {"kind",      "threshold",    "max_cost", "lambda",
                                          "tolerance", "total_budget", "models",   "exclude",
                                          "max_n",     "fallback",     NULL};
static const char *const table_keys[] = {"kind", "rows", "table", NULL};
static const char *const row_keys[] = {"threshold", "reference_share", "mean_cost", "quality", NULL};

enum { PATH_BYTES = BR_NAME_BYTES_MAX + 32 };

/* router.json on its way into a router. */
typedef struct reader {
    br_router *router;
    br_json top;
    const json_t *optional; /* names of keys that may be skipped, at every level; NULL: none */
    bool any_price;
} reader;

static br_status expect_known(const reader *r, const br_json *scope, const char *const *known)
{
    const br_json_keys keys = {.known = known, .optional = r->optional};
    return br_json_known(scope, &keys);
}

/* What is said of the file as a whole: the keys that may be skipped, and how its prices are judged. */
static br_status read_strictness(reader *r)
{
    r->optional = json_object_get(r->top.object, "optional");
    if (r->optional != NULL && !json_is_array(r->optional))
        return br_json_refuse(&r->top, BR_EFORMAT, "optional", r->optional, "an array of names of keys");
    for (size_t i = 0; i < json_array_size(r->optional); i++) {
        const json_t *name = json_array_get(r->optional, i);
        if (!json_is_string(name))
            return br_json_refuse(&r->top, BR_EFORMAT, "optional", name, "names of keys");
    }
    const br_status status = expect_known(r, &r->top, top_keys);
    return status == BR_OK ? br_json_bool(&r->top, "allow_unusual_prices", &r->any_price) : status;
}

/* A string that must be `word`. */
static br_status expect_word(const br_json *scope, const char *key, const char *word, br_status status)
{
    const json_t *value = json_object_get(scope->object, key);
    if (json_is_string(value) && strcmp(json_string_value(value), word) == 0) return BR_OK;
    char expected[64];
    snprintf(expected, sizeof expected, "\"%s\"", word);
    return br_json_refuse(scope, json_is_string(value) ? status : BR_EFORMAT, key, value, expected);
}

/* The index of a string among `words`, which NULL ends; *index stays where the key is absent. */
static br_status read_word(int *index, const br_json *scope, const char *key, const char *const *words)
{
    const json_t *value = json_object_get(scope->object, key);
    if (value == NULL) return BR_OK;
    char expected[160];
    size_t at = 0;
    for (int i = 0; words[i] != NULL; i++) {
        const bool equal = json_is_string(value) && strcmp(json_string_value(value), words[i]) == 0;
        if (equal) {
            *index = i;
            return BR_OK;
        }
        at += (size_t)snprintf(expected + at, sizeof expected - at, "%s\"%s\"", i == 0 ? "" : ", ", words[i]);
        assert(at < sizeof expected);
    }
    return br_json_refuse(scope, json_is_string(value) ? BR_ENOTSUP : BR_EFORMAT, key, value, expected);
}

const br_heads_rule *br_heads_rule_of(br_heads_kind kind)
{
    assert((int)kind < BR_HEADS_KINDS);
    return &heads_rules[kind];
}

static br_status read_temperature(br_router *router, const br_json *top)
{
    router->temperature = 1;
    if (!br_json_has(top, "temperature")) return BR_OK;
    const json_t *value = json_object_get(top->object, "temperature");
    if (!heads_rules[router->heads].has_temperature) {
        return br_json_refuse(top, BR_EINVAL, "temperature", value, "none: only router_dc has one");
    }
    return br_json_number(top, "temperature", temperature_min, temperature_max, &router->temperature);
}

/* The kind of heads, and what is done before them: pooling, truncation, the pooler. */
static br_status read_kind(br_router *router, const br_json *top)
{
    const char *names[BR_HEADS_KINDS + 1] = {NULL};
    for (int i = 0; i < BR_HEADS_KINDS; i++) names[i] = heads_rules[i].name;
    int kind = BR_HEADS_BEST_ROUTE;
    br_status status = read_word(&kind, top, "heads", names);
    if (status != BR_OK) return status;
    router->heads = (br_heads_kind)kind;

    int first = heads_rules[kind].first_token;
    int left = 0;
    int pooler = BR_POOLER_NONE;
    status = read_word(&first, top, "pool", pool_words);
    if (status == BR_OK) status = read_word(&left, top, "truncate", truncate_words);
    if (status == BR_OK) status = read_word(&pooler, top, "pooler", pooler_words);
    router->pool_first = first != 0;
    router->truncate_left = left != 0;
    router->pooler = (br_pooler)pooler;
    bool lowercase = true;
    if (status == BR_OK) status = br_json_bool(top, "lowercase", &lowercase);
    router->cased = !lowercase;
    return status == BR_OK ? read_temperature(router, top) : status;
}

static br_status read_head(br_router *router, const br_json *top)
{
    br_status status = br_json_require(top, "format", "\"bestroute-bundle/1\"");
    if (status != BR_OK) return status;
    status = expect_word(top, "format", format_word, BR_ENOTSUP);
    if (status != BR_OK) return status;

    status = br_json_require(top, "name", "a string");
    if (status != BR_OK) return status;
    status = br_json_text(top, "name", router->name, sizeof router->name);
    if (status != BR_OK) return status;

    status = br_json_require(top, "max_tokens", "an integer");
    if (status != BR_OK) return status;
    status = br_json_int32(top, "max_tokens", BR_SEQ_TOKENS_MIN, BR_SEQ_TOKENS_MAX, &router->max_tokens);
    if (status != BR_OK) return status;

    snprintf(router->source_prefix, sizeof router->source_prefix, "<|source|>");
    status = br_json_text(top, "source_prefix", router->source_prefix, sizeof router->source_prefix);
    if (status != BR_OK) return status;
    return read_kind(router, top);
}

static br_status read_price(double *price, const reader *r, const br_json *scope, const char *key)
{
    const br_status status = br_json_number(scope, key, 0, price_max, price);
    if (status != BR_OK || r->any_price || *price == 0) return status;
    if (*price >= usual_price_min && *price <= usual_price_max) return BR_OK;
    char expected[160];
    const double per_million = *price / 1e6;
    const bool likely = per_million >= usual_price_min && per_million <= usual_price_max;
    if (likely)
        snprintf(expected, sizeof expected,
                 "USD per token, 0 or 1e-9 to 1e-3: is it per million tokens? Then write %g, else "
                 "\"allow_unusual_prices\": true",
                 per_million);
    return br_json_refuse(scope, BR_EINVAL, key, json_object_get(scope->object, key),
                          likely ? expected
                                 : "USD per token, 0 or 1e-9 to 1e-3, or \"allow_unusual_prices\": true");
}

static br_status read_prices(br_priced_model *model, const reader *r, const br_json *scope)
{
    br_status status = expect_known(r, scope, model_keys);
    if (status != BR_OK) return status;
    status = read_price(&model->input_price, r, scope, "input_price");
    if (status != BR_OK) return status;
    status = read_price(&model->output_price, r, scope, "output_price");
    if (status != BR_OK) return status;

    const bool input = br_json_has(scope, "input_price");
    const bool output = br_json_has(scope, "output_price");
    if (input != output) {
        return br_json_refuse(scope, BR_EINVAL, input ? "output_price" : "input_price", NULL,
                              "both prices or neither: a price of 0 has to be written");
    }
    model->has_price = input;

    model->avg_output_tokens = NAN;
    status = br_json_number(scope, "avg_output_tokens", 0, tokens_max, &model->avg_output_tokens);
    if (status != BR_OK) return status;
    return br_json_bool(scope, "input_per_sample", &model->input_per_sample);
}

static br_status read_models(const reader *r)
{
    br_router *router = r->router;
    const br_json *top = &r->top;
    const json_t *models = json_object_get(top->object, "models");
    if (!json_is_object(models))
        return br_json_refuse(top, BR_EFORMAT, "models", models, "an object of models");
    if (json_object_size(models) == 0)
        return br_json_refuse(top, BR_EINVAL, "models", models, "at least one");
    if (json_object_size(models) > BR_MODELS_MAX) {
        return br_json_refuse(top, BR_ETOOBIG, "models", models, "at most 64 models");
    }
    static_assert(BR_MODELS_MAX == 64, "the message above says so");

    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)models, name, value)
    {
        br_json scope = {.object = models, .file = top->file, .path = "models.", .error = top->error};
        br_priced_model *model = &router->models[router->model_count];
        const size_t length = strlen(name);
        if (length == 0 || length > BR_NAME_BYTES_MAX) {
            return br_json_refuse(&scope, BR_EINVAL, name, value, "a name of 1..128 bytes before it");
        }
        if (!json_is_object(value)) {
            return br_json_refuse(&scope, BR_EFORMAT, name, value, "an object with the prices");
        }
        memcpy(model->name, name, length + 1);
        char path[PATH_BYTES];
        snprintf(path, sizeof path, "models.%s.", name);
        scope.object = value;
        scope.path = path;
        const br_status status = read_prices(model, r, &scope);
        if (status != BR_OK) return status;
        router->model_count++;
    }
    static_assert(BR_NAME_BYTES_MAX == 128, "the message above says so");
    return BR_OK;
}

static br_status read_candidate_model(br_candidate *candidate, const br_router *router, const br_json *scope)
{
    const json_t *model = json_object_get(scope->object, "model");
    if (!json_is_string(model)) {
        return br_json_refuse(scope, BR_EFORMAT, "model", model, "the name of one of models");
    }
    candidate->model = br_router_find_model(router, br_json_view(model));
    if (candidate->model >= 0) return BR_OK;
    return br_json_refuse(scope, BR_EINVAL, "model", model, "the name of one of models");
}

/* A head for every candidate but the reference, which has none unless the kind scores it too. */
static br_status read_candidate_head(br_candidate *candidate, const br_router *router, bool reference,
                                     const br_json *scope)
{
    candidate->head = -1;
    if (reference && !heads_rules[router->heads].reference_scored) {
        if (!br_json_has(scope, "head")) return BR_OK;
        return br_json_refuse(scope, BR_EINVAL, "head", json_object_get(scope->object, "head"),
                              "no head for the reference: its quality is 1");
    }
    const br_status status = br_json_require(scope, "head", "the index of its output");
    if (status != BR_OK) return status;
    return br_json_int32(scope, "head", 0, BR_CANDIDATES_MAX - 1, &candidate->head);
}

/* What training fitted on rows that it had left out: the log odds are stretched and shifted. */
static br_status read_calibration(br_candidate *candidate, const reader *r, const br_json *outer)
{
    const br_router *router = r->router;
    candidate->scale = 1;
    candidate->bias = 0;
    const json_t *value = json_object_get(outer->object, "calibration");
    if (value == NULL) return BR_OK;
    if (candidate->head < 0) {
        return br_json_refuse(outer, BR_EINVAL, "calibration", value,
                              "none for the reference: its quality is 1");
    }
    if (!heads_rules[router->heads].own_sigmoids) {
        return br_json_refuse(outer, BR_EINVAL, "calibration", value,
                              "none: only best_route, hybrid_llm and n_label have one");
    }
    if (!json_is_object(value)) return br_json_refuse(outer, BR_EFORMAT, "calibration", value, "an object");
    char path[64];
    snprintf(path, sizeof path, "%scalibration.", outer->path);
    const br_json scope = {.object = value, .file = outer->file, .path = path, .error = outer->error};
    double scale = 1;
    double bias = 0;
    br_status status = expect_known(r, &scope, calibration_keys);
    if (status != BR_OK) return status;
    status = br_json_number(&scope, "scale", calibration_scale_min, calibration_scale_max, &scale);
    if (status != BR_OK) return status;
    status = br_json_number(&scope, "bias", -calibration_bias_max, calibration_bias_max, &bias);
    if (status != BR_OK) return status;
    candidate->scale = (float)scale;
    candidate->bias = (float)bias;
    return BR_OK;
}

/* No earlier candidate has the same model and n, or the same head. */
static br_status check_distinct(const br_router *router, const br_candidate *candidate, const br_json *scope)
{
    for (int32_t i = 0; i < router->candidate_count; i++) {
        const br_candidate *other = &router->candidates[i];
        if (other->model == candidate->model && other->n == candidate->n) {
            return br_fail(scope->error, BR_EINVAL,
                           "%s: %sn: found (%s, %d) again, expected each pair of model and n once",
                           scope->file, scope->path, router->models[candidate->model].name,
                           (int)candidate->n);
        }
        if (candidate->head >= 0 && other->head == candidate->head) {
            return br_fail(scope->error, BR_EINVAL,
                           "%s: %shead: found %d, the head of candidates[%d], expected each head once",
                           scope->file, scope->path, (int)candidate->head, (int)i);
        }
    }
    return BR_OK;
}

static br_status read_candidate(const reader *r, const br_json *scope)
{
    br_router *router = r->router;
    br_candidate *candidate = &router->candidates[router->candidate_count];
    br_status status = expect_known(r, scope, candidate_keys);
    if (status != BR_OK) return status;
    status = read_candidate_model(candidate, router, scope);
    if (status != BR_OK) return status;
    status = br_json_require(scope, "n", "an integer");
    if (status != BR_OK) return status;
    status = br_json_int32(scope, "n", 1, BR_SAMPLES_MAX, &candidate->n);
    if (status != BR_OK) return status;
    bool reference = false;
    status = br_json_bool(scope, "reference", &reference);
    if (status != BR_OK) return status;
    status = read_candidate_head(candidate, router, reference, scope);
    if (status != BR_OK) return status;
    status = read_calibration(candidate, r, scope);
    if (status != BR_OK) return status;
    status = check_distinct(router, candidate, scope);
    if (status != BR_OK) return status;

    if (reference && router->reference >= 0) {
        return br_fail(scope->error, BR_EINVAL,
                       "%s: %sreference: found true as in candidates[%d], expected one reference",
                       scope->file, scope->path, (int)router->reference);
    }
    if (reference) router->reference = router->candidate_count;
    if (candidate->head >= router->head_count) router->head_count = candidate->head + 1;
    router->candidate_count++;
    return BR_OK;
}

/* The candidates and their heads are as many as the kind has. */
static br_status check_kind(br_router *router, const br_json *top)
{
    const br_heads_rule *rule = &heads_rules[router->heads];
    if (rule->candidates > 0 && router->candidate_count != rule->candidates) {
        return br_fail(top->error, BR_EINVAL, "%s: candidates: found %d, expected %d with heads \"%s\"",
                       top->file, (int)router->candidate_count, (int)rule->candidates, rule->name);
    }
    if (rule->candidates > 0 && router->head_count != 1) {
        return br_fail(top->error, BR_EINVAL, "%s: candidates: found head %d, expected 0 with heads \"%s\"",
                       top->file, (int)router->head_count - 1, rule->name);
    }
    if (rule->outputs > 0) router->head_count = rule->outputs;
    if (router->heads == BR_HEADS_N_CLASS &&
        router->candidates[router->reference].head != router->head_count - 1) {
        return br_fail(top->error, BR_EINVAL,
                       "%s: candidates[%d].head: found %d, expected %d: the reference's class is the last",
                       top->file, (int)router->reference, (int)router->candidates[router->reference].head,
                       (int)router->head_count - 1);
    }
    return BR_OK;
}

static br_status read_candidates(const reader *r)
{
    br_router *router = r->router;
    const br_json *top = &r->top;
    const json_t *list = json_object_get(top->object, "candidates");
    if (!json_is_array(list)) {
        return br_json_refuse(top, BR_EFORMAT, "candidates", list, "an array of candidates");
    }
    if (json_array_size(list) > BR_CANDIDATES_MAX) {
        return br_json_refuse(top, BR_ETOOBIG, "candidates", list, "at most 256 candidates");
    }
    static_assert(BR_CANDIDATES_MAX == 256, "the message above says so");

    router->reference = -1;
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[BR_JSON_PATH_BYTES];
        br_json scope;
        br_status status = br_json_item(&scope, path, top, "candidates", list, i);
        if (status == BR_OK) status = read_candidate(r, &scope);
        if (status != BR_OK) return status;
    }
    if (router->reference < 0) {
        return br_json_refuse(top, BR_EINVAL, "candidates", list, "one with \"reference\": true");
    }
    if (router->candidate_count < 2) {
        return br_json_refuse(top, BR_EINVAL, "candidates", list, "at least one besides the reference");
    }
    return check_kind(router, top);
}

/* Copies a name of the list into the arena: the policy must not depend on where the router lies. */
static br_status keep_name(br_str *out, br_router *router, const br_json *scope, const char *key,
                           const json_t *name)
{
    if (!json_is_string(name)) return br_json_refuse(scope, BR_EFORMAT, key, name, "model names");
    const br_str view = br_json_view(name);
    if (br_router_find_model(router, view) < 0) {
        return br_json_refuse(scope, BR_EINVAL, key, name, "names of models");
    }
    char *copy = br_arena_array(&router->arena, view.size + 1, 1);
    if (copy == NULL) return br_no_memory(scope->error, "%s", scope->file);
    memcpy(copy, view.data, view.size);
    *out = (br_str){copy, view.size};
    return BR_OK;
}

/* A list of names that are all in models. */
static br_status read_names(const br_str **names, size_t *count, br_router *router, const br_json *scope,
                            const char *key, bool may_be_empty)
{
    const json_t *list = json_object_get(scope->object, key);
    if (!json_is_array(list)) return br_json_refuse(scope, BR_EFORMAT, key, list, "an array of model names");
    if (json_array_size(list) == 0 && !may_be_empty) {
        return br_json_refuse(scope, BR_EINVAL, key, list, "at least one model");
    }
    br_str *views = br_arena_array(&router->arena, json_array_size(list) + 1, sizeof *views);
    if (views == NULL) return br_no_memory(scope->error, "%s", scope->file);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const br_status status = keep_name(&views[i], router, scope, key, json_array_get(list, i));
        if (status != BR_OK) return status;
    }
    *names = views;
    *count = json_array_size(list);
    return BR_OK;
}

static br_status read_policy_words(br_policy_spec *policy, const br_json *scope)
{
    static const char kinds[] = "threshold, budget, utility, tolerance or pool";
    static const char fallbacks[] = "best, reference or error";
    const json_t *kind = json_object_get(scope->object, "kind");
    if (kind != NULL) {
        if (!json_is_string(kind)) return br_json_refuse(scope, BR_EFORMAT, "kind", kind, kinds);
        if (!br_policy_kind_parse(&policy->kind, br_json_view(kind))) {
            return br_json_refuse(scope, BR_EINVAL, "kind", kind, kinds);
        }
        policy->has |= BR_HAS_KIND;
    }
    const json_t *fallback = json_object_get(scope->object, "fallback");
    if (fallback != NULL) {
        if (!json_is_string(fallback))
            return br_json_refuse(scope, BR_EFORMAT, "fallback", fallback, fallbacks);
        if (!br_fallback_parse(&policy->fallback, br_json_view(fallback))) {
            return br_json_refuse(scope, BR_EINVAL, "fallback", fallback, fallbacks);
        }
        policy->has |= BR_HAS_FALLBACK;
    }
    return BR_OK;
}

static br_status read_policy_numbers(br_policy_spec *policy, const br_json *scope)
{
    const struct {
        const char *key;
        uint32_t has;
        double high;
        double *value;
    } numbers[] = {
        {"threshold", BR_HAS_THRESHOLD, 1, &policy->threshold},
        {"max_cost", BR_HAS_MAX_COST, DBL_MAX, &policy->max_cost},
        {"lambda", BR_HAS_LAMBDA, DBL_MAX, &policy->lambda},
        {"tolerance", BR_HAS_TOLERANCE, 1, &policy->tolerance},
        {"total_budget", BR_HAS_TOTAL_BUDGET, DBL_MAX, &policy->total_budget},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (!br_json_has(scope, numbers[i].key)) continue;
        const br_status status = br_json_number(scope, numbers[i].key, 0, numbers[i].high, numbers[i].value);
        if (status != BR_OK) return status;
        policy->has |= numbers[i].has;
    }
    if (!br_json_has(scope, "max_n")) return BR_OK;
    int64_t max_n = 0;
    const br_status status = br_json_int(scope, "max_n", 1, UINT32_MAX, &max_n);
    if (status != BR_OK) return status;
    policy->max_n = (uint32_t)max_n;
    policy->has |= BR_HAS_MAX_N;
    return BR_OK;
}

static br_status settle_policy(br_policy_spec *policy, const br_json *scope)
{
    br_policy_clash clash;
    if (br_policy_spec_settle(policy, &clash)) return BR_OK;
    return br_fail(scope->error, BR_EINVAL, "%s: %s%s: belongs to the kind %s, not to %s", scope->file,
                   scope->path, clash.key, br_policy_kind_name(clash.owner), br_policy_kind_name(clash.kind));
}

static br_status read_policy(const reader *r)
{
    br_router *router = r->router;
    const br_json *top = &r->top;
    br_policy_spec *policy = &router->policy;
    const json_t *value = json_object_get(top->object, "policy");
    if (value == NULL) {
        const bool scored = heads_rules[router->heads].reference_scored;
        policy->has = BR_HAS_KIND | (scored ? BR_HAS_TOLERANCE : BR_HAS_THRESHOLD);
        policy->kind = scored ? BR_POLICY_TOLERANCE : BR_POLICY_THRESHOLD;
        policy->threshold = scored ? 0 : 0.5;
        return BR_OK;
    }
    if (!json_is_object(value)) return br_json_refuse(top, BR_EFORMAT, "policy", value, "an object");

    const br_json scope = {.object = value, .file = top->file, .path = "policy.", .error = top->error};
    br_status status = expect_known(r, &scope, policy_keys);
    if (status != BR_OK) return status;
    status = read_policy_words(policy, &scope);
    if (status != BR_OK) return status;
    status = read_policy_numbers(policy, &scope);
    if (status != BR_OK) return status;
    if (br_json_has(&scope, "models")) {
        status = read_names(&policy->models, &policy->model_count, router, &scope, "models", false);
        if (status != BR_OK) return status;
        policy->has |= BR_HAS_MODELS;
    }
    if (br_json_has(&scope, "exclude")) {
        status = read_names(&policy->exclude, &policy->exclude_count, router, &scope, "exclude", true);
        if (status != BR_OK) return status;
        policy->has |= BR_HAS_EXCLUDE;
    }
    return settle_policy(policy, &scope);
}

static br_status read_policy_row(br_policy_row *row, const reader *r, const br_json *scope, double above)
{
    const br_status known = expect_known(r, scope, row_keys);
    if (known != BR_OK) return known;
    const struct {
        const char *key;
        double high;
        double *value;
    } numbers[] = {
        {"threshold", 1, &row->threshold},
        {"reference_share", 1, &row->reference_share},
        {"mean_cost", DBL_MAX, &row->mean_cost},
        {"quality", 1, &row->quality},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        br_status status = br_json_require(scope, numbers[i].key, "a number");
        if (status != BR_OK) return status;
        status = br_json_number(scope, numbers[i].key, 0, numbers[i].high, numbers[i].value);
        if (status != BR_OK) return status;
    }
    if (row->threshold > above) return BR_OK;
    return br_json_refuse(scope, BR_EINVAL, "threshold", json_object_get(scope->object, "threshold"),
                          "more than in the row before");
}

static br_status read_policy_rows(const reader *r, const br_json *scope)
{
    br_router *router = r->router;
    const json_t *list = json_object_get(scope->object, "table");
    if (!json_is_array(list)) return br_json_refuse(scope, BR_EFORMAT, "table", list, "an array of rows");
    const size_t count = json_array_size(list);
    if (count == 0) return br_json_refuse(scope, BR_EINVAL, "table", list, "at least one row");
    if (count > BR_POLICY_TABLE_ROWS_MAX)
        return br_json_refuse(scope, BR_ETOOBIG, "table", list, "at most 1001 rows");
    static_assert(BR_POLICY_TABLE_ROWS_MAX == 1001, "the message above says so");

    br_policy_row *rows = br_arena_array(&router->arena, count, sizeof *rows);
    if (rows == NULL) return br_no_memory(scope->error, "%s", scope->file);
    for (size_t i = 0; i < count; i++) {
        char path[BR_JSON_PATH_BYTES];
        br_json row;
        br_status status = br_json_item(&row, path, scope, "table", list, i);
        if (status == BR_OK) status = read_policy_row(&rows[i], r, &row, i == 0 ? -1 : rows[i - 1].threshold);
        if (status != BR_OK) return status;
    }
    router->measured.rows = rows;
    router->measured.row_count = count;
    return BR_OK;
}

/* What `bestroute calibrate` wrote beside the default policy. */
static br_status read_measured(const reader *r)
{
    br_router *router = r->router;
    const br_json *top = &r->top;
    const json_t *value = json_object_get(top->object, "policy_table");
    if (value == NULL) return BR_OK;
    if (!json_is_object(value)) return br_json_refuse(top, BR_EFORMAT, "policy_table", value, "an object");
    const br_json scope = {.object = value, .file = top->file, .path = "policy_table.", .error = top->error};
    br_status status = expect_known(r, &scope, table_keys);
    if (status == BR_OK) status = br_json_require(&scope, "kind", "\"threshold\"");
    if (status == BR_OK) status = expect_word(&scope, "kind", "threshold", BR_ENOTSUP);
    if (status == BR_OK) status = br_json_require(&scope, "rows", "the number of prompts");
    int64_t prompts = 0;
    if (status == BR_OK) status = br_json_int(&scope, "rows", 1, UINT32_MAX, &prompts);
    router->measured.prompts = (uint64_t)prompts;
    return status == BR_OK ? read_policy_rows(r, &scope) : status;
}

br_status br_router_parse(br_router *out, br_str json, const char *file, br_error *error)
{
    memset(out, 0, sizeof *out);
    br_arena_init(&out->arena);

    json_t *value;
    br_status status = br_json_parse(&value, json, BR_JSON_BYTES_MAX, file, error);
    if (status != BR_OK) return status;
    br_json_drop_nulls(value);
    reader r = {.router = out, .top = {.object = value, .file = file, .path = "", .error = error}};

    status = read_head(out, &r.top);
    if (status == BR_OK) status = read_strictness(&r);
    if (status == BR_OK) status = read_models(&r);
    if (status == BR_OK) status = read_candidates(&r);
    if (status == BR_OK) status = read_policy(&r);
    if (status == BR_OK) status = read_measured(&r);
    json_decref(value);
    return status;
}

void br_router_deinit(br_router *router)
{
    br_arena_deinit(&router->arena);
}

int32_t br_router_find_model(const br_router *router, br_str name)
{
    for (int32_t i = 0; i < router->model_count; i++) {
        if (br_str_equal(name, br_str_from(router->models[i].name))) return i;
    }
    return -1;
}

const char *br_router_nearest_model(const br_router *router, br_str name)
{
    br_nearest nearest = br_nearest_to(name);
    for (int32_t i = 0; i < router->model_count; i++) br_nearest_offer(&nearest, router->models[i].name);
    return nearest.best != NULL ? nearest.best : router->models[0].name;
}
