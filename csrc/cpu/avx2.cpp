#define NALU_NAMESPACE avx2
#define NALU_VECTOR_BYTES 32
#define NALU_TARGET "avx2,fma"

#include "x86.h"

const nalu::Kernels* nalu::avx2_kernels() {
  return NALU_KERNELS_IF(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
}
