/*
 * kernels.c - see kernels.h: picks the kernels for the machine that the program runs on.
 */
#include "kernels.h"

#if defined(__x86_64__)

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool runs(const cpu_kernels *kernels)
{
    __builtin_cpu_init();
    if (kernels == &cpu_kernels_avx512_bf16) return has_avx512() && __builtin_cpu_supports("avx512bf16");
    if (kernels == &cpu_kernels_avx512) return has_avx512();
    if (kernels == &cpu_kernels_avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return true;
}

/* Fastest first. */
static const cpu_kernels *const known[] = {
    &cpu_kernels_avx512_bf16,
    &cpu_kernels_avx512,
    &cpu_kernels_avx2,
    &cpu_kernels_portable,
};

#else

static bool runs(const cpu_kernels *kernels)
{
    (void)kernels;
    return true;
}

static const cpu_kernels *const known[] = {&cpu_kernels_portable};

#endif

enum { KNOWN_COUNT = sizeof known / sizeof known[0] };

const cpu_kernels *cpu_kernels_choose(bool bf16)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++)
        if (known[i]->bf16 == bf16 && runs(known[i])) return known[i];
    return NULL;
}

const cpu_kernels *cpu_kernels_at(size_t index)
{
    for (size_t i = 0; i < KNOWN_COUNT; i++)
        if (runs(known[i]) && index-- == 0) return known[i];
    return NULL;
}
