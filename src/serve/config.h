/*
 * config.h - what the service is told: flags, environment, one file, defaults.
 *
 * One list makes the fields, the flags, the variables, the keys of the file, the
 * help and the page docs/CONFIGURATION.md. The option `queue_max` is
 *
 *   --queue-max 1024   or  --queue-max=1024      on the command line
 *   BESTROUTE_QUEUE_MAX=1024                     in the environment
 *   queue_max = 1024                             in the file named by --config
 *
 * and that is the order of precedence; below all of them stands the default. A
 * wrong value is an error wherever it stands, also where a stronger source
 * overrides it. `listen` may be given several times on the command line and in
 * the file; in any source it may hold several URLs, separated by commas.
 *
 * Pure but for reading the one file: no threads, no device, no sockets.
 *
 * Uses: dtype, error, limits, log, memory.  Used by: server, admin, bestrouted.
 */
#ifndef BESTROUTE_SERVE_CONFIG_H
#define BESTROUTE_SERVE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bestroute/error.h"
#include "core/limits.h"
#include "core/memory.h"

/* The order of the words in the list below. */
typedef enum br_config_engine {
    BR_CONFIG_ENGINE_AUTO,
    BR_CONFIG_ENGINE_REFERENCE,
    BR_CONFIG_ENGINE_CPU,
    BR_CONFIG_ENGINE_CUDA,
    BR_CONFIG_ENGINE_NOOP, /* constant qualities without an encoder: measures the service alone */
} br_config_engine;

typedef enum br_option_kind {
    BR_OPTION_TEXT,   /* const char *, never NULL */
    BR_OPTION_LIST,   /* br_config_list */
    BR_OPTION_INT,    /* int64_t in min..max */
    BR_OPTION_WORD,   /* int32_t: the index of the value among the words of its form, "a|b|c" */
    BR_OPTION_SWITCH, /* bool; flags without a value, not known to the environment and the file */
} br_option_kind;

/* X(kind, name, default, min, max, form of the value, help) */
#define BR_OPTION_LIST_ALL(X)                                                                                \
    X(TEXT, bundle, "", 0, 0, "FOLDER", "the bundle to serve; required")                                     \
    X(LIST, listen, "tcp://127.0.0.1:5555", 0, 0, "URL",                                                     \
      "where to listen: tcp://, ipc://, tls+tcp:// or inproc://; may be repeated")                           \
    X(TEXT, admin, "", 0, 0, "URL", "the admin socket, ipc:// (mode 0600) or inproc://; empty: none")        \
    X(TEXT, metrics, "", 0, 0, "URL",                                                                        \
      "http:// address for /metrics (Prometheus), /healthz and /readyz; empty: none")                        \
    X(WORD, engine, "auto", 0, 0, "auto|reference|cpu|cuda|noop",                                            \
      "what computes; noop answers constant qualities without an encoder, to measure the service alone")     \
    X(WORD, precision, "auto", 0, 0, "auto|f32|bf16|f16|fp8",                                                \
      "what the engine computes in; auto: its fastest exact enough")                                         \
    X(TEXT, gemm_cache, "", 0, 0, "FILE",                                                                    \
      "engine cuda: measure how each matrix product is best computed, and remember it here; empty: guess")   \
    X(TEXT, devices, "auto", 0, 0, "LIST",                                                                   \
      "which devices compute: auto (all the engine has), or such as 0,2 or 0,1,cpu; cpu may stand beside "   \
      "engine cuda's, and be repeated: a copy of the weights each")                                          \
    X(INT, workers, "0", 0, BR_WORKERS_MAX, "N",                                                             \
      "scoring threads of each device, one stream each; 0: as many as serve the engine best")                \
    X(INT, ranks, "1", 1, BR_RANKS_MAX, "N",                                                                 \
      "processes that load bundles together, over NCCL: told to reload through rank 0, all switch or none")  \
    X(INT, rank, "0", 0, BR_RANKS_MAX - 1, "N", "which of them this is; weights come from 0")                \
    X(TEXT, ranks_id, "", 0, 0, "FILE",                                                                      \
      "where rank 0 leaves NCCL's unique id for the others; not needed where NCCL_COMM_ID is set")           \
    X(INT, ranks_timeout_ms, "30000", 100, 3600000, "MS", "longest wait for the other ranks")                \
    X(INT, pass_timeout_ms, "30000", 0, 3600000, "MS",                                                       \
      "a device whose encoder pass takes longer is given up as hung; 0: never")                              \
    X(INT, tokenizer_threads, "0", 0, BR_WORKERS_MAX, "N",                                                   \
      "threads that turn text into tokens; 0: as many as the engine needs")                                  \
    X(INT, batch_tokens, "0", 0, BR_BATCH_TOKENS_MAX, "N",                                                   \
      "tokens of one encoder pass, more only for a single longer prompt; 0: what suits the engine")          \
    X(INT, batch_seqs, "256", 1, BR_BATCH_SEQS_MAX, "N", "most queries of one encoder pass")                 \
    X(INT, queue_max, "1024", 1, BR_QUEUE_QUERIES_MAX, "N",                                                  \
      "most queries admitted and not yet scored; more are answered `overloaded`")                            \
    X(INT, score_cache_mb, "0", 0, 65536, "MB",                                                              \
      "memory for the scores of prompts seen before, exact by their tokens, of the current bundle; 0: none") \
    X(INT, max_queries, "256", 1, BR_QUERIES_MAX, "N", "most queries of one request; at most queue_max")     \
    X(INT, max_text_bytes, "1048576", 1, BR_TEXT_BYTES_MAX, "BYTES", "longest prompt")                       \
    X(INT, max_message_bytes, "4194304", 1024, BR_MESSAGE_BYTES_MAX, "BYTES", "longest message")             \
    X(TEXT, tls_cert, "", 0, 0, "FILE", "PEM file with the certificate of tls+tcp:// listeners")             \
    X(TEXT, tls_key, "", 0, 0, "FILE", "PEM file with its private key")                                      \
    X(TEXT, tls_ca, "", 0, 0, "FILE",                                                                        \
      "PEM file with authorities; clients must then show a certificate of theirs")                           \
    X(WORD, log_level, "info", 0, 0, "debug|info|warn|error", "the least important events that are logged")  \
    X(INT, drain_timeout_ms, "10000", 0, 3600000, "MS",                                                      \
      "longest wait for requests in flight before exiting")                                                  \
    X(TEXT, config, "", 0, 0, "FILE", "file with further options, `name = value` a line")                    \
    X(SWITCH, check, "", 0, 0, "", "validate the configuration and the bundle, then exit: 0 good, 1 not")    \
    X(SWITCH, version, "", 0, 0, "", "print the version and exit")                                           \
    X(SWITCH, help, "", 0, 0, "", "print this help and exit")

typedef enum br_option_index {
#define BR_OPTION_ENUM(kind, name, initial, min, max, form, help) BR_OPTION_INDEX_##name,
    BR_OPTION_LIST_ALL(BR_OPTION_ENUM)
#undef BR_OPTION_ENUM
        BR_OPTION_COUNT,
} br_option_index;

/* One row of the list, for help, documentation and tests. */
typedef struct br_option_row {
    br_option_kind kind;
    const char *name;    /* "queue_max": the key in a file */
    const char *initial; /* the default as text */
    int64_t min;
    int64_t max;
    const char *form;
    const char *help;
} br_option_row;

typedef struct br_config_list {
    const char *items[BR_LISTENERS_MAX];
    int32_t count;
} br_config_list;

typedef const char *br_config_TEXT;
typedef br_config_list br_config_LIST;
typedef int64_t br_config_INT;
typedef int32_t br_config_WORD;
typedef bool br_config_SWITCH;

typedef struct br_config {
#define BR_OPTION_FIELD(kind, name, initial, min, max, form, help) br_config_##kind name;
    BR_OPTION_LIST_ALL(BR_OPTION_FIELD)
#undef BR_OPTION_FIELD
    const char *sources[BR_OPTION_COUNT]; /* "--queue-max", "BESTROUTE_QUEUE_MAX", "file:12", "default" */
    br_arena arena;                       /* owns every string above */
} br_config;

/* Reads argv[1..argc), the environment ("NAME=value", ended by NULL; may be NULL) and the file. With `help` or
 * `version` nothing else is required. The error names the option, its source, the value and what was expected.
 * BR_EINVAL, BR_EIO (the file), BR_ENOMEM. Release with br_config_deinit, also after a failure. */
BR_NODISCARD br_status br_config_load(br_config *out, int argc, char *const *argv, char *const *environment,
                                      br_error *error);
void br_config_deinit(br_config *config);

const br_option_row *br_config_option(br_option_index index);

/* "--queue-max" or "BESTROUTE_QUEUE_MAX" into out[size]. */
void br_config_flag_name(char *out, size_t size, br_option_index index);
void br_config_variable_name(char *out, size_t size, br_option_index index);

/* The help of bestrouted. */
void br_config_print_help(FILE *stream);

/* The table of docs/CONFIGURATION.md. */
void br_config_print_table(FILE *stream);

#endif
