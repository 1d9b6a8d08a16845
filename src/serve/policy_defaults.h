/*
 * policy_defaults.h - the policy overrides of set_defaults: immutable, counted, owning their strings.
 *
 * A call holds a reference from its admission to its reply, so it is decided by the overrides that it began
 * with. The count is atomic; any thread may call anything.
 */
#ifndef BESTROUTE_SERVE_POLICY_DEFAULTS_H
#define BESTROUTE_SERVE_POLICY_DEFAULTS_H

#include "policy/spec.h"
#include "workers/loaded.h"

typedef struct policy_defaults policy_defaults;

/* Copies the policy. Holds one reference for the caller. NULL: out of memory. */
policy_defaults *policy_defaults_create(const br_policy_spec *policy);

/* Both accept NULL. The last release frees. */
void policy_defaults_retain(policy_defaults *defaults);
void policy_defaults_release(policy_defaults *defaults);

/* The policy that a request starts from: the bundle's with these overrides, of which there may be none
 * (NULL). */
br_policy_spec policy_defaults_apply(const policy_defaults *defaults, const br_loaded *loaded);

#endif
