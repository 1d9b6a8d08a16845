/*
 * stories.h - which prompts share a text.
 *
 * Benchmarks ask several questions about one text, a story here. Questions about a hard text are hard
 * together, so a bootstrap has to draw whole stories: drawing single prompts would make intervals too narrow.
 * The rule, which training also uses to keep a story in one of its folds (scores.h): prompts of one task
 * share a story if they differ only in their last sentence.
 *
 * Uses: records.  Used by: the command.
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
