/*
 * fuzz_http.c - any bytes as a monitor's request: what is accepted has a path among them.
 */
#include <stdlib.h>

#include "serve/http_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const br_str bytes = {(const char *)data, size};
    http_request request = {0};
    const int status = http_parse(&request, bytes);
    if (status != 0 && status != 200 && (status < 400 || status > 499)) abort();
    if (status != 200) return 0;
    if (request.path.size == 0 || request.path.data[0] != '/') abort();
    if (request.path.data < bytes.data || request.path.data + request.path.size > bytes.data + size) abort();
    return 0;
}
