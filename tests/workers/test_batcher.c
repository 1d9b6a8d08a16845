/*
 * test_batcher.c - workers/batcher.h: order, limits, groups, expiry; and random replays
 * against a model that searches a plain list.
 *
 * BESTROUTE_SEED chooses another seed for the replays.
 */
#include "workers/batcher.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "support/oom.h"

enum { SEQS_MAX = 4, TOKENS_MAX = 1024, QUEUE_MAX = 100, NONE = -1 };

static const char group_a[1];
static const char group_b[1];

static int32_t budget; /* tokens_max of the batcher created last */

static br_batcher *create(int32_t tokens_max, int32_t seqs_max, int32_t queue_max)
{
    const br_batcher_options options = {
        .tokens_max = tokens_max, .seqs_max = seqs_max, .queue_max = queue_max};
    br_batcher *batcher;
    assert_int_equal(br_batcher_create(&batcher, &options), BR_OK);
    budget = tokens_max;
    return batcher;
}

static br_batch_item item(int32_t tokens, uint64_t deadline_ns, const void *group)
{
    return (br_batch_item){.tokens = tokens, .deadline_ns = deadline_ns, .group = group};
}

static void push(br_batcher *batcher, br_batch_item *it)
{
    assert_int_equal(br_batcher_push(batcher, it), BR_OK);
}

/* Everything that fits the batcher's own limit. */
static int32_t take(br_batcher *batcher, br_batch_item **items, uint64_t now_ns)
{
    return br_batcher_take(batcher, items, budget, 0, now_ns);
}

/* Expires everything that may expire and takes the rest away. */
static void empty(br_batcher *batcher)
{
    static br_batch_item *items[BR_BATCH_SEQS_MAX];
    while (br_batcher_expire(batcher, UINT64_MAX) != NULL) {
    }
    while (take(batcher, items, 0) > 0) {
    }
    assert_int_equal(br_batcher_queries(batcher), 0);
    assert_int_equal(br_batcher_tokens(batcher), 0);
    br_batcher_destroy(batcher);
}

static void test_options_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        br_batcher_options options;
        br_status status;
    } cases[] = {
        {{1, 1, 1}, BR_OK},
        {{BR_BATCH_TOKENS_MAX, BR_BATCH_SEQS_MAX, BR_QUEUE_QUERIES_MAX}, BR_OK},
        {{0, 1, 1}, BR_EINVAL},
        {{1, 0, 1}, BR_EINVAL},
        {{1, 1, 0}, BR_EINVAL},
        {{-1, -1, -1}, BR_EINVAL},
        {{BR_BATCH_TOKENS_MAX + 1, 1, 1}, BR_EINVAL},
        {{1, BR_BATCH_SEQS_MAX + 1, 1}, BR_EINVAL},
        {{1, 1, BR_QUEUE_QUERIES_MAX + 1}, BR_EINVAL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_batcher *batcher = (br_batcher *)&batcher;
        assert_int_equal(br_batcher_create(&batcher, &cases[i].options), cases[i].status);
        if (cases[i].status == BR_OK) {
            assert_non_null(batcher);
        } else {
            assert_null(batcher);
        }
        br_batcher_destroy(batcher);
    }
}

static void test_create_survives_every_failing_allocation(void **state)
{
    (void)state;
    const br_batcher_options options = {.tokens_max = 1, .seqs_max = 1, .queue_max = 1};
    int failures = 0;
    br_batcher *batcher = NULL;
    BR_OOM_SWEEP({
        const br_status status = br_batcher_create(&batcher, &options);
        assert_true(status == BR_OK || status == BR_ENOMEM);
        assert_true((status == BR_OK) == (batcher != NULL));
        if (status == BR_ENOMEM) failures++;
        br_batcher_destroy(batcher);
    });
    assert_true(failures > 0);
    assert_non_null(batcher); /* the last round succeeded */
}

static void test_nothing_is_allocated_after_create(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    br_batch_item items[QUEUE_MAX];
    br_batch_item *batch[SEQS_MAX];
    const size_t before = br_oom_count();
    for (size_t i = 0; i < QUEUE_MAX; i++) {
        items[i] = item(1 + (int32_t)(i * 37 % TOKENS_MAX), i % 3 == 0 ? i : UINT64_MAX, group_a);
        (void)!br_batcher_push(batcher, &items[i]);
    }
    while (br_batcher_expire(batcher, 40) != NULL) {
    }
    while (take(batcher, batch, 50) > 0) {
    }
    assert_int_equal(br_oom_count(), before);
    empty(batcher);
}

static void test_destroy_accepts_null(void **state)
{
    (void)state;
    br_batcher_destroy(NULL);
}

static void test_an_empty_batcher_gives_nothing(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    br_batch_item *batch[SEQS_MAX];
    assert_int_equal(take(batcher, batch, 0), 0);
    assert_null(br_batcher_expire(batcher, UINT64_MAX));
    empty(batcher);
}

/* Who leaves together: arrivals in order, then batches until nothing waits. */
static void test_batches_hold_what_fits_and_skip_what_does_not(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t lengths[8]; /* 0 ends the list */
        int32_t batches[8]
                       [SEQS_MAX + 1]; /* indices of arrival, NONE ends a batch; an empty one ends the list */
    } cases[] = {
        {"one alone leaves at once", {512}, {{0, NONE}, {NONE}}},
        {"exactly the budget", {512, 512}, {{0, 1, NONE}, {NONE}}},
        {"one token over the budget", {512, 513}, {{0, NONE}, {1, NONE}, {NONE}}},
        {"one fills the budget", {1024, 1}, {{0, NONE}, {1, NONE}, {NONE}}},
        {"a long one blocks nobody", {512, 1024, 256, 256}, {{0, 2, 3, NONE}, {1, NONE}, {NONE}}},
        {"a skipped one leads the next batch",
         {1000, 30, 1000, 20, 4},
         {{0, 3, 4, NONE}, {1, NONE}, {2, NONE}, {NONE}}},
        {"as many sequences as allowed", {1, 1, 1, 1, 1}, {{0, 1, 2, 3, NONE}, {4, NONE}, {NONE}}},
        {"skipped ones keep their order",
         {1000, 500, 400, 300, 24},
         {{0, 4, NONE}, {1, 2, NONE}, {3, NONE}, {NONE}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
        br_batch_item items[8];
        for (size_t k = 0; k < 8 && cases[i].lengths[k] > 0; k++) {
            items[k] = item(cases[i].lengths[k], UINT64_MAX, group_a);
            push(batcher, &items[k]);
        }
        br_batch_item *batch[SEQS_MAX];
        int32_t taken;
        size_t at = 0;
        do {
            taken = take(batcher, batch, 0);
            for (int32_t k = 0; k < taken; k++) {
                if (batch[k] - items != cases[i].batches[at][k]) fail_msg("%s", cases[i].name);
            }
            if (cases[i].batches[at][taken] != NONE) fail_msg("%s: batch %zu", cases[i].name, at);
            at++;
        } while (taken > 0);
        empty(batcher);
    }
}

static void test_the_earliest_deadline_leads_then_arrival(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    br_batch_item items[] = {
        item(1, UINT64_MAX, group_a), item(1, 900, group_a), item(1, 500, group_a),
        item(1, 900, group_a),        item(1, 0, group_a),
    };
    for (size_t i = 0; i < 5; i++) push(batcher, &items[i]);
    br_batch_item *batch[SEQS_MAX];
    assert_ptr_equal(br_batcher_expire(batcher, 0), &items[4]);
    assert_int_equal(take(batcher, batch, 0), 4);
    assert_ptr_equal(batch[0], &items[2]);
    assert_ptr_equal(batch[1], &items[1]);
    assert_ptr_equal(batch[2], &items[3]);
    assert_ptr_equal(batch[3], &items[0]);
    empty(batcher);
}

/* As queries are whose device failed. */
static void test_what_is_put_back_finds_its_old_place(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, 2, 3);
    br_batch_item items[4];
    br_batch_item *batch[2];
    for (int i = 0; i < 4; i++) items[i] = item(1, UINT64_MAX, group_a);
    for (int i = 0; i < 3; i++) push(batcher, &items[i]);
    assert_int_equal(br_batcher_put_back(batcher, &items[3]), BR_EBUSY);
    assert_int_equal(take(batcher, batch, 0), 2);
    push(batcher, &items[3]);
    assert_int_equal(br_batcher_put_back(batcher, &items[1]), BR_OK);
    assert_int_equal(take(batcher, batch, 0), 2);
    assert_ptr_equal(batch[0], &items[1]);
    assert_ptr_equal(batch[1], &items[2]);
    empty(batcher);
}

static void test_an_earlier_deadline_overtakes_a_skipped_query(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    br_batch_item first = item(1000, 100, group_a);
    br_batch_item skipped = item(1000, 200, group_a);
    br_batch_item urgent = item(1000, 150, group_a);
    br_batch_item *batch[SEQS_MAX];
    push(batcher, &first);
    push(batcher, &skipped);
    assert_int_equal(take(batcher, batch, 0), 1);
    push(batcher, &urgent);
    assert_int_equal(take(batcher, batch, 0), 1);
    assert_ptr_equal(batch[0], &urgent);
    assert_int_equal(take(batcher, batch, 0), 1);
    assert_ptr_equal(batch[0], &skipped);
    empty(batcher);
}

static void test_groups_never_share_a_batch(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    br_batch_item items[] = {
        item(1, UINT64_MAX, group_a), item(1, UINT64_MAX, group_b), item(1, UINT64_MAX, group_a),
        item(1, UINT64_MAX, NULL),    item(1, UINT64_MAX, group_b),
    };
    for (size_t i = 0; i < 5; i++) push(batcher, &items[i]);
    static const int32_t expected[][3] = {{0, 2, NONE}, {1, 4, NONE}, {3, NONE}};
    br_batch_item *batch[SEQS_MAX];
    for (size_t i = 0; i < 3; i++) {
        const int32_t taken = take(batcher, batch, 0);
        for (int32_t k = 0; k < taken; k++) assert_int_equal(batch[k] - items, expected[i][k]);
        assert_int_equal(expected[i][taken], NONE);
    }
    empty(batcher);
}

static void test_a_full_queue_is_busy_until_something_leaves(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, 1, 2);
    br_batch_item items[] = {item(7, 10, group_a), item(8, UINT64_MAX, group_a),
                             item(9, UINT64_MAX, group_a)};
    br_batch_item *batch[1];
    push(batcher, &items[0]);
    push(batcher, &items[1]);
    assert_int_equal(br_batcher_push(batcher, &items[2]), BR_EBUSY);
    assert_int_equal(br_batcher_queries(batcher), 2);
    assert_int_equal(br_batcher_tokens(batcher), 15);

    /* What take found expired still fills the queue. */
    assert_int_equal(take(batcher, batch, 10), 1);
    assert_ptr_equal(batch[0], &items[1]);
    push(batcher, &items[2]);
    assert_int_equal(br_batcher_queries(batcher), 2);
    assert_int_equal(br_batcher_tokens(batcher), 16);
    assert_int_equal(br_batcher_push(batcher, &items[1]), BR_EBUSY);

    assert_ptr_equal(br_batcher_expire(batcher, 0), &items[0]); /* found expired once is expired */
    push(batcher, &items[1]);
    empty(batcher);
}

static void test_what_has_expired_never_leaves_in_a_batch(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t deadline_ns;
        uint64_t now_ns;
        bool expired;
    } cases[] = {
        {"before", 100, 99, false},
        {"at the deadline", 100, 100, true},
        {"after", 100, 101, true},
        {"at once", 0, 0, true},
        {"the last deadline", UINT64_MAX - 1, UINT64_MAX - 1, true},
        {"none never does", UINT64_MAX, UINT64_MAX, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
        br_batch_item it = item(1, cases[i].deadline_ns, group_a);
        br_batch_item *batch[SEQS_MAX];
        push(batcher, &it);
        if (cases[i].expired) {
            if (take(batcher, batch, cases[i].now_ns) != 0) fail_msg("%s", cases[i].name);
            if (br_batcher_expire(batcher, cases[i].now_ns) != &it) fail_msg("%s", cases[i].name);
            push(batcher, &it); /* without a take in between, too */
            if (br_batcher_expire(batcher, cases[i].now_ns) != &it) fail_msg("%s", cases[i].name);
        } else {
            if (br_batcher_expire(batcher, cases[i].now_ns) != NULL) fail_msg("%s", cases[i].name);
            if (take(batcher, batch, cases[i].now_ns) != 1) fail_msg("%s", cases[i].name);
        }
        empty(batcher);
    }
}

/* Expired queries on top do not use up the skips. */
static void test_the_earliest_deadline_of_all_clients_is_known(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
    assert_true(br_batcher_deadline_ns(batcher) == UINT64_MAX);
    br_batch_item items[4] = {item(1, UINT64_MAX, group_a), item(1, 30, group_a), item(1, 10, group_a),
                              item(1, 20, group_a)};
    static const uint64_t earliest[4] = {UINT64_MAX, 30, 10, 10};
    for (uint64_t i = 0; i < 4; i++) {
        items[i].client = i;
        push(batcher, &items[i]);
        assert_true(br_batcher_deadline_ns(batcher) == earliest[i]);
    }
    br_batch_item *batch[SEQS_MAX];
    assert_int_equal(br_batcher_take(batcher, batch, TOKENS_MAX, 0, 20), 2); /* two have expired */
    assert_int_equal(br_batcher_deadline_ns(batcher), 0);
    assert_non_null(br_batcher_expire(batcher, 20));
    assert_non_null(br_batcher_expire(batcher, 20));
    assert_true(br_batcher_deadline_ns(batcher) == UINT64_MAX);
    empty(batcher);
}

static void test_any_number_of_expired_queries_hides_nobody(void **state)
{
    (void)state;
    br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, BR_BATCH_SKIPS_MAX * 3);
    br_batch_item dead[BR_BATCH_SKIPS_MAX * 2];
    br_batch_item alive = item(1, 1000, group_a);
    br_batch_item *batch[SEQS_MAX];
    push(batcher, &alive);
    for (size_t i = 0; i < BR_BATCH_SKIPS_MAX * 2; i++) {
        dead[i] = item(1, i, group_a);
        push(batcher, &dead[i]);
    }
    assert_int_equal(take(batcher, batch, 999), 1);
    assert_ptr_equal(batch[0], &alive);
    assert_int_equal(br_batcher_queries(batcher), BR_BATCH_SKIPS_MAX * 2);
    empty(batcher);
}

static void test_skipping_ends_after_its_bound(void **state)
{
    (void)state;
    static const struct {
        int32_t misfits;
        int32_t taken;
    } cases[] = {{BR_BATCH_SKIPS_MAX - 1, 2}, {BR_BATCH_SKIPS_MAX, 1}, {BR_BATCH_SKIPS_MAX + 1, 1}};
    for (size_t i = 0; i < 3; i++) {
        br_batcher *batcher = create(TOKENS_MAX, SEQS_MAX, QUEUE_MAX);
        br_batch_item first = item(TOKENS_MAX - 1, UINT64_MAX, group_a);
        br_batch_item last = item(1, UINT64_MAX, group_a);
        br_batch_item misfits[BR_BATCH_SKIPS_MAX + 1];
        br_batch_item *batch[SEQS_MAX];
        push(batcher, &first);
        for (int32_t k = 0; k < cases[i].misfits; k++) {
            misfits[k] = item(2, UINT64_MAX, group_a);
            push(batcher, &misfits[k]);
        }
        push(batcher, &last);
        assert_int_equal(take(batcher, batch, 0), cases[i].taken);
        empty(batcher);
    }
}

enum { MODEL_MAX = 64 };

/* A plain batcher to compare with: an unsorted list, searched from end to end for each query. */
typedef struct model {
    br_batch_item *waiting[MODEL_MAX];
    bool dead[MODEL_MAX]; /* take has seen it expired */
    bool passed[MODEL_MAX];
    int32_t count;
} model;

static void model_remove(model *m, int32_t at)
{
    m->count--;
    m->waiting[at] = m->waiting[m->count];
    m->dead[at] = m->dead[m->count];
    m->passed[at] = m->passed[m->count];
}

static int32_t model_first(const model *m)
{
    int32_t first = -1;
    for (int32_t i = 0; i < m->count; i++) {
        if (m->dead[i] || m->passed[i]) continue;
        const br_batch_item *a = m->waiting[i];
        const br_batch_item *b = first < 0 ? NULL : m->waiting[first];
        if (b == NULL || a->deadline_ns < b->deadline_ns ||
            (a->deadline_ns == b->deadline_ns && a->arrival < b->arrival)) {
            first = i;
        }
    }
    return first;
}

static int32_t model_take(model *m, br_batch_item **batch, const br_batcher_options *options, uint64_t now)
{
    int32_t taken = 0;
    int32_t tokens = 0;
    for (int32_t i = 0; i < m->count; i++) {
        m->dead[i] =
            m->dead[i] || (m->waiting[i]->deadline_ns <= now && m->waiting[i]->deadline_ns != UINT64_MAX);
        m->passed[i] = false;
    }
    while (taken < options->seqs_max) {
        const int32_t at = model_first(m);
        if (at < 0) break;
        br_batch_item *it = m->waiting[at];
        const bool together = taken == 0 || batch[0]->group == it->group;
        if (together && tokens + it->tokens <= options->tokens_max) {
            batch[taken++] = it;
            tokens += it->tokens;
            model_remove(m, at);
        } else {
            m->passed[at] = true; /* MODEL_MAX <= BR_BATCH_SKIPS_MAX: the bound is never reached */
        }
    }
    return taken;
}

static bool model_forget(model *m, const br_batch_item *it, uint64_t now)
{
    for (int32_t i = 0; i < m->count; i++) {
        if (m->waiting[i] != it) continue;
        const bool may = m->dead[i] || (it->deadline_ns <= now && it->deadline_ns != UINT64_MAX);
        model_remove(m, i);
        return may;
    }
    return false;
}

static bool model_has_expired(const model *m, uint64_t now)
{
    for (int32_t i = 0; i < m->count; i++) {
        if (m->dead[i] || (m->waiting[i]->deadline_ns <= now && m->waiting[i]->deadline_ns != UINT64_MAX))
            return true;
    }
    return false;
}

static uint64_t below(uint64_t *seed, uint64_t bound)
{
    return br_random_bits(seed) % bound;
}

static void check_counts(const br_batcher *batcher, const model *m)
{
    int64_t tokens = 0;
    for (int32_t i = 0; i < m->count; i++) tokens += m->waiting[i]->tokens;
    assert_int_equal(br_batcher_queries(batcher), m->count);
    assert_int_equal(br_batcher_tokens(batcher), tokens);
}

static void replay(uint64_t *seed)
{
    static_assert((int)MODEL_MAX <= (int)BR_BATCH_SKIPS_MAX, "the model knows no bound of skips");
    const br_batcher_options options = {
        .tokens_max = 1 + (int32_t)below(seed, 40),
        .seqs_max = 1 + (int32_t)below(seed, 8),
        .queue_max = 1 + (int32_t)below(seed, MODEL_MAX),
    };
    const char *groups[] = {group_a, group_b};
    const uint64_t group_count = 1 + below(seed, 2);
    br_batcher *batcher = create(options.tokens_max, options.seqs_max, options.queue_max);
    br_batch_item pool[200];
    size_t pushed = 0;
    model m = {0};
    uint64_t now = 0;
    for (int step = 0; step < 400; step++) {
        const uint64_t what = below(seed, 10);
        now += below(seed, 3);
        if (what < 6 && pushed < 200) {
            br_batch_item *it = &pool[pushed++];
            *it = item(1 + (int32_t)below(seed, (uint64_t)options.tokens_max),
                       below(seed, 3) == 0 ? UINT64_MAX : now + below(seed, 60),
                       groups[below(seed, group_count)]);
            const br_status expected = m.count < options.queue_max ? BR_OK : BR_EBUSY;
            assert_int_equal(br_batcher_push(batcher, it), expected);
            if (expected == BR_OK) {
                m.dead[m.count] = false;
                m.waiting[m.count++] = it;
            }
        } else if (what < 8) {
            br_batch_item *got[8];
            br_batch_item *expected[8];
            const int32_t taken = take(batcher, got, now);
            assert_int_equal(taken, model_take(&m, expected, &options, now));
            for (int32_t i = 0; i < taken; i++) assert_ptr_equal(got[i], expected[i]);
        } else {
            br_batch_item *it = br_batcher_expire(batcher, now);
            if (it == NULL) {
                assert_false(model_has_expired(&m, now));
            } else {
                assert_true(model_forget(&m, it, now));
            }
        }
        check_counts(batcher, &m);
    }
    empty(batcher);
}

static void test_random_replays_equal_the_model(void **state)
{
    (void)state;
    const char *chosen = getenv("BESTROUTE_SEED");
    uint64_t seed = chosen != NULL ? strtoull(chosen, NULL, 0) : 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < 500; i++) replay(&seed);
}

static br_batch_item item_of(uint64_t client, int32_t tokens, uint64_t deadline_ns)
{
    br_batch_item it = item(tokens, deadline_ns, group_a);
    it.client = client;
    return it;
}

/* Another client's query waits for at most one turn of each flooder, whatever came before it. */
static void test_a_flood_delays_others_by_a_turn_alone(void **state)
{
    (void)state;
    enum { FLOOD = 90, FLOODERS = 3 };
    static br_batch_item flood[FLOOD];
    for (int with_deadlines = 0; with_deadlines < 2; with_deadlines++) {
        br_batcher *batcher = create(80, SEQS_MAX, QUEUE_MAX); /* a turn is 10 tokens: one query of 10 */
        for (int i = 0; i < FLOOD; i++) {
            flood[i] = item_of((uint64_t)(1 + i % FLOODERS), 10, with_deadlines ? 1000 : UINT64_MAX);
            push(batcher, &flood[i]);
        }
        br_batch_item single = item_of(77, 5, with_deadlines ? 2000 : UINT64_MAX);
        push(batcher, &single);
        br_batch_item *batch[SEQS_MAX];
        bool found = false;
        const int32_t taken = br_batcher_take(batcher, batch, 80, 0, 0);
        for (int32_t i = 0; i < taken; i++) found = found || batch[i] == &single;
        assert_true(found);
        empty(batcher);
    }
}

/* Clients that always have something waiting get the same number of tokens,
 * however long their queries are. */
static void test_busy_clients_share_tokens_alike(void **state)
{
    (void)state;
    enum { CLIENTS = 5, EACH = 20, ROUNDS = 400 };
    static const int32_t lengths[CLIENTS] = {3, 10, 33, 64, 100};
    static br_batch_item items[CLIENTS][EACH];
    int64_t served[CLIENTS] = {0};
    br_batcher *batcher = create(128, SEQS_MAX, CLIENTS * EACH);
    for (int c = 0; c < CLIENTS; c++)
        for (int i = 0; i < EACH; i++) {
            items[c][i] = item_of((uint64_t)c, lengths[c], UINT64_MAX);
            push(batcher, &items[c][i]);
        }
    br_batch_item *batch[SEQS_MAX];
    for (int round = 0; round < ROUNDS; round++) {
        const int32_t taken = br_batcher_take(batcher, batch, 128, 0, 0);
        assert_true(taken > 0);
        for (int32_t i = 0; i < taken; i++) {
            served[batch[i]->client] += batch[i]->tokens;
            push(batcher, batch[i]);
        }
    }
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (int c = 0; c < CLIENTS; c++) {
        if (served[c] < least) least = served[c];
        if (served[c] > most) most = served[c];
    }
    assert_true(most - least <= most / 10);
    empty(batcher);
}

static void test_within_a_turn_the_earliest_deadline_of_all_clients_goes_first(void **state)
{
    (void)state;
    br_batcher *batcher = create(800, 1, QUEUE_MAX);
    br_batch_item items[6];
    for (int i = 0; i < 6; i++) {
        items[i] = item_of((uint64_t)i % 3, 10, (uint64_t)(100 + (i * 7 + 3) % 6));
        push(batcher, &items[i]);
    }
    uint64_t before = 0;
    br_batch_item *batch[1];
    for (int i = 0; i < 6; i++) {
        assert_int_equal(br_batcher_take(batcher, batch, 800, 0, 0), 1);
        assert_true(batch[0]->deadline_ns > before);
        before = batch[0]->deadline_ns;
    }
    empty(batcher);
}

static void test_more_clients_than_are_compared_all_have_their_turn(void **state)
{
    (void)state;
    enum { CLIENTS = 300 };
    static br_batch_item items[2 * CLIENTS];
    br_batcher *batcher = create(80, SEQS_MAX, 2 * CLIENTS);
    for (int i = 0; i < 2 * CLIENTS; i++) {
        items[i] = item_of((uint64_t)(i / 2), 10, UINT64_MAX);
        push(batcher, &items[i]);
    }
    br_batch_item *batch[SEQS_MAX];
    int served[CLIENTS] = {0};
    for (int left = 2 * CLIENTS; left > 0;) {
        const int32_t taken = br_batcher_take(batcher, batch, 80, 0, 0);
        assert_true(taken > 0);
        for (int32_t i = 0; i < taken; i++) served[batch[i]->client]++;
        left -= taken;
    }
    for (int c = 0; c < CLIENTS; c++) assert_int_equal(served[c], 2);
    empty(batcher);
}

/* Sizes of the batches that `sharers` takers get out of `count` queries of 10 tokens, the first four. */
static void take_sizes(int32_t sizes[4], int32_t count, int32_t tokens_max, int32_t sharers)
{
    static br_batch_item items[QUEUE_MAX];
    br_batcher *batcher = create(TOKENS_MAX, BR_BATCH_SEQS_MAX, QUEUE_MAX);
    for (int32_t i = 0; i < count; i++) {
        items[i] = item(10, UINT64_MAX, group_a);
        push(batcher, &items[i]);
    }
    br_batch_item *batch[BR_BATCH_SEQS_MAX];
    for (int i = 0; i < 4; i++) sizes[i] = br_batcher_take(batcher, batch, tokens_max, sharers, 0);
    empty(batcher);
}

static void test_sharers_take_their_share_of_what_waits(void **state)
{
    (void)state;
    static const struct {
        int32_t waiting;
        int32_t tokens_max;
        int32_t sharers;
        int32_t sizes[4];
    } cases[] = {
        {24, 1000, 0, {24, 0, 0, 0}}, /* nobody to share with */
        {24, 1000, 1, {24, 0, 0, 0}}, {24, 1000, 2, {12, 6, 3, 1}}, {24, 1000, 4, {6, 4, 3, 2}},
        {24, 1000, 12, {2, 1, 1, 1}}, {24, 50, 4, {5, 4, 3, 3}}, /* never more than a pass may hold */
        {3, 1000, 4, {1, 1, 1, 0}},                              /* one query at least */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int32_t sizes[4];
        take_sizes(sizes, cases[i].waiting, cases[i].tokens_max, cases[i].sharers);
        for (int k = 0; k < 4; k++) assert_int_equal(sizes[k], cases[i].sizes[k]);
    }
}

/* 80 tokens: a turn is 10. The flood's queries are of 2 tokens, the others' of 10. */
static void test_beside_a_flood_sharers_keep_passes_short_for_a_while(void **state)
{
    (void)state;
    enum { FLOOD = 90, SHORT = 128 };
    static br_batch_item flood[FLOOD];
    br_batcher *batcher = create(80, BR_BATCH_SEQS_MAX, QUEUE_MAX);
    for (int i = 0; i < FLOOD; i++) {
        flood[i] = item_of(1, 2, UINT64_MAX);
        push(batcher, &flood[i]);
    }
    br_batch_item *batch[BR_BATCH_SEQS_MAX];
    assert_int_equal(br_batcher_take(batcher, batch, 80, 1, 0), 40); /* no other client was there */
    for (int i = 0; i < 40; i++) push(batcher, batch[i]);

    br_batch_item single = item_of(2, 10, UINT64_MAX);
    push(batcher, &single);
    const int32_t taken = br_batcher_take(batcher, batch, 80, 1, 0);
    assert_ptr_equal(batch[0], &single); /* fresh: before the flood's older queries */
    for (int i = 1; i < taken; i++) push(batcher, batch[i]);
    for (int i = 0; i < SHORT; i++) {
        assert_int_equal(br_batcher_take(batcher, batch, 80, 1, 0), 1);
        push(batcher, batch[0]);
    }
    assert_int_equal(br_batcher_take(batcher, batch, 80, 1, 0), 40);
    for (int i = 0; i < 40; i++) push(batcher, batch[i]);
    empty(batcher);
}

static void test_many_small_clients_beside_a_flood_share_long_passes(void **state)
{
    (void)state;
    enum { FLOOD = 40, SMALL = 40 };
    static br_batch_item flood[FLOOD];
    static br_batch_item small[SMALL];
    br_batcher *batcher = create(80, BR_BATCH_SEQS_MAX, QUEUE_MAX);
    for (int i = 0; i < FLOOD; i++) {
        flood[i] = item_of(1, 2, UINT64_MAX);
        push(batcher, &flood[i]);
    }
    for (int i = 0; i < SMALL; i++) {
        small[i] = item_of((uint64_t)(2 + i), 4, UINT64_MAX);
        push(batcher, &small[i]);
    }
    br_batch_item *batch[BR_BATCH_SEQS_MAX];
    const int32_t first = br_batcher_take(batcher, batch, 80, 4, 0);
    for (int i = 0; i < first; i++) push(batcher, batch[i]);
    /* Contended now: a quarter of the 160 tokens that the small ones have waiting. */
    int32_t tokens = 0;
    const int32_t taken = br_batcher_take(batcher, batch, 80, 4, 0);
    for (int i = 0; i < taken; i++) tokens += batch[i]->tokens;
    assert_in_range(tokens, 37, 40);
    empty(batcher);
}

/* Clients that are fresh again and again are favoured; the flood is served too. */
static void test_fresh_clients_do_not_starve_the_others(void **state)
{
    (void)state;
    enum { FLOOD = 50, ROUNDS = 200 };
    static br_batch_item flood[FLOOD];
    static br_batch_item fresh[4];
    br_batcher *batcher = create(80, 1, QUEUE_MAX);
    for (int i = 0; i < FLOOD; i++) {
        flood[i] = item_of(1, 5, UINT64_MAX);
        push(batcher, &flood[i]);
    }
    for (int i = 0; i < 4; i++) {
        fresh[i] = item_of((uint64_t)(2 + i), 5, UINT64_MAX);
        push(batcher, &fresh[i]);
    }
    int served = 0;
    for (int round = 0; round < ROUNDS; round++) {
        br_batch_item *batch[1];
        assert_int_equal(br_batcher_take(batcher, batch, 80, 0, 0), 1);
        served += batch[0]->client == 1 ? 1 : 0;
        push(batcher, batch[0]); /* a fresh client comes back at once, as fresh as before */
    }
    assert_in_range(served, ROUNDS / 12, ROUNDS / 6); /* a ninth, after the first batch's worth */
    empty(batcher);
}

/* Clients that each have a query now and then, for a long time: a flood that comes then is still served after
 * them. */
static void test_fresh_clients_go_first_however_many_came_before(void **state)
{
    (void)state;
    enum { BEFORE = 1000, FLOOD = 50 };
    static br_batch_item flood[FLOOD];
    br_batcher *batcher = create(80, 1, QUEUE_MAX);
    br_batch_item *batch[1];
    br_batch_item single = item_of(7, 10, UINT64_MAX);
    for (int i = 0; i < BEFORE; i++) {
        push(batcher, &single);
        assert_int_equal(take(batcher, batch, 0), 1);
    }
    for (int i = 0; i < FLOOD; i++) {
        flood[i] = item_of(1, 5, UINT64_MAX);
        push(batcher, &flood[i]);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(take(batcher, batch, 0), 1); /* its first turn */
    push(batcher, &single);
    assert_int_equal(take(batcher, batch, 0), 1);
    assert_ptr_equal(batch[0], &single);
    empty(batcher);
}

/* The client's turn is used up, and its last query, of another bundle than the batch, is put back: that does
 * not make the client fresh. */
static void test_a_client_whose_last_query_is_skipped_does_not_begin_anew(void **state)
{
    (void)state;
    br_batcher *batcher = create(80, SEQS_MAX, QUEUE_MAX); /* a turn is 10 */
    br_batch_item *batch[SEQS_MAX];
    br_batch_item old[2] = {item_of(1, 12, UINT64_MAX), item_of(1, 12, UINT64_MAX)};
    br_batch_item fresh[2] = {item_of(2, 1, UINT64_MAX), item_of(3, 1, UINT64_MAX)};
    old[1].group = group_b;
    for (int i = 0; i < 2; i++) push(batcher, &old[i]);
    assert_int_equal(br_batcher_take(batcher, batch, 12, 0, 0), 1);
    for (int i = 0; i < 2; i++) {
        push(batcher, &fresh[i]);
        assert_int_equal(take(batcher, batch, 0), 1);
        assert_ptr_equal(batch[0], &fresh[i]);
    }
    empty(batcher);
}

static void test_a_query_longer_than_the_takers_budget_goes_alone(void **state)
{
    (void)state;
    br_batcher *batcher = create(100, SEQS_MAX, QUEUE_MAX);
    br_batch_item items[3] = {item_of(1, 60, 5), item_of(1, 10, 6), item_of(1, 10, 7)};
    for (int i = 0; i < 3; i++) push(batcher, &items[i]);
    br_batch_item *batch[SEQS_MAX];
    assert_int_equal(br_batcher_take(batcher, batch, 40, 0, 0), 1);
    assert_ptr_equal(batch[0], &items[0]);
    assert_int_equal(br_batcher_take(batcher, batch, 40, 0, 0), 2);
    empty(batcher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_out_of_range_are_refused),
        cmocka_unit_test(test_create_survives_every_failing_allocation),
        cmocka_unit_test(test_nothing_is_allocated_after_create),
        cmocka_unit_test(test_destroy_accepts_null),
        cmocka_unit_test(test_an_empty_batcher_gives_nothing),
        cmocka_unit_test(test_batches_hold_what_fits_and_skip_what_does_not),
        cmocka_unit_test(test_the_earliest_deadline_leads_then_arrival),
        cmocka_unit_test(test_what_is_put_back_finds_its_old_place),
        cmocka_unit_test(test_an_earlier_deadline_overtakes_a_skipped_query),
        cmocka_unit_test(test_groups_never_share_a_batch),
        cmocka_unit_test(test_a_full_queue_is_busy_until_something_leaves),
        cmocka_unit_test(test_what_has_expired_never_leaves_in_a_batch),
        cmocka_unit_test(test_the_earliest_deadline_of_all_clients_is_known),
        cmocka_unit_test(test_any_number_of_expired_queries_hides_nobody),
        cmocka_unit_test(test_skipping_ends_after_its_bound),
        cmocka_unit_test(test_random_replays_equal_the_model),
        cmocka_unit_test(test_a_flood_delays_others_by_a_turn_alone),
        cmocka_unit_test(test_busy_clients_share_tokens_alike),
        cmocka_unit_test(test_within_a_turn_the_earliest_deadline_of_all_clients_goes_first),
        cmocka_unit_test(test_more_clients_than_are_compared_all_have_their_turn),
        cmocka_unit_test(test_a_query_longer_than_the_takers_budget_goes_alone),
        cmocka_unit_test(test_sharers_take_their_share_of_what_waits),
        cmocka_unit_test(test_beside_a_flood_sharers_keep_passes_short_for_a_while),
        cmocka_unit_test(test_many_small_clients_beside_a_flood_share_long_passes),
        cmocka_unit_test(test_fresh_clients_do_not_starve_the_others),
        cmocka_unit_test(test_fresh_clients_go_first_however_many_came_before),
        cmocka_unit_test(test_a_client_whose_last_query_is_skipped_does_not_begin_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
