/* crowd.c - see crowd.h. */
#include "crowd.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

#include "core/clock.h"

#define REQUEST_BIT UINT32_C(0x80000000) /* ends the list of hops of a request: nng's request id */

enum { AFTERWARDS_MS = 100, TEXT_BYTES = 256 };

/* Prompts of 1 to 13 repetitions, each of its own. */
static br_query query_of(char *text, int prompt)
{
    int length = snprintf(text, TEXT_BYTES, "number %d", prompt);
    for (int i = 0; i < prompt % 13; i++)
        length += snprintf(text + length, TEXT_BYTES - (size_t)length, " and so on");
    return text_query(text);
}

static int prompt_at(int first, int query)
{
    return (first + 7 * query) % CROWD_PROMPTS;
}

/* Whether any of the prompts is in flight already: it would be computed once for both requests, and one reply
 * would wait for the other. */
static bool is_under_way(const crowd_client *k, int first)
{
    for (int place = 0; place < CROWD_WINDOW; place++)
        for (int i = 0; i < CROWD_QUERIES * CROWD_QUERIES; i++)
            if (k->sent[place].id != 0 &&
                prompt_at(first, i / CROWD_QUERIES) == prompt_at(k->sent[place].prompt, i % CROWD_QUERIES))
                return true;
    return false;
}

static int append(void *sink, const char *bytes, size_t size)
{
    return nng_msg_append(sink, bytes, size) == 0 ? 0 : -1;
}

static bool send_one(crowd_client *k)
{
    int place = 0;
    while (k->sent[place].id != 0) place++;
    while (is_under_way(k, (int)(k->next * 11 % CROWD_PROMPTS))) k->next++;
    const int first = (int)(k->next * 11 % CROWD_PROMPTS);
    char texts[CROWD_QUERIES][TEXT_BYTES];
    br_query queries[CROWD_QUERIES];
    for (int i = 0; i < CROWD_QUERIES; i++) queries[i] = query_of(texts[i], prompt_at(first, i));
    const br_request request = {.op = BR_OP_SCORE, .queries = queries, .query_count = CROWD_QUERIES};
    nng_msg *message;
    const uint32_t id = k->next++ | REQUEST_BIT;
    if (nng_msg_alloc(&message, 0) != 0) return false;
    if (br_request_encode(&request, message, append) != 0 || nng_msg_header_append_u32(message, id) != 0 ||
        nng_sendmsg(k->socket, message, 0) != 0) {
        nng_msg_free(message);
        return false;
    }
    k->sent[place].id = id;
    k->sent[place].prompt = first;
    k->out++;
    (void)atomic_fetch_add(&k->all->out, 1);
    return true;
}

/* Whether the result is the prompt's, or says that a second device failed with it. */
static bool is_right(crowd *c, const br_reply_result *result, int prompt)
{
    if (result->code == BR_CODE_INTERNAL) {
        (void)atomic_fetch_add(&c->internal, 1);
        return true;
    }
    if (result->code != BR_CODE_NONE || result->quality_count != c->qualities) return false;
    for (size_t i = 0; i < c->qualities; i++)
        if (!(fabsf((float)result->qualities[i] - c->expected[prompt][i]) <= 1e-5f)) return false;
    return true;
}

static bool is_good_reply(crowd_client *k, nng_msg *message, int first, br_arena *arena)
{
    br_reply reply;
    br_error error = {0};
    br_arena_reset(arena, SIZE_MAX);
    if (br_reply_decode(&reply, nng_msg_body(message), nng_msg_len(message), arena, &error) != BR_OK)
        return false;
    if (!reply.ok || reply.result_count != CROWD_QUERIES) return false;
    bool good = true;
    for (int i = 0; i < CROWD_QUERIES; i++) good &= is_right(k->all, &reply.results[i], prompt_at(first, i));
    return good;
}

/* False when none came in time. */
static bool receive_one(crowd_client *k, br_arena *arena)
{
    crowd *c = k->all;
    nng_msg *message;
    if (nng_recvmsg(k->socket, &message, 0) != 0) return false;
    uint32_t id = 0;
    const bool has_id = nng_msg_header_trim_u32(message, &id) == 0;
    int place = 0;
    while (place < CROWD_WINDOW && k->sent[place].id != id) place++;
    if (!has_id || id == 0 || place == CROWD_WINDOW) {
        (void)atomic_fetch_add(&c->strange, 1);
    } else {
        if (!is_good_reply(k, message, k->sent[place].prompt, arena)) (void)atomic_fetch_add(&c->wrong, 1);
        k->sent[place].id = 0;
        k->out--;
        (void)atomic_fetch_sub(&c->out, 1);
        (void)atomic_fetch_add(&c->answered, 1);
    }
    nng_msg_free(message);
    return true;
}

static void *ask_on(void *argument)
{
    crowd_client *k = argument;
    br_arena arena = {0};
    bool well = true;
    while (well && (k->out > 0 || !atomic_load(&k->all->leaving))) {
        const bool sends = !atomic_load(&k->all->pausing) && !atomic_load(&k->all->leaving);
        while (well && sends && k->out < CROWD_WINDOW) well = send_one(k);
        if (k->out == 0)
            nng_msleep(1);
        else if (well)
            well = receive_one(k, &arena);
    }
    (void)atomic_fetch_add(&k->all->lost, k->out);
    (void)nng_socket_set_ms(k->socket, NNG_OPT_RECVTIMEO, AFTERWARDS_MS);
    while (receive_one(k, &arena)) continue;
    br_arena_deinit(&arena);
    return NULL;
}

static void learn(crowd *c, const service *s)
{
    peer p;
    peer_open(&p, s->url);
    peer_answer a = {0};
    for (int i = 0; i < CROWD_PROMPTS; i++) {
        char text[TEXT_BYTES];
        br_query query = query_of(text, i);
        peer_ask(&p, &a, &(br_request){.op = BR_OP_SCORE, .queries = &query, .query_count = 1});
        assert_true(a.reply.ok);
        assert_int_equal(a.reply.results[0].code, BR_CODE_NONE);
        c->qualities = a.reply.results[0].quality_count;
        for (size_t k = 0; k < c->qualities; k++) c->expected[i][k] = (float)a.reply.results[0].qualities[k];
    }
    answer_free(&a);
    peer_close(&p);
}

void crowd_start(crowd *c, const service *s)
{
    memset(c, 0, sizeof *c);
    learn(c, s);
    for (int i = 0; i < CROWD_CLIENTS; i++) {
        crowd_client *k = &c->clients[i];
        k->all = c;
        k->next = 1 + (uint32_t)i * 1000; /* prompts of their own */
        assert_int_equal(nng_req0_open_raw(&k->socket), 0);
        assert_int_equal(nng_socket_set_ms(k->socket, NNG_OPT_RECVTIMEO, SERVICE_WAIT_MS), 0);
        assert_int_equal(nng_dial(k->socket, s->url, NULL, 0), 0);
        assert_int_equal(pthread_create(&k->thread, NULL, ask_on, k), 0);
    }
}

void crowd_wait(crowd *c, int answers)
{
    const int target = atomic_load(&c->answered) + answers;
    const uint64_t until_ns = br_clock_now_ns() + SERVICE_WAIT_MS * (uint64_t)BR_NS_PER_MS;
    while (atomic_load(&c->answered) < target) {
        if (br_clock_now_ns() > until_ns) fail_msg("%d answers did not come", answers);
        nng_msleep(1);
    }
}

void crowd_stop(crowd *c)
{
    atomic_store(&c->leaving, true);
    for (int i = 0; i < CROWD_CLIENTS; i++) {
        assert_int_equal(pthread_join(c->clients[i].thread, NULL), 0);
        (void)nng_close(c->clients[i].socket);
    }
    print_message("%d requests answered, %d queries failed\n", atomic_load(&c->answered),
                  atomic_load(&c->internal));
    assert_int_equal(atomic_load(&c->lost), 0);
    assert_int_equal(atomic_load(&c->wrong), 0);
    assert_int_equal(atomic_load(&c->strange), 0);
}
