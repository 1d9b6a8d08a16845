/* options_variables.c - the variables BESTROUTE_... that any of the programs reads: see options.h. */
#include "options_inside.h"

#include <string.h>

#include "nearest.h"

static const char prefix[] = "BESTROUTE_";

enum { PREFIX_BYTES = sizeof prefix - 1 };

/* Without the prefix. A row of a table with BR_OPTION_ENVIRONMENT that is missing here is an error at every
 * start, so no test passes then. */
static const char *const names[] = {
    "BUNDLE",
    "LISTEN",
    "ADMIN",
    "TLS_CERT",
    "TLS_KEY",
    "TLS_CA",
    "DRAIN_TIMEOUT_MS",
    "ENGINE",
    "PRECISION",
    "DEVICES",
    "WORKERS",
    "TOKENIZER_THREADS",
    "GEMM_CACHE",
    "PASS_TIMEOUT_MS",
    "BATCH_TOKENS",
    "BATCH_SEQS",
    "SCORE_CACHE_MB",
    "QUEUE_MAX",
    "MAX_QUERIES",
    "MAX_TEXT_BYTES",
    "MAX_MESSAGE_BYTES",
    "RANKS",
    "RANK",
    "RANKS_ID",
    "RANKS_TIMEOUT_MS",
    "METRICS",
    "LOG_LEVEL",
    "CONFIG",
    /* The command. */
    "URL",
    /* The build and the tests. */
    "CUDA",
    "BUILD",
    "SOURCE",
    "SHARED",
    "TESTS",
    "BENCH",
    "FUZZ",
    "SANITIZE",
    "WERROR",
    "TRAIN_PYTHON",
};

/* What Kubernetes and Docker set in a container for a service that is called bestroute. */
static bool is_service_link(const char *name)
{
    return strncmp(name, "PORT", 4) == 0 || strncmp(name, "SERVICE_HOST", 12) == 0 ||
           strncmp(name, "SERVICE_PORT", 12) == 0;
}

static bool is_listed(br_str name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (br_str_equal(name, br_str_from(names[i]))) return true;
    return false;
}

bool br_options_variable_known(const char *variable)
{
    return is_listed(br_str_from(variable + PREFIX_BYTES));
}

br_status br_options_check_variables(char *const *environment, br_error *error)
{
    for (char *const *entry = environment; *entry != NULL; entry++) {
        if (strncmp(*entry, prefix, PREFIX_BYTES) != 0) continue;
        br_str rest = br_str_from(*entry + PREFIX_BYTES);
        br_str name;
        (void)br_options_take(&name, &rest, '=');
        if (is_listed(name) || is_service_link(name.data)) continue;
        const char *nearest = names[0];
        size_t fewest = SIZE_MAX;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            const size_t edits = br_edit_distance(name, br_str_from(names[i]));
            if (edits < fewest) nearest = names[i];
            if (edits < fewest) fewest = edits;
        }
        return br_fail(error, BR_EINVAL, "BESTROUTE_%.*s: no variable of that name; nearest is BESTROUTE_%s",
                       (int)(name.size < 100 ? name.size : 100), name.data, nearest);
    }
    return BR_OK;
}
