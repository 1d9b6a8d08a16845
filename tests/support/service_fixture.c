/* service_fixture.c - the service in the test's process, and a peer. */
#include "service_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

#include "core/clock.h"
#include "serve/service.h"
#include "support/files.h"
#include "workers/workers.h"

const char *service_tiny_bundle(void)
{
    static char folder[512];
    const char *source = getenv("BESTROUTE_SOURCE");
    if (source == NULL) {
        print_message("BESTROUTE_SOURCE is not set: run through ctest\n");
        exit(77);
    }
    (void)snprintf(folder, sizeof folder, "%s/weights/tiny", source);
    return folder;
}

/* The fixture's flags stand in the environment, so that the test's flags win. */
static void configure(service *s, const char *const *flags)
{
    static int counter;
    counter++;
    (void)snprintf(s->url, sizeof s->url, "inproc://service-%d-%d", (int)getpid(), counter);
    (void)snprintf(s->admin, sizeof s->admin, "inproc://admin-%d-%d", (int)getpid(), counter);
    (void)snprintf(s->bundle, sizeof s->bundle, "%s", service_tiny_bundle());
    char listen[128];
    char admin[128];
    char bundle[600];
    (void)snprintf(listen, sizeof listen, "BESTROUTE_LISTEN=%s", s->url);
    (void)snprintf(admin, sizeof admin, "BESTROUTE_ADMIN=%s", s->admin);
    (void)snprintf(bundle, sizeof bundle, "BESTROUTE_BUNDLE=%s", s->bundle);
    char *const environment[] = {
        listen,
        admin,
        bundle,
        (char *)"BESTROUTE_ENGINE=reference",
        (char *)"BESTROUTE_WORKERS=1",
        (char *)"BESTROUTE_QUEUE_MAX=64",
        (char *)"BESTROUTE_MAX_QUERIES=64",
        NULL,
    };
    char *argv[SERVICE_FLAGS_MAX + 2] = {(char *)"bestrouted"};
    int argc = 1;
    for (; flags != NULL && argc <= SERVICE_FLAGS_MAX && flags[argc - 1] != NULL; argc++)
        argv[argc] = (char *)flags[argc - 1];
    br_error error = {0};
    if (br_config_load(&s->config, argc, argv, environment, &error) != BR_OK) fail_msg("%s", error.text);
}

void service_listen(service *s, const char *const *flags)
{
    memset(s, 0, sizeof *s);
    configure(s, flags);
    s->log_stream = open_memstream(&s->log_text, &s->log_size);
    assert_non_null(s->log_stream);
    s->log = (br_log){.stream = s->log_stream, .level = BR_LOG_DEBUG};
    br_error error = {0};
    if (br_server_create(&s->server, &s->config, &s->log, &error) != BR_OK) fail_msg("%s", error.text);
    if (br_server_listen(s->server, &error) != BR_OK) fail_msg("%s", error.text);
}

static void *keep(void *argument)
{
    service *s = argument;
    s->ran = br_server_run(s->server);
    return NULL;
}

void service_load(service *s)
{
    br_error error = {0};
    const br_status status = br_server_load(s->server, &error);
    if (status != BR_OK && status != BR_ECLOSED) fail_msg("%s", error.text); /* BR_ECLOSED: told to stop */
    assert_int_equal(pthread_create(&s->keeper, NULL, keep, s), 0);
    s->running = true;
}

void service_start(service *s, const char *const *flags)
{
    service_listen(s, flags);
    service_load(s);
}

void service_join(service *s)
{
    if (s->running) assert_int_equal(pthread_join(s->keeper, NULL), 0);
    s->running = false;
}

void service_stop(service *s)
{
    br_server_stop(s->server);
    service_join(s);
    br_server_destroy(s->server);
    (void)fclose(s->log_stream);
    free(s->log_text);
    br_config_deinit(&s->config);
}

void service_wait_for_waiting(service *s, int32_t count)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (br_workers_waiting(s->server->workers) != count)
        if (br_clock_now_ns() > until_ns) fail_msg("the queue never held %d", (int)count);
}

uint64_t service_counted(const service *s, br_counter counter)
{
    return br_metrics_get(&s->server->metrics, counter);
}

void service_wait_counted(const service *s, br_counter counter, uint64_t value)
{
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (service_counted(s, counter) < value) {
        if (br_clock_now_ns() > until_ns) fail_msg("%s never reached its value", br_counter_name(counter));
        nng_msleep(1);
    }
}

void service_reload(service *s)
{
    const uint64_t before = service_counted(s, BR_COUNTER_reloads);
    br_server_reload(s->server);
    service_wait_counted(s, BR_COUNTER_reloads, before + 1);
}

service_fault service_faults[BR_DEVICES_MAX];

/* The engine's own table and the one with faults, which outlives the service's encoders. */
static const br_backend_table *sound;
static br_backend_table faulty;
static br_backend *backends[BR_DEVICES_MAX]; /* planted */

/* Streams of planted devices, so that a wait knows its device. */
enum { STREAMS_MAX = 4 * BR_DEVICES_MAX };
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    br_stream *stream;
    service_fault *fault;
} streams[STREAMS_MAX];

static void put_stream(br_stream *stream, br_stream *in_place_of, service_fault *fault)
{
    (void)pthread_mutex_lock(&streams_lock);
    int i = 0;
    while (i < STREAMS_MAX && streams[i].stream != in_place_of) i++;
    assert_true(i < STREAMS_MAX);
    streams[i].stream = stream;
    streams[i].fault = fault;
    (void)pthread_mutex_unlock(&streams_lock);
}

static service_fault *fault_of(const br_stream *stream)
{
    (void)pthread_mutex_lock(&streams_lock);
    int i = 0;
    while (i < STREAMS_MAX && streams[i].stream != stream) i++;
    assert_true(i < STREAMS_MAX);
    service_fault *fault = streams[i].fault;
    (void)pthread_mutex_unlock(&streams_lock);
    return fault;
}

static br_status faulty_stream_create(br_backend *backend, br_stream **out, const br_model *model,
                                      const br_stream_shape *shape, br_error *error)
{
    const br_status status = sound->stream_create(backend, out, model, shape, error);
    int32_t device = 0;
    while (backends[device] != backend) device++;
    if (status != BR_OK) return status;
    put_stream(*out, NULL, &service_faults[device]);
    (void)atomic_fetch_add(&service_faults[device].streams, 1);
    return BR_OK;
}

static void faulty_stream_destroy(br_stream *stream)
{
    if (stream != NULL) {
        (void)atomic_fetch_sub(&fault_of(stream)->streams, 1);
        put_stream(NULL, stream, NULL);
    }
    sound->stream_destroy(stream);
}

static br_status faulty_wait(br_stream *stream)
{
    service_fault *fault = fault_of(stream);
    const br_status status = sound->wait(stream);
    (void)atomic_fetch_add(&fault->waits, 1);
    const int slow_ms = atomic_load(&fault->slow_ms);
    if (slow_ms > 0) nng_msleep(slow_ms);
    while (atomic_load(&fault->hangs)) nng_msleep(1);
    if (atomic_load(&fault->failures) == 0) return status;
    (void)atomic_fetch_sub(&fault->failures, 1);
    return BR_EDEVICE;
}

void service_plant_faults(service *s, int32_t device)
{
    br_backend *backend = s->server->devices.items[device].backend;
    if (backend->table != &faulty) {
        sound = backend->table;
        faulty = *sound;
        faulty.stream_create = faulty_stream_create;
        faulty.stream_destroy = faulty_stream_destroy;
        faulty.wait = faulty_wait;
    }
    service_fault *fault = &service_faults[device];
    atomic_store(&fault->streams, 0);
    atomic_store(&fault->waits, 0);
    atomic_store(&fault->failures, 0);
    atomic_store(&fault->slow_ms, 0);
    atomic_store(&fault->hangs, false);
    backends[device] = backend;
    backend->table = &faulty; /* encoders, made next, keep it */
}

static void wait_in_gate(void *context, int32_t worker)
{
    (void)worker;
    gate *g = context;
    (void)pthread_mutex_lock(&g->lock);
    g->held = true;
    (void)pthread_cond_broadcast(&g->changed);
    while (!g->released) (void)pthread_cond_wait(&g->changed, &g->lock);
    (void)pthread_mutex_unlock(&g->lock);
}

static void *hold(void *argument)
{
    gate *g = argument;
    assert_true(br_workers_run_on(g->service->server->workers, 0, wait_in_gate, g));
    return NULL;
}

void gate_close(gate *g, service *s)
{
    memset(g, 0, sizeof *g);
    g->service = s;
    (void)pthread_mutex_init(&g->lock, NULL);
    (void)pthread_cond_init(&g->changed, NULL);
    assert_int_equal(pthread_create(&g->thread, NULL, hold, g), 0);
    (void)pthread_mutex_lock(&g->lock);
    while (!g->held) (void)pthread_cond_wait(&g->changed, &g->lock);
    (void)pthread_mutex_unlock(&g->lock);
}

void gate_open(gate *g)
{
    (void)pthread_mutex_lock(&g->lock);
    g->released = true;
    (void)pthread_cond_broadcast(&g->changed);
    (void)pthread_mutex_unlock(&g->lock);
    (void)pthread_join(g->thread, NULL);
    (void)pthread_cond_destroy(&g->changed);
    (void)pthread_mutex_destroy(&g->lock);
}

void peer_open(peer *p, const char *url)
{
    assert_int_equal(nng_req0_open(&p->socket), 0);
    assert_int_equal(nng_socket_set_ms(p->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
    assert_int_equal(nng_dial(p->socket, url, NULL, 0), 0);
}

void peer_close(peer *p)
{
    (void)nng_close(p->socket);
}

void answer_free(peer_answer *a)
{
    if (a->message != NULL) nng_msg_free(a->message);
    a->message = NULL;
    br_arena_deinit(&a->arena);
}

static int append(void *sink, const char *bytes, size_t size)
{
    return nng_msg_append(sink, bytes, size) == 0 ? 0 : -1;
}

static nng_msg *encode(const br_request *request)
{
    nng_msg *message;
    assert_int_equal(nng_msg_alloc(&message, 0), 0);
    assert_int_equal(br_request_encode(request, message, append), 0);
    return message;
}

static void start(pending *w, peer *p, nng_msg *message)
{
    assert_int_equal(nng_ctx_open(&w->ctx, p->socket), 0);
    assert_int_equal(nng_aio_alloc(&w->aio, NULL, NULL), 0);
    nng_aio_set_timeout(w->aio, SERVICE_WAIT_MS);
    nng_aio_set_msg(w->aio, message);
    nng_ctx_send(w->ctx, w->aio);
    nng_aio_wait(w->aio);
    assert_int_equal(nng_aio_result(w->aio), 0);
    nng_ctx_recv(w->ctx, w->aio);
}

void pending_send(pending *w, peer *p, const br_request *request)
{
    start(w, p, encode(request));
}

void pending_wait(pending *w, peer_answer *a)
{
    nng_aio_wait(w->aio);
    const int result = nng_aio_result(w->aio);
    if (result != 0) fail_msg("no reply: %s", nng_strerror(result));
    if (a->message != NULL) nng_msg_free(a->message);
    a->message = nng_aio_get_msg(w->aio);
    nng_aio_free(w->aio);
    (void)nng_ctx_close(w->ctx);
    br_arena_reset(&a->arena, SIZE_MAX);
    br_error error = {0};
    if (br_reply_decode(&a->reply, nng_msg_body(a->message), nng_msg_len(a->message), &a->arena, &error) !=
        BR_OK)
        fail_msg("%s", error.text);
}

void peer_ask(peer *p, peer_answer *a, const br_request *request)
{
    pending w;
    pending_send(&w, p, request);
    pending_wait(&w, a);
}

void peer_ask_bytes(peer *p, peer_answer *a, const void *bytes, size_t size)
{
    nng_msg *message;
    assert_int_equal(nng_msg_alloc(&message, 0), 0);
    assert_int_equal(nng_msg_append(message, bytes, size), 0);
    pending w;
    start(&w, p, message);
    pending_wait(&w, a);
}

br_query text_query(const char *text)
{
    return (br_query){.has_text = true, .text = br_str_from(text), .max_cost = INFINITY};
}

static void write_piece(FILE *file, const char *bytes, size_t size)
{
    assert_int_equal(fwrite(bytes, 1, size, file), size);
}

void bundle_copy(char *folder, size_t size, const char *from, const char *to)
{
    static const char *const files[] = {"router.json", "config.json", "model.safetensors", "spm.model",
                                        "added_tokens.json"};
    (void)snprintf(folder, size, "/tmp/bestroute-bundle-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[700];
        (void)snprintf(path, sizeof path, "%s/%s", service_tiny_bundle(), files[i]);
        size_t bytes;
        char *content = read_whole(path, &bytes);
        (void)snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        const char *at = i == 0 ? strstr(content, from) : NULL;
        if (i == 0) assert_non_null(at);
        if (at != NULL) {
            write_piece(file, content, (size_t)(at - content));
            write_piece(file, to, strlen(to));
            write_piece(file, at + strlen(from), bytes - (size_t)(at - content) - strlen(from));
        } else {
            write_piece(file, content, bytes);
        }
        (void)fclose(file);
        free(content);
    }
}

void folder_remove(const char *folder)
{
    char command[700];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}
