/*
 * client.h - the C client: connect to a bestroute service, or to several that serve the same bundle; route or
 * score prompts.
 *
 *   br_error error = {0};
 *   br_client *client;
 *   br_client_options options = {.url = "tcp://127.0.0.1:5555", .timeout_ms = 1000};
 *   if (br_client_connect(&client, &options, &error) != BR_OK) ...
 *
 *   br_client_query query = {.text = "What is 2 + 2?", .text_bytes = 14};
 *   br_client_call call = {.queries = &query, .query_count = 1};
 *   br_answer *answer;
 *   if (br_client_route(client, &answer, &call, &error) != BR_OK) ... error.text says why
 *   ... answer->results[0].model, answer->results[0].n ...
 *   br_answer_free(answer);
 *   br_client_close(client);
 *
 * Thread-safe: any number of threads may call at once through one client; all share one connection to each
 * url. A broken connection is made again in the background. A call borrows its arguments only until it
 * returns; an answer is the caller's and outlives the client.
 *
 * Over several urls each call returns once, with one answer, even if some of the endpoints fail:
 *   choice     the usable endpoint with the fewest requests outstanding; equals take turns
 *   ejection   an endpoint is put aside after a lost connection, after not_ready, after three failures in a
 *              row, or when it is silent (requests are outstanding, none is answered for probe_ms, and
 *              neither is a ping for as long). It is pinged in the background, first at once, then every
 *              50 ms to 2 s, and comes back as soon as it answers
 *   retries    a request is sent again to another endpoint after a lost connection (at most three sends in
 *              all), after not_ready, and after overloaded (see `retries`). bad_request, too_large,
 *              unsupported, infeasible, deadline and internal are answers and end the call.
 *              A reload is never sent again
 *   hedging    with hedge_ms, a slow request also goes to a second endpoint; the first answer counts
 * With one url the same holds, except that nothing is ejected, pinged or hedged.
 *
 * Stands alone with status.h and error.h; usable from C++. Link with nng.
 */
#ifndef BESTROUTE_CLIENT_H
#define BESTROUTE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "bestroute/error.h"
#include "bestroute/status.h"

typedef struct br_client br_client;

enum {
    BR_CLIENT_URLS_MAX = 64,
    BR_CLIENT_GRACE_MS = 250, /* how long after its deadline a call still waits for an answer */
};

/* Times are at most 2^31 - 1 ms. */
typedef struct br_client_options {
    const char *url;         /* tcp://, ipc://, tls+tcp://, inproc:// */
    const char *const *urls; /* instead of `url`: services that are interchangeable */
    size_t url_count;        /* at most BR_CLIENT_URLS_MAX */
    uint32_t timeout_ms;     /* one call, retries included; 0: 30 s */
    uint32_t connect_ms;     /* of that, how long a call waits for a usable endpoint; 0: the whole timeout */
    /* How often a request is sent again after an `overloaded` answer: to another endpoint at once; where all
     * have answered so, when the first has rested for its retry_ms, if that is within the timeout. 0: twice
     * with several urls, never with one. */
    uint32_t retries;
    uint32_t probe_ms;      /* how long an endpoint may be silent, and a ping be unanswered; 0: 1 s */
    uint32_t hedge_ms;      /* a request unanswered after this also goes to a second endpoint; 0: never */
    uint32_t hedge_percent; /* of the calls may be hedged, beyond the first 10; at most 100; 0: 10 */
    const char *tls_ca;     /* tls+tcp: PEM file with the authorities to trust; needed there */
    const char *tls_cert;   /* PEM file with the client's certificate and key, or NULL */
    const char *tls_name;   /* the server's name in its certificate; NULL: the host of each url */
} br_client_options;

/* Starts connecting in the background: a service that is not up yet is an error of the first call, not of
 * this function. The options are not needed afterwards. With several urls the client has a thread of its own.
 * BR_EINVAL: a url or an option. BR_EIO: a TLS file. BR_ENOTSUP: a transport the library lacks. BR_ENOMEM.
 * On failure *out is NULL. */
BR_NODISCARD br_status br_client_connect(br_client **out, const br_client_options *options, br_error *error);

/* Accepts NULL. Calls that are running return BR_ECLOSED; this waits for them. No call may begin any more. */
void br_client_close(br_client *client);

/* How the requests to one endpoint ended since the client connected. Pings are not counted.
 * sent = outstanding + answered + refused + failed + abandoned. */
typedef struct br_client_endpoint {
    const char *url; /* the client's */
    bool connected;
    bool ejected; /* put aside until a ping is answered */
    uint32_t outstanding;
    uint64_t sent;
    uint64_t answered;
    uint64_t refused;   /* overloaded, not_ready */
    uint64_t failed;    /* connection lost, no answer in time, or bytes that are no answer */
    uint64_t abandoned; /* another endpoint was faster, or the client closed */
    uint64_t ejections;
} br_client_endpoint;

typedef struct br_client_totals {
    uint64_t calls;
    uint64_t retries;    /* sends of a request again, after a failure or refusal */
    uint64_t hedges;     /* requests that also went to a second endpoint */
    uint64_t hedges_won; /* answered there first */
} br_client_totals;

/* Fills at most `endpoints_max` endpoints, in the order of the urls, and the totals (which may be NULL), all
 * as of one moment. Returns how many endpoints there are. */
size_t br_client_stats(br_client *client, br_client_totals *totals, br_client_endpoint *endpoints,
                       size_t endpoints_max);

/* Overrides of the service's defaults. Zero or NULL keeps the default; a field with a `has_...` is used where
 * that is true. */
typedef struct br_client_policy {
    const char *kind;     /* "threshold", "budget", "utility", "tolerance", "pool" */
    const char *fallback; /* "best", "reference", "error" */
    bool has_threshold;
    bool has_max_cost;
    bool has_lambda;
    bool has_tolerance;
    bool has_total_budget;
    double threshold;    /* [0, 1] */
    double max_cost;     /* USD per query, >= 0 */
    double lambda;       /* quality per USD, >= 0 */
    double tolerance;    /* [0, 1] */
    double total_budget; /* USD for the whole call, >= 0 */
    uint32_t max_n;
    const char *const *models; /* names */
    size_t model_count;
    const char *const *exclude;
    size_t exclude_count;
} br_client_policy;

/* A number of tokens that holds for one model. */
typedef struct br_client_count {
    const char *model;
    uint64_t tokens;
} br_client_count;

/* Text or tokens, exactly one: the text is taken where `text` is not NULL. */
typedef struct br_client_query {
    const char *text; /* UTF-8; may hold zero bytes */
    size_t text_bytes;
    const uint32_t *tokens; /* ids of the bundle's own vocabulary, no special ones */
    size_t token_count;
    bool has_prompt_tokens; /* billed input tokens; without: the service's own count */
    bool has_output_tokens; /* expected per sample; without: the bundle's averages */
    bool has_max_cost;      /* this query's own cap */
    uint64_t prompt_tokens;
    uint64_t output_tokens;
    double max_cost;                               /* USD, >= 0 */
    const br_client_count *prompt_tokens_by_model; /* instead of one number, where the count is not 0 */
    size_t prompt_tokens_by_model_count;
    const br_client_count *output_tokens_by_model;
    size_t output_tokens_by_model_count;
    const br_client_policy *policy; /* for this query alone; may be NULL */
} br_client_query;

typedef struct br_client_call {
    const br_client_query *queries;
    size_t query_count;             /* 1 to the service's max_queries */
    const br_client_policy *policy; /* route; may be NULL */
    bool has_deadline;
    bool explain; /* route: fill the candidates of each result */
    /* Counted from the start of the call. After it the service gives up on a query, nothing is sent any more,
     * and the call returns BR_CLIENT_GRACE_MS later at the latest. */
    uint32_t deadline_ms;
} br_client_call;

typedef struct br_answer_candidate {
    const char *model;
    uint32_t n;
    double quality; /* explain; so are the fields below */
    double cost;    /* USD; NAN: no price */
    bool allowed;
    const char
        *reason; /* "", or why it was out: "filtered", "over_max_cost", "below_threshold", "no_price" */
} br_answer_candidate;

typedef struct br_answer_result {
    const char *error;   /* NULL, or why there is no answer, as a code: then only `message` is meaningful */
    const char *message; /* with error */
    const char *model;   /* route */
    uint32_t n;
    double quality;
    double cost; /* USD; NAN: no price */
    bool met;
    double margin;
    uint64_t tokens; /* the encoder used */
    bool truncated;
    const double *qualities; /* score; in the order of info's candidates */
    size_t quality_count;
    const br_answer_candidate *candidates; /* route with explain */
    size_t candidate_count;
} br_answer_result;

typedef struct br_answer_model {
    const char *name;
    bool has_price;
    double input_price; /* USD per token */
    double output_price;
    double avg_output_tokens; /* per sample; NaN where the bundle has none */
    bool input_per_sample;
} br_answer_model;

/* What a threshold gave on the prompts that the bundle was calibrated on; NAN where the reply has none. */
typedef struct br_answer_policy_row {
    double threshold;
    double reference_share; /* of the prompts */
    double mean_cost;       /* USD per prompt */
    double quality;
} br_answer_policy_row;

/* Everything a reply holds; one allocation, freed as one. Texts are never NULL unless said, "" where the
 * reply has none. What a reply of that kind does not carry is zero. */
typedef struct br_answer {
    const br_answer_result *results; /* route, score: one per query, in order */
    size_t result_count;
    const char *bundle_name;
    const char *bundle_hash;
    uint64_t tokenize_us, queue_us, compute_us, total_us;
    uint64_t batch; /* queries that shared the encoder pass */
    /* info */
    const br_answer_candidate *candidates; /* model and n alone */
    size_t candidate_count;
    size_t reference; /* index into candidates */
    const br_answer_model *models;
    size_t model_count;
    const br_client_policy *policy;           /* the service's defaults; NULL but for info */
    const br_answer_policy_row *policy_table; /* by rising threshold */
    size_t policy_table_count;                /* 0: the bundle was never calibrated */
    uint64_t policy_table_prompts;            /* it was measured on */
    uint64_t max_queries, max_tokens, max_message_bytes, max_text_bytes;
    const char *version;
    const char *engine;
    const char *precision;
    const char *const *devices;
    size_t device_count;
} br_answer;

/* Accepts NULL. */
void br_answer_free(br_answer *answer);

/* Each asks the service, or one of several, and waits for the answer.
 *   BR_OK          answered; single results may still carry errors
 *   BR_EINVAL      the service refused the request (bad_request), or the call itself is wrong
 *   BR_ETOOBIG     too_large, or the message would exceed what any service takes
 *   BR_EBUSY       overloaded, still after the retries
 *   BR_ETIMEDOUT   no answer within timeout_ms or deadline_ms, or the service's own word for it (deadline)
 *   BR_ENOTREADY   not_ready; of several: none was ready within connect_ms
 *   BR_ENOTSUP, BR_EINFEASIBLE, BR_EINTERNAL   as the service answered
 *   BR_EIO         not connected, or the connection broke again and again
 *   BR_EFORMAT     what came back is no reply
 *   BR_ECLOSED     the client was closed meanwhile
 *   BR_ENOMEM
 * On any status but BR_OK *out is NULL and the error says why: for a refusal "<code>: <message>". */
BR_NODISCARD br_status br_client_route(br_client *client, br_answer **out, const br_client_call *call,
                                       br_error *error);
BR_NODISCARD br_status br_client_score(br_client *client, br_answer **out, const br_client_call *call,
                                       br_error *error);
BR_NODISCARD br_status br_client_info(br_client *client, br_answer **out, br_error *error);
BR_NODISCARD br_status br_client_ping(br_client *client, br_error *error);

/* On a client connected to one admin socket (BR_EINVAL: several urls). folder NULL: the bundle's own folder
 * again. The answer names the bundle that serves from now on; `out` may be NULL. */
BR_NODISCARD br_status br_client_reload(br_client *client, br_answer **out, const char *folder,
                                        br_error *error);

#ifdef __cplusplus
}
#endif

#endif
