// The kernels for x86-64 processors with avx2.
//
// The target is switched on here and not by a compiler flag, and only after the standard headers:
// an inline function of theirs compiled for avx2 could be picked by the linker for everyone.
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

#define NALU_NAMESPACE avx2
#define NALU_VECTOR_BYTES 32

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "kernels.h"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "kernels.h"
#pragma GCC pop_options
#endif

namespace nalu {

const Kernels* avx2_kernels() {
  static constexpr Kernels kernels{"avx2", avx2::forward, avx2::backward, avx2::transform};
  const bool supported = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return supported ? &kernels : nullptr;
}

} // namespace nalu

#else

const nalu::Kernels* nalu::avx2_kernels() {
  return nullptr;
}

#endif
