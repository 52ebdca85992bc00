// The scalar mathematics on a GPU: ../formulas.h on plain floats and doubles.
//
// Compiled without contraction (-fmad=false), so that formulas round as they do on a CPU; where a
// multiply-add is meant, it is `fused`. CUDA's exp, log and tanh are within 2 ulps and its division
// is correctly rounded; --use_fast_math would change both, and NaNs and infinities besides.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define NALU_NAMESPACE device
#define NALU_INLINE __device__ __forceinline__
#define NALU_DEVICE __device__
#define NALU_APART __device__ __noinline__
#define NALU_BOTH __host__ __device__

#include "../half.h"

namespace nalu {
namespace device {

template <class V>
NALU_INLINE V splat(V value) {
  return value;
}

NALU_INLINE float exp(float v) {
  return ::expf(v);
}
NALU_INLINE double exp(double v) {
  return ::exp(v);
}
NALU_INLINE float tanh(float v) {
  return ::tanhf(v);
}
NALU_INLINE double tanh(double v) {
  return ::tanh(v);
}
NALU_INLINE float abs(float v) {
  return ::fabsf(v);
}
NALU_INLINE double abs(double v) {
  return ::fabs(v);
}

// Both forms honour subnormal numbers here.
constexpr bool kOneLog = true;
template <bool normal>
NALU_INLINE float log(float v) {
  return ::logf(v);
}
template <bool normal>
NALU_INLINE double log(double v) {
  return ::log(v);
}

NALU_INLINE void sine_cosine(float v, float& sine, float& cosine) {
  ::sincosf(v, &sine, &cosine);
}
NALU_INLINE void sine_cosine(double v, double& sine, double& cosine) {
  ::sincos(v, &sine, &cosine);
}

// -1, 0 or 1; 0 for NaN, as in torch.
template <class V>
NALU_INLINE V sign(V v) {
  return v > V(0) ? V(1) : v < V(0) ? V(-1) : V(0);
}

NALU_INLINE float fused(float a, float b, float c) {
  return ::fmaf(a, b, c);
}
NALU_INLINE double fused(double a, double b, double c) {
  return ::fma(a, b, c);
}

// A long sum as one of short sums of short sums: the roundings of a long one of like terms would all
// go one way.
template <class T>
struct Cascade {
  static constexpr int kShort = 16;
  T terms = 0, sums = 0, sums_of_sums = 0;
  int count = 0;

  NALU_INLINE void operator+=(T term) {
    terms += term;
    ++count;
    if (count % kShort == 0) {
      sums += terms;
      terms = 0;
      if (count == kShort * kShort) {
        sums_of_sums += sums;
        sums = 0;
        count = 0;
      }
    }
  }
  NALU_INLINE T total() const {
    return sums_of_sums + (sums + terms);
  }
};

// The sum of values[i * stride] over 0 <= i < n, in a tree, to values[0]. All threads of a block call
// it, and each tree has `n` of them, numbered by i; it ends with a barrier.
template <class T>
NALU_INLINE void tree_sum(T* values, int stride, int i, int n) {
  __syncthreads();
  for (int left = n; left > 1;) {
    const int half = (left + 1) / 2;
    if (i + half < left) {
      values[i * stride] += values[(i + half) * stride];
    }
    __syncthreads();
    left = half;
  }
}

} // namespace device
} // namespace nalu

#include "../formulas.h"

namespace nalu {
namespace device {

#ifdef __CUDACC__
// Into the cache that all processors share.
NALU_INLINE void prefetch(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(address));
}
#endif

// Element i of an array of S, as its compute type; and back, rounded once.
template <class S>
NALU_INLINE Compute<S> load(const void* data, int64_t i) {
  return widen(static_cast<const S*>(data)[i]);
}
template <class S>
NALU_INLINE void store(void* data, int64_t i, Compute<S> value) {
  S narrowed;
  narrow(value, narrowed);
  static_cast<S*>(data)[i] = narrowed;
}

template <class S>
NALU_INLINE Compute<S> load(const Rows& rows, int64_t row, int64_t col) {
  return load<S>(rows.data, row * rows.row_stride + col * rows.col_stride);
}

template <class S>
NALU_INLINE Weight<Compute<S>> load_weight(const void* W_hat, const void* M_hat, int64_t i) {
  return Weight<Compute<S>>(load<S>(W_hat, i), load<S>(M_hat, i));
}

// The gradients of W_hat and M_hat from W's; either may be unwanted.
template <class S>
NALU_INLINE void store_weight_gradients(
    Compute<S> grad,
    const void* W_hat,
    const void* M_hat,
    void* grad_W_hat,
    void* grad_M_hat,
    int64_t i) {
  const Weight<Compute<S>> weight = load_weight<S>(W_hat, M_hat, i);
  if (grad_W_hat != nullptr) {
    store<S>(grad_W_hat, i, weight.grad_W_hat(grad));
  }
  if (grad_M_hat != nullptr) {
    store<S>(grad_M_hat, i, weight.grad_M_hat(grad));
  }
}

} // namespace device
} // namespace nalu
