/* policy_defaults.c - see policy_defaults.h. */
#include "policy_defaults.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

struct policy_defaults {
    atomic_int references;
    br_policy_spec policy;
    br_arena arena;
};

/* names[count] with their bytes in the arena; NULL when memory is out. */
static const br_str *copy_names(br_arena *arena, const br_str *names, size_t count)
{
    br_str *copy = br_arena_array(arena, count, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++) {
        char *bytes = br_arena_array(arena, names[i].size + 1, 1);
        if (bytes == NULL) return NULL;
        if (names[i].size > 0) memcpy(bytes, names[i].data, names[i].size);
        copy[i] = (br_str){bytes, names[i].size};
    }
    return copy;
}

policy_defaults *policy_defaults_create(const br_policy_spec *policy)
{
    policy_defaults *defaults = calloc(1, sizeof *defaults);
    if (defaults == NULL) return NULL;
    atomic_init(&defaults->references, 1);
    br_arena_init(&defaults->arena);
    defaults->policy = *policy;
    const bool has_models = (policy->has & BR_HAS_MODELS) != 0;
    const bool has_exclude = (policy->has & BR_HAS_EXCLUDE) != 0;
    if (has_models)
        defaults->policy.models = copy_names(&defaults->arena, policy->models, policy->model_count);
    if (has_exclude)
        defaults->policy.exclude = copy_names(&defaults->arena, policy->exclude, policy->exclude_count);
    if ((!has_models || defaults->policy.models != NULL) &&
        (!has_exclude || defaults->policy.exclude != NULL))
        return defaults;
    policy_defaults_release(defaults);
    return NULL;
}

void policy_defaults_retain(policy_defaults *defaults)
{
    if (defaults != NULL) atomic_fetch_add_explicit(&defaults->references, 1, memory_order_relaxed);
}

void policy_defaults_release(policy_defaults *defaults)
{
    if (defaults == NULL) return;
    if (atomic_fetch_sub_explicit(&defaults->references, 1, memory_order_acq_rel) != 1) return;
    br_arena_deinit(&defaults->arena);
    free(defaults);
}

br_policy_spec policy_defaults_apply(const policy_defaults *defaults, const br_loaded *loaded)
{
    br_policy_spec policy = br_loaded_bundle(loaded)->router.policy;
    if (defaults != NULL) br_policy_spec_merge(&policy, &defaults->policy);
    return policy;
}
