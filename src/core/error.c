/* error.c - formats why something failed into the caller's br_error. */
#include "bestroute/error.h"

#include <stdarg.h>
#include <stdio.h>

br_status br_fail(br_error *error, br_status status, const char *format, ...)
{
    if (error == NULL) return status;

    error->status = status;
    va_list arguments;
    va_start(arguments, format);
    const int written = vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    if (written < 0) error->text[0] = '\0';

    for (char *c = error->text; *c != '\0'; c++) {
        const unsigned char byte = (unsigned char)*c;
        if (byte < 0x20 || byte == 0x7f) *c = '?';
    }
    return status;
}
