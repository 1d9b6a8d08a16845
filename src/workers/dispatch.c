/* dispatch.c - which worker takes what waits, and who is woken for it. */
#include "core/thread.h"
#include "workers.h"

/* So many times the time per token of another make a device one to avoid. */
enum { SLOW = 4 };

static bool is_accelerator(const br_worker *w)
{
    return br_device_is_accelerator(br_worker_device(w));
}

/* Accelerators that are in. Lock held. */
static int32_t accelerators_in(const br_workers *all)
{
    const br_devices *devices = all->options.devices;
    int32_t count = 0;
    for (int32_t i = 0; i < devices->count; i++)
        if (br_device_is_accelerator(&devices->items[i]) && !all->stations[i].out) count++;
    return count;
}

/* Whether the worker should take a batch from what waits now. Lock held. */
bool br_worker_may_take(const br_worker *w)
{
    const br_workers *all = w->all;
    if (all->stations[w->device].out) return false;
    if (is_accelerator(w)) return true;
    const int32_t faster = accelerators_in(all);
    if (faster == 0) return true;
    const double waiting = (double)br_batcher_tokens(all->batcher);
    const double budget = br_worker_device(w)->tokens_wanted;
    return (waiting < budget ? waiting : budget) * all->token_ns[0] < waiting * all->token_ns[1] / faster;
}

/* As br_batcher_take has it: the workers on the host's cores, for one of them. Lock held. */
int32_t br_worker_sharers(const br_worker *w)
{
    const br_workers *all = w->all;
    const br_devices *devices = all->options.devices;
    int32_t count = 0;
    if (is_accelerator(w)) return 0;
    for (int32_t i = 0; i < devices->count; i++)
        if (!br_device_is_accelerator(&devices->items[i]) && !all->stations[i].out)
            count += devices->items[i].workers;
    return count;
}

/* Of two devices of a kind. One that is far slower than the other, or than nothing known yet, is called when the
 * other is taken; small passes cost more per token than full ones, which is no reason to avoid who ran them. Lock
 * held. */
static bool suits_better(const br_station *a, const br_station *b)
{
    if (a->token_ns > SLOW * b->token_ns) return false;
    if (b->token_ns > SLOW * a->token_ns) return true;
    return a->tokens < b->tokens;
}

/* Reserves the sleeping worker that suits best, to be signalled after unlocking: one that may take what waits, or
 * with `to_feed` any. NULL when there is none. Lock held. */
br_worker *br_workers_call_one(br_workers *all, bool to_feed)
{
    br_worker *best = NULL;
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        br_worker *w = &all->workers[i];
        if (!w->idle || w->called || (!to_feed && !br_worker_may_take(w))) continue;
        if (best != NULL && is_accelerator(best) && !is_accelerator(w)) continue;
        if (best == NULL || (is_accelerator(w) && !is_accelerator(best)) ||
            suits_better(&all->stations[w->device], &all->stations[best->device]))
            best = w;
    }
    if (best != NULL) best->called = true;
    return best;
}

void br_worker_wake(br_worker *w)
{
    if (w != NULL) br_cond_signal(&w->work);
}

/* Lock held. */
void br_workers_wake_all(br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        all->workers[i].called = all->workers[i].idle;
        br_cond_signal(&all->workers[i].work);
    }
}
