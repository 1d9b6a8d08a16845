/* http_message.c - see http_message.h. */
#include "http_message.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int http_parse(http_request *out, br_str bytes)
{
    static const struct {
        const char *text;
        bool head;
    } methods[] = {{"GET ", false}, {"HEAD ", true}};
    if (memmem(bytes.data, bytes.size, "\r\n\r\n", 4) == NULL)
        return bytes.size < HTTP_REQUEST_BYTES_MAX ? 0 : 431;
    const char *end = memchr(bytes.data, '\r', bytes.size);
    const char *method_end = memchr(bytes.data, ' ', (size_t)(end - bytes.data));
    if (method_end == NULL) return 400;
    const char *path = method_end + 1;
    const char *path_end = memchr(path, ' ', (size_t)(end - path));
    if (path_end == NULL || *path != '/') return 400;
    if ((size_t)(end - path_end) != 9 || memcmp(path_end, " HTTP/1.", 8) != 0) return 400;
    const char *query = memchr(path, '?', (size_t)(path_end - path));
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        const size_t size = strlen(methods[i].text);
        if ((size_t)(path - bytes.data) != size || memcmp(bytes.data, methods[i].text, size) != 0) continue;
        *out = (http_request){
            .path = {path, (size_t)((query != NULL ? query : path_end) - path)},
            .head = methods[i].head,
        };
        return 200;
    }
    return 405;
}

void http_page_clear(http_page *page)
{
    page->size = 0;
    page->failed = false;
}

void http_page_deinit(http_page *page)
{
    free(page->text);
}

void http_begin(http_page *page, int status, const char *type)
{
    page->status = status;
    page->type = type;
}

static bool grow(http_page *page, size_t room)
{
    if (room <= page->room) return true;
    char *grown = realloc(page->text, room * 2);
    if (grown == NULL) return false;
    page->text = grown;
    page->room = room * 2;
    return true;
}

void http_print(http_page *page, const char *format, ...)
{
    va_list arguments;
    va_list again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, format, arguments);
    page->failed = page->failed || length < 0 || !grow(page, page->size + (size_t)length + 1);
    if (!page->failed)
        page->size += (size_t)vsnprintf(page->text + page->size, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
}

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 431:
        return "Request Header Fields Too Large";
    default:
        return "Service Unavailable";
    }
}

char *http_page_compose(http_page *page, bool head, size_t *size)
{
    if (page->size == 0) http_print(page, "%s\n", reason_of(page->status));
    if (page->failed) return NULL;
    char headers[256];
    const int length = snprintf(headers, sizeof headers,
                                "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                                "Connection: close\r\n\r\n",
                                page->status, reason_of(page->status), page->type, page->size);
    assert(length > 0);
    assert((size_t)length < sizeof headers);
    const size_t body = head ? 0 : page->size;
    char *answer = malloc((size_t)length + body);
    if (answer == NULL) return NULL;
    memcpy(answer, headers, (size_t)length);
    if (body > 0) memcpy(answer + length, page->text, body);
    *size = (size_t)length + body;
    return answer;
}
