/*
 * normalizer.h - turns a prompt into the text that is cut into pieces.
 *
 *   1. a literal "[SEP]" becomes a space
 *   2. white space at both ends is removed
 *   3. the model's character map is applied, one grapheme cluster at a time
 *   4. runs of spaces become one space
 *   5. every space becomes U+2581, and the text begins with one
 *
 * Steps 2 to 5 are those of Hugging Face's fast tokenizer, with its peculiarity: a cluster of fewer than six
 * bytes is matched as a whole, and replaced as a whole if a rule matches its beginning. SentencePiece's own
 * normalizer differs.
 *
 * A text is read part by part, so that nothing is allocated for a text of any size. The normalizer is
 * immutable: any number of threads may read with it.
 */
#ifndef BESTROUTE_BUNDLE_TOKENIZER_NORMALIZER_H
#define BESTROUTE_BUNDLE_TOKENIZER_NORMALIZER_H

#include "bestroute/error.h"
#include "core/memory.h"
#include "grapheme.h"

/* A read writes whole characters and stops when fewer bytes than this are left. */
enum { NORMALIZER_ROOM_MIN = 2048 };

/* The bytes of U+2581, which stands for a space. */
#define BR_SPACE_MARK "\xE2\x96\x81"
enum { BR_SPACE_MARK_BYTES = 3 };

typedef struct normalizer normalizer;

/* `charsmap` is a model's precompiled map; copied; empty: no rules. BR_EFORMAT, BR_ENOMEM. */
BR_NODISCARD br_status normalizer_create(normalizer **out, br_str charsmap, const char *file,
                                         br_error *error);

/* Accepts NULL. */
void normalizer_destroy(normalizer *n);

/* The state of reading one text. Only normalizer.c uses the fields. */
typedef struct normalizing {
    const normalizer *normalizer;
    const char *at;
    const char *end;
    grapheme grapheme; /* of the current cluster */
    char cluster[8];   /* its bytes while they are fewer than six */
    size_t cluster_bytes;
    bool spilled;    /* the cluster has six bytes or more: each character is matched alone */
    bool started;    /* something was written */
    bool last_space; /* and the last character written is a space */
} normalizing;

/* Borrows both, and `text` (valid UTF-8), as long as the reading lasts. */
void normalizing_begin(normalizing *reading, const normalizer *n, br_str text);

/* Writes the next part of the normalized text to out[room], room >= NORMALIZER_ROOM_MIN, and
 * returns its size; 0 when there is no more. */
size_t normalizing_read(normalizing *reading, char *out, size_t room);

#endif
