/*
 * config_devices.h - which devices the configuration asks for.
 *
 * Uses: config, devices.  Used by: server, bench.
 */
#ifndef BESTROUTE_SERVE_CONFIG_DEVICES_H
#define BESTROUTE_SERVE_CONFIG_DEVICES_H

#include "config.h"
#include "workers/devices.h"

/* Its strings are the configuration's. */
br_devices_options br_config_devices(const br_config *config);

#endif
