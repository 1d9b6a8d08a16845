/*
 * fuzz_wordpiece.c - any bytes as vocab.txt; a text is cut with what is accepted.
 */
#include <stdlib.h>

#include "bundle/tokenizer/tokenizer.h"

enum { IDS_MAX = 256 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    br_tokenizer *tokenizer;
    br_error error = {0};
    const br_status status = br_tokenizer_create_wordpiece(&tokenizer, (br_str){(const char *)data, size},
                                                           size % 2 == 0, "fuzz", &error);
    if (status != error.status || (status == BR_OK) != (tokenizer != NULL)) abort();
    if (status != BR_OK) return 0;
    int32_t ids[IDS_MAX];
    size_t count;
    if (br_tokenizer_encode(tokenizer, BR_STR_LITERAL("Hello, b\xC3\xA9 ab##c [CLS]"), ids, IDS_MAX,
                            &count) != BR_OK)
        abort();
    for (size_t i = 0; i < count && i < IDS_MAX; i++)
        if (ids[i] < 0 || ids[i] >= br_tokenizer_piece_count(tokenizer)) abort();
    br_tokenizer_destroy(tokenizer);
    return 0;
}
