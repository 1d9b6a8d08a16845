/* eval_table.c - see eval_table.h. */
#include "eval_table.h"

#include <math.h>
#include <stdio.h>

#include "eval_report.h"

static const char *const sweep_labels[BR_SWEEPS] = {
    [BR_SWEEP_THRESHOLD] = "threshold",
    [BR_SWEEP_UTILITY] = "utility",
    [BR_SWEEP_BUDGET] = "budget",
    [BR_SWEEP_TWO_MODELS] = "two models",
};
static const char *const hull_labels[BR_HULLS] = {
    [BR_HULL_STATIC] = "static mixture",
    [BR_HULL_PER_TASK] = "static per task",
};

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void print_percent(const json_t *entry)
{
    char text[48];
    if (isnan(number(entry, "value")))
        snprintf(text, sizeof text, "never");
    else
        snprintf(text, sizeof text, "%.1f %% [%.1f, %.1f]", 100 * number(entry, "value"),
                 100 * number(entry, "low"), 100 * number(entry, "high"));
    printf("  %-24s", text);
}

static void print_saving(const json_t *savings, const char *key, const char *label)
{
    const json_t *drops = json_object_get(savings, key);
    printf("  %-18s", label);
    for (size_t d = 0; d < json_array_size(drops); d++) print_percent(json_array_get(drops, d));
    putchar('\n');
}

static void print_savings(const json_t *report)
{
    const json_t *savings = json_object_get(report, "saving");
    printf("  %-18s  %-24s  %-24s  %-24s\n", "cost saved at", "1 % less quality", "2 %", "5 %");
    for (int s = 0; s < BR_SWEEPS; s++) print_saving(savings, cli_sweep_keys[s], sweep_labels[s]);
    for (int h = 0; h < BR_HULLS; h++) print_saving(savings, cli_hull_keys[h], hull_labels[h]);
}

static void print_shares(const json_t *report, const char *over, const char *hull)
{
    const json_t *shares = json_object_get(json_object_get(report, over), hull);
    char text[48];
    snprintf(text, sizeof text, "%.0f %% of costs, clear %.0f %%", 100 * number(shares, "above"),
             100 * number(shares, "clear"));
    printf("  %-24s", text);
}

static void print_above(const json_t *report)
{
    printf("  %-18s  %-24s  %-24s\n", "curve above", "threshold", "utility");
    for (int h = 0; h < BR_HULLS; h++) {
        printf("  %-18s", hull_labels[h]);
        print_shares(report, "threshold_over", cli_hull_keys[h]);
        print_shares(report, "utility_over", cli_hull_keys[h]);
        putchar('\n');
    }
}

static void print_report(const json_t *report)
{
    const json_t *reference = json_object_get(report, "reference");
    const json_t *quality = json_object_get(reference, "quality");
    const json_t *cost = json_object_get(reference, "cost");
    printf("\n%s: %d prompts; the reference alone: quality %.4f [%.4f, %.4f], USD %.3f per 1000 prompts\n",
           json_string_value(json_object_get(report, "task")),
           (int)json_integer_value(json_object_get(report, "rows")), number(quality, "value"),
           number(quality, "low"), number(quality, "high"), 1000 * number(cost, "value"));
    print_savings(report);
    print_above(report);
    const json_t *oracle = json_object_get(report, "oracle");
    printf("  oracle: quality %.4f at USD %.3f per 1000; calibration error %.4f\n", number(oracle, "quality"),
           1000 * number(oracle, "cost"), number(json_object_get(report, "calibration"), "expected_error"));
}

static void print_candidates(const json_t *report)
{
    const json_t *list = json_object_get(report, "candidates");
    printf("\n  %-52s %6s %9s %12s\n", "the same for every prompt (reference where unmeasured)", "rows",
           "quality", "USD per 1000");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        char name[80];
        snprintf(name, sizeof name, "%s x %d", json_string_value(json_object_get(c, "model")),
                 (int)json_integer_value(json_object_get(c, "n")));
        printf("  %-52s %6d %9.4f %12.3f\n", name, (int)json_integer_value(json_object_get(c, "rows")),
               number(c, "quality"), 1000 * number(c, "cost"));
    }
}

void cli_eval_table(const json_t *document, const cli_options *options, const cli_scores *scores)
{
    const json_t *tasks = json_object_get(document, "tasks");
    const json_t *all = json_object_get(document, "all");
    printf("bundle %s  %s\n%zu prompts of split '%s'; %zu records passed over; selector strength %g; %s\n",
           scores->info->bundle_name, scores->info->bundle_hash, scores->records.row_count, options->split,
           scores->records.passed_over, options->selector,
           options->by_task ? "each task weighs the same" : "each prompt weighs the same");
    printf("intervals: 95 %%, %u bootstrap samples of %zu stories within tasks, seed %u\n",
           (unsigned)options->bootstrap, scores->table.stories, (unsigned)options->seed);
    for (size_t i = 0; i < json_array_size(tasks) && json_array_size(tasks) > 1; i++)
        print_report(json_array_get(tasks, i));
    print_report(all);
    print_candidates(all);
}
