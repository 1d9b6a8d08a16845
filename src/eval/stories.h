/*
 * stories.h - prompts that share a story are one draw of chance, not several.
 *
 * Benchmarks ask several questions about one text. Their difficulty goes together, so a bootstrap that draws
 * rows takes one story for many. The rule, which training uses for its folds too: prompts of a task that
 * differ in their last sentence alone share a story.
 *
 * Uses: records.  Used by: cli_scores.
 */
#ifndef BESTROUTE_EVAL_STORIES_H
#define BESTROUTE_EVAL_STORIES_H

#include <stddef.h>
#include <stdint.h>

#include "bestroute/status.h"
#include "records.h"

/* Bytes of the prompt before its last sentence, without white space at the end; all of it where what is left
 * is too short to be a story. */
size_t br_story_bytes(const char *prompt, size_t bytes);

/* story[row_count]: numbered from 0 by first appearance, so story[r] <= r. BR_ENOMEM. */
BR_NODISCARD br_status br_stories_number(int32_t *story, const br_records *r);

#endif
