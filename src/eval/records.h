/*
 * records.h - measured answers, one JSON object per line, as tables over a bundle's candidates.
 *
 * A record has id, task, split, prompt, prompt_tokens, reference {model, quality, k, c} and candidates:
 * objects with model, n, quality, and where known basis, match, output_tokens, k, c, k_a, c_a. Files may be
 * gzip. A fault is an error, "file:line: key: ...", and ends the reading: a record that was silently left out
 * would change every figure.
 *
 * A record's reference is taken for the bundle's reference, even where its name is another: benchmarks of
 * several sources name it differently.
 *
 * Uses: error, json, json_lines, jansson.  Used by: stories, the command.
 */
#ifndef BESTROUTE_EVAL_RECORDS_H
#define BESTROUTE_EVAL_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"

typedef struct br_records_pair {
    const char *model;
    int32_t n;
} br_records_pair;

/* What is known of one pair on one prompt. */
typedef struct br_records_measure {
    bool measured;
    double quality;       /* probability that the best of n is right, where a perfect selector picks it */
    double first_quality; /* of one sample: what picking at random gives; quality at n = 1 */
    double match;         /* probability that it is at least as good as one answer of the reference */
    double output_tokens; /* of one sample; NAN where unknown */
} br_records_measure;

typedef struct br_records_row {
    char *id;
    char *prompt;
    size_t prompt_bytes;
    int32_t task; /* index into tasks */
    uint64_t prompt_tokens;
    double reference_quality;
    double reference_output_tokens; /* NAN where unknown */
    br_records_measure *measures;   /* [pairs] */
} br_records_row;

typedef struct br_records {
    br_records_row *rows;
    size_t row_count;
    char **tasks;
    size_t task_count;
    size_t passed_over; /* of other splits, without a reference, or without the second half that judges */
} br_records;

typedef struct br_records_options {
    const br_records_pair *pairs;
    size_t pair_count;
    const char *split; /* NULL: every record */
    bool single;       /* admit pairs of basis `single`, of which one answer alone was measured */
    bool second_half;  /* judge by the samples outside k_a: for rows whose samples in k_a were trained on */
} br_records_options;

/* Adds the records of one file; zeroed `out` is empty. BR_EIO: the file. BR_EFORMAT, BR_EINVAL: a record.
 * BR_ENOMEM. After a failure `out` holds what was read before it. */
BR_NODISCARD br_status br_records_read(br_records *out, const char *path, const br_records_options *options,
                                       br_error *error);

/* Accepts an empty one. */
void br_records_deinit(br_records *r);

/* Probability that at least one of n samples, drawn without replacement from k of which c are right, is
 * right. 0 <= c <= k, 1 <= n <= k. */
double br_records_best_of(int64_t k, int64_t c, int64_t n);

#endif
