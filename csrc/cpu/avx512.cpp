#define NALU_NAMESPACE avx512
#define NALU_VECTOR_BYTES 64
#define NALU_TARGET "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"

#include "x86.h"

const nalu::Kernels* nalu::avx512_kernels() {
  return NALU_KERNELS_IF(
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"));
}
