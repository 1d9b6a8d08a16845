/*
 * scores.h - qualities that were computed elsewhere, by the id of the record.
 *
 * A line is a JSON object with `id` (text) and `quality`: an array of numbers in [0, 1] in the order of the
 * bundle's candidates. `bestroute score --json` writes such lines. So does training: it cuts the rows into
 * parts, the folds, and scores the rows of each fold by a model that was trained on the others.
 *
 * Uses: error, json, json_lines.  Used by: the command.
 */
#ifndef BESTROUTE_EVAL_SCORES_H
#define BESTROUTE_EVAL_SCORES_H

#include <stddef.h>

#include "bestroute/error.h"

typedef struct br_score_file_entry {
    char *id;
    float *qualities; /* [candidates] */
} br_score_file_entry;

typedef struct br_score_file {
    br_score_file_entry *entries; /* by id */
    size_t count;
    size_t candidates;
} br_score_file;

/* BR_EIO: the file. BR_EFORMAT, BR_EINVAL: a line, or an id that two lines have. BR_ENOMEM.
 * Release with br_score_file_deinit, also after a failure. */
BR_NODISCARD br_status br_score_file_read(br_score_file *out, const char *path, size_t candidates,
                                          br_error *error);

/* Accepts a zeroed one. */
void br_score_file_deinit(br_score_file *file);

/* The qualities of a record; NULL where the file has none. Borrowed. */
const float *br_score_file_find(const br_score_file *file, const char *id);

#endif
