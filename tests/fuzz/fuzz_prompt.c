/*
 * fuzz_prompt.c - any bytes as a line of JSON given to the command.
 *
 * What is accepted has either a text or tokens; what is refused says why.
 */
#include <stdlib.h>

#include "cli/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cli_prompt prompt = {0};
    if (cli_prompt_from_json(&prompt, (const char *)data, size) != BR_OK) abort();
    if ((prompt.error == NULL) == (prompt.message != NULL)) abort();
    if (prompt.error == NULL && (prompt.query.text != NULL) == (prompt.query.tokens != NULL)) abort();
    cli_prompt_clear(&prompt);
    if (cli_prompt_from_text(&prompt, (const char *)data, size) != BR_OK) abort();
    if (prompt.query.text_bytes != size) abort();
    cli_prompt_deinit(&prompt);
    return 0;
}
