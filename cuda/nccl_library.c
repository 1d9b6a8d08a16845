/* nccl_library.c - see nccl_library.h. */
#include "nccl_library.h"

#include <dlfcn.h>
#include <string.h>

br_status nccl_load(nccl_functions *out, br_error *error)
{
    memset(out, 0, sizeof *out);
    out->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (out->library == NULL) return br_fail(error, BR_ENOTSUP, "NCCL: %.400s", dlerror());
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {
#define ROW(name) {#name, offsetof(nccl_functions, name)},
        NCCL_LIST(ROW)
#undef ROW
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(out->library, functions[i].name);
        memcpy((char *)out + functions[i].offset, &function, sizeof function);
        if (function != NULL) continue;
        nccl_unload(out);
        return br_fail(error, BR_ENOTSUP, "NCCL: libnccl.so.2 has no %s", functions[i].name);
    }
    return BR_OK;
}

void nccl_unload(nccl_functions *nccl)
{
    if (nccl->library != NULL) (void)dlclose(nccl->library);
    nccl->library = NULL;
}
