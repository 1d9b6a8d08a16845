/*
 * run.c - route and score: prompts in, several requests in flight, results out in the order of the input.
 *
 *            tail: being filled          head: printed next
 *               |                           |
 *     jobs   [EMPTY] [READY] [READY] [DONE] [DONE]       a ring; each job has a thread
 *
 *   EMPTY --main fills--> READY --its thread calls the service--> DONE --main prints--> EMPTY
 *
 * A job that is partly filled leaves when no further prompt came for LINGER_MS, so that prompts typed or
 * piped in slowly are answered one by one. The main thread waits in poll for input and for the byte that a
 * thread writes when its job is done.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/thread.h"
#include "input.h"
#include "output.h"
#include "progress.h"

enum {
    LINGER_MS = 10,
    REDRAW_MS = 200,
    MESSAGE_BYTES_SLACK = 1024, /* of a request, around its queries and the names of its policy */
    QUERY_BYTES_SLACK = 256,    /* of a query, around its text, tokens and names */
    TOKEN_BYTES = 5,
};

typedef enum job_state { EMPTY, READY, DONE } job_state;

typedef struct run run;

typedef struct job {
    run *owner;
    pthread_t thread;
    bool has_thread;
    job_state state; /* under the owner's mutex; the rest belongs to main, or to the thread while READY */
    cli_prompt *prompts;
    size_t count;
    br_client_query *queries; /* of the prompts that are sent */
    size_t query_count;
    uint64_t bytes;      /* of the message, at most */
    uint64_t since_ns;   /* its first prompt */
    uint64_t read_bytes; /* of the input, up to its last prompt */
    br_answer *answer;
    br_status status;
    br_error error;
} job;

struct run {
    const cli_options *options;
    br_client *client;
    br_answer *info;
    cli_input *input;
    cli_output output;
    cli_progress progress;
    br_client_call call; /* what all requests share */
    bool one_request;    /* a pool decides all prompts together */
    size_t capacity;     /* prompts per job */
    uint64_t bytes_max;  /* per job */
    job *jobs;
    size_t job_count;
    size_t head;
    size_t tail; /* jobs head .. tail - 1, modulo job_count, are READY or DONE */
    bool input_ended;
    cli_prompt pending; /* read, but of the next job */
    bool has_pending;
    int wake[2];           /* pipe */
    pthread_mutex_t mutex; /* guards stop and the states */
    pthread_cond_t changed;
    bool stop;
};

/* Fills the error and returns the code. */
__attribute__((format(printf, 3, 4))) static cli_exit end_with(cli_exit code, br_error *error,
                                                               const char *format, ...)
{
    char text[BR_ERROR_TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)!br_fail(error, BR_EINTERNAL, "%s", text);
    return code;
}

static void call_service(job *j)
{
    const run *r = j->owner;
    br_client_call call = r->call;
    call.queries = j->queries;
    call.query_count = j->query_count;
    j->error = (br_error){0};
    if (r->options->command == CLI_ROUTE) {
        j->status = br_client_route(r->client, &j->answer, &call, &j->error);
    } else {
        j->status = br_client_score(r->client, &j->answer, &call, &j->error);
    }
}

static void *work(void *context)
{
    job *j = context;
    run *r = j->owner;
    br_lock(&r->mutex);
    for (;;) {
        while (j->state != READY && !r->stop) br_cond_wait(&r->changed, &r->mutex);
        if (r->stop) break;
        br_unlock(&r->mutex);
        call_service(j);
        br_lock(&r->mutex);
        j->state = DONE;
        (void)!write(r->wake[1], "", 1); /* never blocks; a full pipe wakes main too */
    }
    br_unlock(&r->mutex);
    return NULL;
}

static void set_state(job *j, job_state state)
{
    br_lock(&j->owner->mutex);
    j->state = state;
    br_cond_broadcast(&j->owner->changed);
    br_unlock(&j->owner->mutex);
}

static bool is_done(job *j)
{
    br_lock(&j->owner->mutex);
    const bool done = j->state == DONE;
    br_unlock(&j->owner->mutex);
    return done;
}

static uint64_t names_bytes(const char *const *names, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += strlen(names[i]) + TOKEN_BYTES;
    return bytes;
}

static uint64_t policy_bytes(const br_client_policy *policy)
{
    if (policy == NULL) return 0;
    return QUERY_BYTES_SLACK + names_bytes(policy->models, policy->model_count) +
           names_bytes(policy->exclude, policy->exclude_count);
}

static uint64_t counts_bytes(const br_client_count *counts, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) bytes += strlen(counts[i].model) + 16;
    return bytes;
}

static uint64_t prompt_bytes(const cli_prompt *prompt)
{
    if (prompt->error != NULL) return 0;
    const br_client_query *query = &prompt->query;
    return QUERY_BYTES_SLACK + query->text_bytes + (uint64_t)query->token_count * TOKEN_BYTES +
           policy_bytes(query->policy) +
           counts_bytes(query->prompt_tokens_by_model, query->prompt_tokens_by_model_count) +
           counts_bytes(query->output_tokens_by_model, query->output_tokens_by_model_count);
}

typedef enum filled { FULL, WAITS, ENDED, FAILED } filled;

/* Takes `r->pending` into the job. */
static void take_pending(run *r, job *j, uint64_t bytes)
{
    cli_prompt *to = &j->prompts[j->count];
    const cli_prompt spare = *to;
    *to = r->pending;
    r->pending = spare;
    r->has_pending = false;

    if (j->count == 0) j->since_ns = br_clock_now_ns();
    if (to->error == NULL) j->queries[j->query_count++] = to->query;
    j->count++;
    j->bytes += bytes;
    uint64_t total_bytes;
    cli_input_progress(r->input, &j->read_bytes, &total_bytes);
}

static filled fill(run *r, job *j, br_error *error)
{
    for (;;) {
        if (!r->has_pending) {
            switch (cli_input_next(r->input, &r->pending, error)) {
            case CLI_NEXT_PROMPT:
                r->has_pending = true;
                break;
            case CLI_NEXT_WAIT:
                return WAITS;
            case CLI_NEXT_END:
                return ENDED;
            case CLI_NEXT_FAILED:
                return FAILED;
            }
        }
        uint64_t bytes = prompt_bytes(&r->pending);
        if (bytes > r->bytes_max) {
            cli_prompt_refuse(&r->pending, "too_large", "the prompt alone fills more than a message");
            bytes = 0;
        }
        if (j->count == r->capacity || j->bytes + bytes > r->bytes_max) return FULL;
        take_pending(r, j, bytes);
    }
}

static void dispatch(run *r, job *j)
{
    j->status = BR_OK;
    j->answer = NULL;
    r->tail++;
    set_state(j, j->query_count > 0 ? READY : DONE);
}

static void print_results(run *r, job *j)
{
    size_t answered = 0;
    const char *code = cli_code_of(cli_exit_of(j->status), j->status);
    cli_progress_clear(&r->progress);
    for (size_t i = 0; i < j->count; i++) {
        cli_prompt *prompt = &j->prompts[i];
        if (prompt->error != NULL) {
            cli_output_result(&r->output, prompt, NULL, prompt->error, prompt->message);
        } else if (j->status == BR_OK) {
            cli_output_result(&r->output, prompt, &j->answer->results[answered++], NULL, NULL);
        } else {
            cli_output_result(&r->output, prompt, NULL, code, cli_without_code(j->error.text, code));
        }
    }
}

/* Whether the next request would fail in the same way. A deadline that the service itself reports is only of
 * this request. */
static bool ends_the_run(const job *j)
{
    switch (j->status) {
    case BR_OK:
    case BR_EBUSY:
    case BR_EINTERNAL:
    case BR_EINFEASIBLE:
        return false;
    case BR_ETIMEDOUT:
        return cli_without_code(j->error.text, "deadline") == j->error.text;
    default:
        return true;
    }
}

/* A failure that ends the run is reported once; only --json repeats it for each prompt of the request. */
static void print_job(run *r, job *j)
{
    if (r->options->json || !ends_the_run(j)) print_results(r, j);
    for (size_t i = 0; i < j->count; i++) cli_prompt_clear(&j->prompts[i]);
    br_answer_free(j->answer);
    j->answer = NULL;
    j->count = j->query_count = 0;
    j->bytes = 0;
    fflush(stdout);
}

static void draw(run *r, uint64_t read_bytes)
{
    uint64_t ignored;
    uint64_t total_bytes;
    cli_input_progress(r->input, &ignored, &total_bytes);
    cli_progress_update(&r->progress, r->output.totals.prompts, read_bytes, total_bytes, br_clock_now_ns());
}

/* Prints what is done, in order. Otherwise than CLI_EXIT_OK: the run is over. */
static cli_exit print_done(run *r, br_error *error)
{
    while (r->head < r->tail) {
        job *j = &r->jobs[r->head % r->job_count];
        if (!is_done(j)) break;
        const bool ends = ends_the_run(j);
        print_job(r, j);
        draw(r, j->read_bytes);
        if (ends) {
            (void)!br_fail(error, j->status, "%s%s", j->error.text,
                           r->head > 0 ? " (the run stops here)" : "");
            return cli_exit_of(j->status);
        }
        if (ferror(stdout)) return end_with(CLI_EXIT_BROKEN, error, "standard output: %s", strerror(errno));
        set_state(j, EMPTY);
        r->head++;
    }
    return CLI_EXIT_OK;
}

/* Waits for input (where `for_input`) or for a finished job, at most `most_ms`; -1: no limit. */
static void wait_for(run *r, bool for_input, int most_ms)
{
    if (r->progress.enabled && (most_ms < 0 || most_ms > REDRAW_MS)) most_ms = REDRAW_MS;
    struct pollfd ready[] = {
        {.fd = r->wake[0], .events = POLLIN},
        {.fd = for_input ? cli_input_fd(r->input) : -1, .events = POLLIN},
    };
    (void)poll(ready, 2, most_ms);
    char bytes[64];
    while (read(r->wake[0], bytes, sizeof bytes) > 0) continue;
}

/* Sends the job if its prompts have waited LINGER_MS for others; else waits for more input. */
static void linger(run *r, job *j)
{
    if (j->count == 0 || r->one_request) {
        wait_for(r, true, -1);
        return;
    }
    const uint64_t due_ns = j->since_ns + (uint64_t)LINGER_MS * BR_NS_PER_MS;
    const uint64_t now_ns = br_clock_now_ns();
    if (now_ns >= due_ns) {
        dispatch(r, j);
    } else {
        wait_for(r, true, (int)((due_ns - now_ns) / BR_NS_PER_MS) + 1);
    }
}

/* One step of filling. Otherwise than CLI_EXIT_OK: the run is over. */
static cli_exit feed(run *r, job *j, br_error *error)
{
    switch (fill(r, j, error)) {
    case FULL:
        if (r->one_request)
            return end_with(
                CLI_EXIT_USAGE, error,
                "a pool decides all its prompts in one request; the service takes at most %zu prompts "
                "and %llu bytes in one, and the input has more",
                r->capacity, (unsigned long long)r->info->max_message_bytes);
        dispatch(r, j);
        return CLI_EXIT_OK;
    case WAITS:
        linger(r, j);
        return CLI_EXIT_OK;
    case ENDED:
        r->input_ended = true;
        if (j->count > 0) dispatch(r, j);
        return CLI_EXIT_OK;
    case FAILED:
        break;
    }
    return CLI_EXIT_BROKEN;
}

static cli_exit loop(run *r, br_error *error)
{
    for (;;) {
        const cli_exit printed = print_done(r, error);
        if (printed != CLI_EXIT_OK) return printed;

        if (!r->input_ended && r->tail - r->head < r->job_count) {
            const cli_exit fed = feed(r, &r->jobs[r->tail % r->job_count], error);
            if (fed != CLI_EXIT_OK) return fed;
        } else if (r->head == r->tail) {
            return CLI_EXIT_OK;
        } else {
            wait_for(r, false, -1);
        }
    }
}

static bool is_pool(const run *r)
{
    if (r->options->command != CLI_ROUTE) return false;
    const char *kind = r->options->policy.kind != NULL ? r->options->policy.kind : r->info->policy->kind;
    return kind != NULL && strcmp(kind, "pool") == 0;
}

static size_t smaller(size_t a, uint64_t b)
{
    return a < b ? a : (size_t)b;
}

static void settle(run *r, const cli_options *options)
{
    r->one_request = is_pool(r);
    r->capacity = smaller(r->one_request ? CLI_BATCH_MAX : options->batch, r->info->max_queries);
    if (r->capacity == 0) r->capacity = 1; /* the service does not say */
    r->job_count = r->one_request ? 1 : options->parallel;
    const uint64_t overhead = MESSAGE_BYTES_SLACK + policy_bytes(&options->policy);
    r->bytes_max = r->info->max_message_bytes > overhead ? r->info->max_message_bytes - overhead : 0;
    r->call = (br_client_call){
        .policy = options->has_policy ? &options->policy : NULL,
        .has_deadline = options->has_deadline,
        .deadline_ms = options->deadline_ms,
        /* The table ends with what the reference alone would have cost, which only explain brings. */
        .explain = options->command == CLI_ROUTE && (options->explain || !options->json),
    };
}

static cli_exit start_jobs(run *r, br_error *error)
{
    if (pipe2(r->wake, O_NONBLOCK | O_CLOEXEC) != 0)
        return end_with(CLI_EXIT_BROKEN, error, "cannot make a pipe: %s", strerror(errno));
    r->jobs = calloc(r->job_count, sizeof *r->jobs);
    if (r->jobs == NULL) return end_with(CLI_EXIT_BROKEN, error, "out of memory for requests");
    for (size_t i = 0; i < r->job_count; i++) {
        job *j = &r->jobs[i];
        j->owner = r;
        j->prompts = calloc(r->capacity, sizeof *j->prompts);
        j->queries = calloc(r->capacity, sizeof *j->queries);
        if (j->prompts == NULL || j->queries == NULL)
            return end_with(CLI_EXIT_BROKEN, error, "out of memory for requests");
        j->has_thread = br_thread_start(&j->thread, work, j);
        if (!j->has_thread) return end_with(CLI_EXIT_BROKEN, error, "the system gives no more threads");
    }
    return CLI_EXIT_OK;
}

static void stop_jobs(run *r)
{
    br_lock(&r->mutex);
    r->stop = true;
    br_cond_broadcast(&r->changed);
    br_unlock(&r->mutex);
    for (size_t i = 0; r->jobs != NULL && i < r->job_count; i++) {
        job *j = &r->jobs[i];
        if (j->has_thread) br_thread_join(j->thread);
        for (size_t p = 0; j->prompts != NULL && p < r->capacity; p++) cli_prompt_deinit(&j->prompts[p]);
        br_answer_free(j->answer);
        free(j->prompts);
        free(j->queries);
    }
    free(r->jobs);
}

static cli_exit run_all(run *r, const cli_options *options, br_error *error)
{
    br_status status = br_client_info(r->client, &r->info, error);
    if (status != BR_OK) return cli_exit_of(status);
    settle(r, options);
    const cli_limits limits = {
        .text_bytes_max = r->info->max_text_bytes,
        .message_bytes_max = r->info->max_message_bytes,
    };
    status = cli_input_open(&r->input, options, &limits, error);
    if (status != BR_OK) return status == BR_ENOMEM ? CLI_EXIT_BROKEN : CLI_EXIT_USAGE;
    cli_output_init(&r->output, options, r->info, cli_input_has_lines(r->input));
    cli_progress_init(&r->progress, options, br_clock_now_ns());

    cli_exit code = start_jobs(r, error);
    if (code == CLI_EXIT_OK) code = loop(r, error);
    cli_progress_clear(&r->progress);
    if (code == CLI_EXIT_OK || r->output.totals.prompts > 0) cli_output_totals(&r->output);
    return code == CLI_EXIT_OK && r->output.totals.failed > 0 ? CLI_EXIT_SOME_FAILED : code;
}

cli_exit cli_run(const cli_options *options, br_client *client)
{
    run r = {.options = options, .client = client, .wake = {-1, -1}};
    br_mutex_init(&r.mutex);
    br_cond_init(&r.changed);

    br_error error = {0};
    const cli_exit code = run_all(&r, options, &error);
    /* After results, one more JSON object would be taken for one of them. */
    if (error.text[0] != '\0')
        cli_report_error(options->json && r.output.totals.prompts == 0, cli_code_of(code, error.status),
                         error.text, NULL);

    stop_jobs(&r);
    cli_prompt_deinit(&r.pending);
    cli_input_close(r.input);
    br_answer_free(r.info);
    for (int i = 0; i < 2; i++) {
        if (r.wake[i] >= 0) close(r.wake[i]);
    }
    br_cond_destroy(&r.changed);
    br_mutex_destroy(&r.mutex);
    return code;
}
