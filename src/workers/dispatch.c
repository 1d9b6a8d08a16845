/* dispatch.c - see dispatch.h. */
#include "dispatch.h"

#include "core/thread.h"

/* A device that needs this many times as long per token as another is avoided. */
enum { SLOW = 4 };

static station *station_of(const br_worker *w)
{
    return &w->all->stations[w->device];
}

static bool is_accelerator(const br_worker *w)
{
    return br_device_is_accelerator(br_worker_device(w));
}

/* Accelerators that are in. */
static int32_t accelerators_in(const br_workers *all)
{
    const br_devices *devices = all->options.devices;
    int32_t count = 0;
    for (int32_t i = 0; i < devices->count; i++)
        if (br_device_is_accelerator(&devices->items[i]) && !all->stations[i].out) count++;
    return count;
}

bool dispatch_may_take(const br_worker *w)
{
    const br_workers *all = w->all;
    if (station_of(w)->out) return false;
    if (is_accelerator(w)) return true;
    const int32_t faster = accelerators_in(all);
    if (faster == 0) return true;
    const double waiting = (double)br_batcher_tokens(all->batcher);
    const double budget = br_worker_device(w)->tokens_wanted;
    return (waiting < budget ? waiting : budget) * all->token_ns[0] < waiting * all->token_ns[1] / faster;
}

int32_t dispatch_sharers(const br_worker *w)
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

int64_t dispatch_add_load(br_worker *w, int32_t count)
{
    int64_t tokens = 0;
    for (int32_t i = 0; i < count; i++) tokens += w->items[i]->tokens;
    station_of(w)->tokens += tokens;
    return tokens;
}

static void move_average(double *average, double sample)
{
    *average = *average == 0 ? sample : *average + (sample - *average) / 8;
}

void dispatch_remove_load(br_worker *w, int64_t tokens, uint64_t ns)
{
    station_of(w)->tokens -= tokens;
    if (ns == 0) return;
    const double sample = (double)ns / (double)tokens;
    move_average(&station_of(w)->token_ns, sample);
    move_average(&w->all->token_ns[is_accelerator(w) ? 1 : 0], sample);
}

/* Of two devices of a kind. One that is far slower than the other comes second whatever it has to do; so does
 * any beside one of which nothing is known yet. Far slower: small passes cost more per token than full ones,
 * which is no reason to avoid the device that ran them. */
static bool has_less_to_do(const station *a, const station *b)
{
    if (a->token_ns > SLOW * b->token_ns) return false;
    if (b->token_ns > SLOW * a->token_ns) return true;
    return a->tokens < b->tokens;
}

static bool suits_better(const br_worker *a, const br_worker *b)
{
    const bool a_accelerates = is_accelerator(a);
    const bool b_accelerates = is_accelerator(b);
    if (a_accelerates != b_accelerates) return a_accelerates;
    return has_less_to_do(station_of(a), station_of(b));
}

br_worker *dispatch_reserve(br_workers *all, bool to_feed)
{
    br_worker *best = NULL;
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        br_worker *w = &all->workers[i];
        if (!w->idle || w->called) continue;
        if (!to_feed && !dispatch_may_take(w)) continue;
        if (best == NULL || suits_better(w, best)) best = w;
    }
    if (best != NULL) best->called = true;
    return best;
}

void dispatch_wake(br_worker *w)
{
    if (w != NULL) br_cond_signal(&w->work);
}

void dispatch_wake_all(br_workers *all)
{
    for (int32_t i = 0; i < all->options.devices->worker_count; i++) {
        all->workers[i].called = all->workers[i].idle;
        br_cond_signal(&all->workers[i].work);
    }
}
