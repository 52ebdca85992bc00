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
template <bool normal>
NALU_INLINE float log(float v) {
  return ::logf(v);
}
template <bool normal>
NALU_INLINE double log(double v) {
  return ::log(v);
}

// sign(0) = 0, and a NaN is its own sign.
template <class V>
NALU_INLINE V sign(V v) {
  return v > V(0) ? V(1) : v < V(0) ? V(-1) : v;
}

NALU_INLINE float fused(float a, float b, float c) {
  return ::fmaf(a, b, c);
}
NALU_INLINE double fused(double a, double b, double c) {
  return ::fma(a, b, c);
}

} // namespace device
} // namespace nalu

#include "../formulas.h"

namespace nalu {
namespace device {

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
