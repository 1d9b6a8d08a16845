/*
 * calibrate.h - the threshold or lambda that meets a target on the user's own records.
 *
 * Uses: options, report, measured, json_out.  Used by: main.
 */
#ifndef BESTROUTE_CLI_CALIBRATE_H
#define BESTROUTE_CLI_CALIBRATE_H

#include "bestroute/client.h"
#include "options.h"
#include "report.h"

/* From records to the bundle's new policy. Reports what goes wrong. */
cli_exit cli_calibrate(const cli_options *options, br_client *client);

#endif
