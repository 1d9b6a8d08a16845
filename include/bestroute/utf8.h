/*
 * utf8.h - strict UTF-8 validation (Unicode 15, table 3-7): no overlong forms, no surrogates,
 * nothing above U+10FFFF.
 */
#ifndef BESTROUTE_UTF8_H
#define BESTROUTE_UTF8_H

#include <stddef.h>

/* The offset of the first byte that is not part of a well-formed sequence; `size` when all is well. */
size_t br_utf8_invalid_at(const char *text, size_t size);

#endif
