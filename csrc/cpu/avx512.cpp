// The kernels for x86-64 processors with avx512.
//
// The target is switched on here and not by a compiler flag, and only after the standard headers:
// an inline function of theirs compiled for avx512 could be picked by the linker for everyone.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "capability.h"
#include "runtime.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#define NALU_NAMESPACE avx512
#define NALU_VECTOR_BYTES 64

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#include "kernels.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#include "kernels.h"
#pragma GCC pop_options
#endif

namespace nalu {

const Kernels* avx512_kernels() {
  static constexpr Kernels kernels{"avx512", avx512::forward, avx512::backward, avx512::transform};
  const bool supported = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return supported ? &kernels : nullptr;
}

} // namespace nalu

#else

const nalu::Kernels* nalu::avx512_kernels() {
  return nullptr;
}

#endif
