/* state.c - calls that enter and leave, and the slots they work with. */
#include "state.h"

#include <stdlib.h>

#include "core/thread.h"

enum { KEEP_BYTES_MAX = 1 << 20 }; /* an idle slot's arena */

void br_client_state_init(br_client *client)
{
    br_mutex_init(&client->mutex);
    br_cond_init(&client->changed);
}

static void slot_destroy(br_slot *slot)
{
    br_cond_destroy(&slot->changed);
    br_arena_deinit(&slot->arena);
    free(slot);
}

static br_status slot_create(br_slot **out, br_error *error)
{
    br_slot *slot = calloc(1, sizeof *slot);
    if (slot == NULL) return br_no_memory(error, "a call");
    br_cond_init(&slot->changed);
    br_arena_init(&slot->arena);
    *out = slot;
    return BR_OK;
}

void br_client_state_deinit(br_client *client)
{
    while (client->idle != NULL) {
        br_slot *slot = client->idle;
        client->idle = slot->next;
        slot_destroy(slot);
    }
    br_cond_destroy(&client->changed);
    br_mutex_destroy(&client->mutex);
}

/* Under the mutex. */
static void become_busy(br_client *client, br_slot *slot)
{
    slot->previous = NULL;
    slot->next = client->busy;
    if (slot->next != NULL) slot->next->previous = slot;
    client->busy = slot;
}

/* Under the mutex. */
static void become_idle(br_client *client, br_slot *slot)
{
    if (slot->next != NULL) slot->next->previous = slot->previous;
    if (slot->previous != NULL) {
        slot->previous->next = slot->next;
    } else {
        client->busy = slot->next;
    }
    slot->next = client->idle;
    client->idle = slot;
}

br_status br_client_enter(br_client *client, br_slot **out, br_error *error)
{
    *out = NULL;
    br_lock(&client->mutex);
    const bool closing = client->closing;
    br_slot *slot = client->idle;
    if (!closing && slot != NULL) {
        client->idle = slot->next;
        become_busy(client, slot);
    }
    client->running += !closing;
    br_unlock(&client->mutex);
    if (closing) return br_fail(error, BR_ECLOSED, "the client was closed");
    if (slot == NULL) {
        const br_status status = slot_create(&slot, error);
        if (status != BR_OK) return status;
        br_lock(&client->mutex);
        become_busy(client, slot);
        br_unlock(&client->mutex);
    }
    *out = slot;
    return BR_OK;
}

void br_client_leave(br_client *client, br_slot *slot)
{
    if (slot != NULL) br_arena_reset(&slot->arena, KEEP_BYTES_MAX);
    br_lock(&client->mutex);
    if (slot != NULL) become_idle(client, slot);
    client->running--;
    if (client->closing) br_cond_broadcast(&client->changed);
    br_unlock(&client->mutex);
}

void br_client_end_calls(br_client *client)
{
    br_lock(&client->mutex);
    client->closing = true;
    br_cond_broadcast(&client->changed);
    for (br_slot *slot = client->busy; slot != NULL; slot = slot->next) br_cond_signal(&slot->changed);
    while (client->running > 0) br_cond_wait(&client->changed, &client->mutex);
    br_unlock(&client->mutex);
}

void br_client_expect_ping(br_client *client, size_t index)
{
    if (client->pinger == NULL) return;
    br_alarm_set(client->pinger, br_balancer_ping_at(&client->balancer, index));
}

br_status br_client_nng_status(int failed)
{
    switch (failed) {
    case NNG_ENOMEM:
        return BR_ENOMEM;
    case NNG_ENOTSUP:
        return BR_ENOTSUP;
    default:
        return BR_EINVAL;
    }
}
