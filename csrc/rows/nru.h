// What an NRU and an NMRU make of their input, and what joins an NMRU's product and its sign:
//   y = prod(w |X| + 1 - w) cos(k W^T), with X = [x, 1 / (x + eps)] and k = pi where X < 0.
// Source: Mistry, Farrahi and Hare 2022, "Exploring the Learning Mechanisms of Neural Division
// Modules".
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class T>
NALU_DEVICE void nru_planes(const Unit<T>& unit, const T* x, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.in * n, [&](int64_t k, auto lanes) {
    store<T>(unit.planes[0] + k, log<false>(abs(load<T>(x + k, lanes))), lanes);
  });
}

// |X| and k, of (2 in, n).
template <class T>
NALU_DEVICE void nmru_planes(const Unit<T>& unit, const T* x, bool training, int64_t n) {
  const int64_t count = unit.layer.in * n;
  const Vec<T> eps = splat<Vec<T>>(training ? static_cast<T>(unit.layer.eps) : T(0));
  const Vec<T> zero{}, one = splat<Vec<T>>(1), pi = splat<Vec<T>>(kPi<T>);
  const Vec<T> infinity = splat<Vec<T>>(std::numeric_limits<T>::infinity());
  T *sizes = unit.planes[0], *angles = unit.planes[1];
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(x + k, lanes), shifted = v + eps;
    const Vec<T> reciprocal = shifted == zero ? infinity : one / shifted;
    store<T>(sizes + k, abs(v), lanes);
    store<T>(sizes + count + k, abs(reciprocal), lanes);
    store<T>(angles + k, v < zero ? pi : zero, lanes);
    store<T>(angles + count + k, reciprocal < zero ? pi : zero, lanes);
  });
}

template <class T>
NALU_DEVICE void nmru_join(const Unit<T>& unit, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    Vec<T> sine, cosine;
    sine_cosine(load<T>(unit.angles + k, lanes), sine, cosine);
    store<T>(unit.y + k, load<T>(unit.m + k, lanes) * cosine, lanes);
  });
}

template <class T>
NALU_DEVICE void nmru_part(const Unit<T>& unit, const T* dy, int64_t n) {
  for_each_vector_of_matrix<T>(unit.layer.out * n, [&](int64_t k, auto lanes) {
    const Vec<T> m = load<T>(unit.m + k, lanes), d = load<T>(dy + k, lanes);
    Vec<T> sine, cosine;
    sine_cosine(load<T>(unit.angles + k, lanes), sine, cosine);
    store<T>(unit.grad_l + k, d * cosine, lanes);
    store<T>(unit.grad_angles + k, -((d * m) * sine), lanes);
  });
}

// From the gradient of |X| to that of x; an infinite reciprocal has no slope.
template <class T>
NALU_DEVICE void nmru_through(const Unit<T>& unit, const T* x, int64_t n) {
  const int64_t count = unit.layer.in * n;
  const Vec<T> eps = splat<Vec<T>>(static_cast<T>(unit.layer.eps)), zero{}, one = splat<Vec<T>>(1);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(x + k, lanes), shifted = v + eps, reciprocal = one / shifted;
    const Vec<T> of_reciprocal = load<T>(unit.grad_plane + count + k, lanes) * sign(reciprocal);
    const Vec<T> through = (of_reciprocal * reciprocal) * reciprocal;
    const Vec<T> of_x = load<T>(unit.grad_plane + k, lanes) * sign(v);
    store<T>(unit.grad_x + k, shifted == zero ? of_x : of_x - through, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
