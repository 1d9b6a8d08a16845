/*
 * fuzz_config.c - any bytes as the service's configuration file.
 *
 * What is accepted obeys the relations between options.
 */
#include "memory_file.h"
#include "serve/config.h"

static void demand(bool holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const memory_file file = memory_file_open(data, size);
    char flag[64];
    (void)snprintf(flag, sizeof flag, "--config=%s", file.path);
    char program[] = "bestrouted";
    char bundle[] = "--bundle=b";
    char *const arguments[] = {program, bundle, flag, NULL};
    char *const environment[] = {NULL};
    br_config config;
    br_error error = {0};
    const br_status status = br_config_load(&config, 3, arguments, environment, &error);
    demand(status == error.status);
    if (status == BR_OK) {
        demand(config.rank < config.ranks && config.max_queries <= config.queue_max);
        demand(config.max_text_bytes <= config.max_message_bytes && config.listen.count >= 1);
    }
    br_config_deinit(&config);
    memory_file_close(&file);
    return 0;
}
