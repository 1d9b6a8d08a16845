/*
 * fuzz_reply.c - any bytes as a reply; what is read is written and read again.
 */
#include <stdlib.h>

#include "protocol/reply.h"
#include "support/notation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const br_op ops[] = {BR_OP_PING, BR_OP_ROUTE, BR_OP_SCORE, BR_OP_STATS, BR_OP_INFO};
    br_arena arena;
    br_arena_init(&arena);
    br_reply reply;
    br_error error = {0};
    if (br_reply_decode(&reply, data, size, &arena, &error) == BR_OK) {
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
            if (ops[i] == BR_OP_INFO && reply.info == NULL) continue;
            reply.op = ops[i];
            message again = {0};
            if (br_reply_encode(&reply, &again, message_append) != 0) abort();
            br_reply second;
            if (br_reply_decode(&second, again.bytes, again.size, &arena, &error) != BR_OK) abort();
            free(again.bytes);
        }
    } else if (error.text[0] == '\0') {
        abort();
    }
    br_arena_deinit(&arena);
    return 0;
}
