// The kernels for x86-64 processors with an instruction set of their own.
//
// Before including this file define NALU_NAMESPACE, NALU_VECTOR_BYTES and NALU_TARGET, the compiler's
// name of the instruction set. Afterwards NALU_KERNELS_IF(supported) is a pointer to the kernels, or
// null where this processor does not support them or the compiler cannot make them.
//
// The target is switched on here and not by a compiler flag, and only after the standard headers:
// an inline function of theirs compiled for it could be picked by the linker for everyone.
#pragma once

#include "baseline.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define NALU_PRAGMA(...) _Pragma(#__VA_ARGS__)
#ifdef __clang__
#define NALU_PUSH(name) \
  NALU_PRAGMA(clang attribute push(__attribute__((target(name))), apply_to = function))
NALU_PUSH(NALU_TARGET)
#include "kernels.h"
#pragma clang attribute pop
#else
#define NALU_PUSH(name) NALU_PRAGMA(GCC target(name))
#pragma GCC push_options
NALU_PUSH(NALU_TARGET)
#include "kernels.h"
#pragma GCC pop_options
#endif

#define NALU_KERNELS_IF(supported) ((supported) ? &nalu::NALU_NAMESPACE::kKernels : nullptr)

#else

#define NALU_KERNELS_IF(supported) nullptr

#endif
