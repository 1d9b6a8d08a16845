/*
 * http.h - a small HTTP server for monitors: GET and HEAD, one answer a connection.
 *
 * One thread. It holds at most HTTP_CONNECTIONS_MAX connections, and closes each one patience_ms after
 * accepting it. When all are taken the oldest makes room for the next. So clients that send or read slowly
 * keep no other out, and the server never has more descriptors open than that.
 *
 * Uses: error, memory, http_message.  Used by: monitor.
 */
#ifndef BESTROUTE_SERVE_HTTP_H
#define BESTROUTE_SERVE_HTTP_H

#include "bestroute/error.h"
#include "core/memory.h"
#include "http_message.h"

enum { HTTP_CONNECTIONS_MAX = 32 };

typedef struct http http;

/* Fills the page for `path` (of the request, without its query). On the server's thread. */
typedef void (*http_answer_fn)(void *context, br_str path, http_page *page);

/* Serves `url`, http://address:port, until closed. BR_EIO: it cannot be listened on; BR_ENOMEM; BR_EINTERNAL:
 * no thread. On failure *out is NULL. */
BR_NODISCARD br_status http_open(http **out, const char *url, uint32_t patience_ms, http_answer_fn answer,
                                 void *context, br_error *error);
void http_close(http *server); /* accepts NULL */

#endif
