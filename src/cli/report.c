/* report.c - from a status to an exit code, a word and a line. */
#include "report.h"

#include <limits.h>
#include <string.h>

#include "json_out.h"
#include "plot.h"
#include "text.h"

cli_exit cli_exit_of(br_status status)
{
    switch (status) {
    case BR_OK:
        return CLI_EXIT_OK;
    case BR_EIO:
    case BR_ETIMEDOUT:
    case BR_EFORMAT: /* what answers there is not a bestroute service */
    case BR_ECLOSED:
        return CLI_EXIT_UNREACHABLE;
    case BR_EINVAL:
    case BR_EBUSY:
    case BR_ENOTSUP:
    case BR_ETOOBIG:
    case BR_ENOTREADY:
    case BR_EINFEASIBLE:
    case BR_EDEVICE:
    case BR_EINTERNAL:
        return CLI_EXIT_REFUSED;
    case BR_ENOMEM:
        break;
    }
    return CLI_EXIT_BROKEN;
}

const char *cli_code_of(cli_exit code, br_status status)
{
    if (code == CLI_EXIT_USAGE) return "usage";
    if (code == CLI_EXIT_BROKEN) return "failed";
    switch (status) {
    case BR_EINVAL:
        return "bad_request";
    case BR_ETOOBIG:
        return "too_large";
    case BR_EBUSY:
        return "overloaded";
    case BR_ETIMEDOUT:
        return "deadline";
    case BR_ENOTREADY:
        return "not_ready";
    case BR_ENOTSUP:
        return "unsupported";
    case BR_EINFEASIBLE:
        return "infeasible";
    case BR_EIO:
    case BR_EFORMAT:
    case BR_ECLOSED:
        return "unreachable";
    case BR_OK:
    case BR_ENOMEM:
    case BR_EDEVICE:
    case BR_EINTERNAL:
        break;
    }
    return "internal";
}

const char *cli_without_code(const char *text, const char *code)
{
    const size_t bytes = strlen(code);
    return strncmp(text, code, bytes) == 0 && strncmp(text + bytes, ": ", 2) == 0 ? text + bytes + 2 : text;
}

void cli_report_error(bool json, const char *code, const char *message, const char *url)
{
    if (json) {
        json_t *object = json_object();
        json_object_set_new(object, "error", cli_json_error(code, cli_without_code(message, code)));
        if (url != NULL) json_object_set_new(object, "url", cli_json_text(url));
        cli_json_print(stdout, object);
        fflush(stdout);
    }
    fputs("bestroute: ", stderr);
    cli_text_print(stderr, message, strlen(message), INT_MAX);
    fputc('\n', stderr);
}

cli_exit cli_report(const cli_options *options, cli_exit code, const br_error *error)
{
    cli_report_error(options->json, cli_code_of(code, error->status), error->text, NULL);
    return code;
}

cli_exit cli_report_plot(const cli_options *options, const json_t *document)
{
    br_error error = {0};
    if (options->plot == NULL) return CLI_EXIT_OK;
    (void)fflush(stdout);
    const br_status status = br_plot_draw(document, options->plot, &error);
    if (status == BR_OK) return CLI_EXIT_OK;
    cli_report_error(false, "failed", error.text, NULL);
    return status == BR_ENOMEM ? CLI_EXIT_BROKEN : CLI_EXIT_USAGE;
}
