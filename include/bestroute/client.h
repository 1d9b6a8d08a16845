/*
 * client.h - the C client: connect to a bestroute service, route or score prompts.
 *
 *   br_client *client;
 *   br_error error = {0};
 *   br_client_options options = {.url = "tcp://127.0.0.1:5555", .timeout_ms = 1000};
 *   if (br_client_connect(&client, &options, &error) != BR_OK) ...
 *
 *   br_client_query query = {.text = "What is 2 + 2?", .text_bytes = 14};
 *   br_answer *answer;
 *   br_status status = br_client_route(client, &answer, &(br_client_call){.queries = &query, .query_count = 1},
 *                                      &error);
 *   ... answer->results[0].model ...
 *   br_answer_free(answer);
 *   br_client_close(client);
 *
 * Thread-safe: any number of threads may call at once through one client; each
 * call uses a context of its own. Nothing leaks on any error. Needs nng only.
 */
#ifndef BESTROUTE_CLIENT_H
#define BESTROUTE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bestroute/error.h"
#include "bestroute/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct br_client br_client;

typedef struct br_client_options {
    const char *url;        /* tcp://, ipc://, tls+tcp://, inproc:// */
    uint32_t timeout_ms;    /* one call, retries included; 0: 30 s */
    uint32_t retries;       /* times an `overloaded` answer is tried again after its retry_ms, within the timeout */
    const char *tls_ca;     /* tls+tcp: PEM file with the authorities to trust */
    const char *tls_cert;   /* PEM file with the client's certificate and key, or NULL */
    const char *tls_name;   /* the server's name in its certificate; NULL: the host of the url */
} br_client_options;

/* Starts connecting in the background: a service that is not up yet is an error of the first call, not of this one.
 * BR_EINVAL: the url or an option. BR_EIO: a TLS file. BR_ENOTSUP: a transport the library lacks. BR_ENOMEM. */
BR_NODISCARD br_status br_client_connect(br_client **out, const br_client_options *options, br_error *error);

/* Accepts NULL. No call may be running. */
void br_client_close(br_client *client);

/* Text or tokens, exactly one. */
typedef struct br_client_query {
    const char *text; /* UTF-8 */
    size_t text_bytes;
    const uint32_t *tokens;
    size_t token_count;
    uint64_t prompt_tokens; /* billed input tokens; 0: the service's own count */
    uint64_t output_tokens; /* expected per sample; 0: the bundle's averages */
    double max_cost;        /* USD; 0: none. A cap of zero is written with policy fields */
} br_client_query;

/* Overrides of the service's defaults; zero or NULL leaves a field alone, except where `has_...` says otherwise. */
typedef struct br_client_policy {
    const char *kind;     /* "threshold", "budget", "utility", "tolerance", "pool" */
    const char *fallback; /* "best", "reference", "error" */
    bool has_threshold;
    bool has_max_cost;
    bool has_lambda;
    bool has_tolerance;
    bool has_total_budget;
    double threshold;
    double max_cost;
    double lambda;
    double tolerance;
    double total_budget;
    uint32_t max_n;
    const char *const *models; /* names */
    size_t model_count;
    const char *const *exclude;
    size_t exclude_count;
} br_client_policy;

typedef struct br_client_call {
    const br_client_query *queries;
    size_t query_count;
    const br_client_policy *policy; /* route; may be NULL */
    uint32_t deadline_ms;           /* 0: none */
    bool explain;                   /* route */
} br_client_call;

typedef struct br_answer_candidate {
    const char *model;
    uint32_t n;
    double quality;
    double cost; /* NAN: no price */
    bool allowed;
    const char *reason;
} br_answer_candidate;

typedef struct br_answer_result {
    const char *error;   /* NULL, or the code that kept this query from an answer */
    const char *message; /* with error */
    const char *model;   /* route */
    uint32_t n;
    double quality;
    double cost; /* NAN: no price */
    bool met;
    double margin;
    uint32_t tokens;
    bool truncated;
    const double *qualities; /* score */
    size_t quality_count;
    const br_answer_candidate *candidates; /* route with explain */
    size_t candidate_count;
} br_answer_result;

typedef struct br_answer_model {
    const char *name;
    bool has_price;
    double input_price; /* USD per token */
    double output_price;
    double avg_output_tokens;
    bool input_per_sample;
} br_answer_model;

/* Everything a reply holds; one allocation, freed as one. */
typedef struct br_answer {
    const char *error;   /* NULL, or the code of a refused request */
    const char *message; /* with error */
    uint32_t retry_ms;   /* with "overloaded" */
    const br_answer_result *results;
    size_t result_count;
    const char *bundle_name;
    const char *bundle_hash;
    uint64_t tokenize_us, queue_us, compute_us, total_us, batch;
    /* info */
    const br_answer_candidate *candidates;
    size_t candidate_count;
    uint32_t reference;
    const br_answer_model *models;
    size_t model_count;
    uint64_t max_queries, max_tokens, max_message_bytes, max_text_bytes;
    const char *version;
    const char *engine;
    const char *precision;
} br_answer;

/* Accepts NULL. */
void br_answer_free(br_answer *answer);

/* Each sends one request and waits for its reply.
 *   BR_OK          answered; single results may still carry errors
 *   BR_EINVAL      the service refused the request, or the call itself is wrong: see the error
 *   BR_ETOOBIG, BR_EBUSY (overloaded), BR_ETIMEDOUT (no answer in time, or `deadline`), BR_ENOTREADY, BR_ENOTSUP,
 *   BR_EINTERNAL   as the service answered
 *   BR_EIO         not connected, or the connection broke; BR_EFORMAT: the reply is not one; BR_ENOMEM
 * On any status but BR_OK *out is NULL and the error says why. */
BR_NODISCARD br_status br_client_route(br_client *client, br_answer **out, const br_client_call *call, br_error *error);
BR_NODISCARD br_status br_client_score(br_client *client, br_answer **out, const br_client_call *call, br_error *error);
BR_NODISCARD br_status br_client_info(br_client *client, br_answer **out, br_error *error);
BR_NODISCARD br_status br_client_ping(br_client *client, br_error *error);

/* On a client connected to the admin socket. folder NULL: the bundle's own folder again. */
BR_NODISCARD br_status br_client_reload(br_client *client, const char *folder, br_error *error);

#ifdef __cplusplus
}
#endif

#endif
