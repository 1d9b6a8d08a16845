/*
 * kernels_avx512.c - the CPU engine's kernels for AVX-512: sixteen lanes, float32.
 */
#if defined(__x86_64__)

#include <math.h>
#include <stdlib.h>

#include "avx512.h"
#include "target.h"

BR_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#define BR_PAIRS 0
#define BR_DOT(c, a, b) BR_FMA(a, b, c)
#define BR_TABLE cpu_kernels_avx512
#define BR_NAME "avx512"

#include "instruction_set.h"

BR_TARGET_END

#endif
