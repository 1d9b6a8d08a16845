/*
 * fuzz_request.c - any bytes as a request, on the data and the admin socket.
 *
 * What is accepted whole is encoded and decoded again: the second message must
 * be accepted too and encode to itself.
 */
#include <stdlib.h>

#include "protocol/request.h"
#include "support/notation.h"

static message encode(const br_request *request)
{
    message out = {0};
    if (br_request_encode(request, &out, message_append) != 0) abort();
    return out;
}

static void check(const uint8_t *data, size_t size, bool admin)
{
    const br_request_limits limits = {
        .queries_max = 64, .text_bytes_max = 4096, .message_bytes_max = 1 << 20, .admin = admin};
    br_arena arena;
    br_arena_init(&arena);
    br_request request;
    br_error error = {0};
    br_code code = br_request_decode(&request, data, size, &limits, &arena, &error);
    if ((code == BR_CODE_NONE) != (error.text[0] == '\0')) abort();

    bool whole = code == BR_CODE_NONE;
    for (size_t i = 0; whole && i < request.query_count; i++)
        whole = request.queries[i].error.code == BR_CODE_NONE;
    if (whole) {
        message once = encode(&request);
        if (br_request_decode(&request, once.bytes, once.size, &limits, &arena, &error) != BR_CODE_NONE)
            abort();
        message twice = encode(&request);
        if (once.size != twice.size || memcmp(once.bytes, twice.bytes, once.size) != 0) abort();
        free(once.bytes);
        free(twice.bytes);
    }
    br_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(data, size, false);
    check(data, size, true);
    return 0;
}
