/* test_evaluation.c - replay, curves, hulls, calibration, bootstrap, analysis: against figures by hand. */
#include "eval/evaluation.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/analysis.h"
#include "eval/records.h"
#include "eval/stories.h"
#include "policy/policy_fixture.h"
#include "support/oom.h"

enum { CHEAP, MIDDLE, REFERENCE, CANDIDATES, ROWS = 4, TASKS = 2 };

typedef struct fixture {
    br_router *router;
    br_eval_table table;
} fixture;

/* Costs per answer 1, 2 and 10 USD: prices per output token, one token each, prompts free. */
static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->router = calloc(1, sizeof *f->router);
    add_model(f->router, "cheap", true, 0, 1);
    add_model(f->router, "middle", true, 0, 2);
    add_model(f->router, "reference", true, 0, 10);
    for (int32_t m = 0; m < 3; m++) f->router->models[m].avg_output_tokens = 1;
    for (int32_t c = 0; c < CANDIDATES; c++)
        f->router->candidates[c] =
            (br_candidate){.model = c, .n = 1, .head = c == REFERENCE ? -1 : c, .scale = 1};
    f->router->candidate_count = CANDIDATES;
    f->router->head_count = CANDIDATES;
    f->router->reference = REFERENCE;

    static const float predicted[ROWS][2] = {{0.92F, 0.95F}, {0.2F, 0.6F}, {0.5F, 0.1F}, {0.7F, 0.8F}};
    static const double quality[ROWS][CANDIDATES] = {{1, 1, 1}, {0, 1, 1}, {0.5, 0, 1}, {0, 1, 0.5}};
    static const double paid[CANDIDATES] = {1, 2, 10};
    assert_int_equal(br_eval_table_init(&f->table, f->router, ROWS, TASKS), BR_OK);
    for (size_t r = 0; r < ROWS; r++) {
        f->table.task[r] = r < 2 ? 0 : 1;
        for (size_t c = 0; c < CANDIDATES; c++) {
            const size_t cell = br_eval_at(&f->table, r, c);
            f->table.measured[cell] = true;
            f->table.quality[cell] = quality[r][c];
            f->table.match[cell] = quality[r][c];
            f->table.paid[cell] = paid[c];
            if (c < 2) f->table.predicted[cell] = predicted[r][c];
        }
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    br_eval_table_deinit(&f->table);
    free(f->router);
    free(f);
    return 0;
}

static void assert_close(double found, double expected)
{
    if (!(fabs(found - expected) < 1e-12)) fail_msg("found %.15g, expected %.15g", found, expected);
}

static void assert_point(br_eval_point found, double cost, double quality)
{
    assert_close(found.cost, cost);
    assert_close(found.quality, quality);
}

static const double same[ROWS] = {0.25, 0.25, 0.25, 0.25};

static void test_a_threshold_takes_the_cheapest_that_reaches_it_else_the_reference(void **state)
{
    const fixture *f = *state;
    static const double thresholds[] = {0, 0.6, 1};
    br_eval_trace trace;
    assert_int_equal(br_eval_trace_init(&trace, &f->table, BR_POLICY_THRESHOLD, thresholds, 3, -1), BR_OK);
    br_eval_point curve[3];
    br_eval_curve(curve, &trace, same);
    assert_point(curve[0], 1, 1.5 / 4);                      /* cheap everywhere */
    assert_point(curve[1], (1 + 2 + 10 + 1) / 4.0, 3 / 4.0); /* cheap, middle, reference, cheap */
    assert_point(curve[2], 10, 3.5 / 4);
    assert_close(br_eval_reference_share(&trace, 0, same), 0);
    assert_close(br_eval_reference_share(&trace, 1, same), 0.25);
    assert_close(br_eval_reference_share(&trace, 2, same), 1);
    br_eval_trace_deinit(&trace);
}

static void test_only_measured_candidates_take_part(void **state)
{
    fixture *f = *state;
    static const double thresholds[] = {0};
    f->table.measured[br_eval_at(&f->table, 0, CHEAP)] = false;
    br_eval_trace trace;
    br_eval_point point;
    assert_int_equal(br_eval_trace_init(&trace, &f->table, BR_POLICY_THRESHOLD, thresholds, 1, -1), BR_OK);
    br_eval_curve(&point, &trace, same);
    assert_point(point, (2 + 1 + 1 + 1) / 4.0, 1.5 / 4);
    br_eval_trace_deinit(&trace);
    assert_int_equal(br_eval_trace_init(&trace, &f->table, BR_POLICY_THRESHOLD, thresholds, 1, CHEAP), BR_OK);
    br_eval_curve(&point, &trace, same);
    assert_point(point, (10 + 1 + 1 + 1) / 4.0, 1.5 / 4); /* the reference instead */
    br_eval_trace_deinit(&trace);
    assert_point(br_eval_static(&f->table, CHEAP, same), (10 + 1 + 1 + 1) / 4.0, 1.5 / 4);
}

static void test_utility_and_budget_follow_their_parameter(void **state)
{
    const fixture *f = *state;
    static const double lambdas[] = {100, 0.3, 0};
    static const double caps[] = {0.5, 1, 2, 10};
    br_eval_point curve[4];
    br_eval_trace trace;
    assert_int_equal(br_eval_trace_init(&trace, &f->table, BR_POLICY_UTILITY, lambdas, 3, -1), BR_OK);
    br_eval_curve(curve, &trace, same);
    assert_point(curve[0], 1, 1.5 / 4);
    assert_point(curve[1], (1 + 2 + 1 + 1) / 4.0, 2.5 / 4); /* 0.92 - 0.3, 0.6 - 0.6, 0.5 - 0.3, 0.7 - 0.3 */
    assert_point(curve[2], 10, 3.5 / 4);
    br_eval_trace_deinit(&trace);
    assert_int_equal(br_eval_trace_init(&trace, &f->table, BR_POLICY_BUDGET, caps, 4, -1), BR_OK);
    br_eval_curve(curve, &trace, same);
    assert_point(curve[0], 10, 3.5 / 4); /* nothing is affordable: the fallback */
    assert_point(curve[1], 1, 1.5 / 4);
    assert_point(curve[2], (2 + 2 + 1 + 2) / 4.0, 3.5 / 4);
    assert_point(curve[3], 10, 3.5 / 4);
    br_eval_trace_deinit(&trace);
}

static void test_the_oracle_takes_the_cheapest_that_is_as_good(void **state)
{
    const fixture *f = *state;
    assert_point(br_eval_oracle(&f->table, same), (1 + 2 + 10 + 2) / 4.0, 1);
}

static void test_a_hull_keeps_the_corners_above(void **state)
{
    (void)state;
    br_eval_point points[] = {{4, 0.25}, {1, 0.125}, {2, 0.5}, {3, 0.53125},
                              {10, 1},   {11, 0.75}, {1, 0},   {6, 0.75}};
    assert_int_equal(br_eval_hull(points, 8), 3); /* (6, 0.75) lies on the line from (2, 0.5) to (10, 1) */
    assert_point(points[0], 1, 0.125);
    assert_point(points[1], 2, 0.5);
    assert_point(points[2], 10, 1);
}

static void test_a_hull_per_task_takes_the_steepest_steps_first(void **state)
{
    const fixture *f = *state;
    br_eval_point hull[TASKS * CANDIDATES + 1];
    size_t count = 0;
    assert_int_equal(br_eval_task_hull(hull, &count, &f->table, same), BR_OK);
    /* Task 0: cheap (0.5, 0.25), middle (1, 0.5), and no more. Task 1: cheap (0.5, 0.125), middle (1, 0.25),
     * reference (5, 0.375). Halves of the costs and quarters of the qualities above. */
    assert_int_equal(count, 4);
    assert_point(hull[0], 1, 0.375);
    assert_point(hull[1], 1.5, 0.625);
    assert_point(hull[2], 2, 0.75);
    assert_point(hull[3], 6, 0.875);
    assert_int_equal(br_eval_static_hull(hull, &f->table, same), 3);
    assert_point(hull[1], 2, 0.75);
}

static void test_between_points_lies_what_a_coin_gives(void **state)
{
    (void)state;
    static const br_eval_point curve[] = {{1, 0.2}, {3, 0.6}, {2, 0.5}, {5, 0.9}};
    assert_true(isnan(br_eval_quality_at(curve, 4, 0.5)));
    assert_close(br_eval_quality_at(curve, 4, 1), 0.2);
    assert_close(br_eval_quality_at(curve, 4, 2), 0.5);
    assert_close(br_eval_quality_at(curve, 4, 2.5), 0.5 + 0.4 * 0.5 / 3); /* the best of three segments */
    assert_close(br_eval_quality_at(curve, 4, 9), 0.9);
    assert_close(br_eval_cost_at(curve, 4, 0.4), 2); /* (1, 0.2) to (3, 0.6) reaches it at 2 */
    assert_close(br_eval_cost_at(curve, 4, 0.75), 2 + 3 * 0.25 / 0.4);
    assert_true(isnan(br_eval_cost_at(curve, 4, 0.91)));
}

static void test_calibration_is_the_mean_gap_of_ten_bins(void **state)
{
    const fixture *f = *state;
    br_eval_bin bins[BR_EVAL_BINS];
    const double error = br_eval_calibration(bins, &f->table, 0);
    /* 0.92 and 0.95 -> 1, 1;  0.2 -> 0;  0.6 -> 1 */
    assert_int_equal(bins[9].pairs, 2);
    assert_int_equal(bins[2].pairs, 1);
    assert_true(fabs(bins[9].predicted - 0.935) < 1e-6);
    assert_true(fabs(error - (0.13 + 0.2 + 0.4) / 4) < 1e-6);
    f->table.measured[br_eval_at(&f->table, 1, CHEAP)] = false;
    assert_true(fabs(br_eval_calibration(bins, &f->table, 0) - (0.13 + 0.4) / 3) < 1e-6);
}

static void test_measured_means_count_each_row_as_often_as_it_is_drawn(void **state)
{
    const fixture *f = *state;
    static const double once[ROWS] = {1, 1, 1, 1};
    static const double drawn[ROWS] = {2, 0, 1, 3};
    double means[BR_EVAL_BINS];
    br_eval_bin bins[BR_EVAL_BINS];
    (void)br_eval_calibration(bins, &f->table, -1);
    br_eval_measured_means(means, &f->table, once);
    for (int b = 0; b < BR_EVAL_BINS; b++) {
        if (bins[b].pairs > 0)
            assert_close(means[b], bins[b].measured);
        else
            assert_true(isnan(means[b]));
    }
    br_eval_measured_means(means, &f->table, drawn);
    assert_close(means[9], 1);    /* 0.92 and 0.95, twice each */
    assert_true(isnan(means[2])); /* 0.2, of the row that is not drawn */
    assert_close(means[5], 0.5);  /* 0.5 */
    assert_close(means[8], 1);    /* 0.8, three times */
    f->table.match[br_eval_at(&f->table, 0, MIDDLE)] = 0;
    f->table.predicted[br_eval_at(&f->table, 2, CHEAP)] = 0.93F;
    br_eval_measured_means(means, &f->table, drawn);
    assert_close(means[9], (2 * 1 + 2 * 0 + 1 * 0.5) / 5);
}

static void test_a_policy_of_any_kind_is_replayed_with_its_filters(void **state)
{
    const fixture *f = *state;
    br_eval_trace trace;
    br_eval_point point;
    br_policy policy = {.kind = BR_POLICY_TOLERANCE,
                        .fallback = BR_FALLBACK_REFERENCE,
                        .tolerance = 0.4,
                        .max_cost = INFINITY,
                        .allowed_models = UINT64_MAX,
                        .max_n = UINT32_MAX};
    assert_int_equal(br_eval_trace_policy(&trace, &f->table, &policy), BR_OK);
    assert_int_equal(trace.count, 1);
    br_eval_curve(&point, &trace, same);
    assert_point(point, (1 + 2 + 10 + 1) / 4.0, 3 / 4.0); /* a bar of 0.6 of the reference's 1 */
    br_eval_trace_deinit(&trace);
    policy.allowed_models = 1U << MIDDLE | 1U << REFERENCE;
    assert_int_equal(br_eval_trace_policy(&trace, &f->table, &policy), BR_OK);
    br_eval_curve(&point, &trace, same);
    assert_point(point, (2 + 2 + 10 + 2) / 4.0, 4 / 4.0);
    assert_close(br_eval_reference_share(&trace, 0, same), 0.25);
    br_eval_trace_deinit(&trace);
}

static void test_weights_and_samples_keep_the_tasks_apart(void **state)
{
    const fixture *f = *state;
    f->table.task[1] = 1;
    double weights[ROWS];
    br_eval_weights(weights, &f->table, false);
    assert_close(weights[0], 0.25);
    br_eval_weights(weights, &f->table, true);
    assert_close(weights[0], 0.5);
    assert_close(weights[3], 0.5 / 3);
    double first[ROWS];
    double drawn[ROWS];
    uint64_t state_a = 7;
    uint64_t state_b = 7;
    bool moved = false;
    br_eval_resample(first, &f->table, weights, &state_a);
    br_eval_resample(drawn, &f->table, weights, &state_b);
    assert_memory_equal(first, drawn, sizeof first); /* the seed says it all */
    for (int i = 0; i < 50; i++) {
        br_eval_resample(drawn, &f->table, weights, &state_a);
        assert_close(drawn[0], 0.5);
        assert_close(drawn[1] + drawn[2] + drawn[3], 0.5);
        moved = moved || memcmp(first, drawn, sizeof first) != 0;
    }
    assert_true(moved);
}

static void test_a_story_is_drawn_whole_and_its_task_keeps_its_weight(void **state)
{
    fixture *f = *state; /* rows 0 and 1 are of one task, 2 and 3 of the other */
    static const int32_t stories[ROWS] = {0, 1, 2, 2};
    br_eval_set_stories(&f->table, stories);
    assert_int_equal(f->table.stories, 3);
    assert_int_equal(f->table.story_row[2], 2);
    double weights[ROWS];
    double drawn[ROWS];
    uint64_t chance = 7;
    bool uneven = false;
    br_eval_weights(weights, &f->table, false);
    for (int i = 0; i < 50; i++) {
        br_eval_resample(drawn, &f->table, weights, &chance);
        assert_close(drawn[2], 0.25); /* the only story of its task is always drawn, both rows of it */
        assert_close(drawn[3], 0.25);
        assert_close(drawn[0] + drawn[1], 0.5);
        uneven = uneven || drawn[0] != drawn[1];
    }
    assert_true(uneven);
    static const int32_t longer[ROWS] = {0, 1, 1, 1}; /* of one task, of lengths 1 and 3 */
    for (size_t r = 0; r < ROWS; r++) f->table.task[r] = 0;
    br_eval_set_stories(&f->table, longer);
    bool alone = false;
    for (int i = 0; i < 50; i++) {
        br_eval_resample(drawn, &f->table, weights, &chance);
        assert_close(drawn[0] + drawn[1] + drawn[2] + drawn[3], 1);
        assert_close(drawn[1], drawn[3]);
        alone = alone || drawn[0] == 1;
    }
    assert_true(alone);
}

static void test_prompts_that_differ_in_their_last_sentence_share_a_story(void **state)
{
    (void)state;
    static const struct {
        const char *prompt;
        const char *story;
    } cases[] = {
        {"Yesterday was April 30, 2021. What is the date today?", "Yesterday was April 30, 2021."},
        {"Yesterday was April 30, 2021.\nWhat is it \n ", "Yesterday was April 30, 2021."},
        {"Too short. Is it?", "Too short. Is it?"},
        {"One sentence alone, however long it is.", "One sentence alone, however long it is."},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(br_story_bytes(cases[i].prompt, strlen(cases[i].prompt)), strlen(cases[i].story));

    br_records_row rows[] = {
        {.prompt = "The party is on Monday next. What is today?", .task = 0},
        {.prompt = "Something else altogether.", .task = 0},
        {.prompt = "The party is on Monday next. What is tomorrow?", .task = 0},
        {.prompt = "The party is on Monday next. What is tomorrow?", .task = 1},
        {.prompt = "Something else altogether.", .task = 0},
    };
    enum { COUNT = sizeof rows / sizeof rows[0] };
    for (size_t i = 0; i < COUNT; i++) rows[i].prompt_bytes = strlen(rows[i].prompt);
    const br_records all = {.rows = rows, .row_count = COUNT};
    static const int32_t expected[COUNT] = {0, 1, 0, 2, 1};
    int32_t story[COUNT];
    br_status status = BR_OK;
    BR_OOM_SWEEP({ status = br_stories_number(story, &all); });
    assert_int_equal(status, BR_OK);
    assert_memory_equal(story, expected, sizeof expected);
}

static void test_quantiles_leave_out_what_is_no_number(void **state)
{
    (void)state;
    double values[] = {3, NAN, 1, 2, 5};
    assert_close(br_eval_quantile(values, 5, 0.5), 2.5);
    double none[] = {NAN};
    assert_true(isnan(br_eval_quantile(none, 1, 0.5)));
}

static void test_best_of_n_is_drawn_without_replacement(void **state)
{
    (void)state;
    assert_close(br_records_best_of(10, 0, 5), 0);
    assert_close(br_records_best_of(10, 3, 1), 0.3);
    assert_close(br_records_best_of(10, 3, 2), 1 - 0.7 * 6 / 9);
    assert_close(br_records_best_of(4, 2, 3), 1);
}

static void test_sweeps_become_dearer_from_setting_to_setting(void **state)
{
    const fixture *f = *state;
    for (int s = 0; s < BR_SWEEPS; s++) {
        br_eval_trace trace;
        br_eval_point curve[BR_SWEEP_SETTINGS_MAX];
        assert_int_equal(br_sweep_trace(&trace, &f->table, (br_sweep)s, same), BR_OK);
        assert_true(trace.count <= BR_SWEEP_SETTINGS_MAX);
        br_eval_curve(curve, &trace, same);
        size_t first = 0; /* caps below every cost make decisions fall back on the reference */
        while (s == BR_SWEEP_BUDGET && curve[first].cost == 10) first++;
        for (size_t i = first + 1; i < trace.count; i++) assert_true(curve[i].cost >= curve[i - 1].cost);
        br_eval_trace_deinit(&trace);
    }
}

static void test_the_reference_s_partner_is_the_best_of_the_cheaper(void **state)
{
    const fixture *f = *state;
    br_eval_trace trace;
    br_eval_point curve[BR_SWEEP_SETTINGS_MAX];
    assert_int_equal(br_sweep_trace(&trace, &f->table, BR_SWEEP_TWO_MODELS, same), BR_OK);
    br_eval_curve(curve, &trace, same);
    assert_point(curve[0], 2, 3 / 4.0); /* middle everywhere */
    assert_point(curve[trace.count - 1], 10, 3.5 / 4);
    br_eval_trace_deinit(&trace);
}

static void test_an_analysis_has_the_figures_of_all_rows_or_of_one_task(void **state)
{
    const fixture *f = *state;
    br_replay replay;
    br_analysis a;
    assert_int_equal(br_replay_init(&replay, &f->table, same, NULL), BR_OK);
    assert_int_equal(br_analysis_init(&a, &f->table, &replay, same, -1, 20, 1), BR_OK);
    assert_int_equal(a.rows, ROWS);
    assert_point(a.whole.reference, 10, 3.5 / 4);
    assert_int_equal(a.hull_counts[BR_HULL_STATIC], CANDIDATES);
    assert_close(a.costs[0], 1 + 9 * 0.5 / 50); /* from the cheapest candidate to the reference */
    assert_close(a.costs[BR_ANALYSIS_COSTS - 1], 10 - 9 * 0.5 / 50);
    /* 0.99 of the reference's quality lies between middle (2 USD, 0.75) and the reference (10 USD, 0.875). */
    assert_close(a.whole.hull_saving[BR_HULL_STATIC][0], 1 - (2 + (0.99 * 0.875 - 0.75) / 0.125 * 8) / 10);
    for (int i = 0; i < BR_ANALYSIS_COSTS; i++) {
        const double hull = br_eval_quality_at(a.hulls[BR_HULL_STATIC], CANDIDATES, a.costs[i]);
        assert_close(a.whole.above[BR_SWEEP_THRESHOLD][BR_HULL_STATIC][i],
                     a.whole.quality[BR_SWEEP_THRESHOLD][i] - hull);
    }
    const br_interval quality = br_analysis_interval(&a, &a.whole.reference.quality);
    assert_close(quality.value, 3.5 / 4);
    assert_true(quality.low < quality.value);
    assert_true(quality.value < quality.high);
    const br_interval cost = br_analysis_interval(&a, &a.whole.reference.cost);
    assert_close(cost.low, 10); /* the same on every row */
    assert_close(cost.high, 10);
    br_analysis_deinit(&a);
    assert_int_equal(br_analysis_init(&a, &f->table, &replay, same, 1, 0, 1), BR_OK);
    assert_int_equal(a.rows, 2);
    assert_point(a.whole.reference, 10, 1.5 / 2);
    br_analysis_deinit(&a);
    br_replay_deinit(&replay);
}

static void test_every_allocation_may_fail(void **state)
{
    const fixture *f = *state;
    static const double thresholds[] = {0.5};
    br_status status = BR_OK;
    size_t failures = 0;
    BR_OOM_SWEEP({
        br_eval_table table = {0};
        br_eval_trace trace = {0};
        br_replay replay = {0};
        br_analysis analysis = {0};
        br_eval_point hull[TASKS * CANDIDATES + 1];
        size_t count;
        status = br_eval_table_init(&table, f->router, ROWS, TASKS);
        if (status == BR_OK)
            status = br_eval_trace_init(&trace, &f->table, BR_POLICY_THRESHOLD, thresholds, 1, -1);
        if (status == BR_OK) status = br_eval_task_hull(hull, &count, &f->table, same);
        if (status == BR_OK) status = br_replay_init(&replay, &f->table, same, NULL);
        if (status == BR_OK) status = br_analysis_init(&analysis, &f->table, &replay, same, -1, 2, 1);
        if (status != BR_OK) {
            assert_int_equal(status, BR_ENOMEM);
            failures++;
        }
        br_analysis_deinit(&analysis);
        br_replay_deinit(&replay);
        br_eval_trace_deinit(&trace);
        br_eval_table_deinit(&table);
    });
    assert_int_equal(status, BR_OK);
    assert_true(failures >= 30);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_a_threshold_takes_the_cheapest_that_reaches_it_else_the_reference),
        CASE(test_only_measured_candidates_take_part),
        CASE(test_utility_and_budget_follow_their_parameter),
        CASE(test_the_oracle_takes_the_cheapest_that_is_as_good),
        CASE(test_a_hull_keeps_the_corners_above),
        CASE(test_a_hull_per_task_takes_the_steepest_steps_first),
        CASE(test_between_points_lies_what_a_coin_gives),
        CASE(test_calibration_is_the_mean_gap_of_ten_bins),
        CASE(test_measured_means_count_each_row_as_often_as_it_is_drawn),
        CASE(test_a_policy_of_any_kind_is_replayed_with_its_filters),
        CASE(test_weights_and_samples_keep_the_tasks_apart),
        CASE(test_a_story_is_drawn_whole_and_its_task_keeps_its_weight),
        CASE(test_prompts_that_differ_in_their_last_sentence_share_a_story),
        CASE(test_quantiles_leave_out_what_is_no_number),
        CASE(test_best_of_n_is_drawn_without_replacement),
        CASE(test_sweeps_become_dearer_from_setting_to_setting),
        CASE(test_the_reference_s_partner_is_the_best_of_the_cheaper),
        CASE(test_an_analysis_has_the_figures_of_all_rows_or_of_one_task),
        CASE(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
