/* output.c - see output.h. */
#include "output.h"

#include "json_out.h"

void cli_output_init(cli_output *out, const cli_options *options, const br_answer *info, bool has_lines)
{
    *out = (cli_output){.options = options};
    cli_table_init(&out->table, stdout, info, has_lines, options->explain);
    cli_totals_init(&out->totals, info, options->command == CLI_ROUTE);
}

static void print_json(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message)
{
    json_t *object = cli_json_prompt(prompt, out->totals.prompts);
    if (result == NULL) {
        json_object_set_new(object, "error", cli_json_error(code, message));
    } else if (out->options->command == CLI_ROUTE) {
        cli_json_add_route(object, result, out->options->explain);
    } else {
        cli_json_add_score(object, result);
    }
    cli_json_print(stdout, object);
}

static void print_table(const cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                        const char *code, const char *message)
{
    const bool is_route = out->options->command == CLI_ROUTE;
    const size_t number = out->totals.prompts + 1;
    if (number == 1 && is_route) cli_table_head(&out->table);
    if (result == NULL) {
        cli_table_failed(&out->table, prompt, number, code, message);
    } else if (is_route) {
        cli_table_route(&out->table, prompt, number, result);
    } else {
        cli_table_score(&out->table, prompt, number, result);
    }
}

void cli_output_result(cli_output *out, const cli_prompt *prompt, const br_answer_result *result,
                       const char *code, const char *message)
{
    if (result != NULL && result->error != NULL) {
        code = result->error;
        message = result->message;
        result = NULL;
    }
    if (out->options->json) {
        print_json(out, prompt, result, code, message);
    } else {
        print_table(out, prompt, result, code, message);
    }
    cli_totals_add(&out->totals, result);
}

void cli_output_totals(const cli_output *out)
{
    if (!out->options->json) cli_table_totals(&out->table, &out->totals);
}

void cli_output_info(const cli_options *options, const br_answer *info)
{
    if (options->json) {
        cli_json_print(stdout, cli_json_info(info));
    } else {
        cli_table_info(stdout, info);
    }
}
