// The kernels for every other processor: 128-bit vectors where the compiler has vector types (SSE2
// on x86-64, NEON on Arm), scalars elsewhere.
#include "baseline.h"

#define NALU_NAMESPACE portable
#ifndef NALU_VECTOR_BYTES
#ifdef __GNUC__
#define NALU_VECTOR_BYTES 16
#else
#define NALU_VECTOR_BYTES 0
#endif
#endif

#include "kernels.h"

const nalu::Kernels* nalu::portable_kernels() {
  return &portable::kKernels;
}
