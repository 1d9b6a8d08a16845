/*
 * totals.h - what the results of a run add up to.
 *
 * Uses: the client library, limits.  Used by: table, output.
 */
#ifndef BESTROUTE_CLI_TOTALS_H
#define BESTROUTE_CLI_TOTALS_H

#include <stdbool.h>
#include <stddef.h>

#include "bestroute/client.h"
#include "core/limits.h"

typedef struct cli_totals {
    const br_answer *info;
    bool of_route; /* else of score: choices and costs stay 0 */
    size_t prompts;
    size_t failed;
    size_t unmet;
    size_t truncated;
    size_t chosen[BR_CANDIDATES_MAX]; /* by info's candidates */
    double cost;
    size_t unpriced; /* answers without a cost */
    double reference_cost;
    bool reference_known; /* for every answer so far */
} cli_totals;

void cli_totals_init(cli_totals *totals, const br_answer *info, bool of_route);

/* The next prompt's result; NULL: it has an error. */
void cli_totals_add(cli_totals *totals, const br_answer_result *result);

#endif
