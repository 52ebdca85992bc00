// The kernels for every other processor: 128-bit vectors where the compiler has vector types (SSE2
// on x86-64, NEON on Arm), scalars elsewhere.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "capability.h"
#include "runtime.h"

#define NALU_NAMESPACE portable
#ifndef NALU_VECTOR_BYTES
#ifdef __GNUC__
#define NALU_VECTOR_BYTES 16
#else
#define NALU_VECTOR_BYTES 0
#endif
#endif

#include "kernels.h"

namespace nalu {

const Kernels* portable_kernels() {
  static constexpr Kernels kernels{"portable", portable::forward, portable::backward, portable::transform};
  return &kernels;
}

} // namespace nalu
