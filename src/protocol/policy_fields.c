/*
 * policy_fields.c - a policy's map, read and written.
 *
 * Types and finiteness are checked here; ranges and names of models against a
 * bundle, when the policy is resolved.
 */
#include <assert.h>
#include <inttypes.h>

#include "core/limits.h"
#include "fields.h"

enum {
    KIND,
    THRESHOLD,
    MAX_COST,
    LAMBDA,
    TOLERANCE,
    TOTAL_BUDGET,
    MODELS,
    EXCLUDE,
    MAX_N,
    FALLBACK,
    KEY_COUNT,
};

static const br_str keys[KEY_COUNT] = {
    [KIND] = BR_KEY("kind"),           [THRESHOLD] = BR_KEY("threshold"),
    [MAX_COST] = BR_KEY("max_cost"),   [LAMBDA] = BR_KEY("lambda"),
    [TOLERANCE] = BR_KEY("tolerance"), [TOTAL_BUDGET] = BR_KEY("total_budget"),
    [MODELS] = BR_KEY("models"),       [EXCLUDE] = BR_KEY("exclude"),
    [MAX_N] = BR_KEY("max_n"),         [FALLBACK] = BR_KEY("fallback"),
};

/* The bit of br_policy_spec.has that stands for each key. */
static const uint32_t bits[KEY_COUNT] = {
    [KIND] = BR_HAS_KIND,         [THRESHOLD] = BR_HAS_THRESHOLD, [MAX_COST] = BR_HAS_MAX_COST,
    [LAMBDA] = BR_HAS_LAMBDA,     [TOLERANCE] = BR_HAS_TOLERANCE, [TOTAL_BUDGET] = BR_HAS_TOTAL_BUDGET,
    [MODELS] = BR_HAS_MODELS,     [EXCLUDE] = BR_HAS_EXCLUDE,     [MAX_N] = BR_HAS_MAX_N,
    [FALLBACK] = BR_HAS_FALLBACK,
};

static br_status read_words(br_policy_spec *out, const br_fields *fields)
{
    br_str kind = {0};
    br_str fallback = {0};
    br_status status = br_field_str(fields, KIND, &kind);
    if (status == BR_OK) status = br_field_str(fields, FALLBACK, &fallback);
    if (status != BR_OK) return status;

    if (br_field_present(fields, KIND) && !br_policy_kind_parse(&out->kind, kind)) {
        return br_field_fail(fields, KIND, BR_EINVAL,
                             "expected threshold, budget, utility, tolerance or pool, found \"%.*s\"",
                             (int)(kind.size < 40 ? kind.size : 40), kind.data);
    }
    if (br_field_present(fields, FALLBACK) && !br_fallback_parse(&out->fallback, fallback)) {
        return br_field_fail(fields, FALLBACK, BR_EINVAL, "expected best, reference or error, found \"%.*s\"",
                             (int)(fallback.size < 40 ? fallback.size : 40), fallback.data);
    }
    return BR_OK;
}

static br_status read_numbers(br_policy_spec *out, const br_fields *fields)
{
    uint64_t max_n = 0;
    br_status status = br_field_real(fields, THRESHOLD, &out->threshold);
    if (status == BR_OK) status = br_field_real(fields, MAX_COST, &out->max_cost);
    if (status == BR_OK) status = br_field_real(fields, LAMBDA, &out->lambda);
    if (status == BR_OK) status = br_field_real(fields, TOLERANCE, &out->tolerance);
    if (status == BR_OK) status = br_field_real(fields, TOTAL_BUDGET, &out->total_budget);
    if (status == BR_OK) status = br_field_uint(fields, MAX_N, &max_n);
    /* No candidate's n comes near 2^32, so a larger bound means the same. */
    out->max_n = max_n < UINT32_MAX ? (uint32_t)max_n : UINT32_MAX;
    return status;
}

static br_status settle(br_policy_spec *out, const br_fields *fields)
{
    br_policy_clash clash;
    if (br_policy_spec_settle(out, &clash)) return BR_OK;
    size_t key = 0;
    while (!br_str_equal(keys[key], br_str_from(clash.key))) key++;
    return br_field_fail(fields, key, BR_EINVAL, "belongs to the kind %s, not to %s",
                         br_policy_kind_name(clash.owner), br_policy_kind_name(clash.kind));
}

br_status br_policy_read(br_policy_spec *out, br_reader *reader, bool of_request, const br_place *outer,
                         br_arena *arena, br_error *error)
{
    *out = (br_policy_spec){0};
    const br_place place = {.outer = outer, .name = "policy", .index = -1};
    br_fields fields;
    const br_unknown_keys unknown = of_request ? BR_UNKNOWN_REFUSED : BR_UNKNOWN_SKIPPED;
    br_status status = br_fields_read(&fields, reader, keys, KEY_COUNT, unknown, &place, error);
    if (status == BR_OK) status = read_words(out, &fields);
    if (status == BR_OK) status = read_numbers(out, &fields);
    /* As many as there can be candidates: a client may repeat a model for each of its n. */
    if (status == BR_OK) {
        status = br_field_strs(&fields, MODELS, BR_CANDIDATES_MAX, arena, &out->models, &out->model_count);
    }
    if (status == BR_OK) {
        status =
            br_field_strs(&fields, EXCLUDE, BR_CANDIDATES_MAX, arena, &out->exclude, &out->exclude_count);
    }
    for (size_t key = 0; key < KEY_COUNT; key++) {
        if (br_field_present(&fields, key)) out->has |= bits[key];
    }
    if (status == BR_OK && of_request) status = settle(out, &fields);
    if (status != BR_OK) *out = (br_policy_spec){0};
    return status;
}

static void pack_strs(br_packer *packer, const br_str *strs, size_t count)
{
    br_pack_array(packer, count);
    for (size_t i = 0; i < count; i++) br_pack_str(packer, strs[i]);
}

static void pack_field(br_packer *packer, const br_policy_spec *policy, size_t key)
{
    br_pack_str(packer, keys[key]);
    switch (key) {
    case KIND:
        br_pack_word(packer, br_policy_kind_name(policy->kind));
        break;
    case THRESHOLD:
        br_pack_real(packer, policy->threshold);
        break;
    case MAX_COST:
        br_pack_real(packer, policy->max_cost);
        break;
    case LAMBDA:
        br_pack_real(packer, policy->lambda);
        break;
    case TOLERANCE:
        br_pack_real(packer, policy->tolerance);
        break;
    case TOTAL_BUDGET:
        br_pack_real(packer, policy->total_budget);
        break;
    case MODELS:
        pack_strs(packer, policy->models, policy->model_count);
        break;
    case EXCLUDE:
        pack_strs(packer, policy->exclude, policy->exclude_count);
        break;
    case MAX_N:
        br_pack_uint(packer, policy->max_n);
        break;
    case FALLBACK:
        br_pack_word(packer, br_fallback_name(policy->fallback));
        break;
    default:
        assert(false);
    }
}

void br_policy_pack(br_packer *packer, const br_policy_spec *policy)
{
    size_t count = 0;
    for (size_t key = 0; key < KEY_COUNT; key++) count += (policy->has & bits[key]) != 0;
    br_pack_map(packer, count);
    for (size_t key = 0; key < KEY_COUNT; key++) {
        if ((policy->has & bits[key]) != 0) pack_field(packer, policy, key);
    }
}
