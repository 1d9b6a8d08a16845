/* table.c - what a person reads: decisions, qualities, totals, and the service's description. */
#include "cli.h"

#include <math.h>

enum { NUMBER_COLUMNS = 5, SCORES_COLUMNS = 90 };

/* Ten columns: fixed where six decimals say enough, else with an exponent. */
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

static void print_number(const cli_output *out, const cli_prompt *prompt)
{
    const unsigned long long number = prompt->line > 0 ? prompt->line : (unsigned long long)out->prompts + 1;
    fprintf(out->to, "%*llu  ", NUMBER_COLUMNS, number);
}

static void print_snippet(const cli_output *out, const cli_prompt *prompt, int columns)
{
    if (prompt->query.text != NULL) {
        cli_text_print_padded(out->to, prompt->query.text, prompt->query.text_bytes, columns);
    } else {
        char text[40] = "";
        if (prompt->query.tokens != NULL)
            snprintf(text, sizeof text, "(%zu tokens)", prompt->query.token_count);
        cli_text_print_padded(out->to, text, strlen(text), columns);
    }
}

void cli_table_head(const cli_output *out)
{
    if (out->options->command != CLI_ROUTE) return;
    fprintf(out->to, "%*s  %-*s  %-*s  %4s  %7s  %10s  %-3s  %6s\n", NUMBER_COLUMNS,
            out->has_lines ? "line" : "#", out->prompt_columns, "prompt", out->model_columns, "model", "n",
            "quality", "cost USD", "met", "tokens");
}

static void print_candidates(const cli_output *out, const br_answer_result *result)
{
    for (size_t i = 0; i < result->candidate_count; i++) {
        const br_answer_candidate *row = &result->candidates[i];
        const bool is_chosen = row->n == result->n && strcmp(row->model, result->model) == 0;
        fprintf(out->to, "%*s", NUMBER_COLUMNS + 2 + out->prompt_columns, is_chosen ? "->" : "");
        fputs("  ", out->to);
        cli_text_print_padded(out->to, row->model, strlen(row->model), out->model_columns);
        fprintf(out->to, "  %4u  %7.4f  ", (unsigned)row->n, row->quality);
        print_cost(out->to, row->cost);
        if (row->reason[0] != '\0') fputs("  ", out->to);
        cli_text_print(out->to, row->reason, strlen(row->reason), 30);
        fputc('\n', out->to);
    }
}

void cli_table_route(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result)
{
    print_number(out, prompt);
    print_snippet(out, prompt, out->prompt_columns);
    fputs("  ", out->to);
    cli_text_print_padded(out->to, result->model, strlen(result->model), out->model_columns);
    fprintf(out->to, "  %4u  %7.4f  ", (unsigned)result->n, result->quality);
    print_cost(out->to, result->cost);
    fprintf(out->to, "  %-3s  %6llu%s\n", result->met ? "yes" : "no", (unsigned long long)result->tokens,
            result->truncated ? "+" : "");
    if (out->options->explain) print_candidates(out, result);
}

/* One paragraph per model, its candidates in the bundle's order, wrapped. */
static void print_scores(const cli_output *out, const br_answer_result *result, size_t first)
{
    const br_answer *info = out->info;
    fprintf(out->to, "%*s", NUMBER_COLUMNS + 4, "");
    cli_text_print_padded(out->to, info->candidates[first].model, strlen(info->candidates[first].model),
                          out->model_columns);
    int columns = 0;
    for (size_t i = first; i < info->candidate_count && i < result->quality_count; i++) {
        if (strcmp(info->candidates[i].model, info->candidates[first].model) != 0) continue;
        if (columns > SCORES_COLUMNS - 20) {
            fprintf(out->to, "\n%*s", NUMBER_COLUMNS + 4 + out->model_columns, "");
            columns = 0;
        }
        columns += fprintf(out->to, "  n=%-3u %.4f", (unsigned)info->candidates[i].n, result->qualities[i]);
        if (i == info->reference) columns += fprintf(out->to, " (reference)");
    }
    fputc('\n', out->to);
}

void cli_table_score(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result)
{
    print_number(out, prompt);
    print_snippet(out, prompt, out->prompt_columns);
    fprintf(out->to, "  %llu%s tokens\n", (unsigned long long)result->tokens, result->truncated ? "+" : "");
    for (size_t i = 0; i < out->info->candidate_count; i++) {
        bool is_first = true;
        for (size_t before = 0; before < i; before++)
            is_first =
                is_first && strcmp(out->info->candidates[before].model, out->info->candidates[i].model) != 0;
        if (is_first) print_scores(out, result, i);
    }
}

void cli_table_failed(const cli_output *out, const cli_prompt *prompt, const char *code, const char *message)
{
    print_number(out, prompt);
    print_snippet(out, prompt, out->prompt_columns);
    fprintf(out->to, "  %s: ", code);
    cli_text_print(out->to, message, strlen(message), INT32_MAX);
    fputc('\n', out->to);
}

static void print_shares(const cli_output *out, size_t answers)
{
    const br_answer *info = out->info;
    for (size_t i = 0; i < info->candidate_count && i < CLI_CANDIDATES_MAX; i++) {
        const char *model = info->candidates[i].model;
        size_t count = 0;
        bool is_first = true;
        for (size_t j = 0; j < info->candidate_count && j < CLI_CANDIDATES_MAX; j++) {
            if (strcmp(info->candidates[j].model, model) != 0) continue;
            count += out->chosen[j];
            is_first = is_first && j >= i;
        }
        if (!is_first || count == 0) continue;
        fputs("  ", out->to);
        cli_text_print_padded(out->to, model, strlen(model), out->model_columns);
        fprintf(out->to, "  %5.1f %%  %6zu", 100 * (double)count / (double)answers, count);
        const char *separator = "  (";
        for (size_t j = i; j < info->candidate_count && j < CLI_CANDIDATES_MAX; j++) {
            if (out->chosen[j] == 0 || strcmp(info->candidates[j].model, model) != 0) continue;
            fprintf(out->to, "%sn=%u: %zu", separator, (unsigned)info->candidates[j].n, out->chosen[j]);
            separator = ", ";
        }
        fputs(")\n", out->to);
    }
}

static void print_sums(const cli_output *out)
{
    fprintf(out->to, "expected cost %.6f USD", out->cost);
    if (out->unpriced > 0) fprintf(out->to, ", without %zu answers that have no price", out->unpriced);
    if (out->reference_known && out->unpriced == 0 && out->reference_cost > 0) {
        const br_answer_candidate *reference = &out->info->candidates[out->info->reference];
        fprintf(out->to, "; with %s (n=%u) for all %.6f USD: %.1f %% %s", reference->model,
                (unsigned)reference->n, out->reference_cost, 100 * fabs(1 - out->cost / out->reference_cost),
                out->cost <= out->reference_cost ? "less" : "more");
    }
    fputc('\n', out->to);
}

void cli_table_totals(const cli_output *out)
{
    const size_t answers = out->prompts - out->failed;
    if (out->prompts == 0) {
        fputs("no prompts\n", out->to);
        return;
    }
    fprintf(out->to, "\n%zu prompt%s", out->prompts, out->prompts == 1 ? "" : "s");
    if (out->failed > 0) fprintf(out->to, ", %zu failed", out->failed);
    if (out->unmet > 0) fprintf(out->to, ", %zu answered by the fallback (met: no)", out->unmet);
    if (out->truncated > 0) fprintf(out->to, ", %zu longer than the encoder reads (+)", out->truncated);
    fprintf(out->to, "; bundle %s\n", out->info->bundle_name);
    if (answers == 0 || out->options->command != CLI_ROUTE) return;
    print_shares(out, answers);
    print_sums(out);
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
    fprintf(to, "  %13.1f  ", model->avg_output_tokens);
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

/* Rows that a reader can take in; the rest are in --json. Always the first and the last. */
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
