/* config_devices.c - see config_devices.h. */
#include "config_devices.h"

static br_engine engine_of(br_config_engine engine)
{
    switch (engine) {
    case BR_CONFIG_ENGINE_REFERENCE:
        return BR_ENGINE_REFERENCE;
    case BR_CONFIG_ENGINE_CPU:
        return BR_ENGINE_CPU;
    case BR_CONFIG_ENGINE_CUDA:
        return BR_ENGINE_CUDA;
    case BR_CONFIG_ENGINE_AUTO:
    case BR_CONFIG_ENGINE_NOOP:
        break;
    }
    return BR_ENGINE_AUTO;
}

br_devices_options br_config_devices(const br_config *config)
{
    return (br_devices_options){
        .noop = config->engine == BR_CONFIG_ENGINE_NOOP,
        .engine = engine_of((br_config_engine)config->engine),
        .precision = (br_precision)config->precision,
        .list = config->devices,
        .source = BR_CONFIG_SOURCE(config, devices),
        .workers = (int32_t)config->workers,
        .gemm_cache = config->gemm_cache,
    };
}
