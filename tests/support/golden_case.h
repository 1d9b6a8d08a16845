/*
 * golden_case.h - one case of tests/golden as a bundle in memory, and what Hugging Face answered.
 *
 * The weights are generated as make_golden.py generates them and laid out as a
 * safetensors file, so that the way from file to encoder is the real one. There
 * is no tokenizer and no folder: only what the encoder reads of a bundle.
 */
#ifndef BESTROUTE_TESTS_SUPPORT_GOLDEN_CASE_H
#define BESTROUTE_TESTS_SUPPORT_GOLDEN_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bundle/bundle.h"

enum { GOLDEN_LENGTHS_MAX = 24, GOLDEN_ROWS_MAX = 512, GOLDEN_TOKENS_MAX = 512 };

/* Every case in the folder; NULL ends the list. */
extern const char *const golden_names[];

typedef struct golden_case {
    const char *name;
    br_bundle
        bundle; /* model, prefix, tensors, and of the router max_tokens, head_count and what declares heads */
    br_dtype type; /* the weights are stored as */
    int32_t lengths[GOLDEN_LENGTHS_MAX];
    int32_t length_count;
    bool all_rows;
    char *weights; /* the safetensors file in memory */
    size_t weights_bytes;
    char *expected_bytes;
    br_safetensors *expected;
} golden_case;

void golden_open(golden_case *g, const char *name);
void golden_close(golden_case *g);

/* The ids of the case's sequence of that length. */
void golden_ids(const golden_case *g, int32_t *ids, int32_t length);

/* Which rows of that sequence are stored; returns how many. */
int32_t golden_rows(const golden_case *g, int32_t *rows, int32_t length);

/* [rows, C] and [K]. */
const float *golden_hidden(const golden_case *g, int32_t length);
const float *golden_quality(const golden_case *g, int32_t length);

/* The stored bytes of a weight, to spoil it; `bytes` tells how many. */
void *golden_weight(golden_case *g, const char *name, size_t *bytes);

#endif
