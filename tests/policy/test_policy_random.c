/*
 * test_policy_random.c - policy/policy.h, one query: random routers, prices, scores and
 * policies against brute force, and margins against moved scores.
 *
 * The oracle shares nothing with policy/policy.c: it works from names and prices, sorts
 * all candidates in the order of ties, and takes the first that satisfies the
 * sentence of PROTOCOL.md. Values are often quantised, so ties are common.
 */
#include "policy_fixture.h"

enum { MODELS_MAX = 5, CANDIDATES_MAX = 8, INSTANCES = 40000 };

typedef struct instance {
    br_router router;
    br_policy_spec policy;
    br_str models[2 * MODELS_MAX];
    br_str exclude[MODELS_MAX];
    float quality[CANDIDATES_MAX];
    uint64_t prompt_tokens[MODELS_MAX];
    double output_tokens[MODELS_MAX];
    br_query_costs costs;
} instance;

static double quantised(uint64_t *seed, bool coarse, double scale)
{
    return scale * (coarse ? below(seed, 5) / 4.0 : br_random_unit(seed));
}

static void random_router(instance *x, uint64_t *seed, bool coarse)
{
    static const char *const names[] = {"alpha", "beta", "gamma", "delta", "alph"};
    const int32_t models = 1 + below(seed, MODELS_MAX);
    for (int32_t m = 0; m < models; m++) {
        add_model(&x->router, names[m], below(seed, 6) > 0, quantised(seed, coarse, 2),
                  quantised(seed, coarse, 2));
        x->router.models[m].input_per_sample = below(seed, 2) == 0;
        x->prompt_tokens[m] = (uint64_t)below(seed, 4);
        x->output_tokens[m] = quantised(seed, coarse, 4);
    }
    const int32_t candidates = 1 + below(seed, CANDIDATES_MAX);
    const int32_t reference = below(seed, candidates);
    for (int32_t c = 0; c < candidates; c++) {
        add_candidate(&x->router, below(seed, models), 1 + below(seed, 4), c == reference);
        x->quality[c] = (float)quantised(seed, coarse, 1);
    }
    if (below(seed, 50) == 0) x->quality[below(seed, CANDIDATES_MAX)] = below(seed, 2) ? NAN : 1.5F;
    x->costs = (br_query_costs){x->prompt_tokens, x->output_tokens,
                                below(seed, 3) == 0 ? quantised(seed, coarse, 24) : INFINITY};
}

static size_t random_names(br_str *out, size_t max, const br_router *router, uint64_t *seed)
{
    const size_t count = 1 + (size_t)below(seed, (int32_t)max);
    for (size_t i = 0; i < count; i++)
        out[i] = br_str_from(router->models[below(seed, router->model_count)].name);
    return count;
}

static void random_policy(instance *x, uint64_t *seed, bool coarse)
{
    br_policy_spec *p = &x->policy;
    p->has = BR_HAS_KIND | BR_HAS_THRESHOLD | BR_HAS_LAMBDA | BR_HAS_TOLERANCE | BR_HAS_FALLBACK;
    p->kind = (br_policy_kind)below(seed, BR_POLICY_POOL);
    p->fallback = (br_fallback)below(seed, 3);
    p->threshold = quantised(seed, coarse, 1);
    p->tolerance = quantised(seed, coarse, 1);
    p->lambda = quantised(seed, coarse, below(seed, 2) ? 0.5 : 8);
    if (p->kind == BR_POLICY_BUDGET || below(seed, 2) == 0) {
        p->has |= BR_HAS_MAX_COST;
        p->max_cost = quantised(seed, coarse, 24);
    }
    if (below(seed, 3) == 0) {
        p->has |= BR_HAS_MODELS;
        p->models = x->models;
        p->model_count = random_names(x->models, MODELS_MAX, &x->router, seed);
    }
    if (below(seed, 3) == 0) {
        p->has |= BR_HAS_EXCLUDE;
        p->exclude = x->exclude;
        p->exclude_count = random_names(x->exclude, 2, &x->router, seed);
    }
    if (below(seed, 3) == 0) {
        p->has |= BR_HAS_MAX_N;
        p->max_n = 1 + (uint32_t)below(seed, 4);
    }
}

static void random_instance(instance *x, uint64_t *seed)
{
    *x = (instance){0};
    const bool coarse = below(seed, 3) > 0;
    random_router(x, seed, coarse);
    random_policy(x, seed, coarse);
}

/* A candidate as the oracle sees it. */
typedef struct entry {
    int32_t index;
    int32_t n;
    double quality;
    double cost;
    bool priced;
    bool affordable;
} entry;

typedef struct verdict {
    br_status status; /* of the decision; BR_EINVAL: no candidate passes the filters */
    int32_t candidate;
    bool met;
} verdict;

static int order_of_ties(const void *left, const void *right)
{
    const entry *a = left;
    const entry *b = right;
    if (a->priced && b->priced && a->cost != b->cost) return a->cost < b->cost ? -1 : 1;
    if (a->quality != b->quality) return a->quality > b->quality ? -1 : 1;
    if (a->n != b->n) return a->n - b->n;
    return a->index - b->index;
}

static bool is_named(const char *name, const br_str *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].size == strlen(name) && memcmp(list[i].data, name, list[i].size) == 0) return true;
    }
    return false;
}

static bool passes(const instance *x, int32_t c)
{
    const br_policy_spec *p = &x->policy;
    const char *name = x->router.models[x->router.candidates[c].model].name;
    if ((p->has & BR_HAS_MODELS) != 0 && !is_named(name, p->models, p->model_count)) return false;
    if ((p->has & BR_HAS_EXCLUDE) != 0 && is_named(name, p->exclude, p->exclude_count)) return false;
    return (p->has & BR_HAS_MAX_N) == 0 || x->router.candidates[c].n <= (int32_t)p->max_n;
}

static entry describe(const instance *x, int32_t c)
{
    const br_candidate *candidate = &x->router.candidates[c];
    const br_priced_model *m = &x->router.models[candidate->model];
    const double prompt = (double)x->prompt_tokens[candidate->model];
    const int32_t prompts = m->input_per_sample ? candidate->n : 1;
    entry e = {
        .index = c,
        .n = candidate->n,
        .quality = c == x->router.reference ? 1 : (double)x->quality[candidate->head],
        .cost = m->input_price * prompt * prompts +
                m->output_price * x->output_tokens[candidate->model] * candidate->n,
        .priced = m->has_price,
    };
    e.affordable = e.priced && e.cost <= x->costs.max_cost &&
                   ((x->policy.has & BR_HAS_MAX_COST) == 0 || e.cost <= x->policy.max_cost);
    return e;
}

/* The first entry in the order of ties for which the sentence of the kind holds; -1 for none. */
static int32_t satisfying(const instance *x, const entry *sorted, int32_t count)
{
    double best_quality = -1;
    double best_utility = -INFINITY;
    for (int32_t i = 0; i < count; i++) {
        if (!sorted[i].affordable) continue;
        best_quality = fmax(best_quality, sorted[i].quality);
        best_utility = fmax(best_utility, sorted[i].quality - x->policy.lambda * sorted[i].cost);
    }
    for (int32_t i = 0; i < count; i++) {
        const entry *e = &sorted[i];
        if (!e->affordable) continue;
        bool holds = false;
        switch (x->policy.kind) {
        case BR_POLICY_THRESHOLD:
            holds = e->quality >= x->policy.threshold || e->index == x->router.reference;
            break;
        case BR_POLICY_BUDGET:
            holds = e->quality == best_quality;
            break;
        case BR_POLICY_UTILITY:
            holds = e->quality - x->policy.lambda * e->cost == best_utility;
            break;
        case BR_POLICY_TOLERANCE:
            holds = e->quality >= (1 - x->policy.tolerance) * best_quality;
            break;
        case BR_POLICY_POOL:
            break;
        }
        if (holds) return e->index;
    }
    return -1;
}

/* `best`: among the affordable by quality, else the first priced, else by quality. */
static int32_t best_of(const entry *sorted, int32_t count)
{
    int32_t affordable = -1;
    int32_t priced = -1;
    int32_t any = -1;
    for (int32_t i = 0; i < count; i++) {
        const entry *e = &sorted[i];
        if (e->affordable && (affordable < 0 || e->quality > sorted[affordable].quality)) affordable = i;
        if (e->priced && priced < 0) priced = i;
        if (any < 0 || e->quality > sorted[any].quality) any = i;
    }
    return sorted[affordable >= 0 ? affordable : priced >= 0 ? priced : any].index;
}

static verdict brute_force(const instance *x)
{
    entry entries[CANDIDATES_MAX];
    entry priced[CANDIDATES_MAX]; /* sorted apart: costs that are missing have no place in an order */
    int32_t count = 0;
    int32_t priced_count = 0;
    bool broken = false;
    bool has_reference = false;
    for (int32_t c = 0; c < x->router.candidate_count; c++) {
        const entry e = describe(x, c);
        broken = broken || isnan(e.quality) || e.quality < 0 || e.quality > 1;
        if (!passes(x, c)) continue;
        entries[count++] = e;
        if (e.priced) priced[priced_count++] = e;
        has_reference = has_reference || c == x->router.reference;
    }
    if (count == 0) return (verdict){.status = BR_EINVAL};
    if (broken) return (verdict){.status = BR_EINTERNAL, .candidate = -1};
    entry *considered = priced_count > 0 ? priced : entries;
    const int32_t considered_count = priced_count > 0 ? priced_count : count;
    qsort(considered, (size_t)considered_count, sizeof *considered, order_of_ties);

    const int32_t chosen = satisfying(x, considered, considered_count);
    if (chosen >= 0) return (verdict){.candidate = chosen, .met = true};
    if (x->policy.fallback == BR_FALLBACK_ERROR) return (verdict){.status = BR_EINFEASIBLE, .candidate = -1};
    const bool reference = x->policy.fallback == BR_FALLBACK_REFERENCE && has_reference;
    return (verdict){.candidate = reference ? x->router.reference : best_of(considered, considered_count)};
}

static br_decision decide(const instance *x, const br_policy *policy, br_option *options)
{
    br_policy_table(options, &x->router, policy, x->quality, &x->costs);
    return br_policy_decide(options, &x->router, policy);
}

static void test_every_kind_equals_brute_force(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    int32_t seen[3] = {0}; /* met, fallback, refused */
    for (int32_t i = 0; i < INSTANCES; i++) {
        random_instance(&x, &seed);
        const verdict expected = brute_force(&x);
        br_policy policy;
        br_error error = {0};
        const br_status status = br_policy_resolve(&policy, &x.router, &x.policy, &error);
        if (expected.status == BR_EINVAL) {
            assert_int_equal(status, BR_EINVAL);
            continue;
        }
        if (status != BR_OK) fail_msg("instance %d: %s", i, error.text);
        br_option options[CANDIDATES_MAX];
        const br_decision d = decide(&x, &policy, options);
        if (d.status != expected.status || d.candidate != expected.candidate || d.met != expected.met) {
            fail_msg("instance %d, kind %d: status %d, candidate %d, met %d; expected %d, %d, %d", i,
                     x.policy.kind, d.status, d.candidate, d.met, expected.status, expected.candidate,
                     expected.met);
        }
        assert_true(d.margin >= 0 && isfinite(d.margin));
        seen[d.met ? 0 : d.status == BR_OK ? 1 : 2]++;
    }
    print_message("%d met, %d fell back, %d refused\n", seen[0], seen[1], seen[2]);
    for (int32_t i = 0; i < 3; i++) assert_true(seen[i] > INSTANCES / 100);
}

/* Moves the score of one candidate that is considered, if it stays a score. */
static bool changes_when_moved(instance *x, const br_policy *policy, const br_decision *d, int32_t c,
                               double by)
{
    br_option options[CANDIDATES_MAX];
    br_policy_table(options, &x->router, policy, x->quality, &x->costs);
    options[c].quality += by;
    if (options[c].quality < 0 || options[c].quality > 1) return false;
    const br_decision moved = br_policy_decide(options, &x->router, policy);
    return moved.candidate != d->candidate || moved.met != d->met;
}

static void test_no_score_that_moves_less_than_the_margin_changes_the_answer(void **state)
{
    (void)state;
    static instance x;
    uint64_t seed = seed_from_environment();
    int32_t tight = 0;
    int32_t checked = 0;
    for (int32_t i = 0; i < INSTANCES; i++) {
        random_instance(&x, &seed);
        br_policy policy;
        if (br_policy_resolve(&policy, &x.router, &x.policy, NULL) != BR_OK) continue;
        br_option options[CANDIDATES_MAX];
        const br_decision d = decide(&x, &policy, options);
        if (!d.met || !(d.margin > 1e-9)) continue;
        checked++;
        bool changes = false;
        for (int32_t c = 0; c < x.router.candidate_count; c++) {
            if (c == x.router.reference) continue; /* 1 by convention: no prediction to be wrong */
            const double safe = d.margin * (1 - 1e-9) - 1e-12;
            if (changes_when_moved(&x, &policy, &d, c, safe) ||
                changes_when_moved(&x, &policy, &d, c, -safe)) {
                fail_msg("instance %d, kind %d: candidate %d within the margin %.17g", i, x.policy.kind, c,
                         d.margin);
            }
            const double far = d.margin * (1 + 1e-9) + 1e-12;
            changes = changes || changes_when_moved(&x, &policy, &d, c, far) ||
                      changes_when_moved(&x, &policy, &d, c, -far);
        }
        if (changes) tight++;
    }
    print_message("margins: %d, of which a move just beyond changes the answer in %d\n", checked, tight);
    assert_true(tight > checked / 4); /* the others have no rival, or none that can move so far */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_equals_brute_force),
        cmocka_unit_test(test_no_score_that_moves_less_than_the_margin_changes_the_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
