/*
 * target.h - compiles the functions between BR_TARGET_BEGIN and BR_TARGET_END for an instruction set,
 * whatever the rest of the program is compiled for: BR_TARGET_BEGIN("avx2,fma").
 *
 * For the kernel files alone. System headers are included before BR_TARGET_BEGIN.
 */
#ifndef BESTROUTE_ENGINE_CPU_TARGET_H
#define BESTROUTE_ENGINE_CPU_TARGET_H

#define BR_PRAGMA(words) _Pragma(#words)

#if defined(__clang__)
#define BR_TARGET_BEGIN(features)                                                                            \
    BR_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define BR_TARGET_END BR_PRAGMA(clang attribute pop)
#else
#define BR_TARGET_BEGIN(features) BR_PRAGMA(GCC push_options) BR_PRAGMA(GCC target(features))
#define BR_TARGET_END BR_PRAGMA(GCC pop_options)
#endif

#endif
