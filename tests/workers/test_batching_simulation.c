/*
 * test_batching_simulation.c - the real batcher in virtual time: arrivals, devices with the time a pass takes
 * on them, and what the rule "take at once when idle, gather while busy" makes of them,
 * beside two lower bounds.
 *
 *   arrivals, recorded (data/traces) or drawn by seed
 *            -> br_batcher_push -> br_batcher_take by whichever device is idle -> a pass of a + b * tokens
 *
 * Both bounds hold for every rule. A query takes at least a pass of its own on an idle device. And all
 * devices together are no faster than one device of their summed speed that pays for a pass only a full
 * batch's share, and may interrupt what it does: shortest remaining time first is optimal there.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bench/schedule.h"
#include "bench/trace.h"
#include "core/random.h"
#include "workers/batcher.h"

enum { QUERIES_MAX = 40000, DEVICES_MAX = 8, SEQS = 256 };

typedef struct query {
    br_batch_item item; /* first */
    double arrives_us;
    double done_us; /* negative: expired */
} query;

/* A pass of T tokens takes pass_us + token_us * T. */
typedef struct machine {
    int devices;
    double pass_us;
    double token_us;
    int32_t budget;
    int32_t sharers; /* as br_batcher_take has it */
} machine;

static const machine gpu = {.devices = 1, .pass_us = 150, .token_us = 0.13, .budget = 2816};
static const machine four = {.devices = 4, .pass_us = 150, .token_us = 0.13, .budget = 2816};
static const machine cores = {.devices = 2, .pass_us = 2200, .token_us = 375, .budget = 256, .sharers = 2};

static query queries[QUERIES_MAX];
static int query_count;

static double pass_time(const machine *m, int64_t tokens)
{
    return m->pass_us + m->token_us * (double)tokens;
}

/* The most tokens per microsecond of all devices. */
static double capacity(const machine *m)
{
    return m->devices * (double)m->budget / pass_time(m, m->budget);
}

/* Prompts as they come: log-normal, median 40 tokens, 512 at most. */
static int32_t draw_tokens(uint64_t *random)
{
    const double u =
        sqrt(-2 * log(1 - br_random_unit(random))) * cos(6.283185307179586 * br_random_unit(random));
    const double tokens = 40 * exp(0.9 * u);
    return tokens < 4 ? 4 : tokens > 512 ? 512 : (int32_t)tokens;
}

static void add(double arrives_us, int32_t tokens, uint64_t client, double patience_us)
{
    query *q = &queries[query_count++];
    *q = (query){.arrives_us = arrives_us, .done_us = -1};
    q->item.tokens = tokens;
    q->item.client = client;
    q->item.deadline_ns = patience_us > 0 ? (uint64_t)((arrives_us + patience_us) * 1000) : UINT64_MAX;
}

/* A Poisson stream at `load` of the machine's capacity. */
static void arrive_at(const machine *m, double load, int count, uint64_t seed)
{
    uint64_t random = seed;
    double mean = 0;
    for (int i = 0; i < 4096; i++) mean += draw_tokens(&random) / 4096.0;
    schedule times;
    schedule_init(&times, load * capacity(m) / mean * 1e6, true, seed + 1);
    query_count = 0;
    for (int i = 0; i < count; i++) add((double)schedule_next(&times) / 1000, draw_tokens(&random), 0, 0);
}

/* A recorded trace, slowed down or sped up to `load` of the machine's capacity on average. */
static void arrive_as_recorded(const char *name, const machine *m, double load)
{
    char path[1024];
    const char *source = getenv("BESTROUTE_SOURCE");
    (void)snprintf(path, sizeof path, "%s/tests/data/traces/%s.txt", source != NULL ? source : ".", name);
    trace recorded;
    br_error error = {0};
    if (trace_read(&recorded, path, &error) != BR_OK) fail_msg("%s", error.text);
    assert_in_range(recorded.count, 1000, QUERIES_MAX);
    double tokens = 0;
    for (size_t i = 0; i < recorded.count; i++) tokens += recorded.arrivals[i].tokens;
    const double pace = tokens / (load * capacity(m)) / (double)recorded.arrivals[recorded.count - 1].us;
    query_count = 0;
    for (size_t i = 0; i < recorded.count; i++) {
        const trace_arrival *a = &recorded.arrivals[i];
        add((double)a->us * pace, a->tokens, a->client, (double)a->deadline_ms * 1000 * pace);
    }
    trace_deinit(&recorded);
}

static int by_arrival(const void *a, const void *b)
{
    const double x = ((const query *)a)->arrives_us;
    const double y = ((const query *)b)->arrives_us;
    return (x > y) - (x < y);
}

/* What may be changed about the rule, to see that the bounds notice. */
typedef struct rule {
    double linger_us; /* wait for company; 0: take at once */
    bool take_all;    /* that fits, on cores too */
} rule;

static void simulate(const machine *m, const rule *r)
{
    qsort(queries, (size_t)query_count, sizeof *queries, by_arrival);
    const br_batcher_options options = {
        .tokens_max = m->budget > 512 ? m->budget : 512, .seqs_max = SEQS, .queue_max = QUERIES_MAX};
    br_batcher *batcher;
    assert_int_equal(br_batcher_create(&batcher, &options), BR_OK);
    double free_us[DEVICES_MAX] = {0};
    br_batch_item *items[SEQS];
    double now_us = 0;
    int next = 0;
    while (next < query_count || br_batcher_queries(batcher) > 0) {
        int device = 0;
        for (int d = 1; d < m->devices; d++)
            if (free_us[d] < free_us[device]) device = d;
        if (free_us[device] > now_us) now_us = free_us[device]; /* else idle since: time has gone on */
        if (br_batcher_queries(batcher) == 0 && queries[next].arrives_us > now_us)
            now_us = queries[next].arrives_us;
        now_us += r->linger_us;
        for (; next < query_count && queries[next].arrives_us <= now_us; next++)
            assert_int_equal(br_batcher_push(batcher, &queries[next].item), BR_OK);
        const uint64_t now_ns = (uint64_t)(now_us * 1000);
        while (br_batcher_expire(batcher, now_ns) != NULL) {
        }
        const int32_t taken =
            br_batcher_take(batcher, items, m->budget, r->take_all ? 0 : m->sharers, now_ns);
        int64_t tokens = 0;
        for (int32_t i = 0; i < taken; i++) tokens += items[i]->tokens;
        free_us[device] = taken > 0 ? now_us + pass_time(m, tokens) : now_us;
        for (int32_t i = 0; i < taken; i++) ((query *)items[i])->done_us = free_us[device];
    }
    br_batcher_destroy(batcher);
}

static const rule ours = {.linger_us = 0};

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of one client's answered queries. */
static double latency(uint64_t client, double part)
{
    static double all[QUERIES_MAX];
    size_t count = 0;
    for (int i = 0; i < query_count; i++)
        if (queries[i].item.client == client && queries[i].done_us >= 0)
            all[count++] = queries[i].done_us - queries[i].arrives_us;
    assert_true(count > 0);
    qsort(all, count, sizeof *all, ascending);
    return all[(size_t)(part * (double)(count - 1))];
}

static double mean_latency(void)
{
    double sum = 0;
    for (int i = 0; i < query_count; i++) {
        assert_true(queries[i].done_us > queries[i].arrives_us);
        sum += queries[i].done_us - queries[i].arrives_us;
    }
    return sum / query_count;
}

/* A lower bound for the mean latency of any rule: the larger of a pass alone, and shortest remaining first on
 * one device with all speed. */
static double least_mean(const machine *m)
{
    static double left[QUERIES_MAX];
    const double share_us = pass_time(m, m->budget) / m->budget / m->devices; /* per token, of a full batch */
    double alone = 0;
    double sum = 0;
    double now = 0;
    int next = 0;
    int waiting[QUERIES_MAX];
    int count = 0;
    while (next < query_count || count > 0) {
        if (count == 0 && queries[next].arrives_us > now) now = queries[next].arrives_us;
        for (; next < query_count && queries[next].arrives_us <= now; next++) {
            left[next] = queries[next].item.tokens * share_us;
            alone += pass_time(m, queries[next].item.tokens);
            waiting[count++] = next;
        }
        int best = 0;
        for (int i = 1; i < count; i++)
            if (left[waiting[i]] < left[waiting[best]]) best = i;
        const double until = next < query_count ? queries[next].arrives_us : INFINITY;
        const double ends = now + left[waiting[best]];
        if (ends <= until) {
            sum += ends - queries[waiting[best]].arrives_us;
            now = ends;
            waiting[best] = waiting[--count];
        } else {
            left[waiting[best]] -= until - now;
            now = until;
        }
    }
    return (alone > sum ? alone : sum) / query_count;
}

/* Prints the ratio of the mean latency to the lower bound, and fails if it is above `factor`. */
static void judge(const char *name, const machine *m, double factor)
{
    const double mean = mean_latency();
    const double least = least_mean(m);
    print_message("%-32s mean %8.1f us, at least %8.1f: %.2f times\n", name, mean, least, mean / least);
    assert_true(mean >= least);
    if (mean > factor * least) fail_msg("%s: more than %.1f times", name, factor);
}

static void test_latency_stays_near_what_no_rule_betters(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const machine *machine;
        double load;
        double factor; /* the largest ratio of its mean to the lower bound that passes */
    } cases[] = {
        {"one device, idle", &gpu, 0.05, 1.6},    {"one device, half", &gpu, 0.5, 2.6},
        {"one device, full", &gpu, 0.85, 4.3},    {"four devices, half", &four, 0.5, 2.5},
        {"four devices, full", &four, 0.85, 3.7}, {"two cores, idle", &cores, 0.05, 1.1},
        {"two cores, half", &cores, 0.5, 1.6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        arrive_at(cases[i].machine, cases[i].load, 5000, 11 + i);
        simulate(cases[i].machine, &ours);
        judge(cases[i].name, cases[i].machine, cases[i].factor);
    }
}

static void test_recorded_arrivals_stay_near_it_too(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *trace;
        const machine *machine;
        double load;
        double factor;
    } cases[] = {
        {"single prompts, two cores, idle", "poisson", &cores, 0.05, 1.1},
        {"single prompts, two cores, half", "poisson", &cores, 0.5, 1.6},
        {"single prompts, one device, half", "poisson", &gpu, 0.5, 2.6},
        {"single prompts, one device, full", "poisson", &gpu, 0.85, 4.2},
        {"single prompts, four, full", "poisson", &four, 0.85, 3.6},
        {"bursts of 32, two cores, half", "bursts", &cores, 0.5, 1.7},
        {"bursts of 32, one device, half", "bursts", &gpu, 0.5, 3.2},
        {"bursts of 32, four devices, half", "bursts", &four, 0.5, 2.6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        arrive_as_recorded(cases[i].trace, cases[i].machine, cases[i].load);
        simulate(cases[i].machine, &ours);
        judge(cases[i].name, cases[i].machine, cases[i].factor);
    }
}

static void test_waiting_for_company_is_noticed(void **state)
{
    (void)state;
    arrive_at(&gpu, 0.05, 5000, 11);
    simulate(&gpu, &ours);
    const double at_once = mean_latency();
    simulate(&gpu, &(rule){.linger_us = 500});
    assert_true(mean_latency() > 1.6 * at_once);
}

/* All prompts at once: the last one is done when full batches on all devices would be done, give or take one
 * pass. */
static void test_a_burst_is_worked_off_at_full_speed(void **state)
{
    (void)state;
    uint64_t random = 5;
    query_count = 0;
    int64_t tokens = 0;
    for (int i = 0; i < 8000; i++) {
        add(0, draw_tokens(&random), 0, 0);
        tokens += queries[i].item.tokens;
    }
    simulate(&four, &ours);
    double last = 0;
    for (int i = 0; i < query_count; i++)
        if (queries[i].done_us > last) last = queries[i].done_us;
    const double least = (double)tokens / capacity(&four);
    assert_true(last >= least);
    assert_true(last <= 1.05 * least + pass_time(&four, four.budget));
}

/* Where a pass takes as long as it has tokens, taking less than what waits shortens the mean wait, and the
 * longest. */
static void test_cores_that_share_what_waits_answer_sooner(void **state)
{
    (void)state;
    static const double loads[] = {0.5, 0.7};
    machine m = cores;
    m.budget = 512; /* what a core could take */
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        double mean[2];
        double last[2];
        for (int all = 0; all < 2; all++) {
            arrive_at(&m, loads[i], 20000, 17);
            simulate(&m, &(rule){.take_all = all});
            mean[all] = mean_latency();
            last[all] = latency(0, 0.99);
        }
        print_message("load %.1f: mean %.1f ms, else %.1f; p99 %.1f ms, else %.1f\n", loads[i],
                      mean[0] / 1000, mean[1] / 1000, last[0] / 1000, last[1] / 1000);
        assert_true(mean[0] < 0.95 * mean[1]);
        assert_true(last[0] < last[1]);
    }
}

/* One client that asks every few passes, beside another that keeps hundreds of prompts waiting. */
static void test_beside_a_flood_cores_answer_a_single_prompt_within_twice_its_time(void **state)
{
    (void)state;
    enum { SINGLES = 400, TOKENS = 34, FLOOD = 30000 };
    const double alone = pass_time(&cores, TOKENS);
    for (int all = 0; all < 2; all++) {
        uint64_t random = 3;
        query_count = 0;
        double at = 20 * alone;
        for (int k = 0; k < SINGLES; k++) add(at += 2 * alone * (1 + br_random_unit(&random)), TOKENS, 1, 0);
        for (int k = 0; k < FLOOD; k++) add(0, TOKENS, 2, 0);
        simulate(&cores, &(rule){.take_all = all});
        print_message("%s: alone %.1f ms, beside the flood p50 %.1f, p99 %.1f\n", all ? "take all" : "share",
                      alone / 1000, latency(1, 0.5) / 1000, latency(1, 0.99) / 1000);
        assert_true((latency(1, 0.99) <= 2 * alone) == !all);
    }
}

/* One client's single prompts beside another's flood at twice what the machine can do. */
static void test_a_flood_does_not_starve_single_prompts(void **state)
{
    (void)state;
    const machine *machines[] = {&gpu, &four, &cores};
    for (size_t i = 0; i < 3; i++) {
        const machine *m = machines[i];
        enum { SINGLES = 40, FLOOD_TOKENS = 400, LUMP = 64 };
        const double gap_us = 8.3 * pass_time(m, m->budget);
        query_count = 0;
        for (int k = 0; k < SINGLES; k++) add(k * gap_us, 30, 1, 0);
        simulate(m, &ours);
        const double alone = latency(1, 0.99);
        query_count = 0;
        for (int k = 0; k < SINGLES; k++) add(k * gap_us, 30, 1, 0);
        /* Twice what the machine can do, in lumps. */
        const double lump_us = LUMP * FLOOD_TOKENS / capacity(m) / 2;
        for (double at = 0; at < SINGLES * gap_us; at += lump_us)
            for (int k = 0; k < LUMP; k++) add(at, FLOOD_TOKENS, 2, 0);
        assert_true(query_count < QUERIES_MAX);
        simulate(m, &ours);
        /* Its own pass, and the one under way when it came. */
        const double bound = 2 * pass_time(m, m->budget > 512 ? m->budget : 512);
        const double worst = latency(1, 1);
        print_message(
            "%d devices of %5d tokens: alone %8.1f us, beside the flood at most %8.1f, bound %8.1f\n",
            m->devices, (int)m->budget, alone, worst, bound);
        assert_true(worst <= bound);
        assert_true(latency(2, 0.5) > 4 * bound); /* the flood is one: its own queries wait long */
    }
}

/* Client 0 had 128 prompts in flight all the time, client 1000 one. */
static void test_a_recorded_flood_does_not_starve_the_single_client(void **state)
{
    (void)state;
    const machine *machines[] = {&gpu, &four, &cores};
    for (size_t i = 0; i < 3; i++) {
        const machine *m = machines[i];
        arrive_as_recorded("flood", m, 2);
        simulate(m, &ours);
        const double bound = 2 * pass_time(m, m->budget > 512 ? m->budget : 512);
        print_message("%d devices of %5d tokens: beside the recorded flood at most %8.1f us, bound %8.1f\n",
                      m->devices, (int)m->budget, latency(1000, 1), bound);
        assert_true(latency(1000, 1) <= bound);
        assert_true(latency(0, 0.5) > bound);
    }
}

/* Deadlines that an ideal order can keep are kept while the machine is not overloaded. */
static void test_deadlines_that_can_be_kept_are_kept(void **state)
{
    (void)state;
    uint64_t random = 21;
    arrive_at(&gpu, 0.6, 5000, 31);
    const double pass = pass_time(&gpu, gpu.budget);
    for (int i = 0; i < query_count; i++) {
        const double patience = (br_random_bits(&random) % 4 == 0 ? 3 : 200) * pass;
        queries[i].item.deadline_ns = (uint64_t)((queries[i].arrives_us + patience) * 1000);
    }
    simulate(&gpu, &ours);
    for (int i = 0; i < query_count; i++) {
        assert_true(queries[i].done_us >= 0);
        assert_true(queries[i].done_us * 1000 <= (double)queries[i].item.deadline_ns + 1000 * pass);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latency_stays_near_what_no_rule_betters),
        cmocka_unit_test(test_recorded_arrivals_stay_near_it_too),
        cmocka_unit_test(test_waiting_for_company_is_noticed),
        cmocka_unit_test(test_a_burst_is_worked_off_at_full_speed),
        cmocka_unit_test(test_cores_that_share_what_waits_answer_sooner),
        cmocka_unit_test(test_beside_a_flood_cores_answer_a_single_prompt_within_twice_its_time),
        cmocka_unit_test(test_a_flood_does_not_starve_single_prompts),
        cmocka_unit_test(test_a_recorded_flood_does_not_starve_the_single_client),
        cmocka_unit_test(test_deadlines_that_can_be_kept_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
