/*
 * config.h - what the service is told: flags, environment, one file, defaults.
 *
 * The option `queue_max` is
 *
 *   --queue-max 1024   or  --queue-max=1024      on the command line
 *   BESTROUTE_QUEUE_MAX=1024                     in the environment
 *   queue_max = 1024                             in the file named by --config
 *
 * and that is the order of precedence; below all of them stands the default. One table in config.c makes the
 * flags, the variables, the keys, the help and the page docs/CONFIGURATION.md; core/options.h reads it.
 * `listen` may be given several times on the command line and in the file; in any source it may hold several
 * URLs, separated by commas.
 *
 * Pure but for reading the one file: no threads, no device, no sockets.
 */
#ifndef BESTROUTE_SERVE_CONFIG_H
#define BESTROUTE_SERVE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bestroute/error.h"
#include "core/limits.h"
#include "core/options.h"

typedef enum br_config_engine {
    BR_CONFIG_ENGINE_AUTO,
    BR_CONFIG_ENGINE_REFERENCE,
    BR_CONFIG_ENGINE_CPU,
    BR_CONFIG_ENGINE_CUDA,
    BR_CONFIG_ENGINE_NOOP, /* constant qualities without an encoder: measures the service alone */
} br_config_engine;

/* The help says what each means. A text that was not given is "", never NULL. */
typedef struct br_config {
    const char *bundle;
    br_option_list listen;
    const char *admin;
    const char *tls_cert;
    const char *tls_key;
    const char *tls_ca;
    int64_t drain_timeout_ms;

    int32_t engine;    /* br_config_engine */
    int32_t precision; /* br_precision */
    const char *devices;
    int64_t workers;
    int64_t tokenizer_threads;
    const char *gemm_cache;
    int64_t pass_timeout_ms;

    int64_t batch_tokens;
    int64_t batch_seqs;
    int64_t score_cache_mb;

    int64_t queue_max;
    int64_t max_queries;
    int64_t max_text_bytes;
    int64_t max_message_bytes;

    int64_t ranks;
    int64_t rank;
    const char *ranks_id;
    int64_t ranks_timeout_ms;

    const char *metrics;
    int32_t log_level; /* br_log_level */

    const char *config;
    bool check;
    bool version;
    bool help;

    br_options options; /* where each value came from; it owns every text above */
} br_config;

/* "--queue-max", "BESTROUTE_QUEUE_MAX", "FILE:12" or "default": where a field's value came from. */
#define BR_CONFIG_SOURCE(config_, field_) br_options_source(&(config_)->options, offsetof(br_config, field_))

/* Reads argv[1..argc), the environment ("NAME=value", ended by NULL; may be NULL) and the file. With `help`
 * or `version` nothing else is read or required. The error names the option, its source,
 * the value and what was expected.
 * BR_EINVAL, BR_EIO (the file), BR_ENOMEM. Release with br_config_deinit, also after a failure. */
BR_NODISCARD br_status br_config_load(br_config *out, int argc, char *const *argv, char *const *environment,
                                      br_error *error);
void br_config_deinit(br_config *config);

/* The help of bestrouted. */
void br_config_print_help(FILE *stream);

/* The table of docs/CONFIGURATION.md. */
void br_config_print_table(FILE *stream);

#endif
