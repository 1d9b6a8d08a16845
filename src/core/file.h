/*
 * file.h - a whole file in memory.
 */
#ifndef BESTROUTE_CORE_FILE_H
#define BESTROUTE_CORE_FILE_H

#include <stddef.h>

#include "bestroute/error.h"

/* All bytes of the file, and a zero byte behind them; release with free. BR_EIO: it cannot be read; the error
 * names it and says why. BR_ENOMEM. On failure *out is NULL. */
BR_NODISCARD br_status br_file_read(char **out, size_t *size, const char *path, br_error *error);

#endif
