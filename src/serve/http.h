/*
 * http.h - a small HTTP server for monitors: GET and HEAD, one answer a connection.
 *
 * One thread; it holds at most HTTP_CONNECTIONS_MAX connections, each for so long at most as its opener says.
 * When all are taken the oldest makes room for the next, so clients that send or read slowly keep nobody out,
 * and cost no more than so many descriptors.
 *
 * Uses: error, memory.  Used by: monitor.
 */
#ifndef BESTROUTE_SERVE_HTTP_H
#define BESTROUTE_SERVE_HTTP_H

#include <stdbool.h>

#include "bestroute/error.h"
#include "core/memory.h"

enum {
    HTTP_CONNECTIONS_MAX = 32,
    HTTP_REQUEST_BYTES_MAX = 4096, /* request line and headers */
};

typedef struct http http;
typedef struct http_page http_page;

/* Fills the page for `path` (of the request, without its query). On the server's thread. */
typedef void (*http_answer_fn)(void *context, br_str path, http_page *page);

/* Status and type, before the first http_print; a page that is given neither is a 404. `type`: a literal. */
void http_begin(http_page *page, int status, const char *type);
void http_print(http_page *page, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Serves `url`, http://address:port, until closed; a connection is closed patience_ms after it was accepted.
 * BR_EIO: it cannot be listened on; BR_ENOMEM; BR_EINTERNAL: no thread. On failure *out is NULL. */
BR_NODISCARD br_status http_open(http **out, const char *url, uint32_t patience_ms, http_answer_fn answer,
                                 void *context, br_error *error);
void http_close(http *server); /* accepts NULL */

/* What stands at the beginning of a request's bytes. */
typedef struct http_request {
    br_str path;
    bool head; /* HEAD: the answer without its body */
} http_request;

/* 0: there is more to come; 200: read into *out, which points into the bytes; otherwise the status to refuse
 * with. Pure. */
int http_parse(http_request *out, br_str bytes);

#endif
