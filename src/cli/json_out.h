/*
 * json_out.h - results and descriptions as JSON, for programs.
 *
 * Uses: prompt, the client library, jansson.  Used by: report, output, main, measured, eval, calibrate.
 */
#ifndef BESTROUTE_CLI_JSON_OUT_H
#define BESTROUTE_CLI_JSON_OUT_H

#include <jansson.h>
#include <stdio.h>

#include "bestroute/client.h"
#include "prompt.h"

/* One line of JSON, keys in the order given. Takes over `value`. A failed write is the stream's error, which
 * main looks at once in the end. */
void cli_json_print(FILE *to, json_t *value);

/* A string of bytes that may not be UTF-8. */
json_t *cli_json_text(const char *text);

/* A number, or null where it is not finite. */
json_t *cli_json_real(double value);

/* {"code", "message"} */
json_t *cli_json_error(const char *code, const char *message);

/* {"index", and where the prompt has them "line" and "id"}: what a prompt's result begins with. */
json_t *cli_json_prompt(const cli_prompt *prompt, size_t index);

/* Adds the keys of an answer to route, or to score. */
void cli_json_add_route(json_t *object, const br_answer_result *result, bool explain);
void cli_json_add_score(json_t *object, const br_answer_result *result);

/* The fields of a policy that are given. */
json_t *cli_json_policy(const br_client_policy *policy);

/* The service's description. */
json_t *cli_json_info(const br_answer *info);

#endif
