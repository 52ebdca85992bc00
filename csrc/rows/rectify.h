// ReLU and ReLU6, which every benchmark compares with.
#pragma once

#include "unit.h"

namespace nalu {
namespace NALU_NAMESPACE {

template <class T>
NALU_DEVICE void rectify(const T* x, int64_t count, bool six, T* y) {
  const Vec<T> zero{}, top = splat<Vec<T>>(6);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    Vec<T> v = load<T>(x + k, lanes);
    v = v < zero ? zero : v; // a NaN passes both
    v = six ? (v > top ? top : v) : v;
    store<T>(y + k, v, lanes);
  });
}

// As torch has it: 0 at the corners; a NaN in x lets the gradient pass at ReLU only.
template <class T>
NALU_DEVICE void rectify_gradient(const T* x, const T* dy, int64_t count, bool six, T* grad) {
  const Vec<T> zero{}, top = splat<Vec<T>>(6);
  for_each_vector_of_matrix<T>(count, [&](int64_t k, auto lanes) {
    const Vec<T> v = load<T>(x + k, lanes), g = load<T>(dy + k, lanes);
    const Vec<T> passed = six ? (v > zero ? (v < top ? g : zero) : zero) : (v <= zero ? zero : g);
    store<T>(grad + k, passed, lanes);
  });
}

} // namespace NALU_NAMESPACE
} // namespace nalu
