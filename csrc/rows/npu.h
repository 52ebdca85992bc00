// A neural power unit's planes, and what joins its products:
//   r = g (|x| + eps) + 1 - g, k = pi g where x < 0 and else 0, for g within [0, 1],
//   y = exp(log(r) W_re^T - k W_im^T) cos(k W_re^T + log(r) W_im^T).
// Source: Heim, Pevny and Smidl 2020, "Neural Power Units"; of a RealNPU, W_im is 0.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class V>
NALU_INLINE V npu_gate(V g) {
  const V zero{}, one = splat<V>(1);
  return g < zero ? zero : (g > one ? one : g); // a NaN stays one
}

template <class T>
constexpr T kPi = static_cast<T>(3.14159265358979323846264338327950288L);

// log r, k and, where there are imaginary weights, -k.
template <class T>
NALU_DEVICE void npu_planes(const Unit<T>& unit, const T* g, const T* x, int64_t n) {
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(unit.layer.eps)), zero{};
  T *logs = unit.planes[0], *angles = unit.planes[1], *negative = unit.planes[2];
  // r is between |x| + eps and 1.
  with_normal(static_cast<T>(unit.layer.eps), [&](auto normal) {
    for_each_vector_beside<T>(unit.layer.in, n, g, [&](int64_t at, Vec<T> of_g, auto lanes) {
      const Vec<T> gate = npu_gate(of_g);
      const Vec<T> v = load<T>(x + at, lanes), r = (abs(v) + eps) * gate + (T(1) - gate);
      const Vec<T> angle = v < zero ? gate * kPi<T> : gate * T(0);
      store<T>(logs + at, log<decltype(normal)::value>(r), lanes);
      store<T>(angles + at, angle, lanes);
      if (negative != nullptr) {
        store<T>(negative + at, -angle, lanes);
      }
    });
  });
}

// m, the logarithm of the size, becomes the size.
template <class T>
NALU_DEVICE void npu_join(const Unit<T>& unit, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    const Vec<T> size = exp(load<T>(unit.m + k, lanes));
    Vec<T> sine, cosine;
    sine_cosine(load<T>(unit.angles + k, lanes), sine, cosine);
    store<T>(unit.m + k, size, lanes);
    store<T>(unit.y + k, size * cosine, lanes);
  });
}

template <class T>
NALU_DEVICE void npu_part(const Unit<T>& unit, const T* dy, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    const Vec<T> size = load<T>(unit.m + k, lanes), d = load<T>(dy + k, lanes);
    Vec<T> sine, cosine;
    sine_cosine(load<T>(unit.angles + k, lanes), sine, cosine);
    store<T>(unit.grad_l + k, (d * cosine) * size, lanes);
    store<T>(unit.grad_angles + k, -((d * size) * sine), lanes);
  });
}

// From the planes' gradients to those of x and of the gate.
template <class T>
NALU_DEVICE void npu_through(const Unit<T>& unit, const T* g, const T* x, T* grad_g, int64_t n) {
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(unit.layer.eps)), zero{};
  const Vec<T> one = splat<Vec<T>>(1);
  const bool passes = unit.layer.option;
  T *logs = unit.planes[0], *angles = unit.planes[1], *negative = unit.planes[2];
  for_each_vector_beside<T>(unit.layer.in, n, g, [&](int64_t at, Vec<T> of_g, auto lanes) {
    const Vec<T> gate = npu_gate(of_g);
    const Vec<T> v = load<T>(x + at, lanes), size = abs(v) + eps;
    const Vec<T> of_r = load<T>(logs + at, lanes) / (size * gate + (T(1) - gate));
    Vec<T> of_k = load<T>(angles + at, lanes);
    of_k = negative != nullptr ? of_k - load<T>(negative + at, lanes) : of_k;
    const Vec<T> of_gate = of_r * size - of_r + of_k * (v < zero ? splat<Vec<T>>(kPi<T>) : zero);
    const Vec<T> within = of_g >= zero ? (of_g <= one ? of_gate : zero) : zero;
    store<T>(logs + at, passes ? of_gate : within, lanes);
    if (unit.grad_x != nullptr) {
      store<T>(unit.grad_x + at, (of_r * gate) * sign(v), lanes);
    }
  });
  add_row_sums<T>(unit.layer.in, n, logs, grad_g);
}

} // namespace NALU_NAMESPACE
} // namespace nalu
