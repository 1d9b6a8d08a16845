/* info.c - see info.h. */
#include "info.h"

#include "core/dtype.h"
#include "server.h"

const char *br_server_version(void)
{
    return BESTROUTE_VERSION;
}

void info_answer_ping(br_call *call)
{
    if (!br_call_pin(call, false)) return;
    const br_reply reply = {.id = call->request.id, .ok = true, .op = BR_OP_PING};
    br_call_reply(call, &reply);
}

static bool fill_candidates(br_info *info, br_arena *arena, const br_router *router)
{
    br_reply_candidate *rows = br_arena_array(arena, (size_t)router->candidate_count, sizeof *rows);
    br_info_model *models = br_arena_array(arena, (size_t)router->model_count, sizeof *models);
    if (rows == NULL || models == NULL) return false;
    for (int32_t c = 0; c < router->candidate_count; c++) {
        rows[c].model = br_str_from(router->models[router->candidates[c].model].name);
        rows[c].n = (uint64_t)router->candidates[c].n;
    }
    for (int32_t m = 0; m < router->model_count; m++) {
        const br_priced_model *model = &router->models[m];
        models[m] = (br_info_model){
            .name = br_str_from(model->name),
            .has_price = model->has_price,
            .input_price = model->input_price,
            .output_price = model->output_price,
            .avg_output_tokens = model->avg_output_tokens,
            .input_per_sample = model->input_per_sample,
        };
    }
    info->candidates = rows;
    info->candidate_count = (size_t)router->candidate_count;
    info->reference = (uint64_t)router->reference;
    info->models = models;
    info->model_count = (size_t)router->model_count;
    return true;
}

static void list_devices(const br_server *server, br_str *out)
{
    for (int32_t i = 0; i < server->devices.count; i++) {
        const br_backend *backend = server->devices.items[i].backend;
        out[i] = br_str_from(backend != NULL ? backend->device : "none");
    }
}

void info_answer(br_call *call)
{
    const br_server *server = call->server;
    if (!br_call_pin(call, false)) return;
    const br_bundle *bundle = br_loaded_bundle(call->pin.loaded);
    const br_backend *backend = server->devices.items[0].backend;
    br_str devices[BR_DEVICES_MAX];
    list_devices(server, devices);
    const br_policy_spec policy = policy_defaults_apply(call->pin.defaults, call->pin.loaded);
    br_info info = {
        .policy = br_policy_spec_of_kind(&policy),
        .measured = bundle->router.measured,
        .max_queries = (uint64_t)server->config->max_queries,
        .max_tokens = (uint64_t)bundle->router.max_tokens,
        .max_message_bytes = (uint64_t)server->config->max_message_bytes,
        .max_text_bytes = (uint64_t)server->config->max_text_bytes,
        .version = br_str_from(br_server_version()),
        .engine = br_str_from(backend != NULL ? backend->table->engine : "noop"),
        .precision = br_str_from(backend != NULL ? br_precision_name(backend->precision) : "none"),
        .devices = devices,
        .device_count = (size_t)server->devices.count,
    };
    const br_reply reply = {
        .id = call->request.id,
        .ok = true,
        .op = BR_OP_INFO,
        .has_bundle = true,
        .bundle_name = br_str_from(bundle->router.name),
        .bundle_hash = br_str_from(bundle->hash),
        .info = &info,
    };
    if (fill_candidates(&info, &call->arena, &bundle->router))
        br_call_reply(call, &reply);
    else
        br_call_refuse(call, BR_CODE_INTERNAL, "out of memory");
}
