/*
 * json_lines.h - files of one JSON object per line, plain or gzip, read line by line.
 *
 * Uses: error, memory, zlib.  Used by: records, scores.
 */
#ifndef BESTROUTE_EVAL_JSON_LINES_H
#define BESTROUTE_EVAL_JSON_LINES_H

#include "bestroute/error.h"
#include "core/memory.h"

enum { JSON_LINES_BYTES_MAX = 64 << 20 }; /* of one line, which is held in memory */

/* One line that is not blank, with its end if it has one; valid during the call. `where` is "file:number". */
typedef br_status (*json_lines_take)(void *context, br_str line, const char *where, br_error *error);

/* Hands over every line until one is refused. BR_EIO: the file. BR_EFORMAT: a line is too long. BR_ENOMEM;
 * else what `take` says. */
BR_NODISCARD br_status json_lines_read(const char *path, json_lines_take take, void *context,
                                       br_error *error);

#endif
