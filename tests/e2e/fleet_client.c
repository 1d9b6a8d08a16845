/*
 * fleet_client.c - threads that route prompts over several services, for test_fleet_of_daemons.py.
 *
 *   fleet_client ORACLE_URL URL...
 *
 * The oracle is asked first what each prompt's decision is; it takes no part afterwards. For each line of
 * standard input one line of JSON says how things stand; at its end the threads stop, and one more line is
 * printed.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "bestroute/client.h"
#include "core/clock.h"

enum {
    THREADS = 6,
    PROMPTS = 5,
    PAUSE_MS = 4,        /* of a thread between two calls */
    TIMEOUT_MS = 240000, /* outlasts everything: a call that fails has been failed by the client */
    PROBE_MS = 500,
    HEDGE_MS = 200,
};

static const char *const prompts[PROMPTS] = {
    "What is 2 + 2?", "Prove that the square root of 2 is irrational.", "Translate to French: good morning",
    "naïve café 漢字", "Write a haiku about the sea, then explain each of its lines at length."};

typedef struct decision {
    char model[64];
    uint32_t n;
    double quality;
    char hash[80];
} decision;

typedef struct state {
    br_client *client;
    decision expected[PROMPTS];
    atomic_bool over;
    atomic_uint_least64_t calls; /* begun */
    atomic_uint_least64_t right;
    atomic_uint_least64_t wrong;
    atomic_uint_least64_t failed;
    atomic_uint_least64_t longest_ms;
    pthread_mutex_t mutex; /* guards first_error */
    char first_error[BR_ERROR_TEXT_BYTES];
} state;

static br_status ask(br_client *client, decision *out, size_t prompt, br_error *error)
{
    const br_client_query query = {.text = prompts[prompt], .text_bytes = strlen(prompts[prompt])};
    const br_client_call call = {.queries = &query, .query_count = 1};
    br_answer *answer;
    const br_status status = br_client_route(client, &answer, &call, error);
    *out = (decision){0};
    if (status == BR_OK) {
        snprintf(out->model, sizeof out->model, "%s", answer->results[0].model);
        snprintf(out->hash, sizeof out->hash, "%s", answer->bundle_hash);
        out->n = answer->results[0].n;
        out->quality = answer->results[0].quality;
    }
    br_answer_free(answer);
    return status;
}

static bool is_same(const decision *a, const decision *b)
{
    return strcmp(a->model, b->model) == 0 && strcmp(a->hash, b->hash) == 0 && a->n == b->n &&
           a->quality == b->quality;
}

static void note_failure(state *s, const char *text)
{
    pthread_mutex_lock(&s->mutex);
    if (s->first_error[0] == '\0') snprintf(s->first_error, sizeof s->first_error, "%s", text);
    pthread_mutex_unlock(&s->mutex);
}

static void call_once(state *s, size_t prompt)
{
    decision got;
    br_error error = {0};
    const uint64_t start_ns = br_clock_now_ns();
    atomic_fetch_add(&s->calls, 1);
    const br_status status = ask(s->client, &got, prompt, &error);
    const uint64_t took_ms = (br_clock_now_ns() - start_ns) / BR_NS_PER_MS;
    uint64_t longest = atomic_load(&s->longest_ms);
    while (took_ms > longest && !atomic_compare_exchange_weak(&s->longest_ms, &longest, took_ms)) continue;

    if (status != BR_OK) {
        atomic_fetch_add(&s->failed, 1);
        note_failure(s, error.text);
    } else if (!is_same(&got, &s->expected[prompt])) {
        atomic_fetch_add(&s->wrong, 1);
        note_failure(s, "another decision than the oracle's");
    } else {
        atomic_fetch_add(&s->right, 1);
    }
}

static void *run(void *context)
{
    state *s = context;
    for (size_t i = 0; !atomic_load(&s->over); i++) {
        call_once(s, i % PROMPTS);
        nanosleep(&(struct timespec){.tv_nsec = (long)PAUSE_MS * BR_NS_PER_MS}, NULL);
    }
    return NULL;
}

static void report(state *s)
{
    br_client_totals totals;
    br_client_endpoint all[BR_CLIENT_URLS_MAX];
    const size_t count = br_client_stats(s->client, &totals, all, BR_CLIENT_URLS_MAX);
    json_t *endpoints = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            endpoints, json_pack("{ss sb sb si sI sI sI sI sI}", "url", all[i].url, "connected",
                                 all[i].connected, "ejected", all[i].ejected, "outstanding",
                                 (int)all[i].outstanding, "sent", (json_int_t)all[i].sent, "answered",
                                 (json_int_t)all[i].answered, "refused", (json_int_t)all[i].refused, "failed",
                                 (json_int_t)all[i].failed, "abandoned", (json_int_t)all[i].abandoned));
    pthread_mutex_lock(&s->mutex);
    json_t *line =
        json_pack("{sI sI sI sI sI ss sI sI sI sI so}", "calls", (json_int_t)atomic_load(&s->calls), "right",
                  (json_int_t)atomic_load(&s->right), "wrong", (json_int_t)atomic_load(&s->wrong), "failed",
                  (json_int_t)atomic_load(&s->failed), "longest_ms", (json_int_t)atomic_load(&s->longest_ms),
                  "first_error", s->first_error, "counted", (json_int_t)totals.calls, "retries",
                  (json_int_t)totals.retries, "hedges", (json_int_t)totals.hedges, "hedges_won",
                  (json_int_t)totals.hedges_won, "endpoints", endpoints);
    pthread_mutex_unlock(&s->mutex);
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

static br_client *connect_to(const br_client_options *options)
{
    br_client *client;
    br_error error = {0};
    if (br_client_connect(&client, options, &error) == BR_OK) return client;
    fprintf(stderr, "%s\n", error.text);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc < 3) return 2;
    state s = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    br_client *oracle = connect_to(&(br_client_options){.url = argv[1], .timeout_ms = TIMEOUT_MS});
    for (size_t i = 0; i < PROMPTS; i++) {
        br_error error = {0};
        if (ask(oracle, &s.expected[i], i, &error) == BR_OK) continue;
        fprintf(stderr, "the oracle: %s\n", error.text);
        return 1;
    }
    br_client_close(oracle);

    s.client = connect_to(&(br_client_options){.urls = (const char *const *)(argv + 2),
                                               .url_count = (size_t)argc - 2,
                                               .timeout_ms = TIMEOUT_MS,
                                               .probe_ms = PROBE_MS,
                                               .hedge_ms = HEDGE_MS});
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, run, &s) != 0) return 1;
    }
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) report(&s);
    atomic_store(&s.over, true);
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    report(&s);
    br_client_close(s.client);
    return 0;
}
