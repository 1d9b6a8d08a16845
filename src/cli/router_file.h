/*
 * router_file.h - a new default policy in a bundle's router.json.
 *
 * Uses: measured, jansson.  Used by: calibrate.
 */
#ifndef BESTROUTE_CLI_ROUTER_FILE_H
#define BESTROUTE_CLI_ROUTER_FILE_H

#include <jansson.h>

#include "measured.h"

/* Replaces "policy" and "policy_table" in FOLDER/router.json, the whole file or nothing. Borrows both.
 * BR_EINVAL: the file cannot be read, or it is not the bundle that the service at `url` scored with. BR_EIO:
 * it cannot be written. */
BR_NODISCARD br_status cli_router_file_set_policy(const char *folder, const cli_scores *scores,
                                                  const char *url, json_t *policy, json_t *policy_table,
                                                  br_error *error);

#endif
