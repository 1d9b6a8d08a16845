/* sockets.c - see sockets.h. */
#include "sockets.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nng/nng.h> /* first: the two below need it */

#include <nng/protocol/reqrep0/rep.h>
#include <nng/supplemental/tls/tls.h>

#include "call.h"
#include "core/file.h"
#include "core/memory.h"
#include "core/thread.h"
#include "dispatch.h"
#include "ipc_guard.h"
#include "monitor.h"

enum {
    ADMIN_CONTEXTS = 8,      /* a reload occupies one until it is done */
    MESSAGE_SLACK = 1 << 20, /* a message this much over the limit still gets `too_large` */
    PEM_BYTES_MAX = 1 << 20,
    ADMIN_MODE = 0600,
};

/* The whole file as a string; release with free. */
static br_status read_pem(char **out, const char *option, const char *path, br_error *error)
{
    br_error why = {0};
    size_t size;
    br_status status = br_file_load(out, &size, path, PEM_BYTES_MAX, &why);
    if (status != BR_OK) return br_fail(error, status, "%s: %s", option, why.text);
    if (memchr(*out, '\0', size) == NULL) return BR_OK;
    free(*out);
    *out = NULL;
    return br_fail(error, BR_EFORMAT, "%s: %s: found a zero byte, expected PEM", option, path);
}

static br_status tls_fail(br_error *error, const char *option, const char *path, int result)
{
    return br_fail(error, result == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "%s: \"%s\" was refused: %s", option,
                   path, nng_strerror(result));
}

static br_status set_authorities(nng_tls_config *tls, const char *path, br_error *error)
{
    char *authorities;
    const br_status status = read_pem(&authorities, "tls_ca", path, error);
    if (status != BR_OK) return status;
    int result = nng_tls_config_ca_chain(tls, authorities, NULL);
    if (result == 0) result = nng_tls_config_auth_mode(tls, NNG_TLS_AUTH_MODE_REQUIRED);
    free(authorities);
    return result == 0 ? BR_OK : tls_fail(error, "tls_ca", path, result);
}

static br_status make_tls(nng_tls_config **out, const br_config *config, br_error *error)
{
    *out = NULL;
    char *certificate = NULL;
    char *key = NULL;
    nng_tls_config *tls = NULL;
    br_status status = read_pem(&certificate, "tls_cert", config->tls_cert, error);
    if (status == BR_OK) status = read_pem(&key, "tls_key", config->tls_key, error);
    if (status != BR_OK) goto done;

    int result = nng_tls_config_alloc(&tls, NNG_TLS_MODE_SERVER);
    if (result == NNG_ENOTSUP) {
        status = br_fail(error, BR_ENOTSUP, "listen: this nng library was built without TLS");
        goto done;
    }
    if (result == 0) result = nng_tls_config_own_cert(tls, certificate, key, NULL);
    if (result != 0) {
        status = tls_fail(error, "tls_cert", config->tls_cert, result);
        goto done;
    }
    if (*config->tls_ca != '\0') status = set_authorities(tls, config->tls_ca, error);

done:
    free(certificate);
    free(key);
    if (status == BR_OK)
        *out = tls;
    else if (tls != NULL)
        nng_tls_config_free(tls);
    return status;
}

static br_status url_fail(br_error *error, const char *option, const char *url, int result)
{
    return br_fail(error, result == NNG_ENOMEM ? BR_ENOMEM : BR_EIO, "%s: cannot listen on \"%s\": %s",
                   option, url, nng_strerror(result));
}

static bool is_ipc(const char *url)
{
    return strncmp(url, "ipc://", 6) == 0;
}

/* Its address is the url as written: there is no port for nng to choose. */
static br_status listen_on_ipc(br_server *server, const char *url, br_error *error)
{
    const br_status status = ipc_guard_listen(server->ipc_guard, server->data, url, 0, "listen", error);
    if (status != BR_OK) return status;
    server->urls[server->listener_count] = url;
    server->listener_count++;
    BR_LOG(server->log, BR_LOG_INFO, "listening", BR_STR("url", url), BR_I64("contexts", server->call_count));
    return BR_OK;
}

static br_status listen_on(br_server *server, const char *url, br_error *error)
{
    if (is_ipc(url)) return listen_on_ipc(server, url, error);
    nng_listener listener;
    int result = nng_listener_create(&listener, server->data, url);
    if (result != 0) return url_fail(error, "listen", url, result);
    if (strncmp(url, "tls+tcp://", 10) == 0) {
        nng_tls_config *tls;
        const br_status status = make_tls(&tls, server->config, error);
        if (status != BR_OK) return status;
        result = nng_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG, tls);
        nng_tls_config_free(tls); /* the listener holds its own reference */
        if (result != 0) return url_fail(error, "listen", url, result);
    }
    result = nng_listener_start(listener, 0);
    if (result != 0) return url_fail(error, "listen", url, result);
    server->listeners[server->listener_count++] = listener;

    char address[256];
    if (sockets_url(server, server->listener_count - 1, address, sizeof address) != BR_OK) address[0] = '\0';
    BR_LOG(server->log, BR_LOG_INFO, "listening", BR_STR("url", address),
           BR_I64("contexts", server->call_count));
    return BR_OK;
}

static br_status open_calls(br_server *server, nng_socket socket, int32_t count, bool admin, br_error *error)
{
    for (int32_t i = 0; i < count; i++) {
        br_call **call = &server->calls[server->call_count];
        const br_status status = br_call_create(call, server, socket, admin, dispatch_event);
        if (status != BR_OK) return br_no_memory(error, "%d contexts", (int)count);
        server->call_count++;
        br_call_receive(*call);
    }
    return BR_OK;
}

static br_status open_socket(nng_socket *socket, bool *open, size_t message_bytes_max, br_error *error)
{
    int result = nng_rep0_open(socket);
    if (result != 0) return br_fail(error, BR_ENOMEM, "cannot open a socket: %s", nng_strerror(result));
    *open = true;
    /* nng closes the connection of a longer message, before the message takes memory. */
    result = nng_socket_set_size(*socket, NNG_OPT_RECVMAXSZ, message_bytes_max + MESSAGE_SLACK);
    return result == 0
               ? BR_OK
               : br_fail(error, BR_EINTERNAL, "cannot limit the size of messages: %s", nng_strerror(result));
}

static br_status open_admin(br_server *server, br_error *error)
{
    const char *url = server->config->admin;
    br_status status =
        open_socket(&server->admin, &server->admin_open, (size_t)server->config->max_message_bytes, error);
    if (status != BR_OK) return status;
    status = open_calls(server, server->admin, ADMIN_CONTEXTS, true, error);
    if (status != BR_OK) return status;
    if (is_ipc(url)) {
        status = ipc_guard_listen(server->ipc_guard, server->admin, url, ADMIN_MODE, "admin", error);
        if (status != BR_OK) return status;
    } else {
        const int result = nng_listen(server->admin, url, NULL, 0);
        if (result != 0) return url_fail(error, "admin", url, result);
    }
    BR_LOG(server->log, BR_LOG_INFO, "admin_listening", BR_STR("url", url));
    return BR_OK;
}

/* nng starts its threads at the first use, and 1.5 crashes when it gets only some of them. */
static br_status check_threads(br_error *error)
{
    enum { TASKS_MAX = 16, POLLERS_MAX = 8, OTHERS = 8 };
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const long tasks = 2 * cores < TASKS_MAX ? 2 * cores : TASKS_MAX;
    const long pollers = cores < POLLERS_MAX ? cores : POLLERS_MAX;
    const int needed = (int)(tasks + 2 * pollers + OTHERS);
    if (br_threads_available(needed)) return BR_OK;
    return br_fail(error, BR_EINTERNAL,
                   "cannot start the %d threads of the transport: the system gives no more", needed);
}

br_status sockets_open(br_server *server, br_error *error)
{
    br_status status = check_threads(error);
    if (status != BR_OK) return status;
    const br_config *config = server->config;
    const int32_t contexts = (int32_t)config->queue_max + SPARE_CONTEXTS;
    server->calls = calloc((size_t)(contexts + ADMIN_CONTEXTS), sizeof *server->calls);
    if (server->calls == NULL) return br_no_memory(error, "%d contexts", (int)contexts);

    status = ipc_guard_create(&server->ipc_guard, server->log, error);
    if (status != BR_OK) return status;
    status = open_socket(&server->data, &server->data_open, (size_t)config->max_message_bytes, error);
    if (status == BR_OK) status = open_calls(server, server->data, contexts, false, error);
    for (size_t i = 0; status == BR_OK && i < config->listen.count; i++)
        status = listen_on(server, config->listen.items[i], error);
    if (status == BR_OK && *config->admin != '\0') status = open_admin(server, error);
    if (status == BR_OK && *config->metrics != '\0') status = monitor_open(server, config->metrics, error);
    return status;
}

/* Whether the host has an address and the port is one. */
static br_status check_address(const char *text, br_error *error)
{
    nng_url *url;
    const int result = nng_url_parse(&url, text);
    if (result != 0) return url_fail(error, "listen", text, result);
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    const bool any = *url->u_hostname == '\0' || strcmp(url->u_hostname, "*") == 0;
    struct addrinfo *addresses = NULL;
    const int unknown = getaddrinfo(any ? NULL : url->u_hostname, url->u_port, &hints, &addresses);
    if (unknown == 0) freeaddrinfo(addresses);
    nng_url_free(url);
    if (unknown == 0) return BR_OK;
    return br_fail(error, BR_EIO, "listen: cannot listen on \"%s\": %s", text, gai_strerror(unknown));
}

br_status sockets_check(const br_config *config, br_error *error)
{
    br_status status = BR_OK;
    for (size_t i = 0; status == BR_OK && i < config->listen.count; i++) {
        const char *url = config->listen.items[i];
        const bool is_tls = strncmp(url, "tls+tcp://", 10) == 0;
        if (is_tls || strncmp(url, "tcp://", 6) == 0) status = check_address(url, error);
        if (status != BR_OK || !is_tls) continue;
        nng_tls_config *tls;
        status = make_tls(&tls, config, error);
        if (status == BR_OK) nng_tls_config_free(tls);
    }
    return status;
}

void sockets_close(br_server *server)
{
    monitor_close(server);
    ipc_guard_stop(server->ipc_guard);
    if (server->data_open) (void)nng_close(server->data);
    if (server->admin_open) (void)nng_close(server->admin);
    ipc_guard_destroy(server->ipc_guard);
    server->ipc_guard = NULL;
    server->data_open = false;
    server->admin_open = false;
}

void sockets_free_calls(br_server *server)
{
    for (int32_t i = 0; i < server->call_count; i++) br_call_destroy(server->calls[i]);
    free(server->calls);
}

br_status sockets_url(const br_server *server, int32_t index, char *out, size_t size)
{
    if (index < 0 || index >= server->listener_count) return BR_EINVAL;
    if (server->urls[index] != NULL) {
        (void)snprintf(out, size, "%s", server->urls[index]);
        return BR_OK;
    }
    char *url = NULL;
    if (nng_listener_get_string(server->listeners[index], NNG_OPT_URL, &url) != 0) return BR_EINVAL;
    (void)snprintf(out, size, "%s", url);
    nng_strfree(url);
    return BR_OK;
}
