/*
 * shared_budget.c - all queries of a request under one budget.
 *
 * The linear relaxation of the multiple-choice knapsack, in whole steps: every
 * query starts at the first corner of its hull. Then, while the budget lasts, the
 * steepest next step of any query is bought.
 *
 *   quality ^            .-- corner 2
 *           |      .----'        slope = quality gained per USD; it falls
 *           |   .-'  corner 1    from corner to corner
 *           |  /
 *           | corner 0: the cheapest considered
 *           +------------------------> cost
 *
 * Order: members are first sorted by their tables, and everything that follows
 * (sums, ties) uses that order. So the position of a query in the request changes
 * no comparison and no rounding.
 *
 * Money: the total is kept in two doubles, the sum and its rounding error, and
 * `fits` leaves room for the rounding of a caller that adds the costs as doubles.
 */
#include "policy.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "rules.h"

typedef struct point {
    double cost;
    double quality;
    int32_t candidate;
    int32_t n;
} point;

/* One query that takes part. A query that falls back by itself is one with a single corner. */
typedef struct member {
    br_shared_budget_query *query;
    point *hull;  /* corners, costs and qualities rising */
    double slope; /* of the step from `at` to the next corner */
    double price; /* USD of that step */
    int32_t corners;
    int32_t at;     /* the corner chosen so far */
    int32_t rank;   /* in the order of tables */
    bool fell_back; /* decision already made; it only costs */
} member;

/* high + low, exact to about 106 bits; high is their sum rounded once. */
typedef struct total {
    double high;
    double low;
} total;

typedef struct pool {
    const br_router *router;
    member *members;
    int32_t *order; /* members by rank; later the heap of those with a next step */
    point *sort;    /* [candidate_count] points of one query, sorted */
    point *sort_spare;
    int32_t count;
    int32_t heap_count;
    double budget;
    bool sums_are_exact;
    total spent;
    double shadow_price;
} pool;

size_t br_shared_budget_scratch_bytes(const br_router *router, size_t query_count)
{
    const size_t candidates = (size_t)router->candidate_count;
    return query_count * (sizeof(member) + sizeof(int32_t)) + (query_count + 2) * candidates * sizeof(point);
}

static void pool_init(pool *p, const br_router *router, size_t query_count, double budget, void *scratch)
{
    const size_t candidates = (size_t)router->candidate_count;
    member *members = scratch;
    point *sort = (point *)(members + query_count); /* the hulls follow the two sort buffers */
    *p = (pool){
        .router = router,
        .members = members,
        .order = (int32_t *)(sort + (query_count + 2) * candidates),
        .sort = sort,
        .sort_spare = sort + candidates,
        .budget = budget,
    };
}

static point *hull_of(const pool *p, int32_t index)
{
    return p->sort_spare + (size_t)p->router->candidate_count * (size_t)(index + 1);
}

static bool point_precedes(const point *a, const point *b)
{
    if (a->cost != b->cost) return a->cost < b->cost;
    if (a->quality != b->quality) return a->quality > b->quality;
    if (a->n != b->n) return a->n < b->n;
    return a->candidate < b->candidate;
}

/* Merges the runs a[0..middle) and a[middle..count) through `spare`. */
static void merge_points(point *a, size_t middle, size_t count, point *spare)
{
    if (!point_precedes(&a[middle], &a[middle - 1])) return; /* in order: prices often are */
    memcpy(spare, a, middle * sizeof *a);
    size_t left = 0;
    size_t right = middle;
    for (size_t i = 0; left < middle; i++) {
        const bool take_right = right < count && point_precedes(&a[right], &spare[left]);
        a[i] = take_right ? a[right++] : spare[left++];
    }
}

static void sort_points(point *a, size_t count, point *spare)
{
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t start = 0; start + width < count; start += 2 * width) {
            const size_t both = count - start < 2 * width ? count - start : 2 * width;
            merge_points(a + start, width, both, spare);
        }
    }
}

static size_t gather_considered(const pool *p, const br_option *options)
{
    size_t count = 0;
    for (int32_t i = 0; i < p->router->candidate_count; i++) {
        if (options[i].reason != BR_REASON_NONE) continue;
        p->sort[count++] = (point){options[i].cost, options[i].quality, i, p->router->candidates[i].n};
    }
    return count;
}

/* Costs differ, so this is no division by zero; finite, because it may overflow. */
static double slope_between(const point *a, const point *b)
{
    const double slope = (b->quality - a->quality) / (b->cost - a->cost);
    return slope < DBL_MAX ? slope : DBL_MAX;
}

/* Upper concave hull of sorted points, from the cheapest to the best; returns its corners. */
static int32_t make_hull(point *hull, const point *sorted, size_t count)
{
    int32_t corners = 0;
    for (size_t i = 0; i < count; i++) {
        const point *next = &sorted[i];
        if (corners > 0 && next->quality <= hull[corners - 1].quality) continue; /* dearer, no better */
        while (corners >= 2 && slope_between(&hull[corners - 2], &hull[corners - 1]) <
                                   slope_between(&hull[corners - 1], next)) {
            corners--;
        }
        hull[corners++] = *next;
    }
    return corners;
}

/* Decides alone those queries that cannot take part; makes members of the others. */
static void add_query(pool *p, br_shared_budget_query *query)
{
    assert(query->policy->kind == BR_POLICY_POOL);
    if (!br_policy_scores_valid(query->options, p->router)) {
        query->decision = br_policy_refuse(BR_EINTERNAL);
        return;
    }
    member *m = &p->members[p->count];
    *m = (member){.query = query, .hull = hull_of(p, p->count)};
    const size_t considered = gather_considered(p, query->options);
    if (considered > 0) {
        sort_points(p->sort, considered, p->sort_spare);
        m->corners = make_hull(m->hull, p->sort, considered);
    } else {
        query->decision = br_policy_fall_back(query->options, p->router, query->policy);
        if (query->decision.status != BR_OK || isnan(query->decision.cost)) return; /* nothing to pay */
        m->fell_back = true;
        m->corners = 1;
        m->hull[0] = (point){.cost = query->decision.cost};
    }
    p->count++;
}

/* Below 0, 0 or above 0. Costs of one candidate are NAN in all tables or in none. */
static int compare_tables(const pool *p, const br_shared_budget_query *a, const br_shared_budget_query *b)
{
    for (int32_t i = 0; i < p->router->candidate_count; i++) {
        const br_option *x = &a->options[i];
        const br_option *y = &b->options[i];
        if (x->quality != y->quality) return x->quality < y->quality ? -1 : 1;
        if (x->cost < y->cost) return -1;
        if (x->cost > y->cost) return 1;
        if (x->reason != y->reason) return x->reason < y->reason ? -1 : 1;
    }
    return (int)a->policy->fallback - (int)b->policy->fallback;
}

static bool member_follows(const pool *p, int32_t a, int32_t b)
{
    const int order = compare_tables(p, p->members[a].query, p->members[b].query);
    return order != 0 ? order > 0 : a > b;
}

/* Orders a heap of members: heap[0] is ahead of all others. */
typedef bool ahead_fn(const pool *p, int32_t a, int32_t b);

/* Sinks heap[slot] to its place. */
static void sink(const pool *p, int32_t *heap, int32_t count, int32_t slot, ahead_fn *ahead)
{
    const int32_t moving = heap[slot];
    while (2 * slot + 1 < count) {
        int32_t child = 2 * slot + 1;
        if (child + 1 < count && ahead(p, heap[child + 1], heap[child])) child++;
        if (!ahead(p, heap[child], moving)) break;
        heap[slot] = heap[child];
        slot = child;
    }
    heap[slot] = moving;
}

static void make_heap(const pool *p, int32_t *heap, int32_t count, ahead_fn *ahead)
{
    for (int32_t slot = count / 2 - 1; slot >= 0; slot--) sink(p, heap, count, slot, ahead);
}

/* Heapsort: fills order[] and the ranks. */
static void rank_members(pool *p)
{
    for (int32_t i = 0; i < p->count; i++) p->order[i] = i;
    make_heap(p, p->order, p->count, member_follows);
    for (int32_t end = p->count - 1; end >= 0; end--) {
        const int32_t last = p->order[0];
        p->order[0] = p->order[end];
        p->order[end] = last;
        p->members[last].rank = end;
        sink(p, p->order, end, 0, member_follows);
    }
}

/* Knuth's two-sum, then one step of renormalising. */
static total plus(total t, double amount)
{
    const double sum = t.high + amount;
    const double back = sum - t.high;
    const double error = (t.high - (sum - back)) + (amount - back) + t.low;
    const double high = sum + error;
    return (total){.high = high, .low = error - (high - sum)};
}

/* The power of two of the lowest bit that is set in a cost > 0. */
static int lowest_bit(double cost)
{
    int exponent;
    const double fraction = frexp(cost, &exponent);
    const uint64_t bits = (uint64_t)ldexp(fraction, DBL_MANT_DIG);
    return exponent - DBL_MANT_DIG + __builtin_ctzll(bits);
}

/* True when no sum of these costs within the budget is ever rounded: all are multiples of one power of
 * two, and the budget is below 2^53 of it. */
static bool sums_are_exact(const pool *p)
{
    for (int32_t i = 0; i < p->count; i++) {
        const member *m = &p->members[i];
        for (int32_t corner = 0; corner < m->corners; corner++) {
            const double cost = m->hull[corner].cost;
            if (cost > 0 && p->budget >= ldexp(1, lowest_bit(cost) + DBL_MANT_DIG)) return false;
        }
    }
    return true;
}

/* Would the costs, added as doubles in any order, stay within the budget? One or two costs are rounded
 * once, as t.high is. More err by at most u = DBL_EPSILON / 2 of the sum per addition; the factor
 * below is twice that, which covers its own rounding. */
static bool fits(const pool *p, total t)
{
    if (p->count <= 2 || p->sums_are_exact) return t.high <= p->budget;
    return t.high * (1 + p->count * DBL_EPSILON) <= p->budget;
}

static total cost_of_cheapest(const pool *p)
{
    total sum = {0};
    for (int32_t rank = 0; rank < p->count; rank++) sum = plus(sum, p->members[p->order[rank]].hull[0].cost);
    return sum;
}

static bool steeper(const pool *p, int32_t a, int32_t b)
{
    const member *x = &p->members[a];
    const member *y = &p->members[b];
    if (x->slope != y->slope) return x->slope > y->slope;
    if (x->price != y->price) return x->price < y->price;
    return x->rank < y->rank;
}

static bool has_next(const member *m)
{
    return m->at + 1 < m->corners;
}

static void aim_at_next(member *m)
{
    const point *here = &m->hull[m->at];
    m->slope = slope_between(here, here + 1);
    m->price = here[1].cost - here->cost;
}

/* Fills order[] with the heap of those that have a step; the ranks stay in the members. */
static void aim_all(pool *p)
{
    p->heap_count = 0;
    for (int32_t i = 0; i < p->count; i++) {
        if (!has_next(&p->members[i])) continue;
        aim_at_next(&p->members[i]);
        p->order[p->heap_count++] = i;
    }
    make_heap(p, p->order, p->heap_count, steeper);
}

/* A step that does not fit takes its query off the heap: the later steps of the query cost even more. */
static void buy_steps(pool *p)
{
    bool bought = false;
    bool passed_over = false;
    while (p->heap_count > 0) {
        member *m = &p->members[p->order[0]];
        const total after = plus(plus(p->spent, -m->hull[m->at].cost), m->hull[m->at + 1].cost);
        const bool buys = fits(p, after);
        if (buys || (!bought && !passed_over)) p->shadow_price = m->slope;
        bought = bought || buys;
        passed_over = passed_over || !buys;
        if (buys) {
            p->spent = after;
            m->at++;
        }
        if (buys && has_next(m)) {
            aim_at_next(m);
        } else {
            p->order[0] = p->order[--p->heap_count];
        }
        sink(p, p->order, p->heap_count, 0, steeper);
    }
    if (!passed_over) p->shadow_price = 0;
}

static double margin_at(const pool *p, const br_option *options, int32_t chosen)
{
    double rival = -INFINITY;
    bool has_rival = false;
    for (int32_t i = 0; i < p->router->candidate_count; i++) {
        if (i == chosen || options[i].reason != BR_REASON_NONE) continue;
        const double utility = options[i].quality - p->shadow_price * options[i].cost;
        if (utility > rival) rival = utility;
        has_rival = true;
    }
    const double own = options[chosen].quality - p->shadow_price * options[chosen].cost;
    return has_rival ? br_policy_margin(own - rival) : 1;
}

static void answer_all(pool *p, bool met)
{
    for (int32_t i = 0; i < p->count; i++) {
        const member *m = &p->members[i];
        br_shared_budget_query *query = m->query;
        if (m->fell_back) continue;
        if (met) {
            const int32_t chosen = m->hull[m->at].candidate;
            query->decision =
                br_policy_answer(query->options, chosen, margin_at(p, query->options, chosen), true);
        } else {
            query->decision = br_policy_fall_back(query->options, p->router, query->policy);
        }
    }
}

void br_shared_budget_decide(br_shared_budget_query *queries, size_t query_count, const br_router *router,
                             double total_budget, void *scratch)
{
    assert(query_count <= BR_QUERIES_MAX);
    assert(total_budget >= 0);
    pool p;
    pool_init(&p, router, query_count, total_budget, scratch);
    for (size_t i = 0; i < query_count; i++) add_query(&p, &queries[i]);

    rank_members(&p);
    p.sums_are_exact = sums_are_exact(&p);
    p.spent = cost_of_cheapest(&p);
    const bool met = fits(&p, p.spent);
    if (met) {
        aim_all(&p);
        buy_steps(&p);
    }
    answer_all(&p, met);
}
