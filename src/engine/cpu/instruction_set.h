/*
 * instruction_set.h - the kernels of one instruction set, and the table that lists them. A kernel file
 * includes it last, after it has defined what vector.h asks for, and:
 *   BR_TABLE   the table's name: cpu_kernels_avx2
 *   BR_NAME    its name for people: "avx2"
 */
#ifndef BESTROUTE_ENGINE_CPU_INSTRUCTION_SET_H
#define BESTROUTE_ENGINE_CPU_INSTRUCTION_SET_H

#include "attention.h"
#include "rows.h"

const cpu_kernels BR_TABLE = {
    .name = BR_NAME,
    .bf16 = BR_PAIRS,
    .scratch_bytes = scratch_bytes,
    .attention = attention,
    .pooled_attention = pooled_attention,
    .layernorm = layernorm,
    .gelu = gelu,
    .heads = heads,
};

#endif
