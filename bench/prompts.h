/*
 * prompts.h - the requests a load is made of, encoded once: prompts of a file, or synthetic ones with lengths
 * drawn from a distribution.
 */
#ifndef BESTROUTE_BENCH_PROMPTS_H
#define BESTROUTE_BENCH_PROMPTS_H

#include "bestroute/error.h"
#include "policy/spec.h"

typedef struct prompts_options {
    const char *file; /* a prompt a line; NULL: synthetic */
    const char
        *lengths; /* of synthetic prompts in words: "20", "8-64" even, "24~0.8" log-normal: median ~ sigma */
    const char *bundle; /* tokenise with this bundle's vocabulary and send ids; NULL: send text */
    int queries;        /* of one request */
    uint64_t seed;
    br_policy_spec policy;
    bool score;           /* instead of route */
    uint64_t deadline_ms; /* 0: none */
} prompts_options;

/* Encoded requests, all of `queries` prompts. Owned; prompts_deinit, which also accepts a zeroed struct. */
typedef struct prompts {
    br_str *requests;
    int count;
} prompts;

/* BR_EIO, BR_EINVAL (a distribution, a line that is not UTF-8), BR_ENOMEM; statuses of br_bundle_open. */
BR_NODISCARD br_status prompts_init(prompts *out, const prompts_options *options, br_error *error);
void prompts_deinit(prompts *p);

/* The texts alone, [count], each terminated; free with prompts_free_texts. */
BR_NODISCARD br_status prompts_texts(char ***out, int *count, const prompts_options *options,
                                     br_error *error);
void prompts_free_texts(char **texts, int count);

#endif
