/*
 * http_message.h - an HTTP request read from its bytes, and a page made into the bytes of its answer. Pure.
 */
#ifndef BESTROUTE_SERVE_HTTP_MESSAGE_H
#define BESTROUTE_SERVE_HTTP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/memory.h"

enum { HTTP_REQUEST_BYTES_MAX = 4096 }; /* request line and headers */

/* The first line of a request, as far as it matters. */
typedef struct http_request {
    br_str path; /* without its query */
    bool head;   /* HEAD: the answer without its body */
} http_request;

/* 0: there is more to come; 200: read into *out, which points into the bytes; otherwise the status to refuse
 * it with. */
int http_parse(http_request *out, br_str bytes);

/* Zeroed: empty. Release with http_page_deinit. */
typedef struct http_page {
    int status;
    const char *type;
    char *text; /* kept for the next page */
    size_t size;
    size_t room;
    bool failed; /* out of memory */
} http_page;

void http_page_clear(http_page *page);
void http_page_deinit(http_page *page);

/* Status and type, before the first http_print; a page that is given neither is a 404. `type`: a literal. */
void http_begin(http_page *page, int status, const char *type);
void http_print(http_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The whole answer, headers and body, *size bytes; without the body if `head`. A page without text gets the
 * name of its status. Release with free. NULL: out of memory, here or before. */
char *http_page_compose(http_page *page, bool head, size_t *size);

#endif
