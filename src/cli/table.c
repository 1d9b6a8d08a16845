/* table.c - what a person reads: decisions, qualities, totals, and the service's description. */
#include "table.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "text.h"

enum {
    NUMBER_COLUMNS = 5,
    SCORES_COLUMNS = 90,
    COLUMNS_DEFAULT = 110, /* where standard output is no terminal */
    COLUMNS_OTHER = 50,    /* of the table, without prompt and model */
    PROMPT_COLUMNS_MIN = 16,
    PROMPT_COLUMNS_MAX = 70,
    MODEL_COLUMNS_MIN = 5,
    MODEL_COLUMNS_MAX = 28,
};

static int clamp(int value, int least, int most)
{
    return value < least ? least : value > most ? most : value;
}

static int terminal_columns(FILE *to)
{
    struct winsize size;
    if (isatty(fileno(to)) && ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return COLUMNS_DEFAULT;
}

void cli_table_init(cli_table *table, FILE *to, const br_answer *info, bool has_lines, bool explain)
{
    *table = (cli_table){.to = to, .info = info, .has_lines = has_lines, .explain = explain};
    int widest = 0;
    for (size_t i = 0; i < info->candidate_count; i++) {
        const int columns = cli_text_width(info->candidates[i].model);
        if (columns > widest) widest = columns;
    }
    table->model_columns = clamp(widest, MODEL_COLUMNS_MIN, MODEL_COLUMNS_MAX);
    table->prompt_columns = clamp(terminal_columns(to) - COLUMNS_OTHER - table->model_columns,
                                  PROMPT_COLUMNS_MIN, PROMPT_COLUMNS_MAX);
}

/* Ten columns, with six decimals, or for small costs with an exponent. */
static void print_cost(FILE *to, double cost)
{
    if (!isfinite(cost)) {
        fprintf(to, "%10s", "no price");
    } else if (cost == 0) {
        fprintf(to, "%10s", "0");
    } else {
        fprintf(to, cost < 0.0001 ? "%10.2e" : "%10.6f", cost);
    }
}

static void print_number(const cli_table *table, const cli_prompt *prompt, size_t number)
{
    const unsigned long long shown = prompt->line > 0 ? prompt->line : (unsigned long long)number;
    fprintf(table->to, "%*llu  ", NUMBER_COLUMNS, shown);
}

static void print_snippet(const cli_table *table, const cli_prompt *prompt, int columns)
{
    if (prompt->query.text != NULL) {
        cli_text_print_padded(table->to, prompt->query.text, prompt->query.text_bytes, columns);
    } else {
        char text[40] = "";
        if (prompt->query.tokens != NULL)
            snprintf(text, sizeof text, "(%zu tokens)", prompt->query.token_count);
        cli_text_print_padded(table->to, text, strlen(text), columns);
    }
}

void cli_table_head(const cli_table *table)
{
    fprintf(table->to, "%*s  %-*s  %-*s  %4s  %7s  %10s  %-3s  %6s\n", NUMBER_COLUMNS,
            table->has_lines ? "line" : "#", table->prompt_columns, "prompt", table->model_columns, "model",
            "n", "quality", "cost USD", "met", "tokens");
}

static void print_candidates(const cli_table *table, const br_answer_result *result)
{
    for (size_t i = 0; i < result->candidate_count; i++) {
        const br_answer_candidate *row = &result->candidates[i];
        const bool is_chosen = row->n == result->n && strcmp(row->model, result->model) == 0;
        fprintf(table->to, "%*s", NUMBER_COLUMNS + 2 + table->prompt_columns, is_chosen ? "->" : "");
        fputs("  ", table->to);
        cli_text_print_padded(table->to, row->model, strlen(row->model), table->model_columns);
        fprintf(table->to, "  %4u  %7.4f  ", (unsigned)row->n, row->quality);
        print_cost(table->to, row->cost);
        if (row->reason[0] != '\0') fputs("  ", table->to);
        cli_text_print(table->to, row->reason, strlen(row->reason), 30);
        fputc('\n', table->to);
    }
}

void cli_table_route(const cli_table *table, const cli_prompt *prompt, size_t number,
                     const br_answer_result *result)
{
    print_number(table, prompt, number);
    print_snippet(table, prompt, table->prompt_columns);
    fputs("  ", table->to);
    cli_text_print_padded(table->to, result->model, strlen(result->model), table->model_columns);
    fprintf(table->to, "  %4u  %7.4f  ", (unsigned)result->n, result->quality);
    print_cost(table->to, result->cost);
    fprintf(table->to, "  %-3s  %6llu%s\n", result->met ? "yes" : "no", (unsigned long long)result->tokens,
            result->truncated ? "+" : "");
    if (table->explain) print_candidates(table, result);
}

/* One paragraph per model, its candidates in the bundle's order, wrapped. */
static void print_scores(const cli_table *table, const br_answer_result *result, size_t first)
{
    const br_answer *info = table->info;
    fprintf(table->to, "%*s", NUMBER_COLUMNS + 4, "");
    cli_text_print_padded(table->to, info->candidates[first].model, strlen(info->candidates[first].model),
                          table->model_columns);
    int columns = 0;
    for (size_t i = first; i < info->candidate_count && i < result->quality_count; i++) {
        if (strcmp(info->candidates[i].model, info->candidates[first].model) != 0) continue;
        if (columns > SCORES_COLUMNS - 20) {
            fprintf(table->to, "\n%*s", NUMBER_COLUMNS + 4 + table->model_columns, "");
            columns = 0;
        }
        columns += fprintf(table->to, "  n=%-3u %.4f", (unsigned)info->candidates[i].n, result->qualities[i]);
        if (i == info->reference) columns += fprintf(table->to, " (reference)");
    }
    fputc('\n', table->to);
}

void cli_table_score(const cli_table *table, const cli_prompt *prompt, size_t number,
                     const br_answer_result *result)
{
    print_number(table, prompt, number);
    print_snippet(table, prompt, table->prompt_columns);
    fprintf(table->to, "  %llu%s tokens\n", (unsigned long long)result->tokens, result->truncated ? "+" : "");
    for (size_t i = 0; i < table->info->candidate_count; i++) {
        bool is_first = true;
        for (size_t before = 0; before < i; before++)
            is_first = is_first &&
                       strcmp(table->info->candidates[before].model, table->info->candidates[i].model) != 0;
        if (is_first) print_scores(table, result, i);
    }
}

void cli_table_failed(const cli_table *table, const cli_prompt *prompt, size_t number, const char *code,
                      const char *message)
{
    print_number(table, prompt, number);
    print_snippet(table, prompt, table->prompt_columns);
    fprintf(table->to, "  %s: ", code);
    cli_text_print(table->to, message, strlen(message), INT_MAX);
    fputc('\n', table->to);
}

static void print_shares(const cli_table *table, const cli_totals *totals)
{
    const br_answer *info = table->info;
    const size_t answers = totals->prompts - totals->failed;
    for (size_t i = 0; i < info->candidate_count && i < BR_CANDIDATES_MAX; i++) {
        const char *model = info->candidates[i].model;
        size_t count = 0;
        bool is_first = true;
        for (size_t j = 0; j < info->candidate_count && j < BR_CANDIDATES_MAX; j++) {
            if (strcmp(info->candidates[j].model, model) != 0) continue;
            count += totals->chosen[j];
            is_first = is_first && j >= i;
        }
        if (!is_first || count == 0) continue;
        fputs("  ", table->to);
        cli_text_print_padded(table->to, model, strlen(model), table->model_columns);
        fprintf(table->to, "  %5.1f %%  %6zu", 100 * (double)count / (double)answers, count);
        const char *separator = "  (";
        for (size_t j = i; j < info->candidate_count && j < BR_CANDIDATES_MAX; j++) {
            if (totals->chosen[j] == 0 || strcmp(info->candidates[j].model, model) != 0) continue;
            fprintf(table->to, "%sn=%u: %zu", separator, (unsigned)info->candidates[j].n, totals->chosen[j]);
            separator = ", ";
        }
        fputs(")\n", table->to);
    }
}

static void print_sums(const cli_table *table, const cli_totals *totals)
{
    fprintf(table->to, "expected cost %.6f USD", totals->cost);
    if (totals->unpriced > 0)
        fprintf(table->to, ", without %zu answers that have no price", totals->unpriced);
    if (totals->reference_known && totals->unpriced == 0 && totals->reference_cost > 0) {
        const br_answer_candidate *reference = &table->info->candidates[table->info->reference];
        fprintf(table->to, "; with %s (n=%u) for all %.6f USD: %.1f %% %s", reference->model,
                (unsigned)reference->n, totals->reference_cost,
                100 * fabs(1 - totals->cost / totals->reference_cost),
                totals->cost <= totals->reference_cost ? "less" : "more");
    }
    fputc('\n', table->to);
}

void cli_table_totals(const cli_table *table, const cli_totals *totals)
{
    const size_t answers = totals->prompts - totals->failed;
    if (totals->prompts == 0) {
        fputs("no prompts\n", table->to);
        return;
    }
    fprintf(table->to, "\n%zu prompt%s", totals->prompts, totals->prompts == 1 ? "" : "s");
    if (totals->failed > 0) fprintf(table->to, ", %zu failed", totals->failed);
    if (totals->unmet > 0) fprintf(table->to, ", %zu answered by the fallback (met: no)", totals->unmet);
    if (totals->truncated > 0)
        fprintf(table->to, ", %zu longer than the encoder reads (+)", totals->truncated);
    fprintf(table->to, "; bundle %s\n", table->info->bundle_name);
    if (answers == 0 || !totals->of_route) return;
    print_shares(table, totals);
    print_sums(table, totals);
}

static void print_names(FILE *to, const char *label, const char *const *names, size_t count)
{
    if (count == 0) return;
    fprintf(to, ", %s", label);
    for (size_t i = 0; i < count; i++) fprintf(to, "%s%s", i == 0 ? " " : ",", names[i]);
}

static void print_policy(FILE *to, const br_client_policy *policy)
{
    fprintf(to, "policy    %s", policy->kind == NULL ? "none" : policy->kind);
    if (policy->has_threshold) fprintf(to, ", threshold %g", policy->threshold);
    if (policy->has_max_cost) fprintf(to, ", max_cost %g USD", policy->max_cost);
    if (policy->has_lambda) fprintf(to, ", lambda %g per USD", policy->lambda);
    if (policy->has_tolerance) fprintf(to, ", tolerance %g", policy->tolerance);
    if (policy->has_total_budget) fprintf(to, ", total_budget %g USD", policy->total_budget);
    if (policy->max_n > 0) fprintf(to, ", max_n %u", (unsigned)policy->max_n);
    print_names(to, "models", policy->models, policy->model_count);
    print_names(to, "exclude", policy->exclude, policy->exclude_count);
    fprintf(to, ", fallback %s\n", policy->fallback == NULL ? "best" : policy->fallback);
}

static void print_model(FILE *to, const br_answer *info, const br_answer_model *model, int columns)
{
    fputs("  ", to);
    cli_text_print_padded(to, model->name, strlen(model->name), columns);
    if (model->has_price) {
        fprintf(to, "  %12.4g  %12.4g", 1e6 * model->input_price, 1e6 * model->output_price);
    } else {
        fprintf(to, "  %12s  %12s", "no price", "no price");
    }
    if (isfinite(model->avg_output_tokens))
        fprintf(to, "  %13.1f  ", model->avg_output_tokens);
    else
        fprintf(to, "  %13s  ", "unknown");
    const char *separator = "";
    for (size_t i = 0; i < info->candidate_count; i++) {
        if (strcmp(info->candidates[i].model, model->name) != 0) continue;
        fprintf(to, "%s%u%s", separator, (unsigned)info->candidates[i].n,
                i == info->reference ? " (reference)" : "");
        separator = ", ";
    }
    if (model->input_per_sample) fputs("  prompt billed per sample", to);
    fputc('\n', to);
}

/* At most SHOWN rows, always the first and the last; --json has all. */
static void print_policy_table(FILE *to, const br_answer *info)
{
    enum { SHOWN = 21 };
    const size_t count = info->policy_table_count;
    if (count == 0) return;
    fprintf(to, "\ncalibrated on %llu prompts\n  %9s  %14s  %12s  %7s\n",
            (unsigned long long)info->policy_table_prompts, "threshold", "to reference %", "USD per 1000",
            "quality");
    const size_t shown = count < SHOWN ? count : SHOWN;
    for (size_t i = 0; i < shown; i++) {
        const br_answer_policy_row *row = &info->policy_table[shown == 1 ? 0 : i * (count - 1) / (shown - 1)];
        fprintf(to, "  %9.3f  %14.1f  %12.4f  %7.4f\n", row->threshold, 100 * row->reference_share,
                1000 * row->mean_cost, row->quality);
    }
}

void cli_table_info(FILE *to, const br_answer *info)
{
    fprintf(to, "service   bestroute %s, engine %s, precision %s", info->version, info->engine,
            info->precision);
    for (size_t i = 0; i < info->device_count; i++) fprintf(to, ", %s", info->devices[i]);
    fprintf(to, "\nbundle    %s  %s\n", info->bundle_name, info->bundle_hash);
    print_policy(to, info->policy);
    fprintf(to, "limits    %llu queries, %llu tokens, %llu bytes of text, %llu bytes a message\n",
            (unsigned long long)info->max_queries, (unsigned long long)info->max_tokens,
            (unsigned long long)info->max_text_bytes, (unsigned long long)info->max_message_bytes);

    int columns = 5;
    for (size_t i = 0; i < info->model_count; i++) {
        const int width = cli_text_width(info->models[i].name);
        if (width > columns) columns = width;
    }
    fprintf(to, "\n  %-*s  %12s  %12s  %13s  %s\n", columns, "model", "USD/M input", "USD/M output",
            "output tokens", "samples n");
    for (size_t i = 0; i < info->model_count; i++) print_model(to, info, &info->models[i], columns);
    print_policy_table(to, info);
}
